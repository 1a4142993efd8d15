"""The heavy steps on a real store and index: what may become evidence, and what must wait or be refused."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import Engine

from node import pipeline
from node.domain.instances import EXPLICIT_VR_LITTLE_ENDIAN, ReceivedInstance
from node.domain.prediction import Prediction
from node.domain.volume import Volume
from node.errors import Refusal
from node.imaging.headers import read_header
from node.index.engine import open_index
from node.index.instances import record_instance
from node.index.runs import RunRequest
from node.index.studies import decide
from node.settings import ProcessingSettings
from node.steps import StudySteps, identity_of, version_of
from node.store.outbox import Outbox
from protos.model_manifest import ModelBundle
from tests.evidence_cases import DIGEST, nodule_manifest
from tests.series_factory import SeriesPlan, write_series

BUNDLE = ModelBundle(Path("bundle"), nodule_manifest(), DIGEST)


@dataclass
class Case:
    steps: StudySteps
    run: RunRequest
    series_uid: str
    paths: list[Path]
    outbox: Outbox


def bright_box(bundle: ModelBundle, volume: Volume) -> Prediction:
    found = np.zeros(volume.geometry.shape, np.uint8)
    found[3:6, 10:20, 10:20] = 240
    return Prediction({"probability": found, "lungs": found}, identity_of(bundle), "r", 0.1)


def recorded(engine: Engine, paths: list[Path], at: datetime) -> str:
    headers = [read_header(path) for path in paths]
    for number, (path, header) in enumerate(zip(paths, headers, strict=True)):
        received = ReceivedInstance(
            header.sop, header.study_uid, header.series_uid, EXPLICIT_VR_LITTLE_ENDIAN, "CT1", path, f"{number:064}", at
        )
        record_instance(engine, received, size=path.stat().st_size, derived=False)
    return headers[0].study_uid


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    paths = write_series(SeriesPlan(np.full((12, 48, 40), 24, np.int16)), tmp_path / "series")
    engine = open_index(tmp_path / "index.sqlite")
    now = datetime.now(UTC)
    study_uid = recorded(engine, paths, now)
    ready = decide(engine, study_uid, "quiet", now)
    assert ready is not None
    outbox = Outbox(tmp_path / "outbox")
    client: Any = SimpleNamespace(infer=bright_box, room=lambda _byte_size: None)
    steps = StudySteps(engine, outbox, client, {version_of(BUNDLE): BUNDLE}, ProcessingSettings())
    run = RunRequest("r", study_uid, ready.generation, version_of(BUNDLE), "ef" * 32, 0, now)
    series_uid = steps.select(run).series_uid
    assert series_uid is not None
    yield Case(steps, run, series_uid, paths, outbox)
    engine.dispose()


def test_evidence_rests_on_every_image_of_the_series(case: Case) -> None:
    evidence = case.steps.make_evidence(case.run, case.series_uid)
    report = dcmread(evidence.directory / "sr-1.dcm")
    source = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(source.ReferencedSOPSequence) == len(case.paths)


def test_a_slice_that_went_away_after_the_choice_makes_no_evidence_of_the_rest(case: Case) -> None:
    case.paths[-1].unlink()
    with pytest.raises(FileNotFoundError):
        case.steps.make_evidence(case.run, case.series_uid)
    assert list(case.outbox.scan()) == []


def test_a_slice_that_was_torn_after_the_choice_is_refused_by_its_uid(case: Case) -> None:
    uid = read_header(case.paths[-1]).sop.sop_instance_uid
    case.paths[-1].write_bytes(case.paths[-1].read_bytes()[:600])
    with pytest.raises(Refusal, match=uid):
        case.steps.make_evidence(case.run, case.series_uid)
    assert list(case.outbox.scan()) == []


def test_a_file_that_holds_another_instance_than_was_received_is_refused(case: Case) -> None:
    uid = read_header(case.paths[-1]).sop.sop_instance_uid
    case.paths[-1].write_bytes(case.paths[-2].read_bytes())
    with pytest.raises(Refusal, match=uid):
        case.steps.make_evidence(case.run, case.series_uid)


def test_a_machine_out_of_descriptors_does_not_make_a_series_unreadable(case: Case) -> None:
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        pipeline.read_study((path, case.series_uid) for path in case.paths)


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
