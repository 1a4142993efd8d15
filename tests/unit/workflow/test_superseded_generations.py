"""Late images make another generation: nothing of the one before comes after its result."""

import threading
from pathlib import Path

from node.errors import InferenceUnavailable
from node.index.runs import request_retry
from node.workflow.edges import _now
from node.workflow.steps import RunRequest
from tests.scripted_pacs import Pacs, free_port, scripted_pacs
from tests.waiting import wait_until
from tests.workflow_doubles import Node, add_study, running_node

STUDY = "2.25.300"


def states_by_generation(node: Node) -> list[set[str]]:
    history = node.history(STUDY)
    keys = {run.generation: run.evidence_key for run in history.runs}
    return [
        {
            way.state
            for item in history.objects
            if item.evidence_key == keys.get(part.generation)
            for way in item.deliveries
        }
        for part in history.generations
    ]


def test_run_that_waits_ends_when_a_later_generation_is_planned(tmp_path: Path) -> None:
    made: list[str] = []

    def away_for_the_first(run: RunRequest, _series: str) -> None:
        made.append(run.generation)
        if run.generation == made[0]:
            raise InferenceUnavailable("away")

    with (
        scripted_pacs() as pacs,
        running_node(tmp_path, (pacs.destination(),), before_evidence=away_for_the_first) as node,
    ):
        add_study(node.engine, STUDY)
        wait_until(lambda: made, what="an attempt at the first generation")
        add_study(node.engine, STUDY, instances=1, first=3)
        wait_until(lambda: len(pacs.stored) == 2, what="the second generation's result")
        node.wait_idle()
        history = node.history(STUDY)
    assert [(run.state, run.reason) for run in history.runs] == [
        ("REFUSED", "superseded by generation 2"),
        ("EVIDENCE", "evidence made"),
    ]
    assert (history.state, len(history.objects)) == ("DONE", 2)


def test_run_in_progress_is_recorded_and_not_delivered_after_the_later_one(tmp_path: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    def hold_the_first(_run: RunRequest, _series: str) -> None:
        if not entered.is_set():
            entered.set()
            assert go.wait(20)

    with scripted_pacs() as pacs, running_node(tmp_path, (pacs.destination(),), before_evidence=hold_the_first) as node:
        add_study(node.engine, STUDY)
        assert entered.wait(20)
        add_study(node.engine, STUDY, instances=1, first=3)
        wait_until(lambda: len(node.history(STUDY).runs) == 2, what="the plan of the second generation")
        go.set()
        wait_until(lambda: len(pacs.stored) == 2, what="the second generation's result")
        node.wait_idle()
        history = node.history(STUDY)
        sent = {way.state for item in history.objects for way in item.deliveries}
    assert [run.state for run in history.runs] == ["REFUSED", "EVIDENCE"]
    assert len(history.objects) == 4
    assert sent == {"SUPERSEDED", "SENT"}
    assert history.state == "DONE"
    newest = {item.sop_instance_uid for item in history.objects if item.evidence_key == history.runs[1].evidence_key}
    assert {uid for uid, _, _ in pacs.stored} == newest


def test_undelivered_result_gives_way_to_the_later_one(tmp_path: Path) -> None:
    port = free_port()
    destination = Pacs(port=port).destination(retry_first_s=0.1, retry_most_s=0.3)
    with running_node(tmp_path, (destination,)) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.history(STUDY).state == "DELIVERING", what="the first result")
        add_study(node.engine, STUDY, instances=1, first=3)
        wait_until(lambda: len(node.history(STUDY).objects) == 4, what="the second result")
        assert states_by_generation(node) == [{"SUPERSEDED"}, {"PENDING"}]
        with scripted_pacs(port=port) as pacs:
            node.wait_idle()
            assert len(pacs.stored) == 2
        assert states_by_generation(node) == [{"SUPERSEDED"}, {"SENT"}]
        assert node.history(STUDY).objects[0].deliveries[0].last_comment == "superseded by the result of generation 2"


def test_retry_opens_the_newest_results_alone(tmp_path: Path) -> None:
    refuse = threading.Event()
    refuse.set()
    with (
        scripted_pacs(lambda _event: 0xC000 if refuse.is_set() else 0) as pacs,
        running_node(tmp_path, (pacs.destination(),)) as node,
    ):
        for number in (1, 2):
            add_study(node.engine, STUDY, first=2 * number - 1)
            wait_until(lambda count=number: len(states_by_generation(node)) == count, what="the generation")
            wait_until(lambda: states_by_generation(node)[-1] == {"REFUSED"}, what="the refusal")
        assert states_by_generation(node) == [{"SUPERSEDED"}, {"REFUSED"}]
        refuse.clear()
        request_retry(node.engine, STUDY, now=_now())
        node.workflow.wake()
        wait_until(lambda: node.history(STUDY).state == "DONE", what="the delivery")
        assert states_by_generation(node) == [{"SUPERSEDED"}, {"SENT"}]
        assert len(pacs.stored) == 2
