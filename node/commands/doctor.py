"""`hilum doctor`: is everything that the settings name there and usable? Each line has its remedy."""

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Literal

import typer
from rich.markup import escape
from rich.table import Table

from node.commands.options import SettingsFile
from node.commands.output import wide_console
from node.errors import SettingsError
from node.settings import DEFAULT_FILE, Settings, load_settings

Grade = Literal["ok", "note", "wrong"]
PACKAGES = ("node", "inference", "training", "protos")
GIGABYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at."""

    subject: str
    grade: Grade
    text: str
    remedy: str = ""


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("doctor")(doctor)


def doctor(settings: SettingsFile = None) -> None:
    """Check settings, packages, disk, port, models, service and destinations; exit 1 where something is wrong."""
    table = Table("What", "", "Found", "Remedy")
    wrong = 0
    for line in examine(settings):
        color = {"ok": "green", "note": "yellow", "wrong": "red"}[line.grade]
        table.add_row(line.subject, f"[{color}]{line.grade}[/{color}]", escape(line.text), escape(line.remedy))
        wrong += line.grade == "wrong"
    wide_console().print(table)
    if wrong:
        raise typer.Exit(1)


def examine(file: Path | None) -> Iterator[Line]:
    """Yield one line per thing looked at; stops at settings that cannot be read."""
    yield from _packages()
    try:
        settings = load_settings(file)
    except SettingsError as error:
        yield Line("settings", "wrong", str(error), "correct the file or the variable; docs/settings.md lists all keys")
        return
    source = file or (DEFAULT_FILE.absolute() if DEFAULT_FILE.exists() else "no file: defaults")
    variables = [name for name in os.environ if name.startswith("HILUM_") and name != "HILUM_SETTINGS"]
    yield Line("settings", "ok", f"{source}{', and ' if variables else ''}{', '.join(sorted(variables))}")
    yield _disk(settings)
    yield _port(settings)
    yield from _models(settings)
    yield from _services(settings)
    yield from _destinations(settings)


def _packages() -> Iterator[Line]:
    owners = packages_distributions()
    for name in PACKAGES:
        foreign = sorted(set(owners.get(name, [])) - {"hilum"})
        if foreign:
            remedy = "install Hilum in an environment of its own"
            yield Line(f"package {name}", "wrong", f"also owned by {', '.join(foreign)}", remedy)


def _disk(settings: Settings) -> Line:
    directory, low = settings.store.state_directory.absolute(), settings.store.low_disk_bytes
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} is {'no folder' if not there.is_dir() else 'not writable for this user'}"
        return Line("state directory", "wrong", text, "set store.state_directory to a folder this user may write")
    free = shutil.disk_usage(there).free
    text = f"{free / GIGABYTE:.1f} GiB free at {directory}"
    if free < low:
        remedy = f"make room: below store.low_disk_bytes ({low / GIGABYTE:.1f} GiB) associations are rejected"
        return Line("disk", "wrong", text, remedy)
    return Line("disk", "ok", text)


def _port(settings: Settings) -> Line:
    from node.state_directory import StateDirectory

    listener = settings.listener
    place = f"{listener.ae_title} at {listener.host}:{listener.port}"
    if StateDirectory(settings.store.state_directory).is_held():
        return Line("listener", "ok", f"{place}: a node is running on this state directory")
    try:
        with socket.create_server((listener.host, listener.port)):
            pass
    except OSError as error:
        remedy = "stop what uses it, or set listener.host and listener.port"
        return Line("listener", "wrong", f"{place}: {error.strerror}", remedy)
    return Line("listener", "ok", f"{place} is free")


def _models(settings: Settings) -> Iterator[Line]:
    from node.models import models_directory
    from protos.model_manifest import ManifestError, bundle_directories, open_bundle

    directory = models_directory(settings.inference)
    found = {path.parent.name: path for path in bundle_directories(directory)}
    for name in settings.inference.models or tuple(found):
        if name not in found:
            text = f"not in {directory}; there: {', '.join(found) or 'nothing'}"
            yield Line(f"model {name}", "wrong", text, "correct inference.models or inference.models_directory")
            continue
        try:
            bundle = open_bundle(found[name])
        except ManifestError as error:
            yield Line(f"model {name}", "wrong", str(error), "copy the bundle again")
        else:
            text = f"version {bundle.manifest.identity.version}, digest {bundle.digest[:12]}"
            yield Line(f"model {name}", "ok", text)
    if not found:
        yield Line("models", "wrong", f"{directory} holds no bundle", "set inference.models_directory")


def _services(settings: Settings) -> Iterator[Line]:
    from node.inference_client.client import InferenceClient

    try:
        client = InferenceClient(settings.inference)
    except SettingsError as error:
        yield Line("inference service", "wrong", str(error), "correct inference.tls")
        return
    try:
        states = client.health_of_each()
    finally:
        client.close()
    for health in states:
        is_plain = settings.inference.tls is None or health.endpoint.startswith("unix:")
        text = f"{health.endpoint}: {health.status.replace('_', ' ')}, {health.detail}"
        yield _service(settings, f"{text}{'' if is_plain else ', TLS'}", is_serving=health.is_serving)


def _service(settings: Settings, text: str, *, is_serving: bool) -> Line:
    from node.state_directory import StateDirectory

    if is_serving:
        return Line("inference service", "ok", text)
    running = StateDirectory(settings.store.state_directory).is_held()
    if settings.inference.start_service and not running:
        return Line("inference service", "note", text, "`hilum up` starts it; with `hilum node` start it yourself")
    return Line("inference service", "wrong", text, "start it: hilum inference --models DIR --listen ADDRESS")


def _destinations(settings: Settings) -> Iterator[Line]:
    from node.delivery.echo import c_echo

    if not settings.destinations:
        yield Line("destinations", "note", "none: results stay in the outbox", "add [[destinations]] to the settings")
    for item in settings.destinations:
        outcome = c_echo(item, item.calling_ae_title or settings.listener.ae_title)
        remedy = (
            "" if outcome.answered else f"check AE title, host and port, and that {item.ae_title} knows our AE title"
        )
        yield Line(f"destination {item.name}", "ok" if outcome.answered else "wrong", outcome.text, remedy)
