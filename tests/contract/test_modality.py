import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from node.testing.modality import FileReport, Modality, send_folder
from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth, write_phantom


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("phantom"), slices=5, size=64)


@pytest.fixture
def folder(tmp_path: Path, phantom: PhantomTruth) -> Path:
    shutil.copytree(phantom.files[0].parent, tmp_path / "study" / "deeper")
    return tmp_path / "study"


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    with StandInPacs(tmp_path / "pacs") as running:
        yield running


def modality(pacs: StandInPacs, *, associations: int = 1) -> Modality:
    return Modality(pacs.ae_title, pacs.host, pacs.port, associations=associations, timeout_s=20)


def test_every_instance_below_the_folder_is_sent_and_reported_once(folder: Path, pacs: StandInPacs) -> None:
    told: list[FileReport] = []
    report = modality(pacs).send(folder, told.append)
    assert len(pacs.objects) == 5
    assert {item.status for item in report.files} == {0}
    assert sorted(told, key=lambda item: item.path) == list(report.files)
    assert report.bytes == sum(item.path.stat().st_size for item in report.files)


def test_one_association_each_sends_every_image_once(folder: Path, pacs: StandInPacs) -> None:
    report = modality(pacs, associations=5).send(folder)
    assert len(report.of("SENT")) == 5
    assert set(pacs.copies.values()) == {1}


def test_more_associations_than_files_are_not_opened(folder: Path, pacs: StandInPacs) -> None:
    assert len(modality(pacs, associations=50).send(folder).of("SENT")) == 5


def test_what_is_no_dicom_file_is_skipped_and_said(folder: Path, pacs: StandInPacs) -> None:
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty").write_bytes(b"")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    report = modality(pacs).send(folder)
    assert {item.path.name for item in report.of("SKIPPED")} == {"notes.txt", "empty", "picture.png"}
    assert all(item.reason for item in report.of("SKIPPED"))
    assert len(report.of("SENT")) == 5


def test_a_truncated_file_goes_out_as_it_lies(folder: Path, pacs: StandInPacs) -> None:
    victim = next(folder.rglob("*.dcm"))
    content = victim.read_bytes()
    victim.write_bytes(content[:-1000])
    modality(pacs).send(victim)
    (kept,) = pacs.objects
    assert kept.path.read_bytes().endswith(content[-1100:-1000])


def test_random_bytes_behind_a_good_header_go_out(folder: Path, pacs: StandInPacs) -> None:
    victim = next(folder.rglob("*.dcm"))
    content = victim.read_bytes()
    data_set_at = 132 + 12 + int.from_bytes(content[140:144], "little")
    victim.write_bytes(content[:data_set_at] + b"\xff\x13\x00\x07" * 500)
    report = modality(pacs).send(victim)
    assert pacs.arrivals == 1, report


def test_a_file_without_preamble_is_sent(folder: Path, pacs: StandInPacs) -> None:
    victim = next(folder.rglob("*.dcm"))
    data_set = dcmread(victim)
    bare = folder / "bare.dcm"
    pixels = data_set.pixel_array.tolist()
    del data_set.file_meta
    data_set.preamble = None
    data_set.save_as(bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.read_bytes()[128:132] != b"DICM"
    report = modality(pacs).send(bare)
    assert [item.outcome for item in report.files] == ["SENT"], report
    assert dcmread(pacs.objects[0].path).pixel_array.tolist() == pixels


def test_more_than_128_kinds_of_object_go_in_several_associations(tmp_path: Path, pacs: StandInPacs) -> None:
    from pynetdicom.presentation import AllStoragePresentationContexts

    (truth,) = write_phantom(tmp_path / "one", slices=1, size=64).files
    data_set = dcmread(truth)
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][:140]
    (tmp_path / "many").mkdir()
    for number, sop_class in enumerate(classes):
        data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = sop_class
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        data_set.save_as(tmp_path / "many" / f"{number:03d}.dcm")
    assert len(modality(pacs).send(tmp_path / "many").of("SENT")) == 140


def test_a_peer_that_breaks_the_association_costs_only_the_one_file(folder: Path, pacs: StandInPacs) -> None:
    pacs.store_without_answer(times=1)
    report = modality(pacs).send(folder)
    assert [item.outcome for item in report.files] == ["FAILED", *["SENT"] * 4]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pynetdicom leaves the refused socket to Python
def test_nobody_at_the_port_is_said_for_every_file(folder: Path, pacs: StandInPacs) -> None:
    pacs.go_away()
    report = modality(pacs).send(folder)
    assert len(report.of("FAILED")) == 5
    assert "takes no connection" in report.files[0].reason


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        send_folder(tmp_path / "nowhere", called_ae_title="PACS", host="127.0.0.1", port=104)
