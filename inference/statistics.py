"""How many requests each model version answered, and how long their stages took."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Key = tuple[str, str]
"""Model name and version."""


@dataclass(frozen=True, slots=True)
class Spent:
    """How often something happened and the nanoseconds that it took in all."""

    count: int = 0
    ns: int = 0

    def plus(self, seconds: float) -> "Spent":
        """Add one time that took `seconds`."""
        return Spent(self.count + 1, self.ns + max(0, round(seconds * 1e9)))


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of one answered request: waiting, reading its inputs, computing, writing its answer; and its batch."""

    queue_s: float
    input_s: float
    infer_s: float
    output_s: float
    batch_size: int = 1
    executions: int = 1


@dataclass(frozen=True, slots=True)
class Computing:
    """The stages of computing."""

    input: Spent = Spent()
    infer: Spent = Spent()
    output: Spent = Spent()

    def plus(self, stages: Stages) -> "Computing":
        """Add one answered request."""
        return Computing(
            self.input.plus(stages.input_s), self.infer.plus(stages.infer_s), self.output.plus(stages.output_s)
        )


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one model version did since the service started; never changed, a later one replaces it."""

    success: Spent = Spent()
    fail: Spent = Spent()
    queue: Spent = Spent()
    computing: Computing = Computing()
    by_batch: Mapping[int, Computing] = field(default_factory=dict)
    executions: int = 0
    last_inference_ms: int = 0
    """Milliseconds since the epoch; 0 before the first."""

    def with_success(self, stages: Stages, now_ms: int) -> "ModelFigures":
        """Add one answered request."""
        total = stages.queue_s + stages.input_s + stages.infer_s + stages.output_s
        of_size = self.by_batch.get(stages.batch_size, Computing()).plus(stages)
        return replace(
            self,
            success=self.success.plus(total),
            queue=self.queue.plus(stages.queue_s),
            computing=self.computing.plus(stages),
            by_batch={**self.by_batch, stages.batch_size: of_size},
            executions=self.executions + stages.executions,
            last_inference_ms=now_ms,
        )


class Statistics:
    """Figures of every model version; safe to share between threads."""

    def __init__(self) -> None:
        self._figures: dict[Key, ModelFigures] = {}
        self._lock = threading.Lock()

    def record_success(self, name: str, version: str, stages: Stages) -> None:
        """Count an answered request of a model that is loaded."""
        with self._lock:
            figures = self._figures.get((name, version), ModelFigures())
            self._figures[name, version] = figures.with_success(stages, time.time_ns() // 1_000_000)

    def record_failure(self, name: str, version: str, seconds: float) -> None:
        """Count a refused or failed request of a model that is loaded."""
        with self._lock:
            figures = self._figures.get((name, version), ModelFigures())
            self._figures[name, version] = replace(figures, fail=figures.fail.plus(seconds))

    def of(self, name: str, version: str) -> ModelFigures:
        """Give the figures of a version, zeros before its first request."""
        with self._lock:
            return self._figures.get((name, version), ModelFigures())

    def snapshot(self) -> Mapping[Key, ModelFigures]:
        """Give the figures of every version that had a request."""
        with self._lock:
            return dict(self._figures)
