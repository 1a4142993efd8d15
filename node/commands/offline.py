"""`hilum run`: the same data path on a folder of files, without listener, workflow or PACS."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from node.commands.options import ModelNames, ModelsDirectory, SettingsFile
from node.commands.output import wide_console
from node.settings import InferenceSettings, Settings, load_settings

if TYPE_CHECKING:
    from node.offline_run import Outcome


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("run")(run)


def run(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder with DICOM files, searched whole.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Where results go; made where missing.")],
    model: ModelNames = None,
    models: ModelsDirectory = None,
    endpoint: Annotated[
        str | None, typer.Option(help="A service that runs already; unset starts one for this run.")
    ] = None,
    settings: SettingsFile = None,
) -> None:
    """Run the models on a folder of DICOM files: SEG, SR, report and picture into --out, findings as a table."""
    from node import logs
    from node.offline_run import OfflineRun

    chosen = _with_options(load_settings(settings), model, models, endpoint)
    logs.configure(chosen.log.model_copy(update={"level": "warning"}))
    console = wide_console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")
        work = OfflineRun(chosen, out, start_service=endpoint is None)
        outcomes = work.over(folder, on_step=lambda text: progress.update(task, description=text))
    for item in work.damaged:
        console.print(f"damaged: {item.path}: {item.reason}", markup=False, highlight=False)
    if work.foreign:
        console.print(f"{work.foreign} file(s) are no DICOM and were left out")
    made = _print_outcomes(console, outcomes)
    console.print(f"{made} evidence set(s) under {out}. AI result, research use.", style="dim", markup=False)
    if not made:
        raise typer.Exit(1)


def _with_options(
    settings: Settings, names: list[str] | None, directory: Path | None, endpoint: str | None
) -> Settings:
    changes = {
        "models": tuple(names) if names else settings.inference.models,
        "models_directory": directory or settings.inference.models_directory,
        "endpoint": endpoint or "127.0.0.1:0",
    }
    inference = InferenceSettings.model_validate({**settings.inference.model_dump(), **changes})
    return settings.model_copy(update={"inference": inference})


def _print_outcomes(console: Console, outcomes: "Sequence[Outcome]") -> int:
    from node.commands.tables import findings_table, verdicts_table

    for outcome in outcomes:
        console.print(outcome.title, style="bold", markup=False, highlight=False)
        console.print(verdicts_table(outcome.verdicts))
        if outcome.findings is not None:
            console.print(findings_table(outcome.findings))
        for line in outcome.notes:
            console.print(line, markup=False, highlight=False)
    return sum(outcome.evidence is not None for outcome in outcomes)
