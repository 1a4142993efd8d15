"""C-STORE and C-ECHO against a real listener, with pynetdicom as the requestor."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification
from sqlalchemy.exc import OperationalError

from node.index.instances import find_instance, is_known_variant, quarantined
from node.index.reindex import reindex
from node.index.studies import arriving, decide
from node.intake import storage_scp
from node.intake.presentation import LOSSLESS, LOSSY, TRANSFER_SYNTAXES
from tests.index_views import find_study, instances_of_study, ready_generations
from tests.raw_peer import P_DATA, RawPeer, p_data, status_of, store_command
from tests.receiving import SERIES, STUDY, Receiver, associate, ct_image, receiver, send
from tests.waiting import wait_until


@pytest.fixture
def to(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as running:
        yield running


def encoded(image: Dataset) -> bytes:
    """The data set alone, explicit little endian."""
    return encode(image, is_implicit_vr=False, is_little_endian=True) or b""


def litter(to: Receiver) -> list[Path]:
    return list((to.store.directory / "incoming").iterdir())


def test_echo_is_answered(to: Receiver) -> None:
    association = associate(to, [(Verification, [ImplicitVRLittleEndian])])
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_success_means_file_and_row(to: Receiver) -> None:
    image = ct_image()
    (status,) = send(to, image)
    assert status.Status == 0x0000
    found = find_instance(to.engine, image.SOPInstanceUID)
    assert found is not None
    assert (found.study_uid, found.series_uid, found.calling_ae_title) == (STUDY, SERIES, "MODALITY")
    assert to.stored == [found]
    assert pydicom.dcmread(found.path).PixelData == image.PixelData
    assert found.path.stat().st_mode & 0o077 == 0
    assert litter(to) == []


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian]
)
def test_data_set_is_kept_as_received_in_every_encoding(to: Receiver, syntax: pydicom.uid.UID) -> None:
    image = ct_image()
    image.file_meta.TransferSyntaxUID = syntax
    statuses = send(to, image)
    assert [status.Status for status in statuses] == [0x0000]
    found = find_instance(to.engine, image.SOPInstanceUID)
    assert found is not None
    assert found.transfer_syntax == syntax
    assert pydicom.dcmread(found.path).StudyInstanceUID == STUDY


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([JPEGBaseline8Bit, ImplicitVRLittleEndian, JPEG2000Lossless], JPEG2000Lossless),
        ([ImplicitVRLittleEndian, JPEG2000, RLELossless], RLELossless),
        ([ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian], ImplicitVRLittleEndian),
        ([DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian], ExplicitVRBigEndian),
        ([JPEGBaseline8Bit, JPEGLosslessSV1, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, JPEG2000], JPEG2000),
    ],
)
def test_our_order_of_transfer_syntaxes_wins(to: Receiver, proposed: list[str], chosen: str) -> None:
    association = associate(to, [(CTImageStorage, proposed)])
    assert association.accepted_contexts[0].transfer_syntax == [chosen]
    association.release()


def test_order_is_explicit_lossless_lossy_implicit_big_deflated() -> None:
    assert TRANSFER_SYNTAXES[0] == ExplicitVRLittleEndian
    assert TRANSFER_SYNTAXES[1 : 1 + len(LOSSLESS)] == LOSSLESS
    assert TRANSFER_SYNTAXES[1 + len(LOSSLESS) : -3] == LOSSY
    assert TRANSFER_SYNTAXES[-3:] == (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def test_two_contexts_of_one_class_keep_their_syntaxes(to: Receiver) -> None:
    entity = AE(ae_title="MODALITY")
    entity.requested_contexts = [
        build_context(CTImageStorage, ExplicitVRLittleEndian),
        build_context(CTImageStorage, JPEG2000Lossless),
    ]
    association = entity.associate(to.host, to.port, ae_title="HILUM")
    accepted = [context.transfer_syntax[0] for context in association.accepted_contexts]
    association.release()
    assert accepted == [ExplicitVRLittleEndian, JPEG2000Lossless]


def test_private_sop_class_only_when_allowed(tmp_path: Path) -> None:
    image = ct_image()
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.3680043.9.77"
    with receiver(tmp_path / "closed") as closed:
        association = associate(closed, [(image.SOPClassUID, [ExplicitVRLittleEndian])])
        assert not association.is_established or not association.accepted_contexts
        association.abort()
    with receiver(tmp_path / "open", unknown_sop_classes=True) as opened:
        assert send(opened, image)[0].Status == 0x0000


def test_query_classes_are_never_accepted(tmp_path: Path) -> None:
    with receiver(tmp_path, unknown_sop_classes=True) as to:
        find = "1.2.840.10008.5.1.4.1.2.2.1"
        association = associate(to, [(find, [ImplicitVRLittleEndian]), (Verification, [ImplicitVRLittleEndian])])
        assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]
        association.release()


def test_resend_of_the_same_is_success_and_nothing_new(to: Receiver) -> None:
    image = ct_image()
    assert [send(to, image)[0].Status for _ in range(3)] == [0x0000] * 3
    assert len(to.stored) == 1
    assert len(instances_of_study(to.engine, STUDY)) == 1
    assert litter(to) == []


def test_same_pixels_in_another_transfer_syntax_are_a_variant(to: Receiver) -> None:
    image = ct_image()
    send(to, image)
    first = find_instance(to.engine, image.SOPInstanceUID)
    image.compress(RLELossless, generate_instance_uid=False)
    assert send(to, image)[0].Status == 0x0000
    assert send(to, image)[0].Status == 0x0000
    assert find_instance(to.engine, image.SOPInstanceUID) == first
    assert len(to.stored) == 1
    assert quarantined(to.engine) == ()


def test_coerced_demographics_are_a_variant(to: Receiver) -> None:
    image = ct_image()
    send(to, image)
    image.PatientID = "RECONCILED-7"
    assert send(to, image)[0].Status == 0x0000
    kept = find_instance(to.engine, image.SOPInstanceUID)
    assert kept is not None
    assert pydicom.dcmread(kept.path).PatientID == "PHANTOM-1"
    assert not is_known_variant(to.engine, image.SOPInstanceUID, kept.data_set_digest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PixelData": b"\1" * 512}, "known with other content"),
        ({"PatientID": "OTHER-2", "PatientName": "Other^One"}, "known with another patient"),
        ({"StudyInstanceUID": "1.2.3"}, "known in another study"),
        ({"SeriesInstanceUID": "1.2.3"}, "known in another series"),
        ({"Rows": 8, "Columns": 32}, "known with other content"),
        ({"ImagePositionPatient": [0, 0, 50]}, "known with another ImagePositionPatient"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "known with another ImageOrientationPatient"),
        ({"PixelSpacing": [0.5, 0.7]}, "known with another PixelSpacing"),
        ({"RescaleIntercept": 0}, "known with another RescaleIntercept"),
        ({"FrameOfReferenceUID": "1.2.3"}, "known with another FrameOfReferenceUID"),
    ],
)
def test_same_uid_with_other_content_is_quarantined(to: Receiver, change: dict[str, object], reason: str) -> None:
    image = ct_image()
    send(to, image)
    for keyword, value in change.items():
        setattr(image, keyword, value)
    (status,) = send(to, image)
    assert status.Status == 0xC001
    assert reason in status.ErrorComment
    (refused,) = quarantined(to.engine)
    assert reason in refused.reason
    assert refused.path.stat().st_size > 512
    kept = find_instance(to.engine, image.SOPInstanceUID)
    assert kept is not None
    assert kept.study_uid == STUDY
    assert litter(to) == []


def test_lost_file_is_healed_by_a_resend(to: Receiver) -> None:
    image = ct_image()
    send(to, image)
    to.stored[0].path.unlink()
    assert send(to, image)[0].Status == 0x0000
    assert to.stored[0].path.exists()


def test_lost_file_is_not_replaced_by_other_content(to: Receiver) -> None:
    image = ct_image()
    send(to, image)
    to.stored[0].path.unlink()
    other = ct_image(uid=image.SOPInstanceUID, seed=7, study="1.2.3")
    (status,) = send(to, other)
    assert status.Status == 0xC001
    assert "known with another data set" in status.ErrorComment
    assert not to.stored[0].path.exists()
    assert len(quarantined(to.engine)) == 1
    assert send(to, image)[0].Status == 0x0000
    assert pydicom.dcmread(to.stored[0].path).StudyInstanceUID == STUDY


def test_what_the_index_refuses_after_publishing_is_never_a_success(
    to: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ct_image()
    send(to, image)
    monkeypatch.setattr(storage_scp, "find_instance", lambda _engine, _uid: None)
    assert send(to, ct_image(uid=image.SOPInstanceUID, seed=7))[0].Status == 0xC001


def test_same_geometry_written_otherwise_is_a_variant(to: Receiver) -> None:
    image = ct_image()
    image.ImagePositionPatient, image.RescaleType = ["0.50", "-3", "1e1"], "HU"
    send(to, image)
    image.ImagePositionPatient, image.Units = ["0.5", "-3.0", "10"], ""
    assert send(to, image)[0].Status == 0x0000


def test_other_geometry_of_frames_is_a_conflict(to: Receiver) -> None:
    image, group, position = ct_image(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, 1]
    group.PlanePositionSequence = [position]
    image.PerFrameFunctionalGroupsSequence = [group]
    send(to, image)
    position.ImagePositionPatient = [0, 0, 2]
    assert send(to, image)[0].Status == 0xC001


@pytest.mark.parametrize("name", ["find_instance", "is_known_result", "is_known_variant", "record_variant"])
@pytest.mark.parametrize(
    "error", [OperationalError("statement", {}, Exception("database or disk is full")), OSError(28, "No space left")]
)
def test_index_that_fails_is_out_of_resources(
    to: Receiver, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def failing(*_arguments: object, **_named: object) -> None:
        raise error

    image = ct_image()
    send(to, image)
    image.PatientID = "RECONCILED-7"
    other = ct_image()
    monkeypatch.setattr(storage_scp, name, failing)
    statuses = [status.Status for status in send(to, other if name == "is_known_result" else image)]
    assert statuses == [0xA700]
    assert quarantined(to.engine) == ()
    assert litter(to) == []


def test_reception_counts_from_its_end_and_carries_its_study_from_its_beginning(to: Receiver) -> None:
    image = ct_image()
    raw = encoded(image)
    cut = raw.index(b"\x28\x00\x02\x00")
    with RawPeer(to.port) as peer:
        peer.associate()
        peer.say(p_data(store_command(image.SOPInstanceUID), command=True), p_data(raw[:cut], last=False))
        wait_until(lambda: to.listener.open_studies() == {STUDY}, what="the study of the image on its way")
        assert arriving(to.engine) == ()
        before_the_end = datetime.now(UTC)
        peer.say(p_data(raw[cut:]))
        kind, body = peer.hear()
        assert (kind, status_of(body[6:])[0]) == (P_DATA, 0x0000)
    (row,) = arriving(to.engine)
    assert row.last_received_at >= before_the_end


def test_refused_instance_carries_no_study(to: Receiver) -> None:
    with RawPeer(to.port) as peer:
        peer.associate()
        assert peer.store("1.2.3.4", encoded(ct_image()))[0] == 0xA900
        assert to.listener.open_studies() == frozenset()


def test_connection_without_a_thread_is_closed_and_the_next_one_served(
    to: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failures = threading.Thread.start, ["once"]

    def failing(thread: threading.Thread) -> None:
        if thread.name.startswith("hilum-127") and failures:
            failures.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with RawPeer(to.port) as peer:
        assert peer.hear() == (0, b"")
    assert send(to, ct_image())[0].Status == 0x0000


def test_empty_uids_in_the_data_set_end_in_a_reason_one_can_read(to: Receiver) -> None:
    image = ct_image()
    uid = image.SOPInstanceUID
    image.SOPInstanceUID = ""
    with RawPeer(to.port) as peer:
        peer.associate()
        assert peer.store(uid, encoded(image)) == (0xA900, "SOP Instance UID is empty in the data set")
    (refused,) = quarantined(to.engine)
    assert refused.sop_instance_uid == uid
    assert refused.reason == "SOP Instance UID is empty in the data set"
    assert refused.study_uid == STUDY
    assert refused.path.stat().st_size > 512


def test_uid_of_command_and_data_set_must_agree(to: Receiver) -> None:
    with RawPeer(to.port) as peer:
        peer.associate()
        status, comment = peer.store("1.2.3.4", encoded(ct_image()))
    assert (status, comment) == (0xA900, "SOP Instance UID of data set and command differ")
    assert to.stored == []


def test_class_of_command_must_be_the_one_of_its_context(to: Receiver) -> None:
    with RawPeer(to.port) as peer:
        peer.associate(abstract=SegmentationStorage)
        assert peer.store("1.2.3.4", encoded(ct_image()))[0] == 0xA900


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (SegmentationStorage, "CT"),
        (EncapsulatedPDFStorage, "CT"),
        (SecondaryCaptureImageStorage, "CT"),
        (SecondaryCaptureImageStorage, "OT"),
        (CTImageStorage, "OT"),
    ],
)
def test_derived_objects_open_no_study(to: Receiver, sop_class: str, modality: str) -> None:
    image = ct_image()
    image.Modality = modality
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    assert send(to, image)[0].Status == 0x0000
    assert len(instances_of_study(to.engine, STUDY)) == 1
    assert find_study(to.engine, STUDY) is None


def test_resends_and_derived_objects_open_no_generation_but_late_slices_do(to: Receiver) -> None:
    first, late, derived = ct_image(), ct_image(), ct_image()
    derived.SOPClassUID = derived.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    send(to, first)
    (row,) = arriving(to.engine)
    ready = decide(to.engine, STUDY, "quiet", row.last_received_at, seen_last=row.last_received_at)
    assert ready is not None
    send(to, first, derived)
    assert arriving(to.engine) == ()
    send(to, late)
    (row,) = arriving(to.engine)
    second = decide(to.engine, STUDY, "quiet", row.last_received_at)
    assert second is not None
    assert (ready.generation_count, second.generation_count) == (1, 2)
    assert [item.generation for item in ready_generations(to.engine)] == [ready.generation, second.generation]


def test_open_studies_are_those_of_open_associations(to: Receiver) -> None:
    association = associate(to)
    assert to.listener.open_studies() == frozenset()
    association.send_c_store(ct_image())
    assert to.listener.open_studies() == {STUDY}
    association.release()
    wait_until(lambda: to.closed == [frozenset({STUDY})], what="the close of the association")
    assert to.listener.open_studies() == frozenset()


def test_three_hundred_associations_of_one_image_are_one_study(to: Receiver) -> None:
    images = [ct_image(seed=number) for number in range(300)]
    statuses: list[int] = []

    def sender(part: list[Dataset]) -> None:
        statuses.extend(send(to, image)[0].Status for image in part)

    threads = [threading.Thread(target=sender, args=(images[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0x0000] * 300
    (row,) = arriving(to.engine)
    assert row.instances == 300
    assert decide(to.engine, STUDY, "quiet", row.last_received_at) is not None
    assert decide(to.engine, STUDY, "quiet", row.last_received_at) is None
    assert len(ready_generations(to.engine)) == 1


def test_reindex_from_the_files_gives_the_same_rows(tmp_path: Path) -> None:
    with receiver(tmp_path / "node") as to:
        images = [ct_image(seed=number) for number in range(5)]
        images[4].SOPClassUID = images[4].file_meta.MediaStorageSOPClassUID = SegmentationStorage
        send(to, *images)
        broken = ct_image(uid=images[0].SOPInstanceUID, seed=9)
        assert send(to, broken)[0].Status == 0xC001
        before = (instances_of_study(to.engine, STUDY), arriving(to.engine), quarantined(to.engine))
    (tmp_path / "node" / "index.sqlite").unlink()
    with receiver(tmp_path / "node") as to:
        counts = reindex(to.store, to.engine)
        assert (counts.instances, counts.added, counts.quarantined, counts.damaged) == (5, 5, 1, ())
        assert (instances_of_study(to.engine, STUDY), arriving(to.engine), quarantined(to.engine)) == before
        assert reindex(to.store, to.engine).added == 0


def test_reindex_names_damaged_files(to: Receiver) -> None:
    send(to, ct_image())
    path = to.stored[0].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert reindex(to.store, to.engine).damaged == (path,)


def test_stop_aborts_open_associations(tmp_path: Path) -> None:
    with receiver(tmp_path) as to:
        association = associate(to)
        association.send_c_store(ct_image())
    wait_until(lambda: association.is_aborted, what="the abort")
    assert len(to.closed) == 1


def test_file_meta_names_the_sender(to: Receiver) -> None:
    send(to, ct_image(), calling="CT_SCANNER_1")
    meta = pydicom.dcmread(to.stored[0].path, stop_before_pixels=True).file_meta
    assert isinstance(meta, FileMetaDataset)
    assert meta.SendingApplicationEntityTitle == "CT_SCANNER_1"
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
