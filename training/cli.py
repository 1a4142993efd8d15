"""Training's part of the command `hilum`; TensorFlow and keras are loaded when a command runs, not here."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer

_ROOT = Path(__file__).resolve().parents[1]


def commands(app: typer.Typer) -> None:
    """Register `hilum train lung_nodule`."""
    train = typer.Typer(help="Train a model from labelled images and export it as a bundle.", no_args_is_help=True)
    train.callback()(_train)
    train.command("lung_nodule")(lung_nodule)
    app.add_typer(train, name="train")


def _train() -> None:
    """Keep the experiment's name a word of its own, even while there is only one."""


def lung_nodule(
    data: Annotated[Path, typer.Option(help="The unpacked set lung_nodule_lidc.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Models directory; the bundle becomes OUT/lung_nodule/1.")],
    scans: Annotated[Path | None, typer.Option(help="Folder of ct_chest_* series and their .nodules.json.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Export these weights instead of training.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; unset takes the experiment's.")] = None,
) -> None:
    """Train the lung nodule model, print its figures and export its bundle."""
    from training.experiments import lung_nodule as experiment

    options = experiment.Run(data, out, scans, weights, steps or experiment.SCHEDULE.steps, _commit())
    bundle = experiment.run(options)
    manifest = bundle.manifest
    typer.echo(f"{bundle.directory}  digest {bundle.digest}")
    typer.echo(manifest.operating_point)
    for figure in manifest.figures:
        interval = f" ({figure.low:g} to {figure.high:g})" if figure.low is not None else ""
        typer.echo(f"{figure.value:8g}{interval}  {figure.name}, n = {figure.n}: {figure.dataset}. {figure.note}")


def _commit() -> str:
    """Return the commit of the source tree that trains, empty outside of one."""
    command = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
