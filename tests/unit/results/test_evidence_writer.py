"""From a request to a write-once set: adopted when there, quarantined when broken, nothing half-written."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.errors import EvidenceRejected, OutOfResources, Refusal
from node.results import evidence_writer
from node.results.evidence_writer import warm_up, write_evidence
from node.results.request import EvidenceRequest
from node.store.outbox import REASONS_FILE, Outbox, file_digest
from tests.evidence_cases import DECIDED_AT, two_nodules


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> EvidenceRequest:
    return two_nodules(tmp_path_factory.mktemp("series"))


def test_a_set_is_written_and_described(request_: EvidenceRequest, tmp_path: Path) -> None:
    warm_up()
    evidence = write_evidence(request_, Outbox(tmp_path))
    assert [item.kind for item in evidence.objects] == ["SEG", "SR"]
    assert (evidence.key, evidence.made_at, evidence.profile) == (request_.key, DECIDED_AT, "standard")
    for item in evidence.objects:
        dataset = dcmread(evidence.directory / item.file_name)
        assert (dataset.SOPClassUID, dataset.SOPInstanceUID) == (item.sop.sop_class_uid, item.sop.sop_instance_uid)
        assert dataset.SeriesInstanceUID == item.series_uid
        assert file_digest(evidence.directory / item.file_name) == item.file_digest
    assert Outbox(tmp_path).find(request_.key) == evidence


def test_a_second_run_adopts_the_set_without_building(
    request_: EvidenceRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_evidence(request_, Outbox(tmp_path))
    later = replace(request_.signature, decided_at=DECIDED_AT.replace(year=2027))
    monkeypatch.delattr(evidence_writer, "write_objects")
    assert write_evidence(replace(request_, signature=later), Outbox(tmp_path)) == first


def test_another_generation_is_another_set(request_: EvidenceRequest, tmp_path: Path) -> None:
    first = write_evidence(request_, Outbox(tmp_path))
    signature = replace(request_.signature, generation="00" * 32)
    second = write_evidence(replace(request_, signature=signature), Outbox(tmp_path))
    assert first.key != second.key
    assert {item.series_uid for item in first.objects} == {item.series_uid for item in second.objects}
    assert not {item.sop for item in first.objects} & {item.sop for item in second.objects}


def test_a_broken_set_is_quarantined_with_the_reason_and_never_found(
    request_: EvidenceRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mislabelled(*arguments: object) -> Dataset:
        dataset = build(*arguments)
        dataset.SeriesDescription = "nodules"
        return dataset

    build = evidence_writer.build_report
    monkeypatch.setattr(evidence_writer, "build_report", mislabelled)
    outbox = Outbox(tmp_path)
    with pytest.raises(EvidenceRejected, match="OBJ-RESEARCH-USE"):
        write_evidence(request_, outbox)
    assert outbox.find(request_.key) is None
    (reasons,) = tmp_path.rglob(REASONS_FILE)
    assert "OBJ-RESEARCH-USE" in reasons.read_text()
    assert sorted(path.name for path in reasons.parent.iterdir()) == ["reasons.txt", "seg-1.dcm", "sr-1.dcm"]


def test_a_series_without_frame_of_reference_is_refused_and_leaves_nothing(
    request_: EvidenceRequest, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path)
    nowhere = replace(request_, volume=replace(request_.volume, frame_of_reference_uid=""))
    with pytest.raises(Refusal, match="Frame of Reference"):
        write_evidence(nowhere, outbox)
    assert outbox.sweep() == 0


def test_a_slice_without_header_is_refused(request_: EvidenceRequest, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=request_.volume.sources[0].sop_instance_uid):
        write_evidence(replace(request_, headers=request_.headers[1:]), Outbox(tmp_path))


def test_a_full_disk_is_out_of_resources_and_leaves_nothing(
    request_: EvidenceRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pydicom.dataset.Dataset.save_as", full)
    outbox = Outbox(tmp_path)
    with pytest.raises(OutOfResources, match="No space left"):
        write_evidence(request_, outbox)
    assert outbox.sweep() == 0
