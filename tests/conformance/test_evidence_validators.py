"""Our objects before other people's validators and readers: dicom3tools, DCMTK, dcmqi, highdicom."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from node.domain.evidence import EvidenceSet, PreviousReport
from node.domain.instances import ImageHeader
from node.errors import NotUnderstood
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume
from node.results.evidence_writer import write_evidence
from node.results.request import EvidenceRequest
from node.store.outbox import Outbox
from tests import validators
from tests.evidence_cases import ball, probability_of, read_series, request_for, two_nodules
from tests.series_factory import SeriesPlan, write_series

VOXELS = np.full((12, 48, 40), 24, np.int16)
OBLIQUE = (0.9659258262890683, 0.0, -0.25881904510252074, 0.0, 1.0, 0.0)
PLANS = {
    "axial CT": SeriesPlan(VOXELS),
    "feet first": SeriesPlan(VOXELS, orientation=(-1, 0, 0, 0, 1, 0), shuffle=True),
    "flipped": SeriesPlan(VOXELS, orientation=(1, 0, 0, 0, -1, 0), spacing=(3, 0.6, 0.9)),
    "oblique MR": SeriesPlan(VOXELS, orientation=OBLIQUE, modality="MR", shuffle=True),
    "coronal MR": SeriesPlan(VOXELS, orientation=(1, 0, 0, 0, 0, -1), modality="MR"),
    "odd grid": SeriesPlan(VOXELS[:, :37, :35]),
}
REAL = [
    "ct_chest_LIDC-IDRI-0001",
    "ct_chest_LIDC-IDRI-0002",
    "ct_head_philips28",
    "mr_brain_PGBM-003",
    "mr_brain_PGBM-002_HippoCrop",
]


def assert_all_readers_agree(request: EvidenceRequest, evidence: EvidenceSet, scratch: Path) -> None:
    paths = {item.kind: evidence.directory / item.file_name for item in evidence.objects}
    for path in paths.values():
        assert validators.iod_errors(path) == []
    sources = [header.path for header in request.headers]
    already = set(validators.entity_errors(sources))  # e.g. localizers that the sources name and nobody has
    assert [line for line in validators.entity_errors([*paths.values(), *sources]) if line not in already] == []
    text = validators.dumped_report(paths["SR"])
    assert text.count("Measurement Group") == len(request.findings.items)
    assert_report_read(request, validators.measurements(paths["SR"], scratch))
    if request.findings.items:
        assert_highdicom_reads_the_labels(request, paths["SEG"])
        assert_dcmqi_reads_the_labels(request, paths["SEG"], scratch)


def assert_report_read(request: EvidenceRequest, report: dict) -> None:
    groups = report["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == [item.label for item in request.findings.items]
    for group, item in zip(groups, request.findings.items, strict=True):
        read = {entry["quantity"]["CodeValue"]: float(entry["value"]) for entry in group["measurementItems"]}
        assert read == pytest.approx({each.concept.value: each.value for each in item.measurements}, rel=1e-4)


def assert_highdicom_reads_the_labels(request: EvidenceRequest, path: Path) -> None:
    seg = highdicom.seg.segread(path)
    uids = [source.sop_instance_uid for source in request.volume.sources]
    read = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True, ignore_spatial_locations=False
    )
    assert np.array_equal(read, request.findings.labels)


def assert_dcmqi_reads_the_labels(request: EvidenceRequest, path: Path, scratch: Path) -> None:
    labels = request.findings.labels
    read = np.zeros_like(labels)
    for image in validators.segment_images(path, scratch):
        points, values = image.points()
        exact = request.volume.geometry.to_index(points)
        index = np.rint(exact).astype(int)
        assert np.abs(exact - index).max() < 0.05
        read[tuple(index.T)] = values
    assert np.array_equal(read, labels)


@pytest.mark.parametrize("name", PLANS)
def test_synthetic_series(name: str, tmp_path: Path) -> None:
    request = two_nodules(tmp_path / "series", PLANS[name])
    assert_all_readers_agree(request, write_evidence(request, Outbox(tmp_path / "outbox")), tmp_path)


def test_a_finding_on_a_single_slice(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLANS["axial CT"], tmp_path / "series"))
    mask = np.zeros(volume.geometry.shape, bool)
    mask[4, 10:14, 10:14] = True
    request = request_for(volume, headers, {"probability": probability_of(mask)})
    assert_all_readers_agree(request, write_evidence(request, Outbox(tmp_path / "outbox")), tmp_path)


def test_nothing_found(tmp_path: Path) -> None:
    volume, headers = read_series(write_series(PLANS["axial CT"], tmp_path / "series"))
    request = request_for(volume, headers, {"probability": np.zeros(volume.geometry.shape, np.uint8)})
    evidence = write_evidence(request, Outbox(tmp_path / "outbox"))
    assert [item.kind for item in evidence.objects] == ["SR"]
    assert_all_readers_agree(request, evidence, tmp_path)


def test_a_correction_beside_what_it_corrects(tmp_path: Path) -> None:
    request = two_nodules(tmp_path / "series", PLANS["axial CT"])
    outbox = Outbox(tmp_path / "outbox")
    first = write_evidence(request, outbox)
    report = next(item for item in first.objects if item.kind == "SR")
    previous = PreviousReport(report.sop, first.study_uid, report.series_uid, 1)
    later = replace(request, signature=replace(request.signature, generation="00" * 32), previous=previous)
    second = write_evidence(later, outbox)
    corrected = next(second.directory / item.file_name for item in second.objects if item.kind == "SR")
    (study,) = dcmread(corrected).PredecessorDocumentsSequence
    named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == report.sop.sop_instance_uid
    results = [evidence.directory / item.file_name for evidence in (first, second) for item in evidence.objects]
    assert [line for path in results for line in validators.iod_errors(path)] == []
    assert validators.entity_errors([*results, *(header.path for header in request.headers)]) == []


@pytest.mark.parametrize("name", REAL)
def test_real_series(name: str, tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    series: dict[str, list[ImageHeader]] = {}
    refused: list[tuple[Path, NotUnderstood]] = []
    paths = sorted(path for path in shared_data(name).rglob("*") if path.is_file())
    for header in read_headers(paths, on_refused=lambda path, error: refused.append((path, error))):
        series.setdefault(header.series_uid, []).append(header)
    for number, headers in enumerate(series.values()):
        volume = build_volume(headers, max_bytes=1 << 30)
        slices, rows, columns = volume.geometry.shape
        large = ball(volume.geometry.shape, (slices / 2, rows / 3, columns / 4), (slices / 4, rows / 12, columns / 10))
        small = ball(volume.geometry.shape, (1, rows * 0.8, columns * 0.7), (1, rows / 20, columns / 20))
        request = request_for(volume, tuple(headers), {"probability": probability_of(large, small)})
        scratch = tmp_path / f"{number}"
        scratch.mkdir()
        assert_all_readers_agree(request, write_evidence(request, Outbox(scratch / "outbox")), scratch)
    assert series
