"""`hilum up` and `hilum node`: the running node, with or without its own inference service."""

import signal
from pathlib import Path

import typer
from rich.console import Console

from node.commands.options import SettingsFile
from node.commands.stopping import stop_event
from node.settings import Settings, load_settings

SAMPLE = """\
# Hilum settings. Every key is optional; docs/settings.md lists them all with their defaults.
[listener]
ae_title = "HILUM"        # called AE title that modalities and the PACS send to
host = "127.0.0.1"        # 0.0.0.0 listens on every network interface
port = 11112
calling_ae_titles = []    # e.g. ["CT1", "PACS1"]; empty takes any

[store]
state_directory = "state"

[[destinations]]
name = "pacs"
ae_title = "PACS1"
host = "127.0.0.1"
port = 4242
"""


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("up")(up)
    app.command("node")(node)
    app.command("init")(init)


def up(settings: SettingsFile = None) -> None:
    """Run the inference service and the node on this machine until Ctrl-C."""
    _serve(load_settings(settings), start_service=True)


def node(settings: SettingsFile = None) -> None:
    """Run the node alone; the inference service runs elsewhere (see inference.endpoint)."""
    _serve(load_settings(settings), start_service=False)


def init(path: Path = typer.Argument(Path("hilum.toml"), help="Where to write it.")) -> None:  # noqa: B008 (typer's form)
    """Write a commented settings file to start from."""
    if path.exists():
        typer.echo(f"{path} exists; it is left as it is. Remedy: name another file.", err=True)
        raise typer.Exit(1)
    path.write_text(SAMPLE, encoding="utf-8")
    typer.echo(f"{path} written. Next: set your PACS under [[destinations]], then `hilum doctor`, then `hilum up`.")


def _serve(settings: Settings, *, start_service: bool) -> None:
    from node import logs
    from node.app import Node

    logs.configure(settings.log)
    # While the node starts, a signal breaks the start off; from then on it ends the waiting.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running = Node(settings, start_service=start_service and settings.inference.start_service)
    host, port = running.start()
    try:
        stop = stop_event()
        Console(stderr=True).print(
            f"[bold]{settings.listener.ae_title}[/bold] listens on {host}:{port}; results go to "
            f"{', '.join(item.name for item in settings.destinations) or 'no destination'}. Ctrl-C stops."
        )
        stop.wait()
    finally:
        running.stop()
