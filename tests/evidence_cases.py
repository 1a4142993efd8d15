"""Requests for evidence: a synthetic or real series with a hand-made prediction, as the pipeline would hand them in."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.evidence import Signature
from node.domain.instances import ImageHeader
from node.domain.prediction import ModelIdentity
from node.domain.volume import Volume
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume
from node.results.findings_builder import build_findings
from node.results.request import EvidenceRequest
from protos.model_manifest import (
    AcceptedInput,
    CodedConcept,
    ComponentFindings,
    Concept,
    Identity,
    Memory,
    ModelBundle,
    ModelManifest,
    Tensor,
    Use,
)
from tests.series_factory import SeriesPlan, write_series

DECIDED_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
GENERATION = "ab" * 32
DIGEST = "cd" * 32
NODULE = Concept(
    category=CodedConcept(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"),
    type=CodedConcept(value="27925004", scheme="SCT", meaning="Nodule"),
    site=CodedConcept(value="39607008", scheme="SCT", meaning="Lung"),
    color_rgb=(230, 60, 40),
)


def nodule_rule(**changes: Any) -> ComponentFindings:
    fields = {"output": "probability", "threshold": 0.5, "label": "Nodule", "concept": NODULE, **changes}
    return ComponentFindings(**fields)


def nodule_manifest(*rules: ComponentFindings) -> ModelManifest:
    shape = (-1, -1, -1)
    return ModelManifest(
        schema_version=1,
        identity=Identity(name="bright_nodules", version="3", title="Bright nodules", manufacturer="Hilum tests"),
        use=Use(intended_use="tests", research_use="research use only"),
        accepts=AcceptedInput(modalities=("CT", "MR")),
        inputs=(Tensor(name="image", datatype="INT16", shape=shape),),
        outputs=(
            Tensor(name="probability", datatype="UINT8", shape=shape),
            Tensor(name="lungs", datatype="UINT8", shape=shape),
        ),
        findings=rules or (nodule_rule(),),
        memory=Memory(base_mb=1, bytes_per_voxel=1),
        licence="CC0-1.0",
    )


def ball(shape: tuple[int, int, int], center: tuple[float, float, float], radii: tuple[float, float, float]) -> Any:
    """A mask [slice, row, column] of an ellipsoid, in voxels."""
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(grid, center, radii, strict=True)) <= 1.0


def probability_of(*masks: NDArray[np.bool_], values: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """A UINT8 probability map with a value per mask (240 where none is given)."""
    probability = np.zeros(masks[0].shape, np.uint8)
    for index, mask in enumerate(masks):
        probability[mask] = values[index] if index < len(values) else 240
    return probability


def request_for(
    volume: Volume,
    headers: tuple[ImageHeader, ...],
    outputs: dict[str, NDArray[Any]],
    manifest: ModelManifest | None = None,
    **signed: Any,
) -> EvidenceRequest:
    manifest = manifest or nodule_manifest()
    fields = {
        "study_uid": volume.study_uid,
        "generation": GENERATION,
        "decided_at": DECIDED_AT,
        "settings_digest": "ef" * 32,
        "institution_name": "Test Hospital",
        "device_serial_number": "SN-1",
        **signed,
    }
    identity = manifest.identity
    return EvidenceRequest(
        bundle=ModelBundle(Path("bundle"), manifest, DIGEST),
        headers=headers,
        volume=volume,
        findings=build_findings(manifest, volume, outputs),
        model=ModelIdentity(
            identity.name, identity.version, identity.title, identity.manufacturer, DIGEST, verified="digest"
        ),
        signature=Signature(**fields),
    )


def read_series(paths: list[Path]) -> tuple[Volume, tuple[ImageHeader, ...]]:
    headers = read_headers(paths)
    return build_volume(headers, max_bytes=1 << 31), headers


def two_nodules(directory: Path, plan: SeriesPlan | None = None, **signed: Any) -> EvidenceRequest:
    """A small series with a large and a small nodule."""
    plan = plan or SeriesPlan(np.full((12, 48, 40), 24, np.int16))
    volume, headers = read_series(write_series(plan, directory))
    shape = volume.geometry.shape
    large = ball(shape, (5, 20, 14), (3.2, 9, 9))
    small = ball(shape, (8, 36, 30), (2, 4, 4))
    outputs = {"probability": probability_of(large, small, values=(250, 150))}
    return request_for(volume, headers, outputs, **signed)
