"""The command `hilum`: gathers the commands of the installed packages and turns errors into sentences.

Nothing heavy is imported here: a command loads what it needs when it runs, so that `hilum --help` works with any
set of extras, and a missing extra is named.
"""

import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from node.commands import demo, doctor, offline, sending, serving, studies
from node.errors import HilumError, SettingsError

EXTRA_OF = {
    **dict.fromkeys(("pydicom", "pynetdicom", "highdicom", "sqlalchemy", "alembic", "dbos", "scipy", "PIL"), "node"),
    **dict.fromkeys(("tensorflow", "grpc_health", "grpc_reflection", "prometheus_client"), "inference"),
    **dict.fromkeys(("keras", "h5py"), "training"),
    **dict.fromkeys(("ray", "starlette"), "scale"),
}


def _say_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"hilum {version('hilum')}")
        raise typer.Exit


def build() -> typer.Typer:
    """Put together the commands of this package and of every package that registers in "hilum.commands"."""
    app = typer.Typer(
        help="Hilum: DICOM studies in by C-STORE, findings out as Structured Reports and Segmentations. Research use.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for module in (serving, offline, sending, studies, doctor, demo):
        module.commands(app)
    for entry in sorted(entry_points(group="hilum.commands"), key=lambda item: item.name):
        entry.load()(app)
    return app


def _root(
    *, _version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_say_version)] = False
) -> None:
    """Hold the options of `hilum` itself."""


def main() -> None:
    """Run the command line; exit 1 for an error of the work, 2 for wrong settings or usage, 130 for Ctrl-C."""
    errors = Console(stderr=True, highlight=False)
    try:
        build()()
    except SettingsError as error:
        errors.print(f"[red]settings:[/red] {escape(str(error))}")
        sys.exit(2)
    except HilumError as error:
        errors.print(f"[red]hilum:[/red] {escape(str(error))}")
        sys.exit(1)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        errors.print(
            f"[red]hilum:[/red] {escape(what)}{error.strerror or error}. Remedy: check the path and its rights."
        )
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        errors.print(f"hilum: this command needs {error.name}, which is not installed. Remedy:")
        errors.print(f"  pip install 'hilum\\[{extra}]'", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
