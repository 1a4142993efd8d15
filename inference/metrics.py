"""Figures for Prometheus: what the service counted, read when somebody asks.

Labels are names, versions and states of the repository and words of this file; nothing that a client sent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.admission import MemoryState, memory_state
from inference.errors import ListenError
from inference.ports import Models
from inference.regions.leased import RegionCounts
from inference.statistics import ModelFigures, Spent, Statistics

_VERSION = ("model", "version")
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_NS = 1e9


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    statistics: Statistics
    models: Models
    regions: Callable[[], RegionCounts]
    memory: Callable[[], MemoryState] = memory_state


class ServiceCollector(Collector):
    """Makes metrics of the sources' state at the moment of asking; keeps nothing itself."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Give requests, times and batches by version, states of the models, memory and regions."""
        figures = {key: self._sources.statistics.of(*key) for key in self._known()}
        yield from _request_metrics(figures)
        yield _stage_seconds(figures)
        yield _batch_sizes(figures)
        yield self._model_states()
        yield from self._memory()
        yield from _region_metrics(self._sources.regions())

    def _known(self) -> list[tuple[str, str]]:
        counted = set(self._sources.statistics.snapshot())
        return sorted(counted | {(state.name, state.version) for state in self._sources.models.index()})

    def _model_states(self) -> Metric:
        metric = GaugeMetricFamily(
            "hilum_model_state", "1 for the state that a version is in.", labels=(*_VERSION, "state")
        )
        for state in self._sources.models.index():
            metric.add_metric((state.name, state.version, state.state), 1)
        return metric

    def _memory(self) -> Iterator[Metric]:
        state = self._sources.memory()
        yield GaugeMetricFamily("hilum_resident_bytes", "Memory that the process holds.", value=resident_bytes())
        yield GaugeMetricFamily("hilum_memory_total_bytes", "Memory that the process may use.", value=state.total)
        yield GaugeMetricFamily("hilum_memory_free_bytes", "Memory that is free to it now.", value=state.free)


def resident_bytes() -> int:
    """Read this process's resident memory; shared pages count."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _request_metrics(figures: dict[tuple[str, str], ModelFigures]) -> Iterator[Metric]:
    labels = (*_VERSION, "outcome")
    counts = CounterMetricFamily("hilum_requests", "Inference requests of loaded models that ended.", labels=labels)
    seconds = CounterMetricFamily("hilum_request_seconds", "Seconds that they took in all.", labels=labels)
    for key, of in figures.items():
        for outcome, spent in (("success", of.success), ("fail", of.fail)):
            counts.add_metric((*key, outcome), spent.count)
            seconds.add_metric((*key, outcome), spent.ns / _NS)
    yield counts
    yield seconds


def _stage_seconds(figures: dict[tuple[str, str], ModelFigures]) -> Metric:
    metric = CounterMetricFamily(
        "hilum_stage_seconds",
        "Seconds of answered requests: waiting, reading inputs, computing, writing outputs.",
        labels=(*_VERSION, "stage"),
    )
    for key, of in figures.items():
        stages: tuple[tuple[str, Spent], ...] = (
            ("queue", of.queue),
            ("input", of.computing.input),
            ("compute", of.computing.infer),
            ("output", of.computing.output),
        )
        for stage, spent in stages:
            metric.add_metric((*key, stage), spent.ns / _NS)
    return metric


def _batch_sizes(figures: dict[tuple[str, str], ModelFigures]) -> Metric:
    metric = HistogramMetricFamily(
        "hilum_batch_size", "Size of the batch that each answered request ran in.", labels=_VERSION
    )
    for key, of in figures.items():
        counts = {size: computing.infer.count for size, computing in of.by_batch.items()}
        within = [(str(float(most)), sum(n for size, n in counts.items() if size <= most)) for most in _BATCHES]
        buckets = [*within, ("+Inf", sum(counts.values()))]
        metric.add_metric(key, buckets, sum(size * n for size, n in counts.items()))
    return metric


def _region_metrics(counts: RegionCounts) -> Iterator[Metric]:
    for what, now in (("leases", counts.leases), ("regions", counts.regions), ("region_bytes", counts.bytes)):
        yield GaugeMetricFamily(f"hilum_{what}", f"Leased tensor {what.replace('_', ' ')} now.", value=now)
    metric = CounterMetricFamily("hilum_region_events", "Leased regions by what befell them.", labels=("event",))
    for event, count in (("created", counts.created), ("expired", counts.expired), ("refused", counts.refused)):
        metric.add_metric((event,), count)
    yield metric


class MetricsDoor:
    """Answers GET /metrics over plain HTTP on a thread of its own."""

    def __init__(self, address: str, collector: Collector) -> None:
        """Listen on host:port, port 0 taking a free one; raise ListenError where that cannot be."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            raise ListenError(f"--metrics {address}: cannot be listened on: {error.strerror}") from error
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
