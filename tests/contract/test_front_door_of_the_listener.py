"""What a hostile or broken peer sends: refused with a reason, bounded in memory and time, nobody else waits."""

import os
import resource
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from node.index.instances import quarantined
from tests.raw_peer import (
    ABORT,
    ACCEPT,
    P_DATA,
    REJECT,
    RawPeer,
    associate_request,
    p_data,
    store_command,
)
from tests.receiving import Receiver, associate, ct_image, receiver, send
from tests.waiting import wait_until


@pytest.fixture
def to(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path, acse_timeout_s=20, network_timeout_s=20) as running:
        yield running


def explicit(tag: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    stated = len(value) if length is None else length
    if vr in {b"OW", b"OB", b"SQ", b"UN"}:
        return struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, vr, stated) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, stated) + value


def sound(uid: str = "1.2.3.4") -> bytes:
    image = ct_image(uid=uid)
    return encode(image, is_implicit_vr=False, is_little_endian=True) or b""


def nested(depth: int) -> bytes:
    opened = explicit(0x00081140, b"SQ", b"", length=0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opened * depth + closed * depth


RUBBISH = {
    "empty": (b"", "empty"),
    "random bytes": (os.urandom(5000), ""),
    "truncated in the pixels": (sound()[:-100], "says 512 bytes, 412 are left"),
    "truncated in a header": (sound()[:11], "says"),
    "lying length": (sound().replace(b"OW\0\0\0\2\0\0", b"OW\0\0\xff\xff\xff\x7f"), "bytes, 512 are left"),
    "repeated element": (explicit(0x00080060, b"CS", b"CT") * 2, "comes after"),
    "command group in the data set": (explicit(0x00000002, b"UI", b"1.2.3\0") + sound(), "does not belong"),
    "nested 65 deep": (nested(65) + sound()[8:], "nested more than 64 deep"),
    "nested 100,000 deep": (nested(100_000), "nested more than 64 deep"),
    "sequence without end": (explicit(0x00081140, b"SQ", b"", length=0xFFFFFFFF), "no end"),
    "native pixels of undefined length": (
        explicit(0x7FE00010, b"OW", b"\0" * 8, length=0xFFFFFFFF),
        "undefined length",
    ),
    "study UID that is a path": (
        sound().replace(b"1.2.826.0.1.3680043.9.1\0", b"../../../../etc/passwd//"),
        "Study Instance UID is no valid UID",
    ),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_refused_with_a_reason_and_the_association_lives(to: Receiver, name: str) -> None:
    data_set, reason = RUBBISH[name]
    with RawPeer(to.port) as peer:
        peer.associate()
        status, comment = peer.store("1.2.3.4", data_set)
        assert status in {0xC000, 0xA900}
        assert comment
        assert reason in comment
        assert peer.store("1.2.3.4", sound()) == (0x0000, "")
    (refused,) = quarantined(to.engine)
    assert refused.reason.startswith(comment)
    assert list((to.store.directory / "incoming").iterdir()) == []


def test_uids_cannot_name_a_path(to: Receiver, tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*") if "quarantine" not in str(path))
    with RawPeer(to.port) as peer:
        peer.associate()
        for uid in ("../../x", "/abs/x", "", ".", "1..2", "1.2\0/..", "0" * 65, "1.02", "'; DROP TABLE instance"):
            status, comment = peer.store(uid, sound())
            assert (status, comment) == (0xC000, "SOP Instance UID of the command is no valid UID")
    assert sorted(path for path in tmp_path.rglob("*") if "quarantine" not in str(path)) == before
    assert {path.parent.name for path in tmp_path.rglob("*") if path.suffix == ".json"} == {"quarantine"}


def test_deflate_bomb_is_refused(to: Receiver) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    pieces = [bomb.compress(explicit(0x00091010, b"OB", b"", length=400 << 20))]
    pieces += [bomb.compress(bytes(1 << 20)) for _ in range(400)]
    with RawPeer(to.port, timeout_s=60) as peer:
        peer.associate(syntax=DeflatedExplicitVRLittleEndian)
        status, comment = peer.store("1.2.3.4", b"".join([*pieces, bomb.flush()]))
    assert (status, comment) == (0xC000, "the deflated data set holds more than 128 MiB")


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">BxI", 1, 0xFFFFFFFF),
        struct.pack(">BxI", 4, 0xFFFFFFFF),
        struct.pack(">BxI", 5, 1 << 20),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_impossible_pdu_is_cut_off_before_it_is_read(to: Receiver, header: bytes) -> None:
    with RawPeer(to.port) as peer:
        peer.say(header)
        assert peer.hear()[0] == ABORT
    with RawPeer(to.port) as peer:
        peer.associate()
        peer.say(header)
        assert peer.hear()[0] == ABORT


def test_endless_data_set_is_aborted_and_leaves_nothing(tmp_path: Path) -> None:
    with receiver(tmp_path, max_instance_bytes=1 << 20) as to, RawPeer(to.port) as peer:
        peer.associate()
        peer.say(p_data(store_command("1.2.3.4"), command=True))
        peer.say(*[p_data(bytes(65536), last=False)] * 20)
        assert peer.hear()[0] == ABORT
        wait_until(lambda: not list((to.store.directory / "incoming").iterdir()), what="the clean-up")
        assert send(to, ct_image())[0].Status == 0x0000


@pytest.mark.parametrize(
    "said",
    [
        p_data(b"\0" * 20, last=True),
        p_data(b"\0" * 20, command=True),
        p_data(store_command("1.2.3.4"), command=True, context_id=3),
        p_data(store_command("1.2.3.4"), command=True) * 2,
        struct.pack(">BxII", P_DATA, 4, 0xFFFFFF),
        struct.pack(">BxI", P_DATA, 3) + b"\0\0\0",
        associate_request(),
    ],
    ids=["data first", "no command", "unknown context", "two commands", "PDV length", "PDV header", "request again"],
)
def test_messages_out_of_order_abort(to: Receiver, said: bytes) -> None:
    with RawPeer(to.port) as peer:
        peer.associate()
        peer.say(said)
        assert peer.hear()[0] == ABORT


def test_request_without_transfer_syntax_leaves_no_thread(to: Receiver) -> None:
    request = bytearray(associate_request())
    place = request.index(b"\x40\x00\x00\x13")
    emptied = request[:place] + b"\x40\x00\x00\x00" + request[place + 4 + 19 :]
    emptied[2:6] = struct.pack(">I", len(emptied) - 6)
    context = emptied.rindex(b"\x20\x00", 0, place)
    emptied[context + 2 : context + 4] = struct.pack(">H", struct.unpack_from(">H", emptied, context + 2)[0] - 19)
    before = threading.active_count()
    for _ in range(20):
        with RawPeer(to.port) as peer:
            peer.say(bytes(emptied))
            assert peer.hear()[0] == ABORT
    wait_until(lambda: threading.active_count() <= before, what="the end of the threads")


def test_silent_connections_take_no_place(tmp_path: Path) -> None:
    with receiver(tmp_path, max_associations=5, max_associations_per_peer=5, acse_timeout_s=20) as to:
        silent = [RawPeer(to.port) for _ in range(20)]
        dripping = [RawPeer(to.port) for _ in range(8)]
        for peer in dripping:
            peer.say(associate_request()[:10])
        assert send(to, ct_image())[0].Status == 0x0000
        for peer in silent + dripping:
            peer.socket.close()


def test_silent_connection_is_closed_in_time(tmp_path: Path) -> None:
    with receiver(tmp_path, acse_timeout_s=0.4) as to, RawPeer(to.port) as peer:
        assert peer.hear()[0] == 0


def test_dripping_pdu_is_cut_off(tmp_path: Path) -> None:
    with receiver(tmp_path, network_timeout_s=0.3) as to, RawPeer(to.port) as peer:
        peer.associate()
        peer.say(p_data(store_command("1.2.3.4"), command=True)[:-1])
        assert peer.hear()[0] == ABORT


def test_reset_inside_an_instance_leaves_nothing(to: Receiver) -> None:
    peer = RawPeer(to.port)
    peer.associate()
    peer.say(p_data(store_command("1.2.3.4"), command=True), p_data(bytes(1000), last=False))
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    wait_until(lambda: not list((to.store.directory / "incoming").iterdir()), what="the clean-up")
    assert to.stored == []


def test_called_ae_title_is_checked(to: Receiver) -> None:
    with RawPeer(to.port) as peer:
        peer.say(associate_request(called="OTHER"))
        assert peer.hear() == (REJECT, bytes((0, 1, 1, 7)))


def test_calling_ae_titles_can_be_restricted(tmp_path: Path) -> None:
    with receiver(tmp_path, calling_ae_titles=("CT1",)) as to:
        with RawPeer(to.port) as peer:
            peer.say(associate_request(calling="CT2"))
            assert peer.hear() == (REJECT, bytes((0, 1, 1, 3)))
        with RawPeer(to.port) as peer:
            peer.associate(calling="CT1")


def test_limit_per_peer_rejects_transiently_and_spares_others(tmp_path: Path) -> None:
    with receiver(tmp_path, max_associations=5, max_associations_per_peer=2) as to:
        held = [RawPeer(to.port) for _ in range(2)]
        for peer in held:
            peer.associate()
        with RawPeer(to.port) as one_more:
            one_more.say(associate_request())
            assert one_more.hear() == (REJECT, bytes((0, 2, 3, 2)))
        with RawPeer(to.port, source="127.0.0.2") as other:
            other.associate()
        held.pop().socket.close()
        wait_until(lambda: _gets_in(to), what="the place given back")
        held.pop().socket.close()


def _gets_in(to: Receiver) -> bool:
    with RawPeer(to.port) as peer:
        peer.say(associate_request())
        return peer.hear()[0] == ACCEPT


def test_limit_overall_rejects_transiently(tmp_path: Path) -> None:
    with (
        receiver(tmp_path, max_associations=1) as to,
        RawPeer(to.port) as held,
        RawPeer(to.port, source="127.0.0.2") as late,
    ):
        held.associate()
        late.say(associate_request())
        assert late.hear() == (REJECT, bytes((0, 2, 3, 2)))


def test_low_disk_rejects_transiently(tmp_path: Path) -> None:
    with receiver(tmp_path, low_disk_bytes=1 << 62) as to, RawPeer(to.port) as peer:
        peer.say(associate_request())
        assert peer.hear() == (REJECT, bytes((0, 2, 3, 1)))


def test_hundred_at_once_are_all_served(tmp_path: Path) -> None:
    with receiver(tmp_path, max_associations=100, max_associations_per_peer=100) as to:
        peers = [RawPeer(to.port) for _ in range(100)]
        for peer in peers:
            peer.say(associate_request())
        assert {peer.hear()[0] for peer in peers} == {ACCEPT}
        for peer in peers:
            peer.socket.close()


def test_memory_stays_bounded_over_a_large_instance(to: Receiver) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with RawPeer(to.port, timeout_s=60) as peer:
        peer.associate()
        peer.say(p_data(store_command("1.2.3.4"), command=True))
        head = sound()[: sound().index(b"\xe0\x7f\x10\0")]
        peer.say(p_data(head + explicit(0x7FE00010, b"OW", b"", length=200 << 20), last=False))
        piece = bytes(1 << 16)
        for number in range(200 << 4):
            peer.say(p_data(piece, last=number == (200 << 4) - 1))
        assert peer.hear()[0] == P_DATA
    assert to.stored[0].path.stat().st_size > 200 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_echo_is_heard_while_peers_misbehave(to: Receiver) -> None:
    silent = [RawPeer(to.port) for _ in range(30)]
    association = associate(to, [(Verification, ["1.2.840.10008.1.2"])])
    assert association.send_c_echo().Status == 0x0000
    association.release()
    for peer in silent:
        peer.socket.close()
