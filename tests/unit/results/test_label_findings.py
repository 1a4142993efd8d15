"""Findings from a label map: one segment for each class, by its code and volume; component models stay as they were."""

from pathlib import Path

import numpy as np
import pytest
import structlog.testing
from pydantic import ValidationError
from pydicom import dcmread

from node.errors import InferenceRejected, SettingsError
from node.models import open_bundles
from node.results.evidence_writer import write_evidence
from node.results.request import EvidenceRequest
from node.settings import InferenceSettings
from node.store.outbox import Outbox
from protos.model_manifest import (
    MANIFEST_FILE,
    CodedConcept,
    Concept,
    LabelClass,
    LabelFindings,
    ModelManifest,
    write_digest_list,
    write_manifest,
)
from tests.evidence_cases import nodule_manifest, nodule_rule, read_series, request_for
from tests.series_factory import SeriesPlan, write_series

ORGAN = CodedConcept(value="123037004", scheme="SCT", meaning="Anatomical Structure")
NAMES = (("64033007", "Kidney"), ("10200004", "Liver"), ("78961009", "Spleen"))


def label_rule(**changes: object) -> LabelFindings:
    classes = tuple(
        LabelClass(
            index=index,
            label=name,
            concept=Concept(category=ORGAN, type=CodedConcept(value=code, scheme="SCT", meaning=name)),
        )
        for index, (code, name) in enumerate(NAMES, start=1)
    )
    fields = {"kind": "labels", "output": "probability", "classes": classes, **changes}
    return LabelFindings.model_validate(fields)


def manifest_of(*rules: object) -> ModelManifest:
    return ModelManifest.model_validate({**nodule_manifest().model_dump(), "findings": rules})


def request_of(directory: Path, label_map: np.ndarray, **changes: object) -> EvidenceRequest:
    volume, headers = read_series(write_series(SeriesPlan(np.full(label_map.shape, 24, np.int16)), directory))
    return request_for(volume, headers, {"probability": label_map}, manifest_of(label_rule(**changes)))


def two_organs() -> np.ndarray:
    labels = np.zeros((6, 32, 30), np.uint8)
    labels[1:4, 4:12, 5:15] = 1
    labels[2:5, 18:28, 6:20] = 3
    return labels


def test_each_class_that_is_there_becomes_one_segment_with_its_code_and_volume(tmp_path: Path) -> None:
    request = request_of(tmp_path / "in", two_organs())
    evidence = write_evidence(request, Outbox(tmp_path / "out"))
    files = {item.kind: evidence.directory / item.file_name for item in evidence.objects}
    segments = dcmread(files["SEG"]).SegmentSequence
    assert [item.SegmentLabel for item in segments] == ["Kidney", "Spleen"]
    assert [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in segments] == ["64033007", "78961009"]
    voxel = request.volume.geometry.voxel_ml
    assert [item.measurements[0].value for item in request.findings.items] == pytest.approx([240 * voxel, 420 * voxel])
    assert set(files) == {"SEG", "SR"}


def test_a_class_below_the_least_volume_is_left_out_and_counted(tmp_path: Path) -> None:
    labels = two_organs()
    labels[5, 0, 0] = 2
    request = request_of(tmp_path, labels, min_volume_ml=0.05)
    assert [item.label for item in request.findings.items] == ["Kidney", "Spleen"]
    assert request.findings.candidates_dropped == 1


def test_a_value_that_is_no_class_is_refused(tmp_path: Path) -> None:
    labels = two_organs()
    labels[5, 0, 0] = 4
    with pytest.raises(InferenceRejected, match="class 4; the manifest names 1 to 3"):
        request_of(tmp_path, labels)


def test_a_class_without_a_name_is_refused() -> None:
    rule = label_rule()
    with pytest.raises(ValidationError, match="name every class from 1 on"):
        label_rule(classes=(rule.classes[0], rule.classes[2]))


def test_components_and_labels_stand_side_by_side() -> None:
    manifest = manifest_of(nodule_rule(), label_rule())
    assert [rule.kind for rule in manifest.findings] == ["components", "labels"]


def test_a_model_without_findings_is_left_out_by_the_node(tmp_path: Path) -> None:
    for name, rules in (("only_served", ()), ("bright_nodules", (nodule_rule(),))):
        manifest = manifest_of(*rules)
        identity = manifest.identity.model_copy(update={"name": name})
        directory = tmp_path / name / identity.version
        directory.mkdir(parents=True)
        write_manifest(manifest.model_copy(update={"identity": identity}), directory / MANIFEST_FILE)
        write_digest_list(directory)
    with structlog.testing.capture_logs() as events:
        opened = open_bundles(InferenceSettings(models_directory=tmp_path))
    assert [item.manifest.identity.name for item in opened] == ["bright_nodules"]
    assert [event["model"] for event in events if event["event"] == "model_refused"] == ["only_served/3"]
    with pytest.raises(SettingsError, match="nothing to write"):
        open_bundles(InferenceSettings(models_directory=tmp_path, models=("only_served",)))
