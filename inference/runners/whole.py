"""A model that answers in one run of its whole graph: a frozen graph imported as one warmed ConcreteFunction."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from inference.call import Call
from inference.errors import BundleRefused, Busy, PredictionFailed
from inference.golden import golden_difference, read_golden, warming_inputs
from inference.graph.frozen import SAVED_MODEL_FILE, SERVING, GraphFunction, import_signature, read_frozen_graph
from inference.ports import Arrays, Outcome, Places, StageTimes
from protos.model_manifest import ModelBundle, ModelManifest
from protos.tensors import TensorError, check_finite, check_tensor, datatype_of

_NODE = re.compile(r"\[\[.*?\]\]|\{\{.*?\}\}")
DEVICE_CLASS = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def bound_threads(threads: int) -> None:
    """Bound TensorFlow's threads; must run before the first op. GPU memory grows as needed instead of taking all."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(min(2, threads))
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)  # noqa: FBT003 - TensorFlow's signature


@dataclass(frozen=True, slots=True)
class Predictor:
    """A callable graph with the manifest that its answers are held to."""

    manifest: ModelManifest
    function: GraphFunction

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        """Answer as `inference.ports.Runner` says; TensorFlow makes the outputs, so none lies in its place."""
        del places
        call.stop_if_unwanted()
        started = time.monotonic()
        outputs = self.predict(inputs, call)
        call.stop_if_unwanted()
        return Outcome(outputs, StageTimes(compute_s=time.monotonic() - started))

    def predict(self, inputs: Mapping[str, NDArray[Any]], call: Call | None = None) -> Arrays:
        """Run the graph on checked inputs, stopping between two ops once `call` ended.

        Raises:
            PredictionFailed: the graph failed, or an output is not what the manifest declares or not finite.
            Busy: TensorFlow ran out of memory.
            DeadlinePassed, RequestCancelled: the call ended meanwhile.
        """
        with graph_errors(self.manifest):
            outputs = self.function(inputs, call)
        check_outputs(self.manifest, outputs)
        return outputs


@contextmanager
def graph_errors(manifest: ModelManifest) -> Iterator[None]:
    """Turn TensorFlow's errors into the service's: Busy where memory ran out, else PredictionFailed."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise Busy(f"{_name_of(manifest)}: TensorFlow ran out of memory; try again when less is running") from error
    except tf.errors.OpError as error:
        raise PredictionFailed(f"{_name_of(manifest)}: the graph failed: {first_line(error)}") from error


def check_outputs(manifest: ModelManifest, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Hold outputs to the manifest; raise PredictionFailed where dtype or shape differ, or NaN or infinity came."""
    for tensor in manifest.outputs:
        array = outputs[tensor.name]
        try:
            check_tensor(tensor, datatype_of(array.dtype), array.shape)
            check_finite(array, name=tensor.name)
        except TensorError as error:
            raise PredictionFailed(f"{_name_of(manifest)}: no result is given out: output {error}") from error


def _name_of(manifest: ModelManifest) -> str:
    return f"model {manifest.identity.name} version {manifest.identity.version}"


def load_predictor(bundle: ModelBundle, device: str | None = None) -> Predictor:
    """Check, import and warm a bundle's graph; where it has a golden pair, its answer must be within tolerance.

    Args:
        bundle: an opened bundle.
        device: TensorFlow's name of the device that runs it, e.g. "/GPU:1"; None leaves it to TensorFlow.

    Raises:
        BundleRefused: the installed TensorFlow is too old for it, or graph, signature or golden pair are not what
            they must be.
    """
    manifest = bundle.manifest
    refuse_older_runtime(manifest)
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, manifest)
    predictor = Predictor(manifest, import_signature(graph, SERVING, device))
    warm(predictor.predict, bundle)
    return predictor


def refuse_older_runtime(manifest: ModelManifest) -> None:
    """Raise BundleRefused where the installed TensorFlow is older than the manifest's `runtime_minimum`."""
    identity = manifest.identity
    if identity.runtime_minimum and _numbers(tf.__version__) < _numbers(identity.runtime_minimum):
        raise BundleRefused(
            f"model {identity.name} version {identity.version} needs TensorFlow {identity.runtime_minimum} or newer, "
            f"installed is {tf.__version__}. Remedy: update TensorFlow, or install an older version of the model."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (*re.findall(r"\d+", version), 0, 0)[:3])


def warm(predict: Callable[[Mapping[str, NDArray[Any]]], Arrays], bundle: ModelBundle) -> None:
    """Run once; where the bundle has a golden pair, the answer must be within tolerance, else BundleRefused."""
    golden = bundle.manifest.golden
    try:
        if golden is None:
            predict(warming_inputs(bundle.manifest))
            return
        pair = read_golden(bundle)
        difference = golden_difference(pair.outputs, predict(pair.inputs))
    except PredictionFailed as error:
        raise BundleRefused(f"{bundle.directory}: the warming run failed: {error}") from error
    tolerance = golden.tolerance.get(DEVICE_CLASS, np.inf)
    if difference > tolerance:
        raise BundleRefused(
            f"{bundle.directory}: the golden pair differs by {difference:.3g} on this {DEVICE_CLASS}, "
            f"more than its tolerance {tolerance:g}. Remedy: check the bundle with `hilum models check`."
        )


def first_line(error: Exception) -> str:
    """Give the first line of an error without TensorFlow's names of nodes, 300 characters at most."""
    text = getattr(error, "message", None) or str(error)
    return _NODE.sub("", str(text)).strip().split("\n", 1)[0][:300]
