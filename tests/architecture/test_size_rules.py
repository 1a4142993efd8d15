"""House numbers: module <= 400 lines (median 150), function <= 40 (median 10), no broad except off the edges."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("node", "inference", "training", "protos")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name)
Function = ast.FunctionDef | ast.AsyncFunctionDef
# The process edges: the SCP handler, the workflow step with the loops that must outlive one failure, the RPC.
EDGES = ("node/intake/storage_scp.py", "node/workflow/", "inference/error_interceptor.py")


def functions(path: Path) -> Iterator[Function]:
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, Function):
            yield item


def length(item: Function) -> int:
    """Lines of a function without its docstring."""
    doc = item.body[0] if ast.get_docstring(item, clean=False) else None
    doc_lines = (doc.end_lineno or doc.lineno) - doc.lineno + 1 if doc else 0
    return (item.end_lineno or item.lineno) - item.lineno + 1 - doc_lines


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_house_numbers(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 400
    for item in functions(path):
        assert length(item) <= 40, f"{item.name} has {length(item)} lines"
        arguments = [*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs]
        assert len(arguments) <= 7, f"{item.name} takes {len(arguments)} parameters with self"


def test_medians_stay_small() -> None:
    modules = [path.read_text(encoding="utf-8").count("\n") for path in MODULES if path.name != "__init__.py"]
    lengths = [length(item) for path in MODULES for item in functions(path)]
    assert statistics.median(modules) <= 150
    assert statistics.median(lengths) <= 10


def test_broad_except_stands_only_at_the_process_edges() -> None:
    broad = [
        f"{path.relative_to(ROOT)}:{item.lineno}"
        for path in MODULES
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(item, ast.ExceptHandler)
        and (item.type is None or getattr(item.type, "id", "") in {"Exception", "BaseException"})
    ]
    assert [place for place in broad if not place.startswith(EDGES)] == []


def test_refused_names_stay_out() -> None:
    refused = ("helper", "utils", "manager", "process_")
    names = [path for path in MODULES if any(word in path.stem for word in refused)]
    assert names == []
