"""Legs of a transfer that take turns in rounds, of which those count in which the machine was left to them."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PLAIN = "plain TCP"
FOREIGN_MOST = 0.15
"""Cores that other processes may take while a leg is measured; a round with more is measured again."""
TRIES_A_ROUND = 20
PAUSE_S = 0.5
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Taken:
    """One run of a leg in seconds: by the clock, of it the model's own, CPU of all our processes, foreign cores."""

    wall: float
    model: float
    cpu: float
    foreign: float


@dataclass(slots=True)
class Leg:
    """One way of a leg, and what it took in each round; `model` gives the seconds that a model computed so far."""

    name: str
    way: str
    go: Callable[[], object]
    model: Callable[[], float] = lambda: 0.0
    taken: list[Taken] = field(default_factory=list)

    def run(self) -> Taken:
        model, clocks, busy, begun = self.model(), _own_clocks(), _busy(), time.perf_counter()
        before = sum(map(time.clock_gettime, clocks))
        self.go()
        wall = time.perf_counter() - begun
        cpu = sum(map(time.clock_gettime, clocks)) - before
        foreign = max(0.0, _busy() - busy - cpu) / wall
        return Taken(wall, self.model() - model, cpu, foreign)


def measure(legs: Sequence[Leg], rounds: int) -> int:
    """Run the rounds after one that warms up; give the number of those that were set aside."""
    aside = 0
    for leg in legs:
        leg.run()
    for _ in range(rounds):
        for attempt in range(TRIES_A_ROUND):
            taken = [leg.run() for leg in legs]
            if statistics.mean(item.foreign for item in taken) <= FOREIGN_MOST or attempt == TRIES_A_ROUND - 1:
                break
            aside += 1
            time.sleep(PAUSE_S)
        for leg, item in zip(legs, taken, strict=True):
            leg.taken.append(item)
    return aside


def print_table(legs: Sequence[Leg]) -> None:
    """Print medians; a ratio is the median of the ratios to plain TCP of the same round, the model's time taken off."""
    spread = f"{'least-most':>11}"
    print(f"{'leg':15} {'way':22} {'ms':>5} {spread} {'x TCP':>6} {spread} {'CPU ms':>7} {'others':>7}")
    for leg in sorted(legs, key=lambda leg: [other.way for other in legs].index(leg.way)):
        plain = next(other for other in legs if other.way == leg.way and other.name == PLAIN)
        walls = [(item.wall - item.model) * 1e3 for item in leg.taken]
        ratios = [wall / 1e3 / other.wall for wall, other in zip(walls, plain.taken, strict=True)]
        cpu, foreign = (statistics.median(getattr(item, of) for item in leg.taken) for of in ("cpu", "foreign"))
        print(
            f"{leg.way:15} {leg.name:22} {statistics.median(walls):5.0f} {_spread(walls, 0):>11} "
            f"{statistics.median(ratios):6.2f} {_spread(ratios, 2):>11} {cpu * 1e3:7.0f} {foreign:7.2f}"
        )


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


def _own_clocks() -> list[int]:
    """Give the CPU clocks of this process and of its children, as clock_getcpuclockid(3) does."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [time.CLOCK_PROCESS_CPUTIME_ID, *((~int(pid) << 3) | 2 for pid in children)]


def _busy() -> float:
    """Give the seconds that all cores worked since the start of the machine, stolen ones included."""
    values = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, stolen = map(int, values)
    return (user + nice + system + irq + softirq + stolen) * _TICK_S
