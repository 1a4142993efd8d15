"""What the workflow is told by the composition root: the heavy steps, the models, the destinations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from node.domain.evidence import EvidenceSet
from node.domain.study import Verdict
from node.index.runs import ModelVersion, RunRequest
from node.settings import CompletionSettings, Destination

__all__ = ["DeliveryRecord", "ModelVersion", "RunRequest", "Selection", "Steps", "WorkflowTerms"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which series of a study a model takes, with one verdict for every series."""

    verdicts: tuple[Verdict, ...]

    @property
    def series_uid(self) -> str | None:
        """The series taken, None where there is none."""
        return next((item.series_uid for item in self.verdicts if item.taken), None)


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """How one attempt to deliver a set ended; the objects' own states are in the index."""

    sent: int
    refused: int
    delayed: int
    answered: bool
    """The peer gave a DIMSE answer to at least one object: it is there."""
    wait_s: float | None
    """Seconds until the next attempt; None when nothing is left to send."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The heavy steps. Each may run twice for the same arguments and must come to the same result."""

    select: Callable[[RunRequest], Selection]
    """Raises Refusal (final, with the reason) where nothing can be judged at all."""
    make_evidence: Callable[[RunRequest, str], EvidenceSet]
    """(run, Series Instance UID taken) -> the durable set, made or adopted.

    Raises InferenceUnavailable (the run waits and tries again), Refusal or DecodingError (REFUSED),
    EvidenceRejected (QUARANTINED), any other HilumError (FAILED).
    """
    deliver_once: Callable[[str, str], DeliveryRecord]
    """(evidence key, destination name) -> one attempt, recorded; see `node.workflow.courier.Courier`."""


@dataclass(frozen=True, slots=True)
class WorkflowTerms:
    """What the workflow needs to know of the settings."""

    models: tuple[ModelVersion, ...]
    settings_digest: str
    destinations: tuple[Destination, ...]
    outbox_directory: Path
    concurrency: int = 1
    """Studies worked on at once."""
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    sweep_s: float = 3.0
    """How often everything unfinished in the index is enqueued again."""
    inference_wait_first_s: float = 1.0
    """Wait after the first time the inference service was away; doubles to at most inference_wait_most_s."""
    inference_wait_most_s: float = 30.0
