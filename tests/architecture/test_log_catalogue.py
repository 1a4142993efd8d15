"""Every event that node and service log stands in docs/howto/read-the-log.md, and nothing else does."""

import ast
import re
from pathlib import Path

from node.workflow.courier import EVENT_OF_OUTCOME

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "docs" / "howto" / "read-the-log.md"
LEVELS = {"debug", "info", "warning", "error", "exception"}


def logged_events() -> set[str]:
    events = set()
    for path in [*(ROOT / "node").rglob("*.py"), *(ROOT / "inference").rglob("*.py")]:
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(item, ast.Call)
                and isinstance(item.func, ast.Attribute)
                and item.func.attr in LEVELS
                and isinstance(item.func.value, ast.Name)
                and item.func.value.id.strip("_") in {"log", "logger"}
            ):
                first = item.args[0]
                assert isinstance(first, ast.Constant), f"{path}:{item.lineno}: the event must be a literal"
                events.add(str(first.value))
    return events | set(EVENT_OF_OUTCOME.values())


def test_the_catalogue_names_every_event() -> None:
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", CATALOGUE.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == logged_events()


def test_events_are_a_noun_and_a_past_verb() -> None:
    odd = [name for name in logged_events() if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)]
    assert odd == []
