"""Every library that an extra brings is known to the command, so that its absence is told and not shown as a crash."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from inference import __main__ as service
from node.cli import EXTRA_OF

ROOT = Path(__file__).resolve().parents[2]
OURS = ("node", "inference", "training", "protos")
COMES_ALONG = {"pydantic_core"}
"""Comes with a library of the base."""


def names(requirements: list[str]) -> set[str]:
    """Return the distributions of requirements, as the index normalises their names."""
    bare = (re.match(r"[A-Za-z0-9._-]+", text) for text in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in bare if match}


def imported() -> set[str]:
    """Return the top-level names that our modules import from elsewhere."""
    found: set[str] = set()
    for path in (path for package in OURS for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found - set(OURS) - set(sys.stdlib_module_names)


def test_every_library_of_an_extra_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base, extras = names(project["dependencies"]), project["optional-dependencies"]
    distributions = packages_distributions()
    wanted = imported() - COMES_ALONG
    assert {"tensorflow", "pydicom", "prometheus_client"} <= wanted
    for name in sorted(wanted):
        brought_by = names(distributions[name])
        if brought_by & base:
            continue
        assert name in EXTRA_OF, f"{name} is imported and neither in the base nor in EXTRA_OF of node/cli.py"
        assert brought_by & names(extras[EXTRA_OF[name]]), f"{name} does not come with hilum[{EXTRA_OF[name]}]"


def test_the_service_alone_names_the_same() -> None:
    assert set(service._OF_THE_EXTRA) == {name for name, extra in EXTRA_OF.items() if extra == "inference"}
