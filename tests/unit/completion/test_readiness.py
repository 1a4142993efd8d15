from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from node.completion.readiness import NotYet, Ready, StudyEvidence, decide
from node.settings import CompletionSettings

LAST = datetime(2026, 3, 29, 0, 59, 58, tzinfo=UTC)
SETTINGS = CompletionSettings(settle_s=5, hanging_s=60)


def judged(quiet_s: float, *, is_carried: bool = False, instances: int = 3) -> Ready | NotYet:
    return decide(StudyEvidence(instances, LAST, is_carried), SETTINGS, LAST + timedelta(seconds=quiet_s))


def test_ready_after_settling_with_no_association_open() -> None:
    assert judged(4.9) == NotYet(
        LAST + timedelta(seconds=5),
        "3 instances; waiting for 5 s of quiet, no open association has carried the study",
    )
    assert judged(5) == Ready("3 instances; quiet for 5.0 s, no open association has carried the study")


def test_open_association_delays_to_the_hanging_time() -> None:
    assert isinstance(judged(59, is_carried=True), NotYet)
    ready = judged(60, is_carried=True)
    assert isinstance(ready, Ready)
    assert "still open" in ready.reason


def test_study_without_instances_is_never_ready() -> None:
    assert isinstance(judged(1e6, instances=0), NotYet)


def test_clock_set_back_does_not_hold_a_study_for_ever() -> None:
    assert isinstance(judged(-30), NotYet)
    assert judged(-3600, instances=1) == Ready("1 instance; the clock was set back since the last one")


times = st.floats(-1e5, 1e5)


@given(quiet_s=times, is_carried=st.booleans(), instances=st.integers(0, 5), settle_s=st.floats(0.1, 100))
def test_asking_again_at_the_named_time_always_gets_on(
    *, quiet_s: float, is_carried: bool, instances: int, settle_s: float
) -> None:
    settings = CompletionSettings(settle_s=settle_s, hanging_s=settle_s + 10)
    evidence = StudyEvidence(instances, LAST, is_carried)
    now = LAST + timedelta(seconds=quiet_s)
    decision = decide(evidence, settings, now)
    assert decision.reason
    if isinstance(decision, NotYet):
        assert decision.until > now
        later = decide(evidence, settings, decision.until + timedelta(milliseconds=1))
        assert isinstance(later, Ready) == (instances > 0)


@given(quiet_s=st.floats(0, 1e5), more_s=st.floats(0, 1e5), is_carried=st.booleans())
def test_more_quiet_never_makes_a_ready_study_unready(*, quiet_s: float, more_s: float, is_carried: bool) -> None:
    if isinstance(judged(quiet_s, is_carried=is_carried), Ready):
        assert isinstance(judged(quiet_s + more_s, is_carried=is_carried), Ready)
        assert isinstance(judged(quiet_s), Ready)
