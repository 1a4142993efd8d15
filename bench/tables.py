"""Markdown tables, as they stand in docs/performance.md."""

import logging
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog


def without_log() -> None:
    """Keep the lines that the node's client logs for every request out of the tables."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is words and whose others are figures."""
    print(f"\n| {' | '.join(header)} |")
    print(f"|---|{'---:|' * (len(header) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def print_machine() -> None:
    """Say what machine this is and how busy it was just now."""
    models = {line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} cores ({', '.join(sorted(models))}), Python {platform.python_version()}, ")
    print(f"load average at the start {load}.", flush=True)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
