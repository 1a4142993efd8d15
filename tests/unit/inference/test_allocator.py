"""Freed memory stays with the service's process, unless its environment says otherwise."""

import os
import subprocess
import sys

import pytest

from tests.bundles import ROOT

CHILD = """
import resource, sys
from inference.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else None)
def faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [bytes(b"1" * (1 << 20)) for _ in range(40)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
faults()
print(faults())
"""


def run_child(what: str, **environment: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CHILD, what]
    done = subprocess.run(command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, check=True)
    said, faults = done.stdout.split()
    return said, int(faults)


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    said, kept = run_child("keep")
    _, given_back = run_child("leave")
    assert said == "True"
    assert kept * 10 < given_back


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="malloc_trim is glibc's")
def test_what_is_kept_can_be_given_back() -> None:
    child = """
from pathlib import Path
from inference.allocator import give_freed_memory_back, keep_freed_memory
def own_mib():
    rows = dict(row.split(":") for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows["RssAnon"].split()[0]) // 1024
keep_freed_memory()
blocks = [bytes(b"1" * (1 << 20)) for _ in range(50)]
del blocks
kept = own_mib()
give_freed_memory_back()
print(kept - own_mib())
"""
    done = subprocess.run([sys.executable, "-c", child], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 40


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_environment_of_the_operator_holds(name: str) -> None:
    value = "131072" if name.startswith("MALLOC") else "glibc.malloc.trim_threshold=131072"
    assert run_child("keep", **{name: value})[0] == "False"
