"""The workflow engine keeps to itself: no network, no words of its own, nothing pickled."""

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.index.engine import open_index
from node.workflow.workflow import DATABASE, Workflow
from tests.waiting import wait_until
from tests.workflow_doubles import add_study, running_node, steps_for, terms_for


def test_no_connection_is_made_or_offered_and_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    for name in ("connect", "connect_ex", "bind", "listen"):
        monkeypatch.setattr(socket.socket, name, lambda _self, *_args, said=name: calls.append(said))
    with running_node(tmp_path, from_scratch=True) as node:
        add_study(node.engine, "2.25.300")
        wait_until(lambda: node.done("make") == 1, what="the run")
        node.wait_idle()
    out, err = capfd.readouterr()
    assert calls == []
    assert "dbos" not in (out + err).lower()


def test_database_holds_json_and_no_pickle(tmp_path: Path) -> None:
    with running_node(tmp_path, from_scratch=True) as node:
        add_study(node.engine, "2.25.300")
        wait_until(lambda: node.done("make") == 1, what="the run")
        node.wait_idle()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        kinds = {row[0] for row in connection.execute("SELECT serialization FROM workflow_status")}
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    assert kinds == {"portable_json"}
    assert mode == "wal"
    assert ((tmp_path / DATABASE).stat().st_mode & 0o777) == 0o600


def test_stop_before_launch_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    terms = terms_for(tmp_path)
    for _ in range(2):
        Workflow(tmp_path, engine, steps_for(engine, terms, tmp_path / "ledger.txt"), terms).stop()
    engine.dispose()


def test_executor_id_stays_the_same(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    terms = terms_for(tmp_path)
    said = []
    for _ in range(2):
        Workflow(tmp_path, engine, steps_for(engine, terms, tmp_path / "ledger.txt"), terms).stop()
        said.append((tmp_path / "executor_id").read_text())
    assert said[0] == said[1]
    engine.dispose()
