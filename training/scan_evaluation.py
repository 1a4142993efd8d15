"""Evaluation on whole scans: the graph's maps through the node's own findings, beside the truth."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.instances import SopReference
from node.domain.orientation import reorient
from node.domain.volume import Volume
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume
from node.results.findings_builder import build_findings
from node.testing.phantom import NODULE_BASE, RESCALE_INTERCEPT, PhantomVolume
from protos.model_manifest import ModelManifest
from training.evaluate import ScanScore, scan_score

Outputs = Mapping[str, NDArray[Any]]
PredictVolume = Callable[[Volume], Outputs]
"""A volume in the manifest's axes to the graph's outputs on its grid."""
_MAX_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Scan:
    """A volume and what is true of it."""

    name: str
    volume: Volume
    nodules: tuple[NDArray[np.bool_], ...]
    """One mask [slice, row, column] per true nodule."""


def read_series(folder: Path, axes: str) -> Volume:
    """Read the one series of a folder as the node does, turned to `axes`."""
    volume = build_volume(read_headers(sorted(folder.rglob("*.dcm"))), max_bytes=_MAX_BYTES)
    return reorient(volume, axes, 45.0)[0]


def phantom_scan(phantom: PhantomVolume, name: str, *, least_diameter_mm: float) -> Scan:
    """Take a phantom as a scan; its truth is the nodules of at least this diameter, the others count for nothing."""
    slices = phantom.geometry.shape[0]
    source = SopReference("1.2.840.10008.5.1.4.1.1.2", "2.25.1")
    volume = Volume(
        voxels=phantom.voxels,
        slope=np.ones(slices, np.float32),
        intercept=np.full(slices, RESCALE_INTERCEPT, np.float32),
        geometry=phantom.geometry,
        frame_of_reference_uid="2.25.2",
        study_uid="2.25.3",
        series_uid="2.25.4",
        sources=(source,) * slices,
        unit="[hnsf'U]",
    )
    large = [nodule for nodule in phantom.nodules if nodule.diameter_mm >= least_diameter_mm]
    return Scan(name, volume, tuple(phantom.labels == NODULE_BASE + nodule.ordinal for nodule in large))


def evaluate_scans(
    manifest: ModelManifest, predict: PredictVolume, scans: Iterable[Scan]
) -> tuple[tuple[Scan, ScanScore], ...]:
    """Score the findings of each scan."""
    return tuple(
        (scan, scan_score(build_findings(manifest, scan.volume, predict(scan.volume)), scan.nodules)) for scan in scans
    )
