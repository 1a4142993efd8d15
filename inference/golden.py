"""The golden pair of a bundle: a synthetic input and the output that the exported graph gave for it."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import BundleRefused
from protos.model_manifest import ModelBundle, ModelManifest
from protos.tensors import dtype_of

INPUT_PREFIX, OUTPUT_PREFIX = "input/", "output/"
GOLDEN_BYTES_MOST = 512 << 20
"""Of the arrays once unpacked; the file itself is never larger."""
_WARM_SLICES, _WARM_SIZE = 2, 64


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """Named inputs and the outputs that belong to them."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


def read_golden(bundle: ModelBundle) -> GoldenPair:
    """Read the golden pair that the manifest names; raise BundleRefused where it is not there or not whole."""
    golden, manifest = bundle.manifest.golden, bundle.manifest
    if golden is None:
        raise BundleRefused(f"{bundle.directory}: the manifest names no golden pair")
    try:
        _refuse_oversize(bundle.directory / golden.file)
        with np.load(bundle.directory / golden.file, allow_pickle=False) as arrays:
            return GoldenPair(
                inputs={tensor.name: arrays[INPUT_PREFIX + tensor.name] for tensor in manifest.inputs},
                outputs={tensor.name: arrays[OUTPUT_PREFIX + tensor.name] for tensor in manifest.outputs},
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleRefused(f"{bundle.directory / golden.file}: not a golden pair: {error}") from error


def _refuse_oversize(path: Path) -> None:
    size = path.stat().st_size
    if size <= GOLDEN_BYTES_MOST:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    if size > GOLDEN_BYTES_MOST:
        raise BundleRefused(f"{path}: expected at most {GOLDEN_BYTES_MOST} bytes, got {size}; it was not unpacked")


def golden_difference(expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float:
    """Give the greatest relative difference over the outputs: sum |got - expected| / sum |expected|.

    For maps that are zero nearly everywhere this weighs what is marked, as 1 - Dice does; a mean over all voxels
    would not see a missing finding. Infinite where a shape differs.
    """
    return max((_relative(expected[name], got[name]) for name in expected), default=0.0)


def _relative(expected: NDArray[Any], got: NDArray[Any]) -> float:
    if expected.shape != got.shape:
        return float("inf")
    reference = expected.astype(np.float64)
    return float(np.abs(got.astype(np.float64) - reference).sum() / max(np.abs(reference).sum(), 1e-12))


def warming_inputs(
    manifest: ModelManifest, *, slices: int = _WARM_SLICES, size: int = _WARM_SIZE
) -> dict[str, NDArray[Any]]:
    """Make ones: the first dimension of any size becomes `slices`, the others `size`."""
    return {
        tensor.name: np.ones(
            [(size if axis else slices) if length == -1 else length for axis, length in enumerate(tensor.shape)],
            dtype_of(tensor.datatype),
        )
        for tensor in manifest.inputs
    }
