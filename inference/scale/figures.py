"""Figures of several replicas as one."""

from collections.abc import Iterable, Mapping
from functools import reduce

from inference.statistics import Computing, Key, ModelFigures, Spent, Statistics


class GatheredStatistics(Statistics):
    """Sums what the replicas that run say; the figures of one that is gone go with it."""

    def __init__(self) -> None:
        super().__init__()
        self._of_replica: dict[str, Mapping[Key, ModelFigures]] = {}

    def note(self, replica: str, figures: Mapping[Key, ModelFigures]) -> None:
        """Take the newest figures of a replica; older ones that arrive later are passed over."""
        known = self._of_replica.get(replica, {})
        if _requests(figures) >= _requests(known):
            self._of_replica = {**self._of_replica, replica: figures}

    def forget_all_but(self, replicas: Iterable[str]) -> None:
        """Leave out the replicas that are gone."""
        kept = set(replicas)
        self._of_replica = {name: of for name, of in self._of_replica.items() if name in kept}

    def of(self, name: str, version: str) -> ModelFigures:
        """Give the sum for a version, zeros before its first request."""
        return reduce(
            _sum, (of.get((name, version), ModelFigures()) for of in self._of_replica.values()), ModelFigures()
        )

    def snapshot(self) -> Mapping[Key, ModelFigures]:
        """Give the sums of every version that had a request."""
        return {key: self.of(*key) for key in {key for of in self._of_replica.values() for key in of}}


def _requests(figures: Mapping[Key, ModelFigures]) -> int:
    return sum(of.success.count + of.fail.count for of in figures.values())


def _sum(one: ModelFigures, other: ModelFigures) -> ModelFigures:
    sizes = {*one.by_batch, *other.by_batch}
    return ModelFigures(
        success=_spent(one.success, other.success),
        fail=_spent(one.fail, other.fail),
        queue=_spent(one.queue, other.queue),
        computing=_computing(one.computing, other.computing),
        by_batch={
            size: _computing(one.by_batch.get(size, Computing()), other.by_batch.get(size, Computing()))
            for size in sizes
        },
        executions=one.executions + other.executions,
        last_inference_ms=max(one.last_inference_ms, other.last_inference_ms),
    )


def _computing(one: Computing, other: Computing) -> Computing:
    return Computing(_spent(one.input, other.input), _spent(one.infer, other.infer), _spent(one.output, other.output))


def _spent(one: Spent, other: Spent) -> Spent:
    return Spent(one.count + other.count, one.ns + other.ns)
