"""Prove a bundle: digest and manifest, ops, signature, golden pair, time and memory. Each line carries its remedy."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.admission import MB, memory_need
from inference.errors import BundleRefused, ServiceError
from inference.golden import golden_difference, read_golden, warming_inputs
from inference.graph.frozen import (
    SAVED_MODEL_FILE,
    FrozenGraph,
    count_ops,
    import_graph,
    match_signature,
    read_frozen_graph,
    read_meta_graph,
    refuse_foreign_ops,
)
from inference.peak_memory import peak_bytes, reset_peak_bytes
from inference.runners.whole import DEVICE_CLASS, Predictor, refuse_older_runtime
from protos.model_manifest import (
    MANIFEST_FILE,
    ManifestError,
    ModelBundle,
    bundle_directories,
    open_bundle,
    read_manifest,
)

SLICES, SIZE = 32, 512
"""The volume that time and memory are measured with."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One thing that was checked."""

    name: str
    text: str
    remedy: str | None = None
    """What to do about it; None where the check passed."""

    @property
    def passed(self) -> bool:
        """Tell whether there is nothing to remedy."""
        return self.remedy is None


def quarantined(models_directory: Path) -> list[tuple[str, str, str]]:
    """Give name, version and reason of each bundle that the service would refuse, without running any of its graph.

    Looked at are digests, manifest, TensorFlow's version, ops, signatures and the golden file; whether the golden
    answer comes out is known only when it runs.
    """
    found = []
    for directory in bundle_directories(models_directory):
        try:
            _refuse_unsound(open_bundle(directory))
        except (ManifestError, ServiceError, OSError) as error:
            found.append((directory.parent.name, directory.name, str(error)))
    return found


def _refuse_unsound(bundle: ModelBundle) -> None:
    refuse_older_runtime(bundle.manifest)
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, bundle.manifest)
    parts = ("slab",) if bundle.manifest.slabs else ("prepare", "network", "finish") if bundle.manifest.batching else ()
    for part in parts:
        if part not in graph.signatures:
            table = "slabs" if bundle.manifest.slabs else "batching"
            raise BundleRefused(f"{bundle.directory}: the manifest has [{table}], the graph no signature {part!r}")
    if bundle.manifest.golden is not None:
        read_golden(bundle)


def check_bundle(directory: Path) -> Iterator[CheckLine]:
    """Yield one line for each check; ends at the first failure, since what follows would rest on it."""
    try:
        read_manifest(directory / MANIFEST_FILE)
        yield CheckLine("schema", f"{MANIFEST_FILE} is as schema version 1 wants it")
    except ManifestError as error:
        yield CheckLine("schema", str(error), "correct the field that is named")
        return
    try:
        bundle = open_bundle(directory)
        yield CheckLine("digest", f"every file is as listed; digest {bundle.digest}")
    except ManifestError as error:
        yield CheckLine("digest", str(error), "copy or export the bundle again")
        return
    try:
        refuse_older_runtime(bundle.manifest)
        yield CheckLine("runtime", f"needs TensorFlow {bundle.manifest.identity.runtime_minimum or 'of any version'}")
    except BundleRefused as error:
        yield CheckLine("runtime", str(error), "update TensorFlow")
        return
    yield from _check_graph(bundle)


def _check_graph(bundle: ModelBundle) -> Iterator[CheckLine]:
    path = bundle.directory / SAVED_MODEL_FILE
    try:
        meta_graph = read_meta_graph(path)
        refuse_foreign_ops(meta_graph.graph_def, path)
        yield CheckLine("ops", f"{count_ops(meta_graph.graph_def)} ops, all on the allow-list")
    except BundleRefused as error:
        yield CheckLine("ops", str(error), "freeze the model with training.export.export_bundle")
        return
    try:
        graph = match_signature(meta_graph, bundle.manifest, path)
        yield CheckLine("signature", f"takes {list(graph.inputs)}, gives {list(graph.outputs)}")
    except BundleRefused as error:
        yield CheckLine("signature", str(error), "make [[inputs]] and [[outputs]] what the graph has")
        return
    yield from _check_runs(bundle, graph)


def _check_runs(bundle: ModelBundle, graph: FrozenGraph) -> Iterator[CheckLine]:
    try:
        predictor = Predictor(bundle.manifest, import_graph(graph))
        loaded = reset_peak_bytes()
        line = _golden_line(bundle, predictor)
        yield line
        if line.passed:
            yield _cost_line(predictor, loaded)
    except (ServiceError, ValueError) as error:
        yield CheckLine("run", str(error), "the graph does not run on this machine; export it again")


def _golden_line(bundle: ModelBundle, predictor: Predictor) -> CheckLine:
    golden = bundle.manifest.golden
    if golden is None:
        return CheckLine("golden pair", "none in the bundle; the answer itself is not checked")
    pair = read_golden(bundle)
    difference = golden_difference(pair.outputs, predictor.predict(pair.inputs))
    again = golden_difference(predictor.predict(pair.inputs), predictor.predict(pair.inputs))
    tolerance = golden.tolerance.get(DEVICE_CLASS, np.inf)
    text = f"differs by {difference:.2g} on this {DEVICE_CLASS} (tolerance {tolerance:g}), by {again:.2g} when repeated"
    remedy = None if difference <= tolerance else "other hardware or TensorFlow than the export's: validate anew"
    return CheckLine("golden pair", text, remedy)


def _cost_line(predictor: Predictor, loaded: int) -> CheckLine:
    """Measure one run; memory beyond `loaded` bytes, since TensorFlow keeps what earlier runs took."""
    predictor.predict(warming_inputs(predictor.manifest))
    inputs = warming_inputs(predictor.manifest, slices=SLICES, size=SIZE)
    reset_peak_bytes()
    started = time.perf_counter()
    predictor.predict(inputs)
    seconds = time.perf_counter() - started
    peak = max(0, peak_bytes() - loaded)
    allowed = memory_need(predictor.manifest, inputs)
    text = (
        f"{SLICES} x {SIZE} x {SIZE} in {seconds:.2f} s; peak {peak // MB} MiB beyond the loaded model, "
        f"the manifest's figures give {allowed // MB} MiB"
    )
    remedy = None if peak <= allowed else "raise base_mb or bytes_per_voxel under [memory]"
    return CheckLine("time and memory", text, remedy)
