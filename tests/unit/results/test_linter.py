"""The linter: an intact set passes, and each rule catches a broken object that no other rule catches."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.results import concepts, sr_tree
from node.results.evidence_writer import write_objects
from node.results.linter import RULES, lint, lint_objects
from node.results.source_series import SourceSeries, source_series
from tests.evidence_cases import two_nodules


@dataclass(frozen=True)
class Written:
    seg: Dataset
    sr: Dataset

    def groups(self) -> list[Dataset]:
        return sr_tree.anywhere(self.sr, concepts.MEASUREMENT_GROUP)

    def region(self) -> Dataset:
        return sr_tree.anywhere(self.sr, concepts.IMAGE_REGION)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], SourceSeries]:
    request = two_nodules(tmp_path_factory.mktemp("series"))
    directory = tmp_path_factory.mktemp("objects")
    source = source_series(request.volume, request.headers)
    return [directory / item.file_name for item in write_objects(request, source, directory)], source


@pytest.fixture(scope="module")
def intact(made: tuple[list[Path], SourceSeries]) -> Written:
    seg, sr = (dcmread(path) for path in made[0])
    return Written(seg, sr)


def without(parent: Dataset, name: concepts.Code) -> None:
    parent.ContentSequence = [item for item in parent.ContentSequence if not sr_tree.is_named(item, name)]


def other_patient(set_: Written) -> None:
    set_.sr.PatientID = "SOMEBODY-ELSE"


def no_type_2(set_: Written) -> None:
    del set_.seg.AccessionNumber


def latin_1(set_: Written) -> None:
    set_.sr.SpecificCharacterSet = "ISO_IR 100"


def no_research_use(set_: Written) -> None:
    set_.seg.ContentDescription = "nodules"


def no_serial_number(set_: Written) -> None:
    del set_.seg.DeviceSerialNumber


def no_device_uid(set_: Written) -> None:
    del set_.sr.ContributingEquipmentSequence[0].DeviceUID


def random_series_uid(set_: Written) -> None:
    set_.sr.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1"


def other_file_meta(set_: Written) -> None:
    set_.seg.file_meta.MediaStorageSOPInstanceUID = "2.25.1"


def other_time(set_: Written) -> None:
    set_.seg.ContentTime = "235959"


def other_title(set_: Written) -> None:
    set_.sr.ConceptNameCodeSequence[0].CodeValue = "126001"


def second_uidref_first(set_: Written) -> None:
    group = set_.groups()[0]
    extra = copy.deepcopy(sr_tree.named(group, concepts.TRACKING_UID)[0])
    extra.ConceptNameCodeSequence[0].CodeValue = "112002"
    group.ContentSequence = [extra, *group.ContentSequence]


def no_region(set_: Written) -> None:
    without(set_.groups()[1], concepts.IMAGE_REGION)


def no_procedure(set_: Written) -> None:
    without(set_.sr, concepts.PROCEDURE_REPORTED)


def no_library(set_: Written) -> None:
    without(set_.sr, concepts.IMAGE_LIBRARY)


def private_unit(set_: Written) -> None:
    number = sr_tree.named(set_.groups()[0], concepts.VOLUME)[0]
    number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodingSchemeDesignator = "99LOCAL"


def outside_the_image(set_: Written) -> None:
    points = list(set_.region().GraphicData)
    set_.region().GraphicData = [value + 39 for value in points]


def forgotten_evidence(set_: Written) -> None:
    series = set_.sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    del series[0].ReferencedSOPSequence[3]


def evidence_twice(set_: Written) -> None:
    series = set_.sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    series.append(copy.deepcopy(series[0]))


def no_family(set_: Written) -> None:
    without(set_.groups()[0], concepts.Code("111000", "DCM", "Algorithm Family"))


def other_observer(set_: Written) -> None:
    sr_tree.named(set_.sr, concepts.DEVICE_OBSERVER_UID)[0].UID = "2.25.7"


def other_tracking(set_: Written) -> None:
    set_.seg.SegmentSequence[0].TrackingUID = "2.25.8"


def one_segment_empty(set_: Written) -> None:
    for frame in set_.seg.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1


def no_colour(set_: Written) -> None:
    del set_.seg.SegmentSequence[1].RecommendedDisplayCIELabValue


def too_many_bytes(set_: Written) -> None:
    set_.seg.PixelData += b"\0\0"


def one_frame_empty(set_: Written) -> None:
    size = set_.seg.Rows * set_.seg.Columns // 8
    set_.seg.PixelData = set_.seg.PixelData[:size] + bytes(size) + set_.seg.PixelData[2 * size :]


def moved_by_a_slice(set_: Written) -> None:
    position = set_.seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    position.ImagePositionPatient = [*position.ImagePositionPatient[:2], float(position.ImagePositionPatient[2]) + 2.5]


def locations_not_preserved(set_: Written) -> None:
    frame = set_.seg.PerFrameFunctionalGroupsSequence[0]
    frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "NO"


def unlisted_source(set_: Written) -> None:
    del set_.seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


def other_frame_of_reference(set_: Written) -> None:
    set_.seg.FrameOfReferenceUID = "2.25.9"


BREAKS: dict[str, Callable[[Written], None]] = {
    "OBJ-IDENTITY": other_patient,
    "OBJ-TYPE-2": no_type_2,
    "OBJ-CHARSET": latin_1,
    "OBJ-RESEARCH-USE": no_research_use,
    "OBJ-EQUIPMENT": no_serial_number,
    "OBJ-CONTRIBUTING": no_device_uid,
    "OBJ-UIDS": random_series_uid,
    "OBJ-FILE-META": other_file_meta,
    "OBJ-TIMES": other_time,
    "SR-TITLE": other_title,
    "SR-TRACKING": second_uidref_first,
    "SR-LOCATED": no_region,
    "SR-PROCEDURE": no_procedure,
    "SR-CONTAINERS": no_library,
    "SR-NUMBERS": private_unit,
    "SR-REGIONS": outside_the_image,
    "SR-EVIDENCE": forgotten_evidence,
    "SR-EVIDENCE-GROUPED": evidence_twice,
    "SR-ALGORITHM": no_family,
    "SR-OBSERVER": other_observer,
    "SEG-TRACKING": other_tracking,
    "SEG-SEGMENTS": one_segment_empty,
    "SEG-DESCRIBED": no_colour,
    "SEG-PIXEL-LENGTH": too_many_bytes,
    "SEG-EMPTY-FRAMES": one_frame_empty,
    "SEG-GEOMETRY": moved_by_a_slice,
    "SEG-DERIVATION": locations_not_preserved,
    "SEG-REFERENCES": unlisted_source,
    "SEG-FRAME-OF-REFERENCE": other_frame_of_reference,
}


def broken(intact: Written, source: SourceSeries, change: Callable[[Written], None]) -> list[str]:
    set_ = copy.deepcopy(intact)
    change(set_)
    return [violation.rule for violation in lint_objects([set_.seg, set_.sr], source)]


def test_an_intact_set_breaks_no_rule(made: tuple[list[Path], SourceSeries]) -> None:
    assert lint(*made) == ()


def test_every_rule_has_a_broken_object() -> None:
    assert sorted(BREAKS) == sorted(rule.identifier for rule in RULES)
    assert all(rule.source and rule.sentence for rule in RULES)


@pytest.mark.parametrize("rule", BREAKS)
def test_only_its_own_rule_catches_a_broken_object(
    rule: str, intact: Written, made: tuple[list[Path], SourceSeries]
) -> None:
    assert broken(intact, made[1], BREAKS[rule]) == [rule]


def tracking_uid_gone(set_: Written) -> None:
    without(set_.groups()[0], concepts.TRACKING_UID)


def tracking_uid_repeated(set_: Written) -> None:
    first, second = (sr_tree.named(group, concepts.TRACKING_UID)[0] for group in set_.groups())
    second.UID = first.UID


def open_polyline(set_: Written) -> None:
    set_.region().GraphicData = list(set_.region().GraphicData)[:-2]


def foreign_image(set_: Written) -> None:
    reference = set_.region().ContentSequence[0].ReferencedSOPSequence[0]
    reference.ReferencedSOPInstanceUID = set_.seg.SOPInstanceUID


def not_a_number(set_: Written) -> None:
    del sr_tree.named(set_.groups()[0], concepts.MEAN)[0].MeasuredValueSequence


def turned(set_: Written) -> None:
    shared = set_.seg.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def coarser(set_: Written) -> None:
    set_.seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.4, 1.4]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (tracking_uid_gone, "SR-TRACKING"),
        (tracking_uid_repeated, "SR-TRACKING"),
        (open_polyline, "SR-REGIONS"),
        (foreign_image, "SR-REGIONS"),
        (not_a_number, "SR-NUMBERS"),
        (turned, "SEG-GEOMETRY"),
        (coarser, "SEG-GEOMETRY"),
    ],
)
def test_other_ways_to_break_a_rule_are_caught_too(
    change: Callable[[Written], None], rule: str, intact: Written, made: tuple[list[Path], SourceSeries]
) -> None:
    assert rule in broken(intact, made[1], change)


def test_a_set_of_other_objects_is_refused_before_any_rule(
    intact: Written, made: tuple[list[Path], SourceSeries], tmp_path: Path
) -> None:
    twice = lint_objects([intact.sr, intact.sr], made[1])
    (tmp_path / "torn.dcm").write_bytes(b"no DICOM")
    unreadable = lint([tmp_path / "torn.dcm"], made[1])
    assert [item.rule for item in (*twice, *unreadable)] == ["SET-READABLE", "SET-READABLE"]


def test_a_violation_lists_some_places_and_counts_the_others(
    intact: Written, made: tuple[list[Path], SourceSeries]
) -> None:
    set_ = copy.deepcopy(intact)
    for frame in set_.seg.PerFrameFunctionalGroupsSequence:
        frame.DerivationImageSequence = []
    (found,) = [item for item in lint_objects([set_.seg, set_.sr], made[1]) if item.rule == "SEG-DERIVATION"]
    assert "and 7 more" in str(found)
    assert found.severity == "error"


def test_a_deep_tree_is_survived() -> None:
    root = Dataset()
    current = root
    for _ in range(5000):
        child = Dataset()
        child.ValueType = "CONTAINER"
        current.ContentSequence = [child]
        current = child
    assert sum(1 for _ in sr_tree.descendants(root)) == 5000


def test_empty_frames_are_found_where_frames_do_not_end_on_bytes(
    intact: Written, made: tuple[list[Path], SourceSeries]
) -> None:
    set_ = copy.deepcopy(intact)
    rows, columns, frames = 5, 7, set_.seg.NumberOfFrames
    pixels = np.ones((frames, rows * columns), np.uint8)
    pixels[3] = 0
    packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    set_.seg.Rows, set_.seg.Columns = rows, columns
    set_.seg.PixelData = packed + b"\0" * (len(packed) % 2)
    assert math.ceil(frames * rows * columns / 8) == len(packed)
    (found,) = [item for item in lint_objects([set_.seg, set_.sr], made[1]) if item.rule == "SEG-EMPTY-FRAMES"]
    assert "frame 4 is empty" in found.sentence
