"""A checked source becomes a network of one form: FP32 [n, *size, 1] -> probabilities FP32 [n, *size, class]."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from inference.graph.blocks import Network
from training.importing.errors import RecipeRefused, SourceRefused
from training.importing.keras_files import check_keras_h5, check_keras_zip
from training.importing.layer_reach import layer_reach
from training.importing.recipe import NetworkTerms, Recipe
from training.importing.saved_models import check_saved_model, load_saved_model
from training.importing.source import COPIED_AS, Kind

_FLOATS = (tf.float16, tf.bfloat16, tf.float32)


@dataclass(frozen=True, slots=True)
class ForeignNetwork:
    """A loaded network in its own form."""

    call: Callable[[Any], Any]
    """Its input tensor -> its output tensor."""
    takes: Any
    """tf.TensorSpec of the input."""
    halo: int | None
    """Voxels around that an answer depends on, read off the layers; None where they do not say."""
    described: str
    """For people: how large it is."""


def load_network(folder: Path, kind: Kind, terms: NetworkTerms) -> ForeignNetwork:
    """Check and load what lies in the child's folder.

    Raises:
        SourceRefused: it may not be loaded, cannot be, or has several inputs or outputs.
    """
    path = folder / COPIED_AS[kind]
    if kind == "saved_model":
        check_saved_model(path, terms.signature)
        return _of_signature(load_saved_model(path), terms.signature)
    if kind == "keras":
        check_keras_zip(path, folder)
    else:
        check_keras_h5(path)
    return of_model(keras.models.load_model(path, compile=False, safe_mode=True))


def one_form(network: ForeignNetwork, recipe: Recipe) -> Network:
    """Return the network with its channel axis last and probabilities of all classes, background first.

    Raises:
        RecipeRefused: the recipe says something else of its input.
    """
    terms = recipe.network
    _refuse_other_input(network.takes, recipe)

    def run(tiles: Any) -> Any:
        given = _channels_placed(tf.cast(tiles, network.takes.dtype), terms.channels)
        answer = tf.cast(network.call(given), tf.float32)
        return _probabilities(_classes_last(answer, terms), terms)

    return run


def _channels_placed(tiles: Any, channels: str) -> Any:
    if channels == "none":
        return tiles[..., 0]
    return tiles if channels == "last" else tf.expand_dims(tiles[..., 0], 1)


def _classes_last(answer: Any, terms: NetworkTerms) -> Any:
    if answer.shape.rank == terms.dimensions + 1:
        return answer[..., None]
    if terms.channels == "first":
        return tf.transpose(answer, (0, *range(2, terms.dimensions + 2), 1))
    return answer


def _probabilities(answer: Any, terms: NetworkTerms) -> Any:
    if terms.activation == "softmax":
        return tf.nn.softmax(answer)
    if terms.activation == "sigmoid":
        probability = tf.sigmoid(answer[..., :1])
        return tf.concat((1 - probability, probability), -1)
    return answer


def _refuse_other_input(takes: Any, recipe: Recipe) -> None:
    terms = recipe.network
    axes = terms.dimensions + (1 if terms.channels == "none" else 2)
    shape = takes.shape
    if shape.rank is not None and shape.rank != axes:
        raise RecipeRefused(
            f"network.dimensions = {terms.dimensions} and network.channels = {terms.channels!r} make an input of "
            f"{axes} axes; the network takes {_shown(shape)}. Remedy: say what it takes"
        )
    if takes.dtype not in _FLOATS:
        raise SourceRefused(f"the network takes {takes.dtype.name}; expected a float type. Remedy: cast inside of it")
    if shape.rank is None:
        return
    sizes = list(shape)
    channel, other = {"last": (sizes[-1], sizes[1]), "first": (sizes[1], sizes[-1]), "none": (1, None)}[terms.channels]
    if channel not in (1, None) or (channel is None and other == 1):
        raise RecipeRefused(
            f"network.channels = {terms.channels!r}: the network takes {_shown(shape)}, not one channel there; only "
            f"networks of one channel are taken. Remedy: correct network.channels, or add a layer that spreads one"
        )
    if sizes[0] not in (1, None):
        raise SourceRefused(f"the network takes {sizes[0]} images at once, {_shown(shape)}. Remedy: export any number")
    _refuse_other_sizes([size for at, size in enumerate(sizes[1:]) if at != _channel_at(terms)], recipe, shape)


def _channel_at(terms: NetworkTerms) -> int:
    return {"last": terms.dimensions, "first": 0, "none": -1}[terms.channels]


def _refuse_other_sizes(fixed: list[int | None], recipe: Recipe, shape: Any) -> None:
    way = recipe.network.run
    key, wanted = {
        "whole": ("grid.size", recipe.grid.size),
        "windows": ("network.window", recipe.network.window),
        "blocks": ("network.block", None),
    }[way]
    for at, size in enumerate(fixed):
        if size is not None and (wanted is None or wanted[at] != size):
            shown = None if wanted is None else list(wanted)
            remedy = "run = 'whole' or 'windows'" if way == "blocks" else f"{key} = {_shown(fixed)}"
            raise RecipeRefused(f"{key} = {shown}: the network takes {_shown(shape)} only. Remedy: {remedy}")


def _shown(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def batch_of(network: ForeignNetwork, wanted: int) -> int:
    """Return how many tiles may run at once: one where the network takes one only."""
    shape = network.takes.shape
    return 1 if shape.rank is not None and shape[0] == 1 else wanted


def of_model(model: Any) -> ForeignNetwork:
    """Take a loaded Keras model; SourceRefused unless it has one input and one output."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise SourceRefused(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected one of each. "
            f"Remedy: `keras.Model(model.inputs[0], model.outputs[0])`"
        )
    tensor = model.inputs[0]
    takes = tf.TensorSpec(tensor.shape, tensor.dtype)
    layers = f"{len(model.layers)} layers, {model.count_params():,} weights"
    return ForeignNetwork(lambda given: model(given, training=False), takes, layer_reach(model), layers)


def _of_signature(loaded: Any, name: str) -> ForeignNetwork:
    function = loaded.signatures[name]
    takes = function.structured_input_signature[1]
    if len(takes) != 1 or len(function.structured_outputs) != 1:
        raise SourceRefused(
            f"the signature {name!r} has the inputs {sorted(takes)} and the outputs "
            f"{sorted(function.structured_outputs)}; expected one of each"
        )
    ((key, spec),), (output,) = takes.items(), function.structured_outputs

    def call(given: Any) -> Any:
        return loaded.signatures[name](**{key: given})[output]

    weights = sum(int(tf.size(variable)) for variable in function.variables)
    return ForeignNetwork(call, tf.TensorSpec(spec.shape, spec.dtype), None, f"signature {name!r}, {weights:,} weights")
