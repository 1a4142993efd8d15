"""A study that the inference service breaks on is set aside after three times; one that waits for it never is."""

from pathlib import Path

import pytest

from node.errors import InferenceBroken, InferenceUnavailable
from node.workflow.steps import RunRequest
from tests.waiting import wait_until
from tests.workflow_doubles import add_study, running_node

POISON, PLAIN = "2.25.401", "2.25.402"


@pytest.mark.parametrize("said", ["UNAVAILABLE: Socket closed", "DEADLINE_EXCEEDED: Deadline Exceeded"])
def test_study_that_breaks_the_service_three_times_is_quarantined_and_others_go_on(tmp_path: Path, said: str) -> None:
    def break_the_service(run: RunRequest, _series: str) -> None:
        if run.study_uid == POISON:
            raise InferenceBroken(said)

    with running_node(tmp_path, before_evidence=break_the_service) as node:
        add_study(node.engine, POISON)
        add_study(node.engine, PLAIN)
        node.wait_idle()
        wait_until(lambda: node.history(POISON).state == "ATTENTION", what="the quarantine")
        run = node.history(POISON).runs[0]
        assert node.history(PLAIN).state == "DONE"
        assert node.done("make", POISON) == 3
    assert run.state == "QUARANTINED"
    assert run.reason == (
        "the inference service ended or gave no answer 3 times while it worked on this study; "
        f"set aside so that others go on. Last: {said}"
    )


def test_breaks_count_across_an_outage_that_does_not(tmp_path: Path) -> None:
    told = [InferenceBroken("1"), *(InferenceUnavailable("away") for _ in range(4)), InferenceBroken("2")]

    def tell(_run: RunRequest, _series: str) -> None:
        if told:
            raise told.pop(0)

    with running_node(tmp_path, before_evidence=tell) as node:
        add_study(node.engine, POISON)
        wait_until(lambda: not told, what="every failure")
        node.wait_idle()
        assert node.history(POISON).state == "DONE"
        assert node.history(POISON).runs[0].started == 3
