"""Orthanc forwards every stable study to the node and gets the results back: the loop ends after one run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from node.settings import Destination
from node.testing.modality import Modality
from node.testing.phantom import PhantomTruth
from tests.inference_service import RunningService
from tests.node_process import NodeProcess
from tests.orthanc import Orthanc
from tests.waiting import wait_until


def forwards(orthanc: Orthanc) -> int:
    """Forward jobs that have ended well."""
    jobs = orthanc.get("/jobs?expand")
    return sum(job["Type"] == "DicomModalityStore" and job["State"] == "Success" for job in jobs)


def stable_studies(orthanc: Orthanc) -> int:
    return sum(item["ChangeType"] == "StableStudy" for item in orthanc.get("/changes?limit=1000")["Changes"])


@pytest.mark.needs_program("Orthanc")
def test_results_stored_back_cause_no_second_run(
    tmp_path: Path,
    orthanc: Orthanc,
    bright_models: Path,
    bright_service: RunningService,
    small_study: Callable[[int], PhantomTruth],
) -> None:
    orthanc.auto_forward = True
    orthanc.start()
    destination = Destination(name="orthanc", ae_title="PACS1", host="127.0.0.1", port=orthanc.dicom_port)
    node = NodeProcess(
        tmp_path / "node", bright_service.tcp, models=bright_models, destinations=(destination,), port=orthanc.node_port
    )
    study = small_study(1)
    with node:
        report = Modality("PACS1", "127.0.0.1", orthanc.dicom_port).send(study.files[0].parent)
        assert len(report.of("SENT")) == len(study.files)
        wait_until(lambda: len(orthanc.instances("SR")) == 1, timeout_s=120, what="the SR in Orthanc")
        # The results made the study stable once more, and the CT came back to the node.
        wait_until(lambda: stable_studies(orthanc) >= 2, timeout_s=60, what="the second StableStudy")
        wait_until(lambda: forwards(orthanc) >= 2, timeout_s=60, what="the second forward")
        node.wait_for_end(1)
        history = node.history(study.study_uid)
    assert history is not None
    assert len(history.generations) == 1
    assert [run.state for run in history.runs] == ["EVIDENCE"]
    assert len(orthanc.instances("SEG")) == 1
    assert len(orthanc.instances("SR")) == 1
    assert len(orthanc.instances("CT")) == len(study.files)
