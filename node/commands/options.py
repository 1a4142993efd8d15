"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

SettingsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--settings", "-s", envvar="HILUM_SETTINGS", help="Settings file; ./hilum.toml is taken where it exists."
    ),
]
StudyUid: TypeAlias = Annotated[str, typer.Argument(metavar="UID", help="Study Instance UID.")]
ModelsDirectory: TypeAlias = Annotated[
    Path | None,
    typer.Option("--models", help="Folder of bundles <name>/<version>/; unset takes those that ship with Hilum."),
]
ModelNames: TypeAlias = Annotated[
    list[str] | None, typer.Option("--model", help="Model to run; may be given again; unset runs all.")
]
