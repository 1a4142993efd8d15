import os
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from node.domain.instances import SopReference
from node.errors import OutOfResources
from node.store.instance_files import Arrival, InstanceStore, StoredInstance
from node.store.quarantine import Quarantine, RefusalRecord

CT = "1.2.840.10008.5.1.4.1.1.2"
ARRIVAL = Arrival(SopReference(CT, "1.2.3"), "1.2.840.10008.1.2.1", "MODALITY", datetime(2026, 1, 2, 3, 4, 5, 6, UTC))
DATA_SET = b"\x08\0\x60\0CS\2\0CT"
REFUSAL = RefusalRecord("1.2.3", None, "MODALITY", "because", "2026-01-02T03:04:05+00:00")


@pytest.fixture
def store(tmp_path: Path) -> InstanceStore:
    return InstanceStore(tmp_path / "store")


def written(store: InstanceStore, uid: str = "1.2.3", data_set: bytes = DATA_SET) -> StoredInstance:
    arrival = replace(ARRIVAL, sop=SopReference(CT, uid))
    return store.write(data_set, arrival, study_uid="1.2", series_uid="1.2.1")


def files(store: InstanceStore) -> list[Path]:
    return [path for path in store.directory.rglob("*") if path.is_file()]


def test_file_is_part_10_with_the_data_set_as_received(store: InstanceStore) -> None:
    stored = written(store)
    path = stored.instance.path
    assert path.read_bytes().endswith(DATA_SET)
    assert path.stat().st_size == stored.size
    read = pydicom.dcmread(path)
    assert read.Modality == "CT"
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3"


def test_names_are_ours_and_unreadable_to_others(store: InstanceStore) -> None:
    path = written(store).instance.path
    assert "1.2.3" not in str(path.relative_to(store.directory))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in store.directory.rglob("*") if folder.is_dir()} == {0o700}


def test_scan_gives_back_what_was_stored(store: InstanceStore) -> None:
    stored = {written(store, f"1.2.{number}") for number in range(5)}
    assert set(InstanceStore(store.directory).scan()) == stored


def test_scan_names_damaged_and_foreign_files(store: InstanceStore) -> None:
    path = written(store).instance.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    foreign = path.parent / "foreign.dcm"
    foreign.write_bytes(b"not ours")
    moved = path.parent / ("0" * 64 + ".dcm")
    moved.write_bytes(written(store, "1.2.4").instance.path.read_bytes())
    found = set(store.scan())
    assert {path, foreign, moved} <= found
    assert len(found) == 4
    assert isinstance(next(iter(set(store.scan(verify=False)) - {foreign, moved})), StoredInstance)


def test_what_a_crash_left_half_received_is_removed_at_start(store: InstanceStore) -> None:
    part = store.begin(ARRIVAL)
    part.write(DATA_SET)
    assert part.path.exists()
    again = InstanceStore(store.directory)
    assert files(again) == []
    part.discard()


def test_discarded_data_sets_leave_nothing(store: InstanceStore) -> None:
    part = store.begin(ARRIVAL)
    part.write(memoryview(DATA_SET))
    part.discard()
    part.discard()
    assert files(store) == []


def test_data_set_can_be_read_while_it_arrives(store: InstanceStore) -> None:
    part = store.begin(ARRIVAL)
    with part.data_set() as view:
        assert bytes(view) == b""
    part.write(DATA_SET)
    with part.data_set() as view:
        assert bytes(view) == DATA_SET
    part.discard()


def test_unpublishable_file_is_out_of_resources_and_leaves_nothing(store: InstanceStore) -> None:
    target = store.path_of("1.2.3")
    target.mkdir()
    (target / "in the way").touch()
    with pytest.raises(OutOfResources):
        written(store)
    assert files(store) == [target / "in the way"]


def test_quarantine_keeps_bytes_and_reason(store: InstanceStore) -> None:
    part = store.begin(ARRIVAL)
    part.write(DATA_SET)
    kept = store.quarantine.keep(REFUSAL, part)
    assert kept.path.read_bytes().endswith(DATA_SET)
    without = store.quarantine.keep(REFUSAL, None)
    assert list(Quarantine(store.directory / "quarantine").records()) == [(kept.path, REFUSAL), (without.path, REFUSAL)]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sop_instance_uid": 1}'])
def test_torn_record_of_the_quarantine_is_named_and_the_others_are_found(store: InstanceStore, text: str) -> None:
    torn = store.quarantine.keep(REFUSAL, None)
    kept = store.quarantine.keep(REFUSAL, None)
    torn.path.write_text(text)
    assert list(store.quarantine.records()) == [torn.path, (kept.path, REFUSAL)]


def test_record_of_the_quarantine_is_there_whole_or_not_at_all(
    store: InstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutOfResources):
        store.quarantine.keep(REFUSAL, None)
    assert files(store) == []
    (store.quarantine.directory / "000000000001.part").write_text("{")
    assert list(Quarantine(store.quarantine.directory).records()) == []
    assert files(store) == []


def test_unreadable_file_does_not_end_the_scan(store: InstanceStore) -> None:
    unreadable = written(store).instance.path
    unreadable.unlink()
    unreadable.mkdir()
    other = written(store, "1.2.4")
    assert set(store.scan()) == {unreadable, other}


def test_quarantine_drops_the_oldest_beyond_its_bounds(store: InstanceStore, tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q", most_bytes=5000, most_records=3)
    kept = []
    for number in range(5):
        part = store.begin(ARRIVAL)
        part.write(bytes(1000))
        kept.append(quarantine.keep(replace(REFUSAL, reason=str(number)), part))
    assert [item[1].reason for item in quarantine.records() if isinstance(item, tuple)] == ["3", "4"]
    assert [path for item in kept for path in item.dropped] == [item.path for item in kept[:3]]
    large = store.begin(ARRIVAL)
    large.write(bytes(6000))
    assert quarantine.keep(REFUSAL, large).path.suffix == ".json"
    assert files(store) == []


def test_file_size_limit_is_out_of_resources_without_litter(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(_refused_by_limit(tmp_path))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _refused_by_limit(directory: Path) -> int:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = InstanceStore(directory / "store")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        written(store, data_set=bytes(1 << 16))
    except OutOfResources:
        return len(files(store))
    return 99


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "tiny"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root and a kernel that lets it")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_full_disk_refuses_leaves_no_litter_and_serves_again(tiny_disk: Path) -> None:
    store = InstanceStore(tiny_disk / "store")
    kept = written(store, "1.1", bytes(1 << 20))
    free = store.free_bytes()
    for _ in range(3):
        with pytest.raises(OutOfResources, match="No space left"):
            written(store, "1.2", bytes(1 << 21))
    assert store.free_bytes() == free
    assert files(store) == [kept.instance.path]
    kept.instance.path.unlink()
    assert written(store, "1.2", bytes(1 << 20)).size > 1 << 20
