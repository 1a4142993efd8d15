"""A workflow on a small real index, with steps that do what a test tells them and write down that they did."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine, insert, select

from node.domain.evidence import EvidenceSet
from node.domain.study import Verdict
from node.index.engine import open_index, writing
from node.index.history import StudyHistory, history_of
from node.index.rows import as_row_time
from node.index.tables import instance, study
from node.settings import CompletionSettings, Destination
from node.workflow.courier import Courier
from node.workflow.steps import ModelVersion, RunRequest, Selection, Steps, WorkflowTerms
from node.workflow.workflow import DATABASE, Workflow
from tests.scripted_pacs import evidence_files
from tests.waiting import wait_until

MODEL = ModelVersion("lung_nodule", "1", "a" * 64)
MakeEvidence = Callable[[RunRequest, str], None]


def add_study(engine: Engine, study_uid: str, *, instances: int = 2, first: int = 1) -> None:
    """Let instances of a study have arrived, as the listener records them."""
    now = as_row_time(datetime.now(UTC))
    rows = [
        {
            "sop_instance_uid": f"{study_uid}.{number}",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
            "study_uid": study_uid,
            "series_uid": f"{study_uid}.0",
            "transfer_syntax": "1.2.840.10008.1.2.1",
            "calling_ae_title": "CT1",
            "path": f"{study_uid}.{number}",
            "data_set_digest": sha256(f"{study_uid}.{number}".encode()).hexdigest(),
            "size": 1,
            "derived": False,
            "received_at": now,
        }
        for number in range(first, first + instances)
    ]
    with writing(engine) as connection:
        if connection.execute(select(study).where(study.c.study_uid == study_uid)).first() is None:
            connection.execute(
                insert(study).values(
                    study_uid=study_uid, first_received_at=now, last_received_at=now, decided_generation=None
                )
            )
        else:
            arrived = study.update().where(study.c.study_uid == study_uid)
            connection.execute(arrived.values(last_received_at=now, decided_generation=None))
        connection.execute(insert(instance), rows)


def forward_again(engine: Engine, study_uid: str) -> None:
    """Let the same instances have arrived again: nothing new, but the study was touched."""
    with writing(engine) as connection:
        connection.execute(study.update().where(study.c.study_uid == study_uid).values(decided_generation=None))


@dataclass
class Node:
    """The workflow under test with its surroundings."""

    state: Path
    engine: Engine
    terms: WorkflowTerms
    ledger: Path
    workflow: Workflow

    def history(self, study_uid: str) -> StudyHistory:
        history = history_of(self.engine, study_uid)
        assert history is not None
        return history

    def wait_idle(self, timeout_s: float = 30.0) -> None:
        wait_until(self.workflow.idle, timeout_s=timeout_s, what="an idle workflow")

    def done(self, step: str, study_uid: str = "") -> int:
        """Count how often a step was written down as begun."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return sum(line.startswith(f"{step} {study_uid}") for line in lines)


def terms_for(
    state: Path,
    destinations: tuple[Destination, ...] = (),
    *,
    models: tuple[ModelVersion, ...] = (MODEL,),
    settings_digest: str = "b" * 64,
    concurrency: int = 1,
) -> WorkflowTerms:
    return WorkflowTerms(
        models=models,
        settings_digest=settings_digest,
        destinations=destinations,
        outbox_directory=state / "outbox",
        concurrency=concurrency,
        completion=CompletionSettings(settle_s=0.05, hanging_s=5),
        sweep_s=0.5,
        inference_wait_first_s=0.1,
        inference_wait_most_s=0.5,
    )


def steps_for(
    engine: Engine,
    terms: WorkflowTerms,
    ledger: Path,
    *,
    before_evidence: MakeEvidence = lambda _run, _series: None,
    take: Callable[[RunRequest], bool] = lambda _run: True,
) -> Steps:
    """Return steps that write evidence as the real ones do: once per key, adopted the second time."""

    def note(step: str, run: RunRequest) -> None:
        with ledger.open("a") as file:
            file.write(f"{step} {run.study_uid} {run.generation[:8]} {run.attempt} {os.getpid()}\n")

    def judge(run: RunRequest) -> Selection:
        note("select", run)
        taken = take(run)
        reason = "thinnest of 1" if taken else "no CT"
        verdict = Verdict(run.model.name, run.model.version, f"{run.study_uid}.0", taken, reason)
        return Selection((verdict,))

    def make_evidence(run: RunRequest, series_uid: str) -> EvidenceSet:
        note("make", run)
        before_evidence(run, series_uid)
        return publish(terms.outbox_directory, run)

    courier = Courier(engine, terms.outbox_directory, terms.destinations, "HILUM")
    return Steps(judge, make_evidence, courier.deliver_once)


def publish(outbox: Path, run: RunRequest) -> EvidenceSet:
    """Write an evidence set under a key derived from the run, or adopt the one that is there."""
    key = sha256(f"{run.study_uid}{run.generation}{run.model}{run.settings_digest}".encode()).hexdigest()
    directory = outbox / key
    if not directory.exists():
        part = outbox / f"{key}.{os.getpid()}.{threading.get_ident()}"
        part.mkdir(parents=True)
        evidence_files(part, prefix=f"2.25.{int(key[:16], 16)}")
        try:
            part.rename(directory)
        except OSError:
            assert directory.exists()
    objects = tuple(item for item, _ in evidence_files(outbox / "scratch", prefix=f"2.25.{int(key[:16], 16)}"))
    return EvidenceSet(key, directory, run.study_uid, run.generation, "standard", objects, run.decided_at)


@cache
def launched_database() -> bytes:
    """Return workflow.sqlite as a first launch leaves it: the engine takes seconds to make it and find its queues."""
    with TemporaryDirectory() as directory:
        state = Path(directory)
        with running_node(state, from_scratch=True) as node:
            add_study(node.engine, "2.25.1")
            wait_until(lambda: node.done("make") == 1, what="the first run")
            node.wait_idle()
        return (state / DATABASE).read_bytes()


@contextmanager
def running_node(
    state: Path,
    destinations: tuple[Destination, ...] = (),
    *,
    terms: WorkflowTerms | None = None,
    version: str = "1",
    grace_s: float = 5.0,
    from_scratch: bool = False,
    before_evidence: MakeEvidence = lambda _run, _series: None,
    take: Callable[[RunRequest], bool] = lambda _run: True,
) -> Iterator[Node]:
    """Run a workflow in this process on `state`, and stop it at the end."""
    if not from_scratch and not (state / DATABASE).exists():
        (state / DATABASE).write_bytes(launched_database())
    engine = open_index(state / "index.sqlite")
    told = terms or terms_for(state, destinations)
    (state / "outbox" / "scratch").mkdir(parents=True, exist_ok=True)
    ledger = state / "ledger.txt"
    steps = steps_for(engine, told, ledger, before_evidence=before_evidence, take=take)
    workflow = Workflow(state, engine, steps, told, version=version)
    workflow.launch()
    try:
        yield Node(state, engine, told, ledger, workflow)
    finally:
        workflow.stop(grace_s=grace_s)
        engine.dispose()
