"""`hilum demo`: the main job on this machine, from a phantom (or a folder of yours) to SEG and SR."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from node.commands.options import ModelsDirectory
from node.commands.output import wide_console
from node.settings import InferenceSettings, LogSettings

if TYPE_CHECKING:
    from node.demonstration import Shown

REPORT_LINES = 40
"""Lines of a report that are printed; the whole lies in the stand-in PACS."""


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command("demo")(demo)


def demo(
    folder: Annotated[
        Path | None, typer.Argument(exists=True, file_okay=False, help="Folder of DICOM files; unset sends a phantom.")
    ] = None,
    keep: Annotated[Path, typer.Option(file_okay=False, help="Where state, results and pictures are left.")] = Path(
        "demo"
    ),
    slices: Annotated[int, typer.Option(min=20, max=300, help="Slices of the phantom.")] = 120,
    models: ModelsDirectory = None,
) -> None:
    """Start service, node and a stand-in PACS, send a chest CT, and show what comes back."""
    from node import logs
    from node.demonstration import Demonstration

    logs.configure(LogSettings(level="warning"))
    console = wide_console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")

        def on_step(text: str) -> None:
            progress.update(task, description=text)
            console.print(f"• {text}", markup=False)

        inference = InferenceSettings(models_directory=models)
        shown = Demonstration(keep, inference, folder=folder, slices=slices, on_step=on_step).run()
    _show(console, shown, keep)
    if not shown.results:
        raise typer.Exit(1)


def _show(console: Console, shown: "Shown", keep: Path) -> None:
    from node.commands.studies import history_tree

    for item in (*shown.sent.of("FAILED"), *shown.sent.of("SKIPPED")):
        console.print(f"{item.outcome.lower()}: {item.path}: {item.reason}", markup=False)
    for history in shown.histories:
        console.print(history_tree(history))
    for path, text in zip(shown.reports, shown.report_texts(), strict=True):
        console.rule("Structured Report, as the PACS received it")
        lines = text.splitlines()
        console.print("\n".join(lines[:REPORT_LINES]), markup=False)
        if len(lines) > REPORT_LINES:
            console.print(f"… {len(lines) - REPORT_LINES} more lines: dsrdump {path}", markup=False)
    if shown.truth is not None and shown.readings:
        console.print(_truth_table(shown))
    console.rule("Where it lies")
    for path in shown.results:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    for path in shown.sheets:
        console.print(f"  picture: {path}", markup=False, soft_wrap=True)
    console.print(f"  node state: {keep / 'state'}", markup=False, soft_wrap=True)
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in shown.seconds.items())
    console.print(f"[dim]{times}. AI result, research use: not for diagnosis.[/dim]")


def _truth_table(shown: "Shown") -> Table:
    from node.demonstration import match_truth

    table = Table(
        "Nodule in the phantom", "Density", "Found as", "Diameter", "Probability", title="Report beside truth"
    )
    findings = [item for reading in shown.readings for item in reading.findings.items]
    matched = match_truth(shown.truth, findings) if shown.truth else {}
    for nodule in shown.truth.nodules if shown.truth else ():
        finding = matched.get(nodule.ordinal)
        values = (
            {item.concept.meaning: f"{item.value:.1f} {item.unit.value}" for item in finding.measurements}
            if finding
            else {}
        )
        diameter = values.get("Long axis", "")
        label = f"[green]{finding.label}[/green]" if finding else "[red]not found[/red]"
        probability = f"{100 * finding.probability:.0f} %" if finding and finding.probability is not None else ""
        kind = f"{nodule.density_hu:.0f} HU, {nodule.kind.replace('_', '-')}"
        table.add_row(f"{nodule.diameter_mm:g} mm", kind, label, diameter, probability)
    others = len(findings) - len({item.ordinal for item in matched.values()})
    table.caption = f"{others} further candidate(s) match no nodule of the phantom"
    return table
