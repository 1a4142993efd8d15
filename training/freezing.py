"""Functions over named tensors -> one frozen graph with a signature for each, as a SavedModel message."""

import hashlib
from collections.abc import Container, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from inference.graph.frozen import SERVE_TAG
from training.parts import Signature

PREDICT_METHOD = "tensorflow/serving/predict"
_LOWERED = frozenset({"While", "StatelessWhile", "If", "StatelessIf"})
_SHARED_FROM_BYTES = 1024
"""Constants of this size and more are stored once where they are equal."""


def saved_model_of(signatures: Sequence[Signature]) -> Any:
    """Trace the signatures side by side, turn variables into constants, and describe each signature.

    All lie in one graph, so that functions of the library are named apart and a variable that several signatures use
    is one constant. An op with a side effect (an assertion, a check of numbers) runs with its own signature only.
    """
    frozen, outputs, owners = _frozen(signatures)
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append(SERVE_TAG)
    meta_graph.meta_info_def.tensorflow_version = tf.__version__
    meta_graph.graph_def.CopyFrom(frozen.graph.as_graph_def())
    untie(meta_graph.graph_def, owners)
    share_constants(meta_graph.graph_def)
    lower_loops(meta_graph.graph_def)
    taken, given = iter(frozen.inputs), iter(frozen.outputs)
    for signature, names in zip(signatures, outputs, strict=True):
        described = meta_graph.signature_def[signature.name]
        described.method_name = PREDICT_METHOD
        for name in signature.takes:
            _describe(described.inputs[name], next(taken))
        for name in names:
            _describe(described.outputs[name], next(given))
    return saved_model


def _frozen(signatures: Sequence[Signature]) -> tuple[Any, list[list[str]], dict[str, str]]:
    """Give the frozen function, its inputs and outputs in order of the signatures, the outputs' names, and the owners.

    The owners tell of each node that was made for one signature alone which that is.
    """
    outputs: list[list[str]] = []
    owners: dict[str, str] = {}

    def all_of_them(*tensors: Any) -> list[Any]:
        graph = tf.compat.v1.get_default_graph()
        rest, made = iter(tensors), []
        for signature in signatures:
            there = len(graph.get_operations())
            with tf.name_scope(signature.name):
                answer: Mapping[str, Any] = signature.function(**{name: next(rest) for name in signature.takes})
            owners.update((made_op.name, signature.name) for made_op in graph.get_operations()[there:])
            outputs.append(sorted(answer))
            made += [answer[name] for name in sorted(answer)]
        return made

    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"{signature.name}_{name.replace('/', '_')}")
        for signature in signatures
        for name, spec in signature.takes.items()
    ]
    concrete = tf.function(all_of_them, autograph=False).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    given = iter(frozen.outputs)
    for signature, names in zip(signatures, outputs, strict=True):
        owners.update((next(given).op.name, signature.name) for _ in names)
    return frozen, outputs, owners


def untie(graph_def: Any, owners: Mapping[str, str]) -> None:
    """Take away that a node waits for a node of another signature.

    Tracing orders ops with side effects one after the other, and lets every output wait for all of them by one node
    that belongs to nobody. A signature would then run those of the others too, with inputs that it does not get.

    Args:
        graph_def: GraphDef of all signatures.
        owners: node name -> signature.
    """
    gathered = {node.name: list(node.input) for node in graph_def.node if node.op == "NoOp" and node.name not in owners}
    kept = [node for node in graph_def.node if node.name not in gathered]
    for node in kept:
        own = owners.get(node.name)
        sources = [more for name in node.input for more in gathered.get(name.removeprefix("^"), [name])]
        node.input[:] = [name for name in sources if not _waits_for_another(name, own, owners)]
    _keep(graph_def, gathered)


def _waits_for_another(source: str, own: str | None, owners: Mapping[str, str]) -> bool:
    return source.startswith("^") and own is not None and owners.get(source.removeprefix("^"), own) != own


def share_constants(graph_def: Any) -> None:
    """Keep one node of those constants of a graph that are equal and large, and let all read it."""
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for node in graph_def.node:
        if node.op == "Const" and not node.input and node.attr["value"].ByteSize() >= _SHARED_FROM_BYTES:
            digest = hashlib.sha256(node.attr["value"].SerializeToString(deterministic=True)).digest()
            if first.setdefault(digest, node.name) != node.name:
                renamed[node.name] = first[digest]
    kept = [node for node in graph_def.node if node.name not in renamed]
    for node in kept:
        node.input[:] = [_redirected(source, renamed) for source in node.input]
    _keep(graph_def, renamed)


def _keep(graph_def: Any, away: Container[str]) -> None:
    """Leave the nodes out whose names are in `away`."""
    for index in reversed([index for index, node in enumerate(graph_def.node) if node.name in away]):
        del graph_def.node[index]


def lower_loops(graph_def: Any) -> None:
    """Have TensorFlow run loops and branches inside the graph that holds them, where it optimises their ops.

    Freezing marks them to run as functions of their own, whose ops stay as they are: convolutions in a loop then took
    twice the processor time.
    """
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            if node.op in _LOWERED:
                node.attr["_lower_using_switch_merge"].b = True


def _redirected(source: str, renamed: Mapping[str, str]) -> str:
    mark = "^" if source.startswith("^") else ""
    name, colon, index = source.removeprefix("^").partition(":")
    return f"{mark}{renamed.get(name, name)}{colon}{index}"


def _describe(stated: Any, tensor: Any) -> None:
    stated.name = tensor.name
    stated.dtype = tensor.dtype.as_datatype_enum
    stated.tensor_shape.CopyFrom(tensor.shape.as_proto())
