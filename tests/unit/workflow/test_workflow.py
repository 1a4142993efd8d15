"""The durable workflow in one process: studies in, evidence recorded and delivered, and every end with its reason."""

import errno
import threading
from pathlib import Path

import pytest
from pydicom import Dataset
from structlog.testing import capture_logs

from node.errors import DecodingError, EvidenceRejected, GeometryRefusal, InferenceRejected, InferenceUnavailable
from node.index.history import DeliveryPart
from node.index.runs import request_retry
from node.inference_client.client import InferenceClient
from node.settings import Destination, InferenceSettings
from node.workflow.courier import Courier
from node.workflow.edges import _now
from node.workflow.steps import RunRequest
from tests.scripted_pacs import Pacs, free_port, scripted_pacs
from tests.waiting import wait_until
from tests.workflow_doubles import Node, add_study, forward_again, running_node, terms_for

STUDY = "2.25.100"


def fast(pacs: Pacs, name: str = "pacs", **changes: object) -> Destination:
    return pacs.destination(name=name, retry_first_s=0.1, retry_most_s=0.5, **changes)


def test_study_goes_through_to_the_destination(tmp_path: Path) -> None:
    with scripted_pacs() as pacs, running_node(tmp_path, (fast(pacs),)) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: len(pacs.stored) == 2, what="two objects at the PACS")
        node.wait_idle()
        history = node.history(STUDY)
    assert history.state == "DONE"
    assert [run.state for run in history.runs] == ["EVIDENCE"]
    assert [(item.taken, item.reason) for item in history.runs[0].verdicts] == [(True, "thinnest of 1")]
    states = [(part.destination, part.state, part.attempts) for item in history.objects for part in item.deliveries]
    assert states == [("pacs", "SENT", 1)] * 2
    assert [event.name for event in history.events] == ["evidence_made", "evidence_delivered", "evidence_delivered"]


def test_study_that_no_model_takes_ends_refused_with_every_reason(tmp_path: Path) -> None:
    with running_node(tmp_path, take=lambda _run: False) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.done("select") == 1, what="the judgement")
        node.wait_idle()
        history = node.history(STUDY)
    assert history.state == "REFUSED"
    assert history.runs[0].reason == "none of 1 series is what the model takes"
    assert history.runs[0].verdicts[0].reason == "no CT"


def test_a_machine_short_of_files_for_a_moment_judges_the_series_all_the_same(tmp_path: Path) -> None:
    shortages = iter([True, False])

    def take(_run: RunRequest) -> bool:
        if next(shortages, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return True

    with running_node(tmp_path, take=take) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: bool(node.history(STUDY).objects), what="the evidence")
        node.wait_idle()
        history = node.history(STUDY)
    assert [run.state for run in history.runs] == ["EVIDENCE"]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (GeometryRefusal("slices 3 mm apart, one 6 mm"), "REFUSED", "slices 3 mm apart, one 6 mm"),
        (DecodingError("12-bit JPEG"), "REFUSED", "12-bit JPEG"),
        (EvidenceRejected("rule 7"), "QUARANTINED", "rule 7"),
        (InferenceRejected("digest differs"), "FAILED", "digest differs"),
        (KeyError("Doe^John"), "FAILED", "unexpected KeyError in make_evidence; the log says where"),
    ],
)
def test_failing_step_ends_the_run_with_its_reason(tmp_path: Path, error: Exception, state: str, reason: str) -> None:
    def fail(_run: RunRequest, _series: str) -> None:
        raise error

    with running_node(tmp_path, before_evidence=fail) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.done("make") == 1, what="the attempt")
        node.wait_idle()
        history = node.history(STUDY)
    assert history.runs[0].state == state
    assert history.runs[0].reason.startswith(reason)
    assert "Doe" not in str(history)


def test_same_study_forwarded_again_is_nothing_new(tmp_path: Path) -> None:
    with scripted_pacs() as pacs, running_node(tmp_path, (fast(pacs),)) as node:
        for _ in range(3):
            if pacs.stored:
                forward_again(node.engine, STUDY)
            else:
                add_study(node.engine, STUDY)
            wait_until(lambda: len(pacs.stored) == 2, what="the delivery")
            node.wait_idle()
        assert node.done("make") == 1
        assert len(node.history(STUDY).generations) == 1
        assert len(pacs.stored) == 2


def test_late_instances_are_another_generation_with_its_own_run(tmp_path: Path) -> None:
    with scripted_pacs() as pacs, running_node(tmp_path, (fast(pacs),)) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: len(pacs.stored) == 2, what="the first generation")
        add_study(node.engine, STUDY, first=3)
        wait_until(lambda: len(pacs.stored) == 4, what="the second generation")
        node.wait_idle()
        history = node.history(STUDY)
    assert [part.instances for part in history.generations] == [2, 4]
    assert [run.state for run in history.runs] == ["EVIDENCE", "EVIDENCE"]


def test_pacs_away_then_back_gets_each_object_once(tmp_path: Path) -> None:
    port = free_port()
    destination = fast(Pacs(port=port))
    with running_node(tmp_path, (destination,)) as node:
        for number in range(3):
            add_study(node.engine, f"{STUDY}.{number}")
        wait_until(lambda: node.done("make") == 3, what="three sets of evidence")
        first = node.history(f"{STUDY}.0")
        wait_until(lambda: any(e.name == "delivery_delayed" for e in node.history(f"{STUDY}.2").events), what="a delay")
        with scripted_pacs(port=port) as pacs:
            wait_until(lambda: len(pacs.stored) == 6, what="six objects at the PACS")
            node.wait_idle()
        assert len({uid for uid, _, _ in pacs.stored}) == 6
        assert first.state in {"DELIVERING", "WORKING"}
        assert all(node.history(f"{STUDY}.{number}").state == "DONE" for number in range(3))


def test_return_of_a_destination_ends_the_long_waits_of_the_others(tmp_path: Path) -> None:
    port = free_port()
    slow = Pacs(port=port).destination(retry_first_s=600, retry_most_s=600)
    with running_node(tmp_path, (slow,)) as node:
        for number in range(2):
            add_study(node.engine, f"{STUDY}.{number}")
        for number in range(2):
            said = f"{STUDY}.{number}"
            wait_until(lambda uid=said: any(e.name == "delivery_delayed" for e in node.history(uid).events), what=said)
        with scripted_pacs(port=port) as pacs:
            add_study(node.engine, f"{STUDY}.2")
            wait_until(lambda: len(pacs.stored) == 6, what="all three studies, long before their time")


def test_refusing_destination_does_not_hold_up_the_other(tmp_path: Path) -> None:
    with scripted_pacs(lambda _event: 0xC000) as picky, scripted_pacs() as easy:
        destinations = (fast(picky, "picky"), fast(easy, "easy"), fast(Pacs(port=free_port()), "away"))
        with running_node(tmp_path, destinations) as node:
            add_study(node.engine, STUDY)
            wait_until(lambda: len(easy.stored) == 2, what="the delivery to the easy one")
            parts = [part for item in node.history(STUDY).objects for part in item.deliveries]
            wait_until(lambda: {p.state for p in deliveries(node, "picky")} == {"REFUSED"}, what="the refusal")
            assert {p.state for p in deliveries(node, "easy")} == {"SENT"}
            assert {p.state for p in deliveries(node, "away")} == {"PENDING"}
            assert len(parts) == 6


def test_service_away_then_back_finishes_and_holds_nobody_up(tmp_path: Path) -> None:
    away = threading.Event()
    away.set()

    def infer(run: RunRequest, _series: str) -> None:
        if away.is_set() and run.study_uid.endswith(".1"):
            raise InferenceUnavailable("UNAVAILABLE at 127.0.0.1:8500")

    with running_node(tmp_path, before_evidence=infer) as node:
        add_study(node.engine, f"{STUDY}.1")
        wait_until(lambda: node.done("make", f"{STUDY}.1") >= 2, what="two attempts")
        add_study(node.engine, f"{STUDY}.2")
        wait_until(lambda: node.history(f"{STUDY}.2").state == "DONE", what="the study that needs no wait")
        waiting = node.history(f"{STUDY}.1")
        assert waiting.state == "WORKING"
        assert "run_postponed" in [event.name for event in waiting.events]
        wait_until(lambda: node.done("make", f"{STUDY}.1") >= 5, what="more attempts than crashes are allowed")
        away.clear()
        node.wait_idle()
        assert node.history(f"{STUDY}.1").state == "DONE"


def test_retry_runs_again_and_opens_refused_deliveries(tmp_path: Path) -> None:
    refuse = threading.Event()
    refuse.set()
    with (
        scripted_pacs(lambda _event: 0xC000 if refuse.is_set() else 0) as pacs,
        running_node(tmp_path, (fast(pacs),)) as node,
    ):
        add_study(node.engine, STUDY)
        wait_until(lambda: node.history(STUDY).state == "ATTENTION", what="the refusal")
        refuse.clear()
        request_retry(node.engine, STUDY, now=_now())
        node.workflow.wake()
        wait_until(lambda: node.history(STUDY).state == "DONE", what="the delivery")
        history = node.history(STUDY)
    assert [(run.attempt, run.state) for run in history.runs] == [(0, "EVIDENCE"), (1, "EVIDENCE")]
    assert len(pacs.stored) == 2


def test_unreachable_destination_is_given_up_with_a_remedy(tmp_path: Path) -> None:
    destination = fast(Pacs(port=free_port()), give_up_after_s=0.5)
    with running_node(tmp_path, (destination,)) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.history(STUDY).state == "ATTENTION", what="giving up")
        comment = deliveries(node, "pacs")[0].last_comment
    assert comment.startswith("given up after")
    assert "hilum retry" in comment


def test_delivery_that_fails_unforeseen_is_given_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise KeyError("Doe^John")

    monkeypatch.setattr(Courier, "deliver_once", fail)
    with running_node(tmp_path, (fast(Pacs(port=free_port()), give_up_after_s=0.001),)) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.history(STUDY).state == "ATTENTION", what="giving up")
        parts = deliveries(node, "pacs")
    assert {part.state for part in parts} == {"REFUSED"}
    assert parts[0].last_comment.startswith("given up after")
    assert "unexpected KeyError in deliver" in parts[0].last_comment


def test_words_of_a_destination_are_shown_and_not_logged(tmp_path: Path) -> None:
    def name_the_patient(_event: object) -> Dataset:
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0xC000, "no such patient: Doe^John"
        return answer

    with (
        scripted_pacs(name_the_patient) as pacs,
        capture_logs() as logs,
        running_node(tmp_path, (fast(pacs),)) as node,
    ):
        add_study(node.engine, STUDY)
        wait_until(lambda: node.history(STUDY).state == "ATTENTION", what="the refusal")
        assert deliveries(node, "pacs")[0].last_comment.endswith('("no such patient: Doe^John")')
    refused = [item for item in logs if item["event"] == "delivery_refused"]
    assert refused[0]["reason"].endswith("answered C000: cannot understand")
    assert "Doe" not in str(logs)


def test_stop_in_the_middle_is_no_crash_and_resumes(tmp_path: Path) -> None:
    for number in range(4):
        hold, entered = threading.Event(), threading.Event()

        def wait(_run: RunRequest, _series: str, hold: threading.Event = hold, at: threading.Event = entered) -> None:
            at.set()
            hold.wait(20)
            closed_client().wait_ready("lung_nodule", "1", timeout_s=1)

        with running_node(tmp_path, before_evidence=wait, grace_s=0.1) as node:
            if number == 0:
                add_study(node.engine, STUDY)
            assert entered.wait(20)
        assert node.history(STUDY).runs[0].started == 0
        hold.set()
    with running_node(tmp_path) as node:
        node.wait_idle()
        assert node.history(STUDY).state == "DONE"


def test_stop_while_the_slices_are_read_lets_the_run_wait(tmp_path: Path) -> None:
    entered, go = threading.Event(), threading.Event()
    client = InferenceClient(InferenceSettings(endpoint="127.0.0.1:1"))

    def read_then_ask(_run: RunRequest, _series: str) -> None:
        entered.set()
        assert go.wait(20)
        client.wait_ready("lung_nodule", "1", timeout_s=1)

    with running_node(tmp_path, before_evidence=read_then_ask) as node:
        add_study(node.engine, STUDY)
        assert entered.wait(20)
        client.close()
        threading.Timer(0.3, go.set).start()
        node.workflow.stop()
        run = node.history(STUDY).runs[0]
    assert (run.state, run.started) == ("QUEUED", 0)
    with running_node(tmp_path) as node:
        node.wait_idle()
        assert node.history(STUDY).state == "DONE"


def test_changed_settings_plan_unfinished_runs_anew(tmp_path: Path) -> None:
    def unavailable(_run: RunRequest, _series: str) -> None:
        raise InferenceUnavailable("away")

    with running_node(tmp_path, before_evidence=unavailable) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.done("make") >= 1, what="an attempt under the old settings")
    with running_node(tmp_path, terms=terms_for(tmp_path, settings_digest="c" * 64)) as node:
        node.wait_idle()
        history = node.history(STUDY)
    assert [(run.attempt, run.state) for run in history.runs] == [(0, "FAILED"), (1, "EVIDENCE")]
    assert history.state == "DONE"


def test_model_installed_later_does_not_run_over_the_past(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: node.done("make") == 1, what="the run")
        node.wait_idle()
    with running_node(tmp_path, terms=terms_for(tmp_path, settings_digest="d" * 64)) as node:
        node.wait_idle()
        assert len(node.history(STUDY).runs) == 1


def test_lost_workflow_database_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    destination = fast(Pacs(port=port))
    with running_node(tmp_path, (destination,)) as node:
        add_study(node.engine, STUDY)
        wait_until(lambda: len(deliveries(node, "pacs")) == 2, what="evidence")
    for file in tmp_path.glob("workflow.sqlite*"):
        file.unlink()
    with scripted_pacs(port=port) as pacs, running_node(tmp_path, (destination,)) as node:
        node.wait_idle()
        assert len(pacs.stored) == 2
        assert node.done("make") == 1


def closed_client() -> InferenceClient:
    client = InferenceClient(InferenceSettings(endpoint="127.0.0.1:1"))
    client.close()
    return client


def deliveries(node: Node, name: str) -> list[DeliveryPart]:
    objects = node.history(STUDY).objects
    return [part for item in objects for part in item.deliveries if part.destination == name]
