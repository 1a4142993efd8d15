"""How many requests each model version answered, and how long their stages took."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Model name and version."""


@dataclass(frozen=True, slots=True)
class Spent:
    """How often something happened and the nanoseconds that it took in all."""

    count: int = 0
    ns: int = 0


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


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one model version did since the service started."""

    success: Spent = Spent()
    fail: Spent = Spent()
    queue: Spent = Spent()
    computing: Computing = Computing()
    by_batch: Mapping[int, Computing] = field(default_factory=dict)
    executions: int = 0
    last_inference_ms: int = 0
    """Milliseconds since the epoch; 0 before the first."""


@dataclass(slots=True)
class _Sums:
    """Seconds of the requests of one batch size."""

    count: int = 0
    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0

    def add(self, other: "Stages | _Sums", count: int = 1) -> None:
        self.count += count
        self.queue_s += other.queue_s
        self.input_s += other.input_s
        self.infer_s += other.infer_s
        self.output_s += other.output_s

    def spent(self, seconds: float) -> Spent:
        return Spent(self.count, max(0, round(seconds * 1e9)))

    def computing(self) -> Computing:
        return Computing(self.spent(self.input_s), self.spent(self.infer_s), self.spent(self.output_s))


@dataclass(slots=True)
class _Tally:
    """What is counted while requests are answered: little, since it is done for each; the rest is summed when asked."""

    of_size: dict[int, _Sums] = field(default_factory=dict)
    executions: int = 0
    last_inference_ms: int = 0
    failures: int = 0
    failed_s: float = 0.0

    def figures(self) -> ModelFigures:
        total = _Sums()
        for sums in self.of_size.values():
            total.add(sums, sums.count)
        return ModelFigures(
            success=total.spent(total.queue_s + total.input_s + total.infer_s + total.output_s),
            fail=Spent(self.failures, max(0, round(self.failed_s * 1e9))),
            queue=total.spent(total.queue_s),
            computing=total.computing(),
            by_batch={size: sums.computing() for size, sums in self.of_size.items()},
            executions=self.executions,
            last_inference_ms=self.last_inference_ms,
        )


class Statistics:
    """Figures of every model version; safe to share between threads."""

    def __init__(self) -> None:
        self._tallies: dict[Key, _Tally] = {}
        self._lock = threading.Lock()

    def record_success(self, name: str, version: str, stages: Stages) -> None:
        """Count an answered request of a model that is loaded."""
        with self._lock:
            tally = self._tally(name, version)
            sums = tally.of_size.get(stages.batch_size)
            if sums is None:
                sums = tally.of_size[stages.batch_size] = _Sums()
            sums.add(stages)
            tally.executions += stages.executions
            tally.last_inference_ms = time.time_ns() // 1_000_000

    def record_failure(self, name: str, version: str, seconds: float) -> None:
        """Count a refused or failed request of a model that is loaded."""
        with self._lock:
            tally = self._tally(name, version)
            tally.failures += 1
            tally.failed_s += seconds

    def of(self, name: str, version: str) -> ModelFigures:
        """Give the figures of a version, zeros before its first request."""
        with self._lock:
            tally = self._tallies.get((name, version))
            return ModelFigures() if tally is None else tally.figures()

    def snapshot(self) -> Mapping[Key, ModelFigures]:
        """Give the figures of every version that had a request."""
        with self._lock:
            return {key: tally.figures() for key, tally in self._tallies.items()}

    def _tally(self, name: str, version: str) -> _Tally:
        tally = self._tallies.get((name, version))
        if tally is None:
            tally = self._tallies[name, version] = _Tally()
        return tally
