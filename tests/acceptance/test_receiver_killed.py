"""kill -9 of a receiving process under load: nothing it acknowledged is lost, nothing torn lies under a final name."""

import random
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from pynetdicom.dsutils import encode

from node.index.instances import find_instance
from node.index.reindex import reindex
from tests.raw_peer import RawPeer
from tests.receiving import ct_image, receiver
from tests.waiting import wait_until

KILLS = 5
SENDERS = 3
ROOT = Path(__file__).resolve().parents[2]


def started(directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    (directory / "port").unlink(missing_ok=True)
    log = (directory / "log").open("ab")
    with log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.receiver_child", str(directory)], cwd=ROOT, stdout=log, stderr=log
        )
    wait_until(lambda: (directory / "port").exists() or child.poll() is not None, what="the start", timeout_s=60)
    return child, int((directory / "port").read_text(encoding="ascii"))


def send_until_cut_off(port: int, acknowledged: list[str]) -> None:
    # The peer goes away in the middle of whatever it was doing.
    with suppress(OSError, AssertionError), RawPeer(port) as peer:
        peer.associate()
        while True:
            image = ct_image()
            data_set = encode(image, is_implicit_vr=False, is_little_endian=True) or b""
            if peer.store(image.SOPInstanceUID, data_set)[0] == 0x0000:
                acknowledged.append(image.SOPInstanceUID)


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    chance = random.Random(1)
    acknowledged: list[str] = []
    for _ in range(KILLS):
        child, port = started(tmp_path)
        enough = len(acknowledged) + chance.randint(5, 60)
        senders = [
            threading.Thread(target=send_until_cut_off, args=(port, acknowledged), daemon=True) for _ in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        wait_until(lambda enough=enough: len(acknowledged) >= enough, what="enough instances", timeout_s=60)
        child.kill()
        child.wait()
        for sender in senders:
            sender.join(30)
    assert len(acknowledged) >= KILLS * 5
    with receiver(tmp_path) as to:
        assert list((to.store.directory / "incoming").iterdir()) == []
        assert reindex(to.store, to.engine).damaged == ()
        for uid in acknowledged:
            found = find_instance(to.engine, uid)
            assert found is not None
            assert found.path.exists()
