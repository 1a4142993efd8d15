"""The service's part of the command `hilum`; TensorFlow is loaded when a command runs, not here."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from inference.card import card_lines, figures_in_short
from inference.cli_remote import add_remote_commands
from inference.errors import ListenError, SettingsRefused
from inference.settings import BUNDLED_MODELS
from protos.model_manifest import (
    MANIFEST_FILE,
    ManifestError,
    ModelManifest,
    bundle_directories,
    open_bundle,
    read_manifest,
)

ModelsDirectory = Annotated[Path, typer.Option("--models", help="Folder of bundles <name>/<version>/.")]


def commands(app: typer.Typer) -> None:
    """Register `hilum inference` and `hilum inference-scale`."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("inference", context_settings=passed_on)(inference)
    app.command("inference-scale", context_settings=passed_on)(inference_scale)


def models_commands(app: typer.Typer) -> None:
    """Register the commands of `hilum models`, with those that other packages add to it."""
    models = typer.Typer(help="Look at the model bundles of a folder.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command("check")(check_models)
    add_remote_commands(models)
    for entry in sorted(entry_points(group="hilum.models_commands"), key=lambda item: item.name):
        entry.load()(models)
    app.add_typer(models, name="models")


def inference(context: typer.Context) -> None:
    """Serve the models over the Open Inference Protocol until Ctrl-C; `hilum inference --help` lists the options."""
    from inference.__main__ import serve
    from inference.options import read_settings

    try:
        raise typer.Exit(serve(read_settings(context.args, "hilum inference")))
    except (SettingsRefused, ListenError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def inference_scale(context: typer.Context) -> None:
    """Serve the models with replicas, on Ray Serve, until Ctrl-C; `hilum inference-scale --help` lists the options."""
    from inference.scale.__main__ import run

    raise typer.Exit(run(context.args, "hilum inference-scale"))


def list_models(models: ModelsDirectory = BUNDLED_MODELS) -> None:
    """List the bundles of a folder: what each takes, its research use and figures; which are broken and why."""
    table = Table("model", "version", "title", "takes", "digest", title=f"Bundles in {models}")
    broken: list[str] = []
    sound: list[ModelManifest] = []
    for directory in bundle_directories(models):
        try:
            bundle = open_bundle(directory)
        except ManifestError as error:
            broken.append(str(error))
            table.add_row(directory.parent.name, directory.name, "[red]broken[/red]", "", "")
            continue
        manifest = bundle.manifest
        sound.append(manifest)
        takes = "/".join(manifest.accepts.modalities)
        table.add_row(
            manifest.identity.name, manifest.identity.version, manifest.identity.title, takes, bundle.digest[:16]
        )
    console = Console()
    console.print(table)
    for manifest in sound:
        identity = manifest.identity
        _say(console, f"{identity.name} {identity.version}: {manifest.use.research_use}")
        _say(console, f"  figures: {figures_in_short(manifest)}")
    for reason in broken:
        _say(console, reason)
    raise typer.Exit(1 if broken or not table.row_count else 0)


def check_models(
    what: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A bundle's folder, or a model's name.")],
    models: ModelsDirectory = BUNDLED_MODELS,
) -> None:
    """Prove bundles: schema, digest, ops, signature, golden pair, time and memory; each failure with its remedy."""
    directories = _directories(what, models)
    if not directories:
        typer.echo(f"{what}: no bundle folder, and no model of this name in {models}", err=True)
        raise typer.Exit(2)
    passed = [_print_check(directory) for directory in directories]
    raise typer.Exit(0 if all(passed) else 1)


def _directories(what: str, models: Path) -> list[Path]:
    if (Path(what) / MANIFEST_FILE).is_file():
        return [Path(what).resolve()]
    return [directory for directory in bundle_directories(models) if directory.parent.name == what]


def _print_check(directory: Path) -> bool:
    from inference.quiet import quiet_tensorflow

    with quiet_tensorflow():
        from inference.bundle_check import check_bundle
    console = Console()
    console.print(f"[bold]{directory.parent.name}/{directory.name}[/bold]  {directory}")
    _print_card(console, directory)
    passed = True
    for line in check_bundle(directory):
        passed &= line.passed
        console.print(f"  {'[green]ok[/green]  ' if line.passed else '[red]FAIL[/red]'} {line.name}: ", end="")
        console.print(line.text, markup=False, highlight=False, soft_wrap=True)
        if not line.passed:
            console.print(f"       Remedy: {line.remedy}", markup=False, highlight=False, soft_wrap=True)
    return passed


def _print_card(console: Console, directory: Path) -> None:
    try:
        manifest = read_manifest(directory / MANIFEST_FILE)
    except ManifestError:
        return  # the check says what is wrong with it
    for line in card_lines(manifest):
        _say(console, f"  {line}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
