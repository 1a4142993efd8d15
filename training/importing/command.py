"""`hilum models import` and `recipe`; what they need of TensorFlow and Keras runs in the child."""

import importlib.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import tomli_w
import typer
from rich.console import Console
from rich.markup import escape

from training.importing.errors import ImportRefused

if TYPE_CHECKING:
    from training.importing.messages import Message
    from training.importing.parent import Terms
    from training.importing.recipe import Recipe

_REFUSED = 2
_NEEDED = ("tensorflow", "keras", "h5py", "scipy")


def models_commands(models: typer.Typer) -> None:
    """Register the commands in the group `hilum models`."""
    models.command("import")(import_model)
    models.command("recipe")(recipe)


def recipe() -> None:
    """Print a commented recipe for `hilum models import`."""
    from training.importing.recipe import EXAMPLE

    typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)


def import_model(  # noqa: PLR0913 - each is an option of the command line
    source: Annotated[Path, typer.Argument(help="A .keras file, a Keras file in HDF5, or a SavedModel folder.")],
    recipe: Annotated[Path, typer.Argument(help="TOML that says what the network wants and answers.")],
    models: Annotated[Path, typer.Option("--models", help="Folder of bundles that takes <name>/<version>/.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="In place of the version that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifest; open and write nothing.")] = False,
    memory_gb: Annotated[int, typer.Option(min=2, max=1024, help="GiB that the conversion may use.")] = 8,
    unisolated: Annotated[
        bool, typer.Option("--allow-network-unisolated", help="Go on where the kernel cannot cut the child off.")
    ] = False,
) -> None:
    """Turn somebody else's network and a small TOML into a bundle that service and node run.

    `hilum models recipe` prints a commented TOML. The source is opened in a child process without network, with bounded
    memory and time. Exit 2: nothing was imported.
    """
    from training.importing.parent import Terms, refuse_existing
    from training.importing.recipe import read_recipe

    try:
        wanted = read_recipe(recipe)
        if dry_run:
            _print_manifest(source, wanted)
            return
        if not replace:
            refuse_existing(models, wanted)
        _name_missing_extra()
        with _ended_by_sigterm():
            _import(source, wanted, models, Terms(memory_gb, unisolated))
    except ImportRefused as error:
        typer.echo(f"not imported: {error}", err=True)
        raise typer.Exit(_REFUSED) from error


def _print_manifest(source: Path, wanted: "Recipe") -> None:
    from training.importing.described import described
    from training.importing.source import take_source

    manifest = described(wanted, take_source(source))
    typer.echo("# [memory] is measured and [golden] made by the conversion, which --dry-run leaves out.")
    typer.echo(tomli_w.dumps(manifest.model_dump(mode="json", exclude_none=True)), nl=False)


def _import(source: Path, wanted: "Recipe", models: Path, terms: "Terms") -> None:
    from training.importing.parent import import_model as run

    console = Console(stderr=True, highlight=False)
    with console.status("") as status:

        def show(message: "Message") -> None:
            if message.said == "step":
                status.update(escape(message.text))
            console.print(f"{'...' if message.said == 'step' else '   '} {message.text}", markup=False, soft_wrap=True)

        bundle = run(source, wanted, models, terms, show)
    typer.echo(f"{bundle.directory}  digest {bundle.digest}")
    typer.echo(f"Next: hilum models check {bundle.directory}")


def _name_missing_extra() -> None:
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that the child and its folder go."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
