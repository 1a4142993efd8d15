"""A model that runs in three parts: tiles are prepared for each request, mixed in the network, finished for each."""

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.call import Call
from inference.dispatcher import Dispatcher, Job
from inference.errors import BundleRefused, PredictionFailed
from inference.golden import golden_difference, read_golden, warming_inputs
from inference.graph.frozen import FrozenGraph, GraphFunction, import_signature
from inference.ports import Arrays, Outcome, Places, StageTimes
from inference.runners.whole import check_outputs, graph_errors, warm
from protos.model_manifest import Batching, ModelBundle, ModelManifest

PREPARE, NETWORK, FINISH = "prepare", "network", "finish"
TILES = "tiles"
MIXED_DIFFERENCE_MOST = 1e-2
"""Relative; a tile's answer may differ by rounding when others run beside it, not by more."""


@dataclass(frozen=True, slots=True)
class MixedNetwork:
    """The signature `network` on tiles [n, *sizes]."""

    manifest: ModelManifest
    function: GraphFunction
    sizes: tuple[int, ...]
    count: int | None
    """Tiles that the graph always takes; fewer are padded with zeros. None takes any number."""

    def __call__(self, tiles: NDArray[Any], call: Call | None = None) -> Arrays:
        """Answer each tile; raises as `inference.runners.whole.Predictor.predict` does."""
        padding = 0 if self.count is None else self.count - len(tiles)
        given = np.pad(tiles, [(0, padding), *[(0, 0)] * (tiles.ndim - 1)]) if padding else tiles
        with graph_errors(self.manifest):
            answers = self.function({TILES: given}, call)
        for name, answer in answers.items():
            if answer.shape[:1] != (len(given),):
                raise PredictionFailed(
                    f"network: expected {len(given)} answers {name!r}, one a tile, got shape {list(answer.shape)}"
                )
        return {name: answer[: len(tiles)] for name, answer in answers.items()}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TileRunner:
    """Answers as `inference.ports.Runner` says; requests that run at the same time share runs of the network."""

    manifest: ModelManifest
    prepare: GraphFunction
    network: MixedNetwork
    finish: GraphFunction
    dispatcher: Dispatcher

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        """Prepare, wait for the network, finish; a request whose own answer is not finite fails, its neighbours not."""
        del places
        call.stop_if_unwanted()
        began = time.monotonic()
        with self.dispatcher.expected():
            prepared = self.prepared(inputs, call)
            ready = time.monotonic()
            job = self.dispatcher.queue(prepared[TILES], call)
        self.dispatcher.wait(job)
        answered = time.monotonic()
        outputs = self._finished({**inputs, **prepared, **job.answers}, call)
        own_s = ready - began + time.monotonic() - answered
        return Outcome(outputs, _times(job, own_s))

    def prepared(self, inputs: Arrays, call: Call | None = None) -> Arrays:
        """Make the tiles and what `finish` wants carried; PredictionFailed where they are no tiles of the network."""
        with graph_errors(self.manifest):
            prepared = self.prepare(inputs, call)
        shape = prepared[TILES].shape
        if not shape or shape[0] < 1 or shape[1:] != self.network.sizes:
            raise PredictionFailed(
                f"prepare: expected {TILES!r} [1 or more, {', '.join(map(str, self.network.sizes))}], got {list(shape)}"
            )
        return prepared

    def _finished(self, known: Mapping[str, NDArray[Any]], call: Call) -> Arrays:
        with graph_errors(self.manifest):
            outputs = self.finish(known, call)
        check_outputs(self.manifest, outputs)
        call.stop_if_unwanted()
        return outputs

    def close(self) -> None:
        """Fail what waits with ModelNotReady; later requests too."""
        self.dispatcher.stop()


def _times(job: Job, own_s: float) -> StageTimes:
    return replace(job.times, compute_s=job.times.compute_s + own_s)


def load_tile_runner(bundle: ModelBundle, graph: FrozenGraph) -> TileRunner:
    """Import and warm the parts of a checked graph; a golden pair must come out as it does of the whole.

    The thread that runs batches ends with the runner.

    Raises:
        BundleRefused: the parts do not go together, tiles have no fixed shape, one tile's answer depends on others,
            or the golden pair is not answered within its tolerance.
    """
    manifest = bundle.manifest
    if manifest.batching is None:
        raise BundleRefused(f"{bundle.directory}: tiles are mixed only where the manifest has [batching]")
    _refuse_loose_parts(graph, manifest, bundle)
    sizes, count = _tile_shape(graph, bundle)
    if count is not None and count != manifest.batching.max_batch:
        raise BundleRefused(f"{bundle.directory}: network takes {count} tiles; batching.max_batch must be that")
    network = MixedNetwork(manifest, import_signature(graph, NETWORK), sizes, count)
    identity = manifest.identity
    dispatcher = Dispatcher(manifest.batching, network, f"model {identity.name} version {identity.version}")
    prepare, finish = import_signature(graph, PREPARE), import_signature(graph, FINISH)
    runner = TileRunner(manifest, prepare, network, finish, dispatcher)
    weakref.finalize(runner, dispatcher.stop)
    warm(lambda inputs: runner.run(dict(inputs), Call(), {}).outputs, bundle)
    _warm_batches(runner, manifest.batching, bundle)
    return runner


def _refuse_loose_parts(graph: FrozenGraph, manifest: ModelManifest, bundle: ModelBundle) -> None:
    missing = [name for name in (PREPARE, NETWORK, FINISH) if name not in graph.signatures]
    if missing:
        raise BundleRefused(f"{bundle.directory}: the graph has no signature {missing[0]!r}, which [batching] needs")
    prepare, network, finish = (graph.signatures[name] for name in (PREPARE, NETWORK, FINISH))
    inputs = {tensor.name for tensor in manifest.inputs}
    known = inputs | set(prepare.outputs) | set(network.outputs)
    for part, wanted, given in (
        ("prepare's inputs", set(prepare.inputs), inputs),
        ("network's inputs", set(network.inputs), {TILES} & set(prepare.outputs)),
        ("finish's inputs", set(finish.inputs), known),
        ("the manifest's outputs", {tensor.name for tensor in manifest.outputs}, set(finish.outputs)),
    ):
        if not wanted <= given:
            raise BundleRefused(f"{bundle.directory}: {part}: {min(wanted - given)!r:.80} is given by no part")


def _tile_shape(graph: FrozenGraph, bundle: ModelBundle) -> tuple[tuple[int, ...], int | None]:
    """Give the sizes of one tile, and how many tiles the graph takes where that is fixed."""
    name = graph.signatures[NETWORK].inputs[TILES].partition(":")[0]
    shape = next(node.attr["shape"].shape for node in graph.graph_def.node if node.name == name)
    sizes = [int(dimension.size) for dimension in shape.dim]
    if not sizes or any(size < 0 for size in sizes[1:]):
        raise BundleRefused(
            f"{bundle.directory}: network takes tiles {sizes or 'of any rank'}; expected [-1, fixed sizes], since "
            f"tiles of several requests run together. Remedy: cut or resize to one size in `prepare`."
        )
    return tuple(sizes[1:]), None if sizes[0] < 0 else sizes[0]


def _warm_batches(runner: TileRunner, terms: Batching, bundle: ModelBundle) -> None:
    """Run the network once for each batch size that will be frequent, and hold one tile's answer against the others."""
    inputs = warming_inputs(runner.manifest) if runner.manifest.golden is None else read_golden(bundle).inputs
    try:
        tile = runner.prepared(dict(inputs))[TILES][:1]
        alone = runner.network(tile)
        for size in sorted({2, terms.max_batch, *terms.preferred} - {1}):
            if size > terms.max_batch:
                continue
            others = np.zeros((size - 1, *tile.shape[1:]), tile.dtype)
            mixed = {name: answer[:1] for name, answer in runner.network(np.concatenate([tile, others])).items()}
            _refuse_mixing(golden_difference(alone, mixed), size, bundle)
    except PredictionFailed as error:
        raise BundleRefused(f"{bundle.directory}: the warming run failed: {error}") from error


def _refuse_mixing(difference: float, size: int, bundle: ModelBundle) -> None:
    if difference > MIXED_DIFFERENCE_MOST:
        raise BundleRefused(
            f"{bundle.directory}: a tile's answer differs by {difference:.3g} when {size} run together, so one request "
            f"would change another's. Remedy: in `network`, answer each tile from that tile alone."
        )
