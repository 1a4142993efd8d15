"""A SavedModel looked at before TensorFlow loads it, and then loaded.

What the signature reaches may hold the ops of a frozen model and reads of variables, nothing else. The functions that
save and restore hold file ops; they may be there, since every SavedModel has them, and are not run: TensorFlow's loader
reads variables from the checkpoint beside the graph by itself, in the child that has no network.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from inference.graph.allowed_ops import ALLOWED_OPS
from inference.graph.frozen import SERVE_TAG
from training.importing.errors import SourceRefused

GRAPH_FILE = "saved_model.pb"
_VARIABLES = frozenset({"VarHandleOp", "ReadVariableOp"})
_SAVING_NAMES = """
AssignVariableOp DisableCopyOnRead MergeV2Checkpoints ReadVariableOp RestoreV2 SaveV2 ShardedFilename
StaticRegexFullMatch StringJoin VarHandleOp VarIsInitializedOp
"""
_SAVING = frozenset(_SAVING_NAMES.split())
_OBJECTS = {"user_object", "variable", "function", "bare_concrete_function", "constant"}
_INITIAL = "__saved_model_init_op"
_MAIN_OP = "saved_model_main_op"
_REMEDY = "Remedy: export the inference function alone, e.g. `model.export(folder)` of Keras 3"


def check_saved_model(folder: Path, signature: str) -> None:
    """Parse the graph and hold it to what may be loaded; TensorFlow executes nothing of it.

    Raises:
        SourceRefused: it cannot be parsed, lacks the signature, brings assets, tables or initialisers, or holds an op
            that is not allowed; the message names the op and where it stands.
    """
    meta_graph = _parsed(folder / GRAPH_FILE)
    stated = sorted(name for name in meta_graph.signature_def if name != _INITIAL)
    if signature not in stated:
        raise SourceRefused(
            f"{folder.name}: network.signature is {signature!r}, the SavedModel has {stated}. Remedy: name one of them"
        )
    _refuse_extras(meta_graph, folder)
    graph = meta_graph.graph_def
    library = {function.signature.name: function for function in graph.library.function}
    hidden = sorted((ALLOWED_OPS | _VARIABLES | _SAVING).intersection(library))
    if hidden:
        raise SourceRefused(f"{folder.name}: a function of the library hides the op {hidden[0]!r} behind its name")
    for place, node in _every_node(graph):
        if node.op not in ALLOWED_OPS | _SAVING:
            raise _forbidden(folder, place, node)
    outputs = [tensor.name for tensor in meta_graph.signature_def[signature].outputs.values()]
    for place, node in _reached(graph, library, outputs):
        if node.op not in ALLOWED_OPS | _VARIABLES:
            raise _forbidden(folder, f"{place}, which the signature {signature!r} runs,", node)


def load_saved_model(folder: Path) -> Any:
    """Load a checked SavedModel; its `signatures` run as long as it lives, since it holds the variables."""
    return tf.saved_model.load(str(folder), tags=[SERVE_TAG])


def _parsed(path: Path) -> Any:
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise SourceRefused(f"{path.name}: cannot be read as a SavedModel: {error}") from error
    serving = [item for item in saved_model.meta_graphs if SERVE_TAG in item.meta_info_def.tags]
    if len(serving) != 1:
        raise SourceRefused(f"{path.name}: expected one graph tagged {SERVE_TAG!r}, got {len(serving)}. {_REMEDY}")
    return serving[0]


def _refuse_extras(meta_graph: Any, folder: Path) -> None:
    objects = meta_graph.object_graph_def.nodes
    kinds = {str(node.WhichOneof("kind")) for node in objects} - _OBJECTS
    found = {
        "no object graph, as TensorFlow 1 wrote it": not objects,
        "assets": bool(meta_graph.asset_file_def),
        f"collections {sorted(set(meta_graph.collection_def) - {_MAIN_OP})}": bool(
            set(meta_graph.collection_def) - {_MAIN_OP}
        ),
        f"objects of the kind {', '.join(sorted(kinds))}": bool(kinds),
        "objects that restore themselves": any(node.saveable_objects for node in objects),
        "gradient definitions": bool(meta_graph.graph_def.library.gradient),
    }
    for what, is_there in found.items():
        if is_there:
            raise SourceRefused(f"{folder.name}: the SavedModel has {what}; only variables are taken. {_REMEDY}")


def _forbidden(folder: Path, place: str, node: Any) -> SourceRefused:
    return SourceRefused(
        f"{folder.name}: {place} holds the op {node.op!r:.80} (node {node.name!r:.80}), which no model may hold. "
        f"{_REMEDY}"
    )


def _every_node(graph: Any) -> Iterator[tuple[str, Any]]:
    yield from (("the graph", node) for node in graph.node)
    for function in graph.library.function:
        yield from ((f"function {function.signature.name!r:.80}", node) for node in function.node_def)


def _reached(graph: Any, library: dict[str, Any], outputs: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the nodes that the outputs need, and all nodes of every function that those name."""
    nodes = {node.name: node for node in graph.node}
    waiting, seen = [_node_of(name) for name in outputs], set()
    functions: list[str] = []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield "the graph", nodes[name]
        waiting += [_node_of(source) for source in nodes[name].input]
        functions += _named_functions(nodes[name])
    entered: set[str] = set()
    while functions:
        name = functions.pop()
        if name in entered or name not in library:
            continue
        entered.add(name)
        for node in library[name].node_def:
            yield f"function {name!r:.80}", node
            functions += _named_functions(node)


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _named_functions(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func.name
        yield from (function.name for function in attribute.list.func)
