"""A study whose slices are at the service before the modality has sent the last: the same results as without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from node.testing.modality import FileReport, Modality
from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth, write_phantom
from tests.inference_service import RunningService, end_process, running_service
from tests.node_process import NodeProcess
from tests.waiting import wait_until

SLICES, SIZE = 12, 128
SLICE_BYTES = SIZE * SIZE * 2
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
UPLOADING: dict[str, Any] = {"inference": {"regions": "upload"}, "log": {"level": "debug"}}


def events(node: NodeProcess, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in node.log().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == name]


def segments(pacs: StandInPacs) -> np.ndarray[Any, Any]:
    (path,) = [item.path for item in pacs.objects if item.sop_class_uid == SEGMENTATION]
    return pydicom.dcmread(path).pixel_array


@pytest.fixture
def study(tmp_path: Path) -> PhantomTruth:
    return write_phantom(tmp_path / "study", slices=SLICES, size=SIZE, slice_spacing_mm=10.0, seed=5)


def test_slices_travel_while_the_association_is_open_and_the_result_is_the_same(
    tmp_path: Path,
    bright_models: Path,
    bright_service: RunningService,
    bright_node: NodeProcess,
    pacs: StandInPacs,
    study: PhantomTruth,
) -> None:
    bright_node.changes = UPLOADING
    open_while_sending: list[int] = []

    def hold_the_last_back(report: FileReport) -> None:
        """Called on the sender's thread between two C-STOREs of one association."""
        if report.path == sorted(study.files)[-2]:
            wait_until(lambda: events(bright_node, "slice_sent_early")[SLICES - 2 :], what="the slices but the last")
            open_while_sending.append(len(events(bright_node, "association_closed")))

    with bright_node:
        modality = Modality("HILUM", "127.0.0.1", bright_node.port)
        before = len(events(bright_node, "association_closed"))  # that of the probe at the start
        assert len(modality.send(study.files[0].parent, hold_the_last_back).of("SENT")) == SLICES
        assert bright_node.wait_for_end(1) == {study.study_uid: "DONE"}
    assert open_while_sending == [before]
    (used,) = events(bright_node, "volume_uploaded_early")
    assert used["bytes_early"] + used["bytes_late"] == SLICES * SLICE_BYTES
    assert used["bytes_early"] >= (SLICES - 1) * SLICE_BYTES
    assert events(bright_node, "early_upload_dropped") == []
    early = segments(pacs)

    with StandInPacs(tmp_path / "other") as other:
        plain = NodeProcess(
            tmp_path / "plain", bright_service.tcp, models=bright_models, destinations=(other.destination(),)
        )
        plain.changes = {"inference": {"regions": "upload", "early_upload": "off"}, "log": {"level": "debug"}}
        with plain:
            Modality("HILUM", "127.0.0.1", plain.port).send(study.files[0].parent)
            assert plain.wait_for_end(1) == {study.study_uid: "DONE"}
        assert not [line for line in plain.log().splitlines() if "early" in line]
        np.testing.assert_array_equal(early, segments(other))
    assert early.any()


def test_a_late_slice_after_the_result_makes_the_next_one_whole(
    bright_node: NodeProcess, study: PhantomTruth, tmp_path: Path
) -> None:
    """The study comes over three associations, its last slice after the first result was delivered."""
    bright_node.changes = UPLOADING
    most = tmp_path / "most"
    most.mkdir()
    for path in study.files[:-1]:  # in slice order: the rest is an even stack
        (most / path.name).symlink_to(path)
    with bright_node:
        Modality("HILUM", "127.0.0.1", bright_node.port, associations=3).send(most)
        assert bright_node.wait_for_end(1) == {study.study_uid: "DONE"}
        Modality("HILUM", "127.0.0.1", bright_node.port).send(study.files[-1])
        wait_until(lambda: len(generations(bright_node, study)) == 2, what="the second generation")
        assert bright_node.wait_for_end(1) == {study.study_uid: "DONE"}
        runs = bright_node.history(study.study_uid)
    assert generations(bright_node, study) == [SLICES - 1, SLICES]
    assert runs is not None
    assert {run.state for run in runs.runs} == {"EVIDENCE"}
    used = events(bright_node, "volume_uploaded_early")
    assert [(item["count"], item["bytes_late"]) for item in used] == [(SLICES - 1, 0)]


def generations(node: NodeProcess, study: PhantomTruth) -> list[int]:
    history = node.history(study.study_uid)
    return [] if history is None else [item.instances for item in history.generations]


def test_slices_that_wait_at_a_service_do_not_hold_its_end(
    tmp_path: Path, bright_models: Path, study: PhantomTruth
) -> None:
    with running_service(bright_models, "--grace-s", "100") as own:
        node = NodeProcess(tmp_path / "node", own.tcp, models=bright_models)
        node.changes = UPLOADING | {"completion": {"settle_s": 300.0, "hanging_s": 300.0}}
        with node:
            Modality("HILUM", "127.0.0.1", node.port).send(study.files[0].parent)
            wait_until(lambda: events(node, "slice_sent_early")[SLICES - 1 :], what="all slices")
            assert end_process(own.process, timeout_s=60) == 0
            wait_until(lambda: events(node, "early_upload_dropped"), what="the node to give them up")


def test_a_node_killed_while_a_series_arrives_goes_on_with_what_is_on_disk(
    bright_node: NodeProcess, pacs: StandInPacs, study: PhantomTruth, tmp_path: Path
) -> None:
    """Early slices die with the node; the rest of the series is sent early to a new region, the first ones late."""
    bright_node.changes = UPLOADING | {"completion": {"settle_s": 20.0}}
    half = tmp_path / "half"
    half.mkdir()
    for path in study.files[: SLICES // 2]:
        (half / path.name).symlink_to(path)
    bright_node.start()
    Modality("HILUM", "127.0.0.1", bright_node.port).send(half)
    wait_until(lambda: events(bright_node, "slice_sent_early"), what="slices at the service")
    bright_node.kill()
    bright_node.changes = UPLOADING
    with bright_node:
        Modality("HILUM", "127.0.0.1", bright_node.port).send(study.files[0].parent)
        wait_until(lambda: SEGMENTATION in {item.sop_class_uid for item in pacs.objects}, timeout_s=120, what="a SEG")
        bright_node.wait_for_end(1)
        history = bright_node.history(study.study_uid)
    assert history is not None
    assert history.generations[-1].instances == SLICES
    assert "Traceback" not in bright_node.log()
    last = events(bright_node, "volume_uploaded_early")[-1]
    assert last["count"] == SLICES
