"""Two real chest CTs and a phantom: DCMTK sends, the shipped model reads, Orthanc receives, other tools look."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.settings import BUNDLED_MODELS
from node.domain.instances import ImageHeader
from node.imaging.headers import read_header
from node.index.history import StudyHistory
from node.pipeline import Reading, read_series
from node.settings import Destination
from node.testing.phantom import NODULE_BASE, PhantomTruth, write_phantom
from protos.model_manifest import open_bundle
from tests import validators
from tests.inference_service import RunningService, client_of, running_service
from tests.node_process import NodeProcess
from tests.orthanc import Orthanc
from training.evaluate import _contour_mask

pytestmark = pytest.mark.needs_program("Orthanc", "dcmsend", "storescu", "dsrdump")
LIDC = ("ct_chest_LIDC-IDRI-0001", "ct_chest_LIDC-IDRI-0002")
NAMES = (*LIDC, "phantom")
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One study, what the model says of it in this process, and what lies in Orthanc."""

    headers: tuple[ImageHeader, ...]
    reading: Reading
    history: StudyHistory
    results: dict[str, Path]


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with running_service(BUNDLED_MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("phantom"), slices=40, seed=7)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def cases(
    tmp_path_factory: pytest.TempPathFactory,
    shared_data: Callable[[str], Path],
    service: RunningService,
    phantom: PhantomTruth,
    orthanc: Orthanc,
) -> dict[str, Case]:
    """Send all studies at once, wait for the end, download what came to Orthanc."""
    folders = {**{name: shared_data(name) for name in LIDC}, "phantom": phantom.files[0].parent}
    destination = Destination(name="orthanc", ae_title="PACS1", host="127.0.0.1", port=orthanc.dicom_port)
    node = NodeProcess(tmp_path_factory.mktemp("node"), service.tcp, destinations=(destination,))
    with node:
        for name, folder in folders.items():
            send("storescu" if name == "phantom" else "dcmsend", node, folder)
        assert set(node.wait_for_end(len(folders), timeout_s=400).values()) == {"DONE"}
        assert "Traceback" not in node.log()
        target = tmp_path_factory.mktemp("downloads")
        return {name: case_of(folder, target / name, node, orthanc, service) for name, folder in folders.items()}


def send(program: str, node: NodeProcess, folder: Path) -> None:
    # pynetdicom puts a storescu of its own beside our Python; DCMTK's is meant.
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != scripts)
    command = [shutil.which(program, path=path) or program, "-aec", "HILUM", "+sd", "+r"]
    command += ["127.0.0.1", str(node.port), str(folder)]
    sent = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert sent.returncode == 0, sent.stderr


def case_of(folder: Path, target: Path, node: NodeProcess, orthanc: Orthanc, service: RunningService) -> Case:
    headers = tuple(read_header(path) for path in sorted(folder.rglob("*.dcm")))
    bundle = open_bundle(BUNDLED_MODELS / "lung_nodule" / "1")
    with client_of(service.tcp) as client:
        reading = read_series(bundle, headers, client.infer, max_bytes=1 << 30)
    history = node.history(headers[0].study_uid)
    assert history is not None
    target.mkdir()
    held = {orthanc.get(f"/instances/{one}")["MainDicomTags"]["SOPInstanceUID"]: one for one in orthanc.instances()}
    results = {
        part.kind: orthanc.download(held[part.sop_instance_uid], target / f"{part.kind}.dcm")
        for part in history.objects
    }
    return Case(headers, reading, history, results)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def test_each_study_is_one_run_and_two_objects_sent_once(case: Case) -> None:
    assert [run.state for run in case.history.runs] == ["EVIDENCE"]
    assert sorted(case.results) == ["SEG", "SR"]
    ways = [way for part in case.history.objects for way in part.deliveries]
    assert {(way.destination, way.state, way.attempts) for way in ways} == {("orthanc", "SENT", 1)}


def test_dicom3tools_find_no_error_in_the_objects_nor_between_them_and_the_series(case: Case) -> None:
    for path in case.results.values():
        assert validators.iod_errors(path) == []
    sources = [header.path for header in case.headers]
    already = set(validators.entity_errors(sources))
    assert set(validators.entity_errors([*case.results.values(), *sources])) - already == set()


def test_the_report_is_read_by_dcmtk_and_dcmqi(case: Case, tmp_path: Path) -> None:
    labels = [item.label for item in case.reading.findings.items]
    assert validators.dumped_report(case.results["SR"]).count("Measurement Group") == len(labels)
    groups = validators.measurements(case.results["SR"], tmp_path)["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == labels


def test_masks_that_dcmqi_reads_are_the_findings_voxel_for_voxel(case: Case, tmp_path: Path) -> None:
    labels = case.reading.findings.labels
    read = np.zeros_like(labels)
    for image in validators.segment_images(case.results["SEG"], tmp_path):
        points, values = image.points()
        exact = case.reading.volume.geometry.to_index(points)
        index = np.rint(exact).astype(int)
        assert np.abs(exact - index).max() < 0.05
        read[tuple(index.T)] = values
    assert labels.any()
    assert np.array_equal(read, labels)


@pytest.mark.parametrize("name", LIDC)
def test_say_which_of_the_radiologists_nodules_were_found(
    name: str, cases: dict[str, Case], shared_file: Callable[[str], Path]
) -> None:
    reading = cases[name].reading
    marks = json.loads(shared_file(f"dicom/{name}.nodules.json").read_text(encoding="utf-8"))
    contours = [_contour_mask(mark, reading.volume) for mark in marks]
    nodules = one_per_overlap(contours)
    assert sum(len(readers) for readers in nodules) == len(contours)
    print_figures(name, reading, [np.any(readers, axis=0) for readers in nodules], [len(item) for item in nodules])


def test_say_which_of_the_phantoms_nodules_were_found(cases: dict[str, Case], phantom: PhantomTruth) -> None:
    reading = cases["phantom"].reading
    masks = [phantom.labels == NODULE_BASE + nodule.ordinal for nodule in phantom.nodules]
    hits = print_figures("phantom", reading, masks, [nodule.diameter_mm for nodule in phantom.nodules])
    for nodule, ordinals in zip(phantom.nodules, hits, strict=True):
        assert ordinals or nodule.diameter_mm < 6


def one_per_overlap(marks: Sequence[Mask]) -> list[list[Mask]]:
    """Put marks of several readers together where they share a voxel: they are one nodule."""
    groups: list[list[Mask]] = []
    for mark in marks:
        touching = [group for group in groups if any((mark & other).any() for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([mark, *(other for group in touching for other in group)])
    return groups


def print_figures(name: str, reading: Reading, masks: Sequence[Mask], marks: Sequence[Any]) -> list[list[int]]:
    """Print the finding's ordinals for each true nodule, and how many findings hit none; return the ordinals."""
    labels = reading.findings.labels
    hits = [sorted(set(np.unique(labels[mask]).tolist()) - {0}) for mask in masks]
    for mark, ordinals in zip(marks, hits, strict=True):
        print(f"{name}: nodule ({mark}): {'found as ' + str(ordinals) if ordinals else 'not found'}")
    others = len(reading.findings.items) - len({one for ordinals in hits for one in ordinals})
    print(f"{name}: {len(reading.findings.items)} findings, {others} of them hit no nodule")
    return hits
