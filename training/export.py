"""Export: a function over named tensors becomes a model bundle with a frozen graph and a golden pair."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.golden import INPUT_PREFIX, OUTPUT_PREFIX
from inference.graph.frozen import SAVED_MODEL_FILE, SERVING, import_graph, read_frozen_graph
from inference.runners.whole import Predictor
from protos.model_manifest import (
    MANIFEST_FILE,
    Golden,
    ModelBundle,
    ModelManifest,
    open_bundle,
    write_digest_list,
    write_manifest,
)
from protos.tensors import dtype_of
from training.freezing import saved_model_of
from training.parts import Explained, Signature, SlabParts, TensorFunction, TileParts, input_specs

GOLDEN_FILE = "golden.npz"
DEFAULT_TOLERANCE = {"cpu": 1e-3, "gpu": 1e-2}
"""Greatest relative difference of an output, see `inference.golden.golden_difference`; TF32 of GPUs is about 1e-3."""

Arrays = Mapping[str, NDArray[Any]]


def export_bundle(
    function: TensorFunction,
    manifest: ModelManifest,
    directory: Path,
    golden_input: Arrays | None,
    *,
    replace: bool = False,
) -> ModelBundle:
    """Freeze `function` and publish it as the bundle `<directory>/<name>/<version>`.

    The bundle is written beside its place and renamed, so that a reader sees all of it or nothing.

    Args:
        function: takes the manifest's inputs by name (tensors of its dtypes and shapes) and returns a mapping of
            the manifest's outputs; its variables become constants. A `training.parts.TileParts` or `SlabParts` is
            such a function too, and its parts become signatures of the same graph; so is `training.parts.Explained`.
        manifest: what `model.toml` says. Where it names no golden pair and `golden_input` is given, the golden file
            with the default tolerance is added to it.
        directory: the models directory, not the version's.
        golden_input: one array for each input; the output that belongs to it is computed by a fresh import of the
            written graph. None leaves the golden pair out.
        replace: take away a version of the same name first; without it that is FileExistsError.

    Raises:
        BundleRefused: the graph holds an op that a frozen model may not hold, or is not what the manifest says.
        ValueError: the manifest names a golden pair and no input for it is given, or does not go with the parts.
    """
    target = directory / manifest.identity.name / manifest.identity.version
    if target.exists() and not replace:
        raise FileExistsError(f"{target} exists. Remedy: raise the version, or pass replace=True")
    described = _with_golden(manifest, golden_input)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write_files(part, function, described, golden_input)
        if replace:
            shutil.rmtree(target, ignore_errors=True)
        part.chmod(0o755)  # mkdtemp's folder is for one user; a bundle is for all that serve it
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_bundle(target)


def _with_golden(manifest: ModelManifest, golden_input: Arrays | None) -> ModelManifest:
    if golden_input is None:
        if manifest.golden is not None:
            raise ValueError(f"the manifest names the golden pair {manifest.golden.file!r}, but no input is given")
        return manifest
    if manifest.golden is not None:
        return manifest
    return manifest.model_copy(update={"golden": Golden(file=GOLDEN_FILE, tolerance=DEFAULT_TOLERANCE)})


def _write_files(part: Path, function: TensorFunction, manifest: ModelManifest, golden_input: Arrays | None) -> None:
    (part / SAVED_MODEL_FILE).write_bytes(_frozen_saved_model(function, manifest).SerializeToString(deterministic=True))
    graph = read_frozen_graph(part / SAVED_MODEL_FILE, manifest)
    if golden_input is not None and manifest.golden is not None:
        typed = {
            tensor.name: np.asarray(golden_input[tensor.name], dtype_of(tensor.datatype)) for tensor in manifest.inputs
        }
        outputs = Predictor(manifest, import_graph(graph)).predict(typed)
        arrays = {INPUT_PREFIX + name: array for name, array in typed.items()}
        arrays |= {OUTPUT_PREFIX + name: array for name, array in outputs.items()}
        np.savez_compressed(part / manifest.golden.file, allow_pickle=False, **arrays)
    write_manifest(manifest, part / MANIFEST_FILE)
    write_digest_list(part)


def _frozen_saved_model(function: TensorFunction, manifest: ModelManifest) -> Any:
    """Trace all signatures into one graph, turn variables into constants, and lay it out as TensorFlow Serving does."""
    signatures = [Signature(SERVING, function, input_specs(manifest))]
    if isinstance(function, TileParts | SlabParts | Explained):
        signatures += function.signatures(manifest)
    return saved_model_of(signatures)
