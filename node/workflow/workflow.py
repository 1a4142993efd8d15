"""The durable work of the node: every ready study through every model, every result to every destination."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from node.workflow.steps import Steps, WorkflowTerms


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
    ) -> None:
        """Keep the parts; nothing starts yet.

        Args:
            state_directory: holds workflow.sqlite and the node's stable executor id.
            engine: the index.
            steps: the heavy steps, from the composition root.
            terms: models, destinations and numbers.
            open_studies: studies carried by associations that are open now (Listener.open_studies).
        """
        raise NotImplementedError

    def launch(self) -> None:
        """Start, recover what a crash or an older version left, and begin to work."""
        raise NotImplementedError

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop taking work, let running steps end within `grace_s`, and close; what is left resumes at the next launch.

        Close the inference client before, so that a running request ends.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Look at the index at once instead of at the next tick."""
        raise NotImplementedError

    def idle(self) -> bool:
        """Say whether nothing is arriving, planned, running or undelivered."""
        raise NotImplementedError
