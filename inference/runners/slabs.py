"""A model that answers slab by slab with the memory of one slab; outputs are written straight to where they shall lie.

`protos.model_manifest.Slabs` says what the signatures `slab` and `survey` take and give. The survey gets slabs without
halo, so that it sees each slice once.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from inference.admission import slabs_at_once
from inference.call import Call
from inference.errors import BundleRefused, PredictionFailed, RequestRefused
from inference.graph.frozen import FrozenGraph, GraphFunction, import_graph, import_signature
from inference.ports import Arrays, Outcome, Places, StageTimes
from inference.runners.whole import Predictor, graph_errors, warm
from protos.model_manifest import ModelBundle, ModelManifest, Slabs, Tensor
from protos.tensors import TensorError, check_finite, check_tensor, datatype_of, dtype_of

SLAB, SURVEY = "slab", "survey"
STATE = "state/"
_NO_PLACES: Places = MappingProxyType({})
_Given = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Cut:
    """One slab: the slices of the volume that the graph gets, what of its answer is kept, and where that belongs."""

    given: slice
    kept: slice
    volume: slice


def cuts_of(slices: int, size: int, halo: int) -> Iterator[Cut]:
    """Cut a volume of `slices` into slabs of `size` with `halo` neighbours on each side; fewer at the ends."""
    for first in range(0, max(slices, 1), size):
        last = min(first + size, slices)
        begin, end = max(0, first - halo), min(slices, last + halo)
        yield Cut(slice(begin, end), slice(first - begin, last - begin), slice(first, last))


@dataclass(frozen=True, slots=True)
class SlabRunner:
    """The parts of a checked graph, with the manifest that their answers are held to."""

    manifest: ModelManifest
    terms: Slabs
    slab: GraphFunction
    survey: GraphFunction | None = None

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        """Answer as `inference.ports.Runner` says, stopping between slabs and within one.

        A place that is large enough gets its output slab by slab; after an error it may hold a part of one.
        """
        started = time.monotonic()
        outputs = self.predict(inputs, call, places)
        call.stop_if_unwanted()
        return Outcome(outputs, StageTimes(compute_s=time.monotonic() - started))

    def predict(
        self, inputs: Mapping[str, NDArray[Any]], call: Call | None = None, places: Places = _NO_PLACES
    ) -> Arrays:
        """Run the survey, where there is one, and then every slab, on checked inputs.

        Raises:
            RequestRefused: inputs that are cut have other numbers of slices.
            PredictionFailed, Busy, DeadlinePassed, RequestCancelled: as `Predictor.predict` says.
        """
        call = call or Call()
        slices = self._slices(inputs)
        state: Mapping[str, NDArray[Any]] = {
            tensor.name: np.zeros(tensor.shape, dtype_of(tensor.datatype)) for tensor in self.terms.state
        }
        if self.survey is not None:
            for cut in cuts_of(slices, self.terms.slices, 0):
                state = self._state(self._run(self.survey, inputs, cut, state, call))
        written = Written(self.manifest, slices, places)
        cuts = cuts_of(slices, self.terms.slices, self.terms.halo)
        state = self._slab(inputs, next(cuts), state, call, written)
        at_once = slabs_at_once(self.manifest, inputs)
        if at_once > 1:
            self._side_by_side(inputs, cuts, call, written, at_once)
        else:
            for cut in cuts:
                state = self._slab(inputs, cut, state, call, written)
        return written.arrays

    def _side_by_side(self, inputs: _Given, cuts: Iterator[Cut], call: Call, written: "Written", at_once: int) -> None:
        """Run slabs that have no state several at a time: one is checked and written while TensorFlow runs another."""
        turn, ended = threading.Lock(), threading.Event()

        def work() -> None:
            try:
                while not ended.is_set():
                    with turn:
                        cut = next(cuts, None)
                    if cut is None:
                        return
                    self._slab(inputs, cut, {}, call, written)
            finally:
                ended.set()  # nothing is left, or this slab failed and the others are not wanted

        with ThreadPoolExecutor(at_once, "slab") as threads:
            for done in as_completed([threads.submit(work) for _ in range(at_once)]):
                done.result()

    def _slab(self, inputs: _Given, cut: Cut, state: _Given, call: Call, written: "Written") -> Arrays:
        answers = self._run(self.slab, inputs, cut, state, call)
        written.put(answers, cut)
        return self._state(answers)

    def _run(self, part: GraphFunction, inputs: _Given, cut: Cut, state: _Given, call: Call) -> Arrays:
        call.stop_if_unwanted()
        along = self.terms.along
        given = {name: array[cut.given] if name in along else array for name, array in inputs.items()}
        with graph_errors(self.manifest):
            return part({**given, **state}, call)

    def _state(self, answers: Arrays) -> Arrays:
        state = {tensor.name: answers[tensor.name] for tensor in self.terms.state}
        for tensor in self.terms.state:
            _hold(tensor, state[tensor.name])
        return state

    def _slices(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        lengths: dict[str, int] = {name: inputs[name].shape[0] for name in self.terms.along}
        first, slices = next(iter(lengths.items()))
        for name, got in lengths.items():
            if got != slices:
                raise RequestRefused(f"tensor {name!r}: expected {slices} slices as {first!r} has, got {got}")
        return slices


class Written:
    """Outputs as they grow: each in its place where that is large enough, else in an array of its own."""

    def __init__(self, manifest: ModelManifest, slices: int, places: Places) -> None:
        self.arrays: Arrays = {}
        self._manifest, self._slices, self._places = manifest, slices, places

    def put(self, answers: Mapping[str, NDArray[Any]], cut: Cut) -> None:
        """Write what is kept of a slab's answers; PredictionFailed where one is not what the manifest declares."""
        for tensor in self._manifest.outputs:
            answer = answers[tensor.name]
            _hold(tensor, answer)
            if tensor.name not in self.arrays:
                self.arrays[tensor.name] = self._room(tensor, answer.shape[1:])
            array = self.arrays[tensor.name]
            expected = (cut.given.stop - cut.given.start, *array.shape[1:])
            if answer.shape != expected:
                raise PredictionFailed(
                    f"no result is given out: output {tensor.name!r}: expected shape {list(expected)} for slices "
                    f"{cut.given.start} to {cut.given.stop}, got {list(answer.shape)}"
                )
            _hold_finite(tensor, answer[cut.kept])
            array[cut.volume] = answer[cut.kept]

    def _room(self, tensor: Tensor, sizes: tuple[int, ...]) -> NDArray[Any]:
        dtype, shape = dtype_of(tensor.datatype), (self._slices, *sizes)
        count = int(np.prod(shape))
        place = self._places.get(tensor.name)
        if place is None or not count or place.nbytes < count * dtype.itemsize:
            return np.empty(shape, dtype)
        return np.frombuffer(place, np.uint8, count * dtype.itemsize).view(dtype).reshape(shape)


def _hold(tensor: Tensor, array: NDArray[Any]) -> None:
    try:
        check_tensor(tensor, datatype_of(array.dtype, name=tensor.name), array.shape)
    except TensorError as error:
        raise PredictionFailed(f"no result is given out: of a slab {error}") from error


def _hold_finite(tensor: Tensor, array: NDArray[Any]) -> None:
    try:
        check_finite(array, name=tensor.name)
    except TensorError as error:
        raise PredictionFailed(f"no result is given out: output {error}") from error


def load_slab_runner(bundle: ModelBundle, graph: FrozenGraph, device: str | None = None) -> SlabRunner:
    """Import and warm the parts of a checked graph; a golden pair must come out whole and of two slabs or more.

    Raises:
        BundleRefused: the parts are not what the manifest says, or the golden pair is not answered within tolerance.
    """
    manifest = bundle.manifest
    terms = manifest.slabs
    if terms is None:
        raise BundleRefused(f"{bundle.directory}: a model runs in slabs only where the manifest has [slabs]")
    _refuse_uncut_tensors(manifest, terms, f"{bundle.directory}: slabs")
    for name in (SLAB, SURVEY):
        if name in graph.signatures or name == SLAB:
            _refuse_other_part(graph, name, manifest, f"{bundle.directory}: the signature {name!r}")
    survey = import_signature(graph, SURVEY, device) if SURVEY in graph.signatures else None
    runner = SlabRunner(manifest, terms, import_signature(graph, SLAB, device), survey)
    warm(Predictor(manifest, import_graph(graph)).predict, bundle)
    try:
        warm(runner_in_two(runner), bundle)
    except BundleRefused as error:
        raise BundleRefused(f"{error} This was answered slab by slab.") from error
    return runner


def runner_in_two(runner: SlabRunner) -> Any:
    """Give a `predict` that cuts a volume of two slices or more at least once, however large the slabs are."""

    def predict(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        half = max(1, (inputs[runner.terms.along[0]].shape[0] + 1) // 2)
        terms = runner.terms.model_copy(update={"slices": min(runner.terms.slices, half)})
        return replace(runner, terms=terms).predict(inputs)

    return predict


def _refuse_uncut_tensors(manifest: ModelManifest, terms: Slabs, what: str) -> None:
    inputs = {tensor.name: tensor for tensor in manifest.inputs}
    unknown = sorted(set(terms.along) - set(inputs))
    if unknown or not terms.along:
        raise BundleRefused(f"{what}.along: expected one or more of {sorted(inputs)}, got {list(terms.along)}")
    for tensor in (*(inputs[name] for name in terms.along), *manifest.outputs):
        if tensor.shape[:1] != (-1,):
            raise BundleRefused(
                f"{what}: tensor {tensor.name!r}: expected a first dimension of any size (-1), the slice, "
                f"got {list(tensor.shape)}"
            )
    for tensor in terms.state:
        if not tensor.name.startswith(STATE) or -1 in tensor.shape:
            raise BundleRefused(
                f"{what}.state: expected a name {STATE!r}... and fixed sizes, got {tensor.name!r} {list(tensor.shape)}"
            )


def _refuse_other_part(graph: FrozenGraph, name: str, manifest: ModelManifest, what: str) -> None:
    if name not in graph.signatures:
        raise BundleRefused(f"{what} is missing; got {sorted(graph.signatures)}. Remedy: export it with SlabParts")
    signature, terms = graph.signatures[name], manifest.slabs or Slabs()
    known = {tensor.name: tensor for tensor in (*manifest.inputs, *terms.state)}
    made = {tensor.name for tensor in (*terms.state, *(manifest.outputs if name == SLAB else ()))}
    if not set(signature.inputs) <= set(known):
        raise BundleRefused(f"{what}: inputs: expected some of {sorted(known)}, got {sorted(signature.inputs)}")
    if set(signature.outputs) != made:
        raise BundleRefused(f"{what}: outputs: expected {sorted(made)}, got {sorted(signature.outputs)}")
    nodes = {node.name: node for node in graph.graph_def.node}
    for key, tensor_name in signature.inputs.items():
        node = nodes.get(tensor_name.partition(":")[0])
        got = tf.dtypes.as_dtype(node.attr["dtype"].type).name if node is not None and "dtype" in node.attr else "none"
        if got != dtype_of(known[key].datatype).name:
            raise BundleRefused(f"{what}: input {key!r}: expected {known[key].datatype}, got the dtype {got}")
