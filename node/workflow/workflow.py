"""The durable work of the node: every ready study through every model, every result to every destination."""

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from node.index.deliveries import undelivered
from node.index.runs import crashed_runs, open_retry_requests, unfinished_runs, unplanned_generations
from node.index.studies import arriving
from node.workflow.bodies import define_bodies
from node.workflow.durable import DurableQueues
from node.workflow.edges import StepEdges
from node.workflow.identity import APPLICATION_VERSION, executor_id_of
from node.workflow.readying import decide_studies
from node.workflow.scheduler import Scheduler
from node.workflow.steps import Steps, WorkflowTerms

DATABASE = "workflow.sqlite"


class Workflow:
    """Studies in, evidence delivered, across crashes, upgrades and outages (architecture.md 6).

    The index is the ledger: a run or delivery that stands there unfinished is worked on. DBOS makes the work durable
    in `workflow.sqlite` and bounds it. One Workflow per process, and the caller holds the state directory's lock.
    """

    def __init__(
        self,
        state_directory: Path,
        engine: Engine,
        steps: Steps,
        terms: WorkflowTerms,
        *,
        open_studies: Callable[[], frozenset[str]] = frozenset,
        version: str = APPLICATION_VERSION,
    ) -> None:
        """Keep the parts; nothing starts yet.

        Args:
            state_directory: holds workflow.sqlite and the node's stable executor id.
            engine: the index.
            steps: the heavy steps, from the composition root.
            terms: models, destinations and numbers.
            open_studies: studies carried by associations that are open now (Listener.open_studies).
            version: of the order of steps; another one is given only by a test of the upgrade.
        """
        self._engine = engine
        self._terms = terms
        self._open_studies = open_studies
        self._edges = StepEdges(engine, steps, terms, on_back=self._note_back)
        self._queues = DurableQueues(
            state_directory / DATABASE,
            executor_id_of(state_directory),
            concurrency=terms.concurrency,
            destinations=len(terms.destinations),
            version=version,
        )
        self._scheduler = Scheduler(engine, self._queues, terms, decide_studies=self._decide_studies)

    def launch(self) -> None:
        """Start, recover what a crash or an older version left, and begin to work."""
        run_body, delivery_body = define_bodies(self._edges, self._queues)
        self._queues.launch(run_body, delivery_body, crashed=crashed_runs(self._engine))
        self._scheduler.start()

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop taking work, let running steps end within `grace_s`, and close; what is left resumes at the next launch.

        Close the inference client before, so that a running request ends. A step that outlasts the grace keeps its
        thread until it returns, and its run does not count as a crash.
        """
        self._scheduler.stop()
        self._queues.close(grace_s=math.ceil(grace_s) if self._edges.busy else 0)
        self._edges.settle()

    def wake(self) -> None:
        """Look at the index at once instead of at the next tick: a study arrived, a retry was asked for."""
        self._scheduler.wake()

    def idle(self) -> bool:
        """Say whether nothing is arriving, planned, running or undelivered."""
        unfinished = (arriving, unplanned_generations, unfinished_runs, undelivered, open_retry_requests)
        return not any(rows(self._engine) for rows in unfinished)

    def _decide_studies(self, now: datetime) -> None:
        decide_studies(self._engine, self._terms.completion, self._open_studies, now)

    def _note_back(self, name: str | None) -> None:
        self._scheduler.note_back(name)
