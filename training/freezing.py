"""Functions over named tensors -> one frozen graph with a signature for each, as a SavedModel message."""

import hashlib
from collections.abc import Mapping, Sequence
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
    is one constant.
    """
    frozen, outputs = _frozen(signatures)
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append(SERVE_TAG)
    meta_graph.meta_info_def.tensorflow_version = tf.__version__
    meta_graph.graph_def.CopyFrom(frozen.graph.as_graph_def())
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


def _frozen(signatures: Sequence[Signature]) -> tuple[Any, list[list[str]]]:
    """Give the frozen function, its inputs and outputs in order of the signatures, and the outputs' names."""
    outputs: list[list[str]] = []

    def all_of_them(*tensors: Any) -> list[Any]:
        rest, made = iter(tensors), []
        for signature in signatures:
            with tf.name_scope(signature.name):
                answer: Mapping[str, Any] = signature.function(**{name: next(rest) for name in signature.takes})
            outputs.append(sorted(answer))
            made += [answer[name] for name in sorted(answer)]
        return made

    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"{signature.name}_{name.replace('/', '_')}")
        for signature in signatures
        for name, spec in signature.takes.items()
    ]
    concrete = tf.function(all_of_them, autograph=False).get_concrete_function(*specs)
    return convert_variables_to_constants_v2(concrete, lower_control_flow=False), outputs


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
    copies = [type(node).FromString(node.SerializeToString()) for node in kept] if renamed else kept
    if renamed:
        del graph_def.node[:]
        graph_def.node.extend(copies)


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
