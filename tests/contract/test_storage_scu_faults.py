"""The sender against a PACS that shows each fault: what is sent, what waits, what is refused, and what is said."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.transport import AssociationSocket

from node.delivery.answers import SendResult
from node.delivery.storage_scu import send_objects
from node.settings import Destination
from tests.scripted_pacs import (
    COMPREHENSIVE_3D_SR,
    SEGMENTATION,
    Pacs,
    evidence_files,
    free_port,
    raw_server,
    rejecting_pacs,
    scripted_pacs,
)
from tests.waiting import wait_until


def send(destination: Destination, directory: Path, kinds: tuple[str, ...] = ("SEG", "SR")) -> list[SendResult]:
    results: list[SendResult] = []
    send_objects(destination, "HILUM", evidence_files(directory, kinds), results.append)
    assert sorted(item.sop_instance_uid for item in results) == [f"2.25.77.{n}" for n in range(1, len(kinds) + 1)]
    return results


def outcomes(results: list[SendResult]) -> list[str]:
    return [item.outcome for item in results]


def with_comment(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status, answer.ErrorComment = status, comment
    return answer


def test_success_is_sent(tmp_path: Path) -> None:
    with scripted_pacs() as pacs:
        results = send(pacs.destination(), tmp_path)
    assert [(item.outcome, item.status) for item in results] == [("SENT", 0), ("SENT", 0)]
    assert [uid for uid, _, _ in pacs.stored] == ["2.25.77.1", "2.25.77.2"]
    assert pacs.associations == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0xB000, "SENT"),
        (0xB006, "SENT"),
        (0xB007, "SENT"),
        (0xA700, "DELAYED"),
        (0xA7FF, "DELAYED"),
        (0x0110, "DELAYED"),
        (0xA900, "REFUSED"),
        (0xC000, "REFUSED"),
        (0xCFFF, "REFUSED"),
        (0x0122, "REFUSED"),
        (0x0111, "REFUSED"),
        (0x0124, "REFUSED"),
        (0xB123, "REFUSED"),
    ],
)
def test_status_is_classified_and_told(tmp_path: Path, status: int, outcome: str) -> None:
    with scripted_pacs(lambda _event: with_comment(status, "disk\x07 full")) as pacs:
        results = send(pacs.destination(), tmp_path, ("SR",))
    assert (results[0].outcome, results[0].status) == (outcome, status)
    assert f"pacs (PACS@127.0.0.1:{pacs.port}) answered {status:04X}" in results[0].comment
    assert "disk full" not in results[0].comment
    assert results[0].full_comment.endswith('("disk full")')


def test_out_of_resources_then_room_is_sent_on_the_next_attempt(tmp_path: Path) -> None:
    answers = [0xA700, 0x0000]
    with scripted_pacs(lambda _event: answers.pop(0)) as pacs:
        first = send(pacs.destination(), tmp_path, ("SR",))
        second = send(pacs.destination(), tmp_path, ("SR",))
    assert outcomes(first) == ["DELAYED"]
    assert outcomes(second) == ["SENT"]
    assert len(pacs.stored) == 1


def test_one_refusal_does_not_keep_the_other_object(tmp_path: Path) -> None:
    answers = [0xC000, 0x0000]
    with scripted_pacs(lambda _event: answers.pop(0)) as pacs:
        assert outcomes(send(pacs.destination(), tmp_path)) == ["REFUSED", "SENT"]


def test_nobody_listening_is_delayed(tmp_path: Path) -> None:
    results = send(Pacs(port=free_port()).destination(), tmp_path)
    assert outcomes(results) == ["DELAYED", "DELAYED"]
    assert "takes no connection" in results[0].comment


def test_unknown_host_is_delayed(tmp_path: Path) -> None:
    results = send(Pacs(port=104).destination(host="pacs.invalid"), tmp_path, ("SR",))
    assert outcomes(results) == ["DELAYED"]
    assert "cannot be resolved" in results[0].comment


@pytest.mark.parametrize(
    ("rejection", "outcome", "reason"),
    [
        ((2, 1, 1), "DELAYED", "No reason given"),
        ((2, 3, 2), "DELAYED", "Local limit exceeded"),
        ((1, 3, 1), "DELAYED", "Temporary congestion"),
        ((1, 1, 7), "REFUSED", "Called AE title not recognised"),
    ],
    ids=["transient", "limit", "congestion-called-permanent", "called-title-unknown"],
)
def test_rejected_association(tmp_path: Path, rejection: tuple[int, int, int], outcome: str, reason: str) -> None:
    with rejecting_pacs(*rejection) as pacs:
        results = send(pacs.destination(), tmp_path)
    assert outcomes(results) == [outcome, outcome]
    assert "rejected the association" in results[0].comment
    assert reason in results[0].comment


class SlowWaiter(threading.Event):
    """The event by which pynetdicom tells of a connection; who waits for it wakes when the connection is over."""

    connection: AssociationSocket

    def wait(self, timeout: float | None = None) -> bool:
        told = super().wait(timeout)
        wait_until(lambda: not self.connection._is_connected, what="the end of the rejected connection")
        return told


def test_a_rejection_that_comes_before_the_requestor_wakes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = AssociationSocket.__init__

    def begin_slowly(self: AssociationSocket, *values: Any, **named: Any) -> None:
        begin(self, *values, **named)
        self._ready = SlowWaiter()
        self._ready.connection = self

    monkeypatch.setattr(AssociationSocket, "__init__", begin_slowly)
    with rejecting_pacs(1, 1, 7) as pacs:
        results = send(pacs.destination(), tmp_path)
    assert outcomes(results) == ["REFUSED", "REFUSED"]
    assert "Called AE title not recognised" in results[0].comment


def test_no_context_for_anything_is_refused(tmp_path: Path) -> None:
    with scripted_pacs(sop_classes=()) as pacs:
        results = send(pacs.destination(), tmp_path)
    assert outcomes(results) == ["REFUSED", "REFUSED"]
    assert "Segmentation Storage" in results[0].comment


def test_no_context_for_one_class_refuses_that_object_only(tmp_path: Path) -> None:
    with scripted_pacs(sop_classes=(COMPREHENSIVE_3D_SR,)) as pacs:
        results = send(pacs.destination(), tmp_path)
    assert outcomes(results) == ["REFUSED", "SENT"]
    assert "Segmentation Storage" in results[0].comment


def test_silence_is_delayed_and_the_next_object_gets_its_own_attempt(tmp_path: Path) -> None:
    over = threading.Event()

    def answer(event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID == SEGMENTATION:
            over.wait(20)
        return 0x0000

    with scripted_pacs(answer) as pacs:
        begun = time.monotonic()
        results = send(pacs.destination(timeout_s=0.5), tmp_path)
        assert time.monotonic() - begun < 10
        over.set()
    assert outcomes(results) == ["DELAYED", "SENT"]
    assert "gave no answer within" in results[0].comment


def test_abort_during_a_store_is_delayed_and_the_next_object_gets_its_own_attempt(tmp_path: Path) -> None:
    def answer(event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID == SEGMENTATION:
            event.assoc.abort()
        return 0x0000

    with scripted_pacs(answer) as pacs:
        results = send(pacs.destination(), tmp_path)
    assert outcomes(results) == ["DELAYED", "SENT"]
    assert "aborted or closed" in results[0].comment


def test_a_peer_that_aborts_every_store_is_left_after_three(tmp_path: Path) -> None:
    def answer(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    with scripted_pacs(answer) as pacs:
        results = send(pacs.destination(), tmp_path, ("SR",) * 5)
    assert outcomes(results) == ["DELAYED"] * 5
    assert pacs.associations == 3


def test_half_open_connection_is_delayed_within_the_time_out(tmp_path: Path) -> None:
    with raw_server(lambda _connection: None) as pacs:
        begun = time.monotonic()
        results = send(pacs.destination(timeout_s=0.5), tmp_path, ("SR",))
        assert time.monotonic() - begun < 8
    assert outcomes(results) == ["DELAYED"]


def test_dripping_answer_is_cut(tmp_path: Path) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            while not over.wait(0.2):
                connection.sendall(b"\x02")
        except OSError:
            return

    with raw_server(drip) as pacs:
        begun = time.monotonic()
        results = send(pacs.destination(timeout_s=0.5), tmp_path, ("SR",))
        assert time.monotonic() - begun < 8
        over.set()
    assert outcomes(results) == ["DELAYED"]


def test_connection_reset_before_the_answer_is_delayed(tmp_path: Path) -> None:
    def answer(event: evt.Event) -> int:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000

    with scripted_pacs(answer) as pacs:
        results = send(pacs.destination(timeout_s=2), tmp_path, ("SR",))
    assert outcomes(results) == ["DELAYED"]


def test_changed_file_is_not_sent(tmp_path: Path) -> None:
    objects = evidence_files(tmp_path)
    with objects[0][1].open("ab") as file:
        file.write(b"\0")
    objects[1][1].unlink()
    results: list[SendResult] = []
    with scripted_pacs() as pacs:
        send_objects(pacs.destination(), "HILUM", objects, results.append)
    assert outcomes(results) == ["REFUSED", "REFUSED"]
    assert "SHA-256 differs" in results[0].comment
    assert "gone from the outbox" in results[1].comment
    assert pacs.stored == []
