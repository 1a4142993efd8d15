"""`hilum studies | study | retry | reindex`: what happened to a study and why, and how to ask again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from node.commands.options import SettingsFile, StudyUid
from node.commands.output import unbroken, wide_console
from node.errors import SettingsError
from node.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from node.index.history import DeliveryPart, ObjectPart, RunPart, StudyHistory
    from node.index.instances import QuarantinedInstance


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for name, command in (("studies", studies), ("study", study), ("retry", retry), ("reindex", reindex)):
        app.command(name)(command)


def studies(settings: SettingsFile = None) -> None:
    """List the studies this node knows with their state, and the instances that were refused, with the reason."""
    from node.index.history import study_lines
    from node.index.instances import quarantined

    with _index(settings) as engine:
        lines, refused = study_lines(engine), quarantined(engine, most=50)
    table = Table(unbroken("Study Instance UID"), "State", "Images", "Results", "Sent", "Last image")
    for line in lines:
        counts = (str(line.instances), str(line.objects), str(line.sent))
        table.add_row(line.study_uid, _colored(line.state), *counts, _local(line.last_received_at))
    console = wide_console()
    console.print(table if lines else "No study has arrived yet.")
    if refused:
        console.print(_refused_table(refused))


def study(uid: StudyUid, settings: SettingsFile = None) -> None:
    """Say what happened to one study, and why."""
    with _index(settings) as engine:
        wide_console().print(history_tree(_history(engine, uid)))


def retry(uid: StudyUid, settings: SettingsFile = None) -> None:
    """Run a study again and deliver again what a destination refused; the running node picks it up."""
    from node.index.runs import request_retry

    with _index(settings, is_read_only=False) as engine:
        _history(engine, uid)
        request_retry(engine, uid, now=datetime.now(UTC))
    typer.echo(f"Retry of {uid} is asked for; `hilum study {uid}` shows how it goes.")


def reindex(settings: SettingsFile = None) -> None:
    """Rebuild the index from the files; the node must not be running.

    A study whose results lie in the outbox, made from just what is here, does not run again and nothing of it is
    delivered again (`hilum retry UID` does both). Every other study runs at the next start.
    """
    from node.index.engine import open_index
    from node.index.evidence_reindex import reindex_evidence
    from node.index.reindex import reindex as reindex_instances
    from node.state_directory import StateDirectory
    from node.store.instance_files import InstanceStore
    from node.store.outbox import Outbox

    with StateDirectory(load_settings(settings).store.state_directory) as state:
        engine = open_index(state.index, store_directory=state.store)
        counts = reindex_instances(InstanceStore(state.store), engine)
        evidence = reindex_evidence(Outbox(state.outbox), engine)
        engine.dispose()
    typer.echo(
        f"{counts.instances} instance(s), {counts.added} of them new to the index; {counts.quarantined} refused; "
    )
    typer.echo(f"{evidence.sets} evidence set(s); {evidence.decided} study(s) have their results and do not run again.")
    problems = [
        *(f"damaged: {path}: unreadable or not as recorded. Remedy: ask the sender again." for path in counts.damaged),
        *(f"skipped: {path}: no readable reason of a refusal. Remedy: move it away." for path in counts.skipped),
        *(f"skipped: {reason}" for reason in evidence.skipped),
    ]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


def _refused_table(refused: "tuple[QuarantinedInstance, ...]") -> Table:
    table = Table(
        unbroken("Refused instance"), "From", "At", "Why", title="Set aside; the bytes lie in the state directory"
    )
    for item in refused:
        peer, at = escape(item.calling_ae_title), _local(item.received_at)
        table.add_row(escape(item.sop_instance_uid), peer, at, escape(item.reason))
    return table


@contextmanager
def _index(settings: "Path | None", *, is_read_only: bool = True) -> "Iterator[Engine]":
    from node.index.engine import open_existing_index
    from node.state_directory import StateDirectory

    chosen = load_settings(settings)
    state = StateDirectory(chosen.store.state_directory)
    if not state.index.exists():
        raise SettingsError(
            f"store.state_directory: {state.directory} holds no index yet. Remedy: start the node first."
        )
    engine = open_existing_index(state.index, store_directory=state.store, is_read_only=is_read_only)
    try:
        yield engine
    finally:
        engine.dispose()


def _history(engine: "Engine", uid: str) -> "StudyHistory":
    from node.index.history import history_of

    history = history_of(engine, uid)
    if history is None:
        typer.echo(f"No study {uid} is known here. Remedy: `hilum studies` lists those that are.", err=True)
        raise typer.Exit(1)
    return history


def history_tree(history: "StudyHistory") -> Tree:
    """Return what happened to a study, and why, as a tree."""
    counts = f"{history.instances} instance(s) in {history.series} series"
    tree = Tree(f"[bold]{history.study_uid}[/bold] {_colored(history.state)}: {counts}")
    for sop_instance_uid, reason in history.quarantined:
        tree.add(f"[yellow]set aside[/yellow] {escape(sop_instance_uid)}: {escape(reason)}")
    for part in history.generations:
        text = f"generation {part.count} ({part.instances} images) at {_local(part.decided_at)}: {part.reason}"
        branch = tree.add(escape(text))
        for item in history.runs:
            if item.generation == part.generation:
                _add_run(branch, item, history.objects)
    with_run = {item.evidence_key for item in history.runs}
    found_again = [part for part in history.objects if part.evidence_key not in with_run]
    if found_again:
        _add_objects(tree.add("results found again by `hilum reindex`, their deliveries unknown"), found_again)
    diary = tree.add("diary")
    for entry in history.events:
        diary.add(escape(f"{_local(entry.at)} {entry.name}: {entry.text}"))
    return tree


def _add_run(branch: Tree, run: "RunPart", objects: "tuple[ObjectPart, ...]") -> None:
    attempt = f", attempt {run.attempt}" if run.attempt else ""
    node = branch.add(f"model {run.model}{attempt}: {_colored(run.state)} {escape(run.reason)}")
    for item in run.verdicts:
        node.add(
            f"series {item.series_uid} {'[green]taken[/green]' if item.taken else 'not taken'}: {escape(item.reason)}"
        )
    _add_objects(node, [part for part in objects if part.evidence_key == run.evidence_key])


def _add_objects(branch: Tree, objects: "Sequence[ObjectPart]") -> None:
    for part in objects:
        leaf = branch.add(f"{part.kind} {part.sop_instance_uid}")
        for way in part.deliveries:
            when = f" at {_local(way.sent_at)}" if way.sent_at else _next_attempt(way)
            tries = f"{way.attempts} attempt(s)"
            leaf.add(f"{way.destination}: {_colored(way.state)}{when}, {tries}. {escape(way.last_comment)}")


def _next_attempt(way: "DeliveryPart") -> str:
    return f", next attempt at {_local(way.next_attempt_at)}" if way.state == "PENDING" and way.next_attempt_at else ""


def _colored(state: str) -> str:
    bad = {"ATTENTION", "FAILED", "QUARANTINED"}
    good = {"DONE", "EVIDENCE", "SENT"}
    color = "red" if state in bad else "green" if state in good else "yellow"
    return f"[{color}]{state}[/{color}]"


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
