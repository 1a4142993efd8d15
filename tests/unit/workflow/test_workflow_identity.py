from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from node.index.runs import DecidedGeneration, ModelVersion
from node.workflow.identity import run_id_of, work_of, workflow_id_of

DECIDED = DecidedGeneration("2.25." + "9" * 59, "a" * 64, datetime(2026, 1, 1, tzinfo=UTC))
MODEL = ModelVersion("m" * 32, "1" * 16, "b" * 64)


def test_run_id_fits_its_column_and_is_derived() -> None:
    longest = run_id_of(DECIDED, MODEL, "c" * 64, 99_999)
    assert len(longest) <= 190
    assert longest == run_id_of(DECIDED, MODEL, "c" * 64, 99_999)


def test_run_id_differs_with_each_input() -> None:
    other = ModelVersion(MODEL.name, MODEL.version, "d" * 64)
    ids = {
        run_id_of(DECIDED, MODEL, "c" * 64, 0),
        run_id_of(DECIDED, MODEL, "c" * 64, 1),
        run_id_of(DECIDED, MODEL, "e" * 64, 0),
        run_id_of(DECIDED, other, "c" * 64, 0),
    }
    assert len(ids) == 4


@given(turn=st.integers(0, 10**6), work_id=st.from_regex(r"[0-9a-z./_-]{1,150}", fullmatch=True))
def test_workflow_id_names_work_and_turn(turn: int, work_id: str) -> None:
    assert work_of(workflow_id_of(work_id, turn)) == (work_id, turn)
