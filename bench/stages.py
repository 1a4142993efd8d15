"""The stages of the whole chain, a stopwatch over them, and the table that is printed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

STAGES = (
    "receive",
    "files to volume",
    "gRPC there and mask back",
    "findings",
    "SEG",
    "SR",
    "check and publish",
    "send",
)
"""In the order of the data path; "check and publish" is what a straightforward node does not do at all."""


@dataclass
class Stopwatch:
    """Seconds per stage of one round."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    """Of the node's process; the peers' and the service's are not in it."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)
            self.cpu_seconds += time.process_time() - worked

    def add(self, name: str, seconds: float) -> None:
        assert name in STAGES, name
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def ratio(naive: Sequence[Stopwatch], ours: Sequence[Stopwatch], stage: str | None = None) -> float:
    """Return how many times faster ours is, median by median; of the whole chain without a stage."""
    return _median(naive, stage) / max(_median(ours, stage), 1e-9)


def table(naive: Sequence[Stopwatch], ours: Sequence[Stopwatch]) -> str:
    """Return the stages as a Markdown table: medians in ms with least and most, and the ratio of the medians."""
    lines = [
        "| stage | straightforward node, ms | Hilum, ms | times faster |",
        "|---|---:|---:|---:|",
    ]
    for stage in (*STAGES, None):
        times = f"{ratio(naive, ours, stage):.1f}" if _median(naive, stage) else "-"
        name, mark = (stage, "") if stage else ("whole chain", "**")
        cells = [name, _cell(naive, stage), _cell(ours, stage), times]
        lines.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |")
    return "\n".join(lines)


def cpu_line(naive: Sequence[Stopwatch], ours: Sequence[Stopwatch]) -> str:
    """Return the CPU time of both nodes: what is left of the comparison on a machine that others use too."""
    theirs, mine = (median(item.cpu_seconds for item in rounds) for rounds in (naive, ours))
    return f"CPU time of the node's process: {theirs:.2f} s and {mine:.2f} s a study, {theirs / mine:.1f} times less."


def _times(rounds: Sequence[Stopwatch], stage: str | None) -> list[float]:
    return [1000 * (item.seconds.get(stage, 0.0) if stage else item.total) for item in rounds]


def _median(rounds: Sequence[Stopwatch], stage: str | None) -> float:
    return median(_times(rounds, stage))


def _cell(rounds: Sequence[Stopwatch], stage: str | None) -> str:
    times = _times(rounds, stage)
    if not any(times):
        return "-"
    digits = 0 if median(times) >= 20 else 1
    return f"{median(times):.{digits}f} ({min(times):.{digits}f}-{max(times):.{digits}f})"
