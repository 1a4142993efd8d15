"""`hilum send`: a simulated modality that sends a folder to any storage SCP."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

_PEER = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>[^@\s]+):(?P<port>\d{1,5})")


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("send")(send)


def send(
    folder: Annotated[Path, typer.Argument(exists=True, help="Folder (searched whole) or file to send.")],
    peer: Annotated[
        str, typer.Argument(metavar="AE@HOST:PORT", help="Called AE title and address, e.g. HILUM@127.0.0.1:11112.")
    ],
    calling: Annotated[str, typer.Option(help="Calling AE title.")] = "MODALITY",
    associations: Annotated[int, typer.Option(min=1, max=1000, help="Deal the files out to this many.")] = 1,
) -> None:
    """Send DICOM files by C-STORE; say for each one that was not taken what the peer answered."""
    from node.testing.modality import Modality, SendReport

    match = _PEER.fullmatch(peer)
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise typer.BadParameter(f"{peer!r} is not AE@HOST:PORT, e.g. HILUM@127.0.0.1:11112")
    modality = Modality(match["ae_title"], match["host"], int(match["port"]), calling, associations)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("sending", total=None)
        report: SendReport = modality.send(folder, on_report=lambda _: progress.advance(task))
    for item in (*report.of("FAILED"), *report.of("SKIPPED")):
        console.print(f"{item.outcome.lower()}: {item.path}: {item.reason}", highlight=False, markup=False)
    sent, rate = len(report.of("SENT")), report.bytes / 1e6 / max(report.seconds, 1e-6)
    console.print(f"{sent} of {len(report.files)} files sent to {peer} in {report.seconds:.1f} s ({rate:.0f} MB/s)")
    if report.of("FAILED") or not sent:
        raise typer.Exit(1)
