"""How commands write to a terminal, and to what is none."""

import os

from rich.console import Console
from rich.table import Column

NARROWEST = 160
"""Columns of output that is no terminal: UIDs and reasons stay on one line where they can."""


def unbroken(title: str) -> Column:
    """Return a column whose values are never cut nor broken: a UID must be there whole to be used."""
    return Column(title, no_wrap=True)


def wide_console() -> Console:
    """Return a console that is as wide as the terminal, and wide where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = NARROWEST
    return console
