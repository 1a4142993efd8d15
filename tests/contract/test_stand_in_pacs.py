import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from node.testing.modality import SendReport, send_folder
from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth, write_phantom


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("phantom"), slices=3, size=64)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    with StandInPacs(tmp_path / "pacs") as running:
        yield running


def sent_to(pacs: StandInPacs, phantom: PhantomTruth, *, associations: int = 1) -> SendReport:
    return send_folder(
        phantom.files[0].parent,
        called_ae_title=pacs.ae_title,
        host=pacs.host,
        port=pacs.port,
        associations=associations,
    )


def test_what_arrives_is_kept_byte_for_byte(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    report = sent_to(pacs, phantom)
    assert len(report.of("SENT")) == len(pacs.objects) == 3
    kept = {dcmread(item.path).SOPInstanceUID: item.path for item in pacs.objects}
    for file in phantom.files:
        original = dcmread(file)
        copy = dcmread(kept[original.SOPInstanceUID])
        assert copy == original
        assert copy.PixelData == original.PixelData
    assert {item.calling_ae_title for item in pacs.objects} == {"MODALITY"}


def test_copies_of_an_instance_are_counted(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    sent_to(pacs, phantom)
    sent_to(pacs, phantom)
    assert len(pacs.objects) == 3
    assert set(pacs.copies.values()) == {2}


def test_a_refusal_carries_status_and_comment_and_ends_after_its_times(
    pacs: StandInPacs, phantom: PhantomTruth
) -> None:
    pacs.refuse(0xA700, comment="disk full", times=2)
    report = sent_to(pacs, phantom)
    assert [item.status for item in report.files] == [0xA700, 0xA700, 0x0000]
    assert "disk full" in report.of("FAILED")[0].reason
    assert len(pacs.objects) == 1
    assert pacs.arrivals == 3


def test_a_refusal_of_one_class_lets_others_pass(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    pacs.refuse(0xC000, sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4")
    assert len(sent_to(pacs, phantom).of("SENT")) == 3


def test_answers_are_held_until_released(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    pacs.hold()
    sender = threading.Thread(target=sent_to, args=(pacs, phantom))
    sender.start()
    assert pacs.wait_for_arrivals(1)
    assert pacs.objects == ()
    pacs.release()
    assert pacs.wait_for(3)
    sender.join()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pynetdicom leaves the refused socket to Python
def test_it_goes_away_and_returns_on_the_same_port(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    port = pacs.port
    pacs.go_away()
    report = sent_to(pacs, phantom)
    assert {item.outcome for item in report.files} == {"FAILED"}
    assert {item.status for item in report.files} == {None}
    pacs.come_back()
    assert pacs.port == port
    assert len(sent_to(pacs, phantom).of("SENT")) == 3


def test_an_object_can_be_stored_without_an_answer(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    pacs.store_without_answer(times=1)
    report = sent_to(pacs, phantom)
    assert [item.outcome for item in report.files] == ["FAILED", "SENT", "SENT"]
    assert len(pacs.objects) == 3


def test_parallel_associations_lose_and_double_nothing(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    report = sent_to(pacs, phantom, associations=3)
    assert len(report.of("SENT")) == 3
    assert set(pacs.copies.values()) == {1}


def test_a_pacs_of_few_words_takes_only_its_transfer_syntaxes(tmp_path: Path, phantom: PhantomTruth) -> None:
    with StandInPacs(tmp_path, transfer_syntaxes=[ImplicitVRLittleEndian]) as pacs:
        report = sent_to(pacs, phantom)
    assert {item.outcome for item in report.files} == {"FAILED"}
    assert "presentation context" in report.files[0].reason


def test_its_destination_settings_point_at_it(pacs: StandInPacs) -> None:
    destination = pacs.destination("archive", retry_first_s=0.1)
    assert (destination.name, destination.port, destination.retry_first_s) == ("archive", pacs.port, 0.1)
