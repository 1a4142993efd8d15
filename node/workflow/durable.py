"""The one place that knows DBOS: two queues in `workflow.sqlite`, filled under derived names.

What DBOS holds can be lost without loss: the index says what is unfinished, every step may run twice, and whatever
is missing here is enqueued again. So work of another application version is not replayed but begun anew.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
    WorkflowStatus,
)

from node.workflow.identity import APPLICATION_VERSION, delivery_id_of, work_of, workflow_id_of

RUNS: Final = "process"
DELIVERIES: Final = "deliver"
POLLING_S = 0.05
_UNFINISHED = ["DELAYED", "ENQUEUED", "PENDING"]
_FINISHED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_FORGET_AT_ONCE = 1000
# Threads beyond the workflows': DBOS recovers with one of them.
_SPARE_THREADS = 2

RunBody = Callable[[str, int], None]
DeliveryBody = Callable[[str, str, int], None]


class DurableQueues:
    """Runs and deliveries as durable workflows: one queue of runs, one of deliveries partitioned by destination."""

    def __init__(
        self,
        database: Path,
        executor_id: str,
        *,
        concurrency: int,
        destinations: int,
        version: str = APPLICATION_VERSION,
    ) -> None:
        """Set DBOS up for this process; nothing runs before `launch`.

        Args:
            database: workflow.sqlite.
            executor_id: stable name of this node.
            concurrency: runs at once.
            destinations: how many destinations there are; each is delivered to one set at a time.
            version: application version of the workflows.
        """
        self._concurrency = concurrency
        self._version = version
        self._executor_id = executor_id
        _use_write_ahead_log(database)
        _leave_logging_to_us()
        self._url = f"sqlite:///{database.absolute()}"
        DBOS(config=_config(self._url, executor_id, version, threads=concurrency + destinations + _SPARE_THREADS))
        self._run_body: RunBody
        self._delivery_body: DeliveryBody

    def launch(self, run_body: RunBody, delivery_body: DeliveryBody, *, crashed: frozenset[str] = frozenset()) -> None:
        """Register the workflows' bodies, drop what is not to be resumed, and start DBOS.

        Args:
            run_body: body of a run.
            delivery_body: body of a delivery.
            crashed: runs that the node died on: enqueued anew they stand behind the others, so a poison study does
                not take its turns first.
        """
        # Crashes are counted by the index (`run.started`), not by DBOS.
        self._run_body = DBOS.workflow(name="process_study", max_recovery_attempts=None)(run_body)
        self._delivery_body = DBOS.workflow(name="deliver", max_recovery_attempts=None)(delivery_body)
        self._drop_unresumable(crashed)
        DBOS.launch()
        DBOS.register_queue(
            RUNS, worker_concurrency=self._concurrency, polling_interval_sec=POLLING_S, on_conflict="always_update"
        )
        DBOS.register_queue(
            DELIVERIES, partition_concurrency=1, polling_interval_sec=POLLING_S, on_conflict="always_update"
        )

    def _drop_unresumable(self, crashed: frozenset[str]) -> None:
        """Drop work of another version, or of an executor that is no more; nothing runs while we hold the state."""
        DBOS.migrate(self._url)
        client = DBOSClient(system_database_url=self._url, serializer=DBOSPortableJSONSerializer())
        try:
            found = client.list_workflows(status=_UNFINISHED, load_input=False, load_output=False)
            client.delete_workflows([item.workflow_id for item in found if not self._resumes(item, crashed)])
        finally:
            client.destroy()

    def _resumes(self, item: WorkflowStatus, crashed: frozenset[str]) -> bool:
        if item.app_version != self._version or work_of(item.workflow_id)[0] in crashed:
            return False
        return item.status != "PENDING" or item.executor_id == self._executor_id

    def enqueue_run(self, run_id: str, turn: int = 0, *, delay_s: float | None = None) -> None:
        """Enqueue a turn of a run; a turn that is known is left as it is."""
        with SetWorkflowID(workflow_id_of(run_id, turn)), SetEnqueueOptions(delay_seconds=delay_s or None):
            DBOS.enqueue_workflow(RUNS, self._run_body, run_id, turn)

    def enqueue_delivery(
        self, evidence_key: str, destination: str, turn: int = 0, *, delay_s: float | None = None
    ) -> None:
        """Enqueue a turn of a delivery; a turn that is known is left as it is."""
        work_id = delivery_id_of(evidence_key, destination)
        options = SetEnqueueOptions(queue_partition_key=destination, delay_seconds=delay_s or None)
        with SetWorkflowID(workflow_id_of(work_id, turn)), options:
            DBOS.enqueue_workflow(DELIVERIES, self._delivery_body, evidence_key, destination, turn)

    def unfinished(self) -> frozenset[str]:
        """Return the work that waits or runs."""
        return frozenset(work_of(item.workflow_id)[0] for item in _listed(_UNFINISHED))

    def next_turn(self, work_id: str) -> int | None:
        """Return the first turn of a work whose workflow does not exist; None while another turn waits or runs."""
        known = DBOS.list_workflows(workflow_id_prefix=work_id, load_input=False, load_output=False)
        turns = [
            (work_of(item.workflow_id)[1], item.status) for item in known if work_of(item.workflow_id)[0] == work_id
        ]
        if any(status in _UNFINISHED for _, status in turns):
            return None
        return max((turn for turn, _ in turns), default=-1) + 1

    def hasten(self, queue: str, wanted: Callable[[str], bool]) -> None:
        """End the waits of the work that `wanted` names by its id."""
        for item in _listed(["DELAYED"], queue):
            if wanted(work_of(item.workflow_id)[0]):
                DBOS.set_workflow_delay(item.workflow_id, delay_seconds=0)

    def forget_finished(self, before: datetime) -> None:
        """Delete finished workflows, so that the file does not grow for ever; the index keeps the story."""
        while found := _listed(_FINISHED, before=before.isoformat(), limit=_FORGET_AT_ONCE):
            DBOS.delete_workflows([item.workflow_id for item in found])

    def close(self, *, grace_s: int) -> None:
        """Take no more work, wait up to `grace_s` for what runs, and stop; what is left resumes at the next launch."""
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=grace_s)


def _listed(
    status: list[str], queue: str | None = None, *, before: str | None = None, limit: int | None = None
) -> list[WorkflowStatus]:
    return DBOS.list_workflows(
        status=status, queue_name=queue, completed_before=before, limit=limit, load_input=False, load_output=False
    )


def _config(url: str, executor_id: str, version: str, *, threads: int) -> DBOSConfig:
    return {
        "name": "hilum",
        "system_database_url": url,
        "application_version": version,
        "executor_id": executor_id,
        # The default pickles: code execution from a file, and unreadable after an upgrade.
        "serializer": DBOSPortableJSONSerializer(),
        "max_executor_threads": threads,
        "log_level": "WARNING",
        "enable_otlp": False,
        "scheduler_polling_interval_sec": 3600.0,
    }


def _use_write_ahead_log(database: Path) -> None:
    database.touch(mode=0o600)
    with closing(sqlite3.connect(database)) as connection:
        # Kept in the file; synchronous stays at SQLite's default, FULL.
        connection.execute("PRAGMA journal_mode = WAL")


def _leave_logging_to_us() -> None:
    # With a handler in place DBOS adds none of its own, and its records reach the root logger's form.
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def is_delivery_to(destination: str) -> Callable[[str], bool]:
    """Return whether a delivery's id is one to this destination."""
    return lambda work_id: work_id.partition("/")[2] == destination
