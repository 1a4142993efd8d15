"""The parts of a model that the service runs by themselves, and the whole that they make together."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from protos.model_manifest import ModelManifest, Tensor
from protos.tensors import dtype_of

TensorFunction = Callable[..., Mapping[str, Any]]
Specs = dict[str, Any]
"""Tensor name -> tf.TensorSpec."""
TILES = "tiles"
STATE = "state/"


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry of the graph: a function, and what it takes by name."""

    name: str
    function: TensorFunction
    takes: Specs


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TileParts:
    """A model whose network runs on tiles of one size, so that tiles of several requests can share a run.

    Each part takes by name what its parameters name. No tensor may have the name of another.
    """

    prepare: TensorFunction
    """Inputs -> `tiles` [n, fixed ...] with n of 1 or more, and whatever `finish` wants carried."""
    network: TensorFunction
    """`tiles` -> answers, each [n, fixed ...]; the answer to a tile depends on that tile alone."""
    finish: TensorFunction
    """Answers, carried tensors and inputs, as it names them -> the manifest's outputs."""

    def __call__(self, **inputs: Any) -> Mapping[str, Any]:
        """Run the parts one after the other on all inputs."""
        prepared = dict(self.prepare(**_chosen(self.prepare, inputs)))
        known = {**inputs, **prepared, **self.network(prepared[TILES])}
        return self.finish(**_chosen(self.finish, known))

    def _answer(self, tiles: Any) -> Mapping[str, Any]:
        return self.network(tiles)

    def signatures(self, manifest: ModelManifest) -> Iterator[Signature]:
        """Yield `prepare`, `network` and `finish` with the tensors that they take.

        Raises:
            ValueError: the manifest has no batching, two tensors have one name, or a part gives no tiles.
        """
        if manifest.batching is None:
            raise ValueError("parts of tiles need [batching] in the manifest")
        inputs = input_specs(manifest)
        prepared = _given(Signature("prepare", self.prepare, _chosen(self.prepare, inputs)))
        if TILES not in prepared:
            raise ValueError(f"prepare gives {sorted(prepared)}; it must give {TILES!r}")
        tiles = _any_count(prepared[TILES])
        answers = {
            name: _any_count(spec) for name, spec in _given(Signature("network", self._answer, {TILES: tiles})).items()
        }
        known = _joined(inputs, prepared, answers)
        yield Signature("prepare", self.prepare, _chosen(self.prepare, inputs))
        yield Signature("network", self._answer, {TILES: tiles})
        yield Signature("finish", self.finish, _chosen(self.finish, known))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class SlabParts:
    """A model that runs slab by slab with constant memory; `protos.model_manifest.Slabs` says how.

    Both functions take all inputs and the state by name, the state as keywords `state/...`; the whole is one slab that
    holds all slices.
    """

    slab: TensorFunction
    """Inputs and state -> outputs for all slices given, and the state for the next slab."""
    state: tuple[Tensor, ...] = ()
    """As the manifest's."""
    survey: TensorFunction | None = None
    """Inputs and state -> state, over all slabs before the first `slab`."""

    def __call__(self, **inputs: Any) -> Mapping[str, Any]:
        """Run the survey and one slab on whole inputs and give the outputs."""
        state: Mapping[str, Any] = {spec.name: tf.zeros(spec.shape, dtype_of(spec.datatype)) for spec in self.state}
        if self.survey is not None:
            state = self.survey(**inputs, **state)
        made = self.slab(**inputs, **state)
        return {name: tensor for name, tensor in made.items() if not name.startswith(STATE)}

    def signatures(self, manifest: ModelManifest) -> Iterator[Signature]:
        """Yield `survey`, where there is one, and `slab`.

        Raises:
            ValueError: the manifest has no slabs, or another state.
        """
        if manifest.slabs is None or manifest.slabs.state != self.state:
            raise ValueError("parts of slabs need [slabs] in the manifest with the same state")
        takes = _joined(input_specs(manifest), _specs(self.state))
        if self.survey is not None:
            yield Signature("survey", self.survey, takes)
        yield Signature("slab", self.slab, takes)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Explained:
    """A model that also says, when asked by the signature `explain`, where in the input its answer comes from."""

    whole: TensorFunction
    """As for `training.export.export_bundle`; parts too."""
    explain: TensorFunction
    """Inputs, as it names them -> maps on the input grid, e.g. `inference.graph.saliency.explanation`."""

    def __call__(self, **inputs: Any) -> Mapping[str, Any]:
        """Run the model without the explanation."""
        return self.whole(**inputs)

    def signatures(self, manifest: ModelManifest) -> Iterator[Signature]:
        """Yield `explain` and the parts of the model, where it has some; ValueError as theirs."""
        yield Signature("explain", self.explain, _chosen(self.explain, input_specs(manifest)))
        if isinstance(self.whole, TileParts | SlabParts):
            yield from self.whole.signatures(manifest)


def input_specs(manifest: ModelManifest) -> Specs:
    """Give the specs of the manifest's inputs, -1 as an unknown dimension."""
    return _specs(manifest.inputs)


def _specs(tensors: tuple[Tensor, ...]) -> Specs:
    return {
        tensor.name: tf.TensorSpec([None if size == -1 else size for size in tensor.shape], dtype_of(tensor.datatype))
        for tensor in tensors
    }


def _given(signature: Signature) -> Specs:
    """Trace once to learn what a function gives."""
    concrete = tf.function(lambda **tensors: dict(signature.function(**tensors)), autograph=False)
    outputs = concrete.get_concrete_function(**signature.takes).structured_outputs
    return {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in outputs.items()}


def _any_count(spec: Any) -> Any:
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


def _joined(*parts: Specs) -> Specs:
    names = [name for part in parts for name in part]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"tensor {twice[0]!r}: given by two parts of the model; name one of them otherwise")
    return {name: spec for part in parts for name, spec in part.items()}


def _chosen(function: TensorFunction, known: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what a function's parameters name; all where it takes any keyword."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(known)
    wanted = {parameter.name for parameter in parameters}
    if not wanted <= set(known):
        raise ValueError(f"tensor {min(wanted - set(known))!r}: wanted by a part of the model; known {sorted(known)}")
    return {name: value for name, value in known.items() if name in wanted}
