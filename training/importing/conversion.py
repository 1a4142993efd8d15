"""The child's work: check, load, try, export, measure. Called only in a process that has given up network and files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import tensorflow as tf

from inference.graph.frozen import SAVED_MODEL_FILE, import_graph, read_frozen_graph
from inference.peak_memory import reset_peak_bytes
from inference.runners.whole import Predictor
from protos.model_manifest import MANIFEST_FILE, Golden, ModelBundle, ModelManifest, write_digest_list, write_manifest
from training.export import GOLDEN_FILE, export_bundle
from training.importing.algorithm import WINDOWS_AT_ONCE, Algorithm
from training.importing.child import BUNDLES
from training.importing.golden_image import Inputs, golden_input
from training.importing.memory_figures import measured_memory
from training.importing.messages import Said
from training.importing.networks import ForeignNetwork, batch_of, load_network, one_form
from training.importing.proofs import chosen_halo, try_blocks, try_network
from training.importing.recipe import Recipe, recipe_of_json
from training.importing.source import Kind

Tell = Callable[[Said, str], None]
FAILURES = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, OSError, ImportError,
    RuntimeError, tf.errors.OpError,
)  # fmt: skip
"""What Keras and TensorFlow raise over files that are not what they expect."""
_TOLERANCE = {"cpu": 1e-2, "gpu": 5e-2}
"""Of label maps: a voxel whose two best classes are nearly equal may change with the hardware."""


def convert(work: Path, recipe_json: str, manifest_json: str, kind: str, tell: Tell) -> None:
    """Make the bundle in the folder's `bundles`.

    Raises:
        ImportRefused: the source or the recipe is not what it must be.
        BundleRefused, ValueError, TypeError, tf.errors.OpError: Keras or TensorFlow cannot do it; see `FAILURES`.
    """
    recipe = recipe_of_json(recipe_json)
    manifest = ModelManifest.model_validate(json.loads(manifest_json))
    tell("step", "checking and loading the source")
    foreign = load_network(work, cast(Kind, kind), recipe.network)
    tell("note", f"network: {foreign.described}")
    loaded = reset_peak_bytes()
    algorithm = _algorithm(foreign, recipe, tell)
    tell("step", "writing the frozen graph and its golden pair")
    described = manifest.model_copy(update={"golden": Golden(file=GOLDEN_FILE, tolerance=_TOLERANCE)})
    bundle = export_bundle(algorithm, described, work / BUNDLES, golden_input(recipe))
    tell("step", "measuring memory")
    _state_memory(bundle, algorithm, loaded, tell)


def _algorithm(foreign: ForeignNetwork, recipe: Recipe, tell: Tell) -> Algorithm:
    network = one_form(foreign, recipe)
    tell("step", "trying the network")
    try_network(network, recipe)
    halo = chosen_halo(foreign, recipe)
    if recipe.network.run == "blocks":
        tell("step", f"comparing blocks with a halo of {halo} with the whole")
        difference = try_blocks(one_form(foreign, _before_activation(recipe)), recipe, halo)
        tell("note", f"blocks differ from the whole by {difference:.1g} of the greatest answer")
    wanted = recipe.network.slices if recipe.network.run == "whole" else WINDOWS_AT_ONCE
    return Algorithm(recipe, network, halo, batch_of(foreign, wanted))


def _before_activation(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"network": recipe.network.model_copy(update={"activation": "none"})})


def _state_memory(bundle: ModelBundle, algorithm: Algorithm, loaded: int, tell: Tell) -> None:
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, bundle.manifest)
    predictor = Predictor(bundle.manifest, import_graph(graph))

    def predict(inputs: Inputs) -> None:
        predictor.predict(inputs)

    memory = measured_memory(algorithm.recipe, algorithm.halo, predict, loaded)
    tell("note", f"memory of a request: {memory.base_mb:g} MB and {memory.bytes_per_voxel:g} bytes a voxel")
    write_manifest(bundle.manifest.model_copy(update={"memory": memory}), bundle.directory / MANIFEST_FILE)
    write_digest_list(bundle.directory)
