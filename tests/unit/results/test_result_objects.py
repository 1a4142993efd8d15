"""What stands in SEG and SR: each rule of the `standard` profile."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dimse.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.domain.evidence import PreviousReport
from node.domain.instances import SopReference
from node.results import concepts, sr_tree, uids
from node.results.evidence_writer import write_evidence, write_objects
from node.results.linter import lint
from node.results.profiles import PROFILES, RESEARCH_USE, series_description, series_number
from node.results.provenance import algorithm_parameters
from node.results.report_text import sr_as_text
from node.results.request import EvidenceRequest
from node.results.segmentation import build_segmentation
from node.results.source_series import source_series
from node.store.outbox import Outbox
from tests.evidence_cases import (
    ball,
    nodule_manifest,
    nodule_rule,
    probability_of,
    read_series,
    request_for,
    two_nodules,
)
from tests.series_factory import SeriesPlan, write_series

PLAN = SeriesPlan(np.full((12, 48, 40), 24, np.int16))


def built(request: EvidenceRequest, directory: Path) -> dict[str, Dataset]:
    directory.mkdir(exist_ok=True)
    objects = write_objects(request, source_series(request.volume, request.headers), directory)
    return {item.kind: dcmread(directory / item.file_name) for item in objects}


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> EvidenceRequest:
    return two_nodules(tmp_path_factory.mktemp("series"), PLAN)


@pytest.fixture(scope="module")
def pair(request_: EvidenceRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    return built(request_, tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> EvidenceRequest:
    volume, headers = read_series(write_series(PLAN, tmp_path_factory.mktemp("empty")))
    return request_for(volume, headers, {"probability": np.zeros(volume.geometry.shape, np.uint8)})


def test_the_set_of_findings_is_a_seg_and_an_sr(pair: dict[str, Dataset]) -> None:
    assert list(pair) == ["SEG", "SR"]
    assert pair["SEG"].SegmentationType == "BINARY"
    assert pair["SEG"].file_meta.TransferSyntaxUID == pair["SR"].file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert pair["SR"].SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"


def test_segments_and_groups_share_identifier_and_uid(pair: dict[str, Dataset]) -> None:
    groups = sr_tree.anywhere(pair["SR"], concepts.MEASUREMENT_GROUP)
    said = [
        [
            sr_tree.text_of(sr_tree.named(group, name)[0])
            for name in (concepts.TRACKING_IDENTIFIER, concepts.TRACKING_UID)
        ]
        for group in groups
    ]
    assert said == [[item.TrackingID, item.TrackingUID] for item in pair["SEG"].SegmentSequence]
    assert [item.TrackingID for item in pair["SEG"].SegmentSequence] == ["Nodule 1", "Nodule 2"]


def test_the_tracking_uid_is_the_first_uidref_of_its_group(pair: dict[str, Dataset]) -> None:
    for group in sr_tree.anywhere(pair["SR"], concepts.MEASUREMENT_GROUP):
        first = next(item for item in sr_tree.children(group) if sr_tree.value_type(item) == "UIDREF")
        assert sr_tree.is_named(first, concepts.TRACKING_UID)


def test_the_region_that_viewers_draw_is_the_largest(pair: dict[str, Dataset], request_: EvidenceRequest) -> None:
    group = sr_tree.anywhere(pair["SR"], concepts.MEASUREMENT_GROUP)[0]
    region = sr_tree.named(group, concepts.IMAGE_REGION)[0]
    (image,) = sr_tree.references(sr_tree.children(region)[0])
    areas = (request_.findings.labels == 1).sum(axis=(1, 2))
    assert image == request_.volume.sources[int(areas.argmax())].sop_instance_uid
    assert region.GraphicType == "POLYLINE"


def test_regions_lie_on_pixel_edges_of_the_mask(pair: dict[str, Dataset], request_: EvidenceRequest) -> None:
    group = sr_tree.anywhere(pair["SR"], concepts.MEASUREMENT_GROUP)[1]
    slices = {source.sop_instance_uid: index for index, source in enumerate(request_.volume.sources)}
    for region in sr_tree.named(group, concepts.IMAGE_REGION):
        (image,) = sr_tree.references(sr_tree.children(region)[0])
        rows, columns = np.nonzero(request_.findings.labels[slices[image]] == 2)
        points = np.array(region.GraphicData).reshape(-1, 2)
        assert points.min(axis=0).tolist() == [columns.min(), rows.min()]
        assert points.max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]


def test_measurements_are_num_items_and_probability_is_also_a_code(pair: dict[str, Dataset]) -> None:
    group = sr_tree.anywhere(pair["SR"], concepts.MEASUREMENT_GROUP)[0]
    numbers = {
        sr_tree.concept(item).meaning: sr_tree.number_of(item)
        for item in sr_tree.children(group)
        if sr_tree.value_type(item) == "NUM"
    }
    assert {name: number[1].value for name, number in numbers.items()} == {
        "Volume": "mL",
        "Long axis": "mm",
        "Mean": "[hnsf'U]",
        "Certainty of Finding": "%",
    }
    assert numbers["Certainty of Finding"][0] == pytest.approx(250 / 255 * 100, abs=1e-3)
    codes = [item for item in sr_tree.named(group, concepts.CERTAINTY) if sr_tree.value_type(item) == "CODE"]
    assert [sr_tree.text_of(item) for item in codes] == ["High"]


def test_the_evidence_is_grouped_by_series_and_holds_sources_and_seg(
    pair: dict[str, Dataset], request_: EvidenceRequest
) -> None:
    (study,) = pair["SR"].CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == request_.volume.study_uid
    listed = {item.SeriesInstanceUID: sr_tree.references(item) for item in study.ReferencedSeriesSequence}
    assert listed == {
        request_.volume.series_uid: [source.sop_instance_uid for source in request_.volume.sources],
        pair["SEG"].SeriesInstanceUID: [pair["SEG"].SOPInstanceUID],
    }


def test_the_image_library_lists_every_image_that_was_read(pair: dict[str, Dataset], request_: EvidenceRequest) -> None:
    (library,) = sr_tree.named(pair["SR"], concepts.IMAGE_LIBRARY)
    images = [uid for item in sr_tree.descendants(library) for uid in sr_tree.references(item)]
    assert images == [source.sop_instance_uid for source in request_.volume.sources]


def test_each_frame_names_its_source_and_only_full_frames_are_kept(
    pair: dict[str, Dataset], request_: EvidenceRequest
) -> None:
    image = pair["SEG"]
    positions = {header.sop.sop_instance_uid: header.position for header in request_.headers}
    for frame, pixels in zip(image.PerFrameFunctionalGroupsSequence, image.pixel_array, strict=True):
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.SpatialLocationsPreserved == "YES"
        assert frame.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(
            positions[source.ReferencedSOPInstanceUID]
        )
        assert pixels.any()


def test_the_result_says_who_made_it(pair: dict[str, Dataset], request_: EvidenceRequest) -> None:
    for dataset in pair.values():
        (item,) = dataset.ContributingEquipmentSequence
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert item.DeviceUID == dataset.DeviceUID == uids.device_uid(request_.model.digest)
        assert item.SoftwareVersions[0] == dataset.SoftwareVersions == "bright_nodules 3"
        assert dataset.Manufacturer == "Hilum tests"
        assert dataset.DeviceSerialNumber == "SN-1"
        assert dataset.InstitutionName == "Test Hospital"
        assert dataset.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert dataset.file_meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    observer = {sr_tree.concept(item).meaning: sr_tree.text_of(item) for item in sr_tree.children(pair["SR"])}
    assert observer["Device Observer UID"] == pair["SR"].DeviceUID
    assert observer["Procedure reported"] == "CT unspecified body region"


def test_research_use_is_visible_everywhere(pair: dict[str, Dataset]) -> None:
    assert all(RESEARCH_USE in dataset.SeriesDescription for dataset in pair.values())
    assert RESEARCH_USE in pair["SEG"].ContentDescription
    assert any(RESEARCH_USE in sr_tree.text_of(item) for item in sr_tree.anywhere(pair["SR"], concepts.COMMENT))
    assert "ContentQualification" not in pair["SEG"]


def test_the_report_is_complete_unverified_preliminary(pair: dict[str, Dataset]) -> None:
    report = pair["SR"]
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_patient_and_study_are_copied_with_their_empties(pair: dict[str, Dataset], request_: EvidenceRequest) -> None:
    source = dcmread(request_.headers[0].path, stop_before_pixels=True)
    copied = ["PatientID", "IssuerOfPatientID", "PatientAge", "PatientWeight", "StudyID", "AccessionNumber"]
    for dataset in pair.values():
        assert [dataset[key].value for key in copied] == [source[key].value for key in copied]
        assert dataset.StudyDescription == "Synthetic study"


def test_missing_type_2_attributes_become_empty(tmp_path: Path) -> None:
    gone = dict.fromkeys(["AccessionNumber", "StudyID", "PatientBirthDate", "ReferringPhysicianName", "PatientSex"])
    request = two_nodules(tmp_path / "series", replace(PLAN, attributes=gone))
    for dataset in built(request, tmp_path / "objects").values():
        assert all(keyword in dataset and not dataset[keyword].value for keyword in gone)


@pytest.mark.parametrize(
    ("offset", "wanted"), [("+0800", ("20260304", "130607", "+0800")), ("-0330", ("20260304", "013607", "-0330"))]
)
def test_times_are_the_decision_in_the_zone_of_the_source(
    tmp_path: Path, offset: str, wanted: tuple[str, str, str]
) -> None:
    plan = replace(PLAN, attributes={"TimezoneOffsetFromUTC": offset})
    for dataset in built(two_nodules(tmp_path / "series", plan), tmp_path / "objects").values():
        assert (dataset.ContentDate, dataset.ContentTime, dataset.TimezoneOffsetFromUTC) == wanted
        assert (dataset.InstanceCreationDate, dataset.InstanceCreationTime) == wanted[:2]


def test_without_a_zone_in_the_source_the_time_is_still_the_decision(
    pair: dict[str, Dataset], request_: EvidenceRequest
) -> None:
    report = pair["SR"]
    said = datetime.strptime(
        f"{report.ContentDate}{report.ContentTime}{report.TimezoneOffsetFromUTC}", "%Y%m%d%H%M%S%z"
    )
    assert said == request_.signature.decided_at


def test_two_builds_of_the_same_request_are_equal_byte_for_byte(request_: EvidenceRequest, tmp_path: Path) -> None:
    other = replace(
        request_.signature, decided_at=request_.signature.decided_at.astimezone(timezone(timedelta(hours=5)))
    )
    built(request_, tmp_path / "one")
    built(replace(request_, signature=other), tmp_path / "two")
    for name in ("seg-1.dcm", "sr-1.dcm"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_found_is_an_sr_without_groups_that_says_absent(nothing: EvidenceRequest, tmp_path: Path) -> None:
    objects = built(nothing, tmp_path)
    assert list(objects) == ["SR"]
    report = objects["SR"]
    (container,) = sr_tree.named(report, concepts.IMAGING_MEASUREMENTS)
    assert sr_tree.children(container) == []
    (evaluations,) = sr_tree.named(report, concepts.QUALITATIVE_EVALUATIONS)
    assert next(sr_tree.text_of(item) for item in sr_tree.children(evaluations)) == "Absent"
    assert lint([tmp_path / "sr-1.dcm"], source_series(nothing.volume, nothing.headers)) == ()
    assert "No findings." in sr_as_text(tmp_path / "sr-1.dcm")


def test_a_correction_stays_in_its_series_and_names_what_it_corrects(
    request_: EvidenceRequest, pair: dict[str, Dataset], tmp_path: Path
) -> None:
    first = pair["SR"]
    previous = PreviousReport(
        SopReference(first.SOPClassUID, first.SOPInstanceUID), first.StudyInstanceUID, first.SeriesInstanceUID, 1
    )
    later = replace(request_, signature=replace(request_.signature, generation="00" * 32), previous=previous)
    report = built(later, tmp_path)["SR"]
    assert report.SeriesInstanceUID == first.SeriesInstanceUID
    assert (report.SOPInstanceUID != first.SOPInstanceUID, report.InstanceNumber) == (True, 2)
    (study,) = report.PredecessorDocumentsSequence
    assert sr_tree.references(study.ReferencedSeriesSequence[0]) == [first.SOPInstanceUID]


def test_one_segment_per_class_where_findings_are_no_instances(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLAN, tmp_path / "series"))
    masks = [ball(volume.geometry.shape, (3, 9, 9), (2, 4, 4)), ball(volume.geometry.shape, (8, 30, 30), (2, 4, 4))]
    manifest = nodule_manifest(nodule_rule(instances=False))
    request = request_for(volume, headers, {"probability": probability_of(*masks)}, manifest)
    objects = built(request, tmp_path / "objects")
    assert [item.SegmentLabel for item in objects["SEG"].SegmentSequence] == ["Nodule"]
    assert len(sr_tree.anywhere(objects["SR"], concepts.MEASUREMENT_GROUP)) == 2
    assert highdicom.seg.segread(tmp_path / "objects" / "seg-1.dcm").pixel_array.sum() == sum(map(np.sum, masks))
    source = source_series(volume, headers)
    assert lint(sorted((tmp_path / "objects").iterdir()), source, own_segments=0) == ()


def test_one_rule_for_a_class_leaves_the_findings_of_another_their_segments(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLAN, tmp_path / "series"))
    shape = volume.geometry.shape
    nodules = [ball(shape, (3, 9, 9), (2, 4, 4)), ball(shape, (8, 30, 30), (2, 3, 3))]
    others = [ball(shape, (3, 30, 9), (2, 3, 3)), ball(shape, (8, 9, 30), (2, 3, 3))]
    manifest = nodule_manifest(nodule_rule(), nodule_rule(output="lungs", label="Spot", instances=False))
    outputs = {"probability": probability_of(*nodules), "lungs": probability_of(*others)}
    request = request_for(volume, headers, outputs, manifest)
    seg = built(request, tmp_path / "objects")["SEG"]
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Nodule 1", "Nodule 2", "Nodule"]
    assert write_evidence(request, Outbox(tmp_path / "outbox")).objects
    paths, source = sorted((tmp_path / "objects").iterdir()), source_series(volume, headers)
    assert lint(paths, source, own_segments=2) == ()
    assert [item.rule for item in lint(paths, source)] == ["SEG-TRACKING"]


def test_findings_beyond_the_limit_and_every_parameter_stand_in_the_report(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLAN, tmp_path / "series"))
    masks = [ball(volume.geometry.shape, (3, 9, 9), (2, 4, 4)), ball(volume.geometry.shape, (8, 30, 30), (2, 3, 3))]
    manifest = nodule_manifest(nodule_rule(max_findings=1, min_probability=0.25))
    request = request_for(volume, headers, {"probability": probability_of(*masks)}, manifest)
    report = built(request, tmp_path / "objects")["SR"]
    said = [sr_tree.text_of(item) for item in sr_tree.anywhere(report, concepts.COMMENT)]
    assert any("1 finding, 1 more beyond the model's limit left out." in text for text in said)
    parameters = " ".join(algorithm_parameters(request))
    assert "probability 0.25, at most 1 findings" in parameters


def test_the_procedure_that_the_study_states_is_reported(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24627-2", "LN", "CT Chest"
    plan = replace(PLAN, attributes={"ProcedureCodeSequence": [code]})
    report = built(two_nodules(tmp_path / "series", plan), tmp_path / "objects")["SR"]
    assert [sr_tree.text_of(item) for item in sr_tree.named(report, concepts.PROCEDURE_REPORTED)] == ["CT Chest"]


def test_the_report_reads_as_text_without_patient_attributes(request_: EvidenceRequest, tmp_path: Path) -> None:
    built(request_, tmp_path)
    text = sr_as_text(tmp_path / "sr-1.dcm")
    for wanted in ("Nodule 1 (Nodule, Lung)", "mL", "98.04 %  (High)", RESEARCH_USE, "Procedure: CT unspecified"):
        assert wanted in text
    assert "Phantom" not in text


def test_series_numbers_are_high_and_stable_and_descriptions_fit() -> None:
    profile = PROFILES["standard"]
    for name in ("lung_nodule", "chest_xray"):
        numbers = [series_number(name, rule) for rule in profile.objects]
        assert len(set(numbers)) == 2
        assert all(900_000 < number < 1_000_000 for number in numbers)
    for rule in profile.objects:
        description = series_description("A model with quite a long title, longer than any that is wise", rule)
        assert len(description) <= 64
        assert RESEARCH_USE in description


def test_every_frame_says_segment_position_and_source_also_where_all_say_the_same(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLAN, tmp_path / "series"))
    mask = np.zeros(volume.geometry.shape, bool)
    mask[4, 10:14, 10:14] = True
    image = built(request_for(volume, headers, {"probability": probability_of(mask)}), tmp_path / "objects")["SEG"]
    (frame,) = image.PerFrameFunctionalGroupsSequence
    assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    assert "PlanePositionSequence" in frame
    assert "DerivationImageSequence" in frame
    assert lint(sorted((tmp_path / "objects").iterdir()), source_series(volume, headers)) == ()


def test_values_that_break_their_rules_are_copied_as_they_stand_without_a_warning(tmp_path: Path) -> None:
    odd = {"PatientBirthDate": "1960.02.29", "PatientSex": "U", "PatientID": "x" * 70, "PatientName": "A" * 70}
    with pydicom.config.disable_value_validation():
        request = two_nodules(tmp_path / "series", replace(PLAN, attributes=odd))
    source = source_series(request.volume, request.headers)
    objects = write_objects(request, source, tmp_path)
    assert lint([tmp_path / item.file_name for item in objects], source) == ()
    with pydicom.config.disable_value_validation():
        for item in objects:
            dataset = dcmread(tmp_path / item.file_name)
            assert {keyword: str(dataset[keyword].value) for keyword in odd} == odd


def test_more_findings_than_a_byte_counts_are_written_and_read_back(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLAN, tmp_path / "series"))
    probability = np.zeros(volume.geometry.shape, np.uint8)
    probability[4, ::2, ::3] = 200
    manifest = nodule_manifest(nodule_rule(max_findings=300))
    request = request_for(volume, headers, {"probability": probability}, manifest)
    build_segmentation(request, source_series(volume, headers)).save_as(tmp_path / "seg-1.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg-1.dcm")
    assert (seg.number_of_segments, seg.pixel_array.sum()) == (300, 300)
