"""A frozen SavedModel: parsed, checked, and only then imported.

`tf.saved_model.load` would run restore and initialiser functions and cannot refuse an op before it does; here
`saved_model.pb` is parsed as a message, held to the op allow-list over graph and function library and to the
manifest, and its GraphDef imported. TensorFlow executes nothing of the file before the checks have passed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from inference.call import Call
from inference.cancellation import NativeFunction
from inference.errors import BundleRefused
from inference.graph.allowed_ops import ALLOWED_OPS
from inference.graph.small import SmallFunction, small_part
from protos.model_manifest import ModelManifest, Tensor
from protos.tensors import TensorError, check_tensor, datatype_of

SAVED_MODEL_FILE = "saved_model.pb"
SERVING = "serving_default"
SERVE_TAG = "serve"
SIGNATURES = frozenset({SERVING, "prepare", "network", "finish", "survey", "slab", "explain"})
GRAPH_BYTES_MOST = (1 << 31) - 1
"""A protobuf message holds less than 2 GiB."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Tensor name in the graph of each input and output; `serving_default` in manifest order, others by name."""

    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True, slots=True)
class FrozenGraph:
    """A checked graph, not yet imported."""

    graph_def: Any
    """GraphDef."""
    signatures: dict[str, Signature]

    @property
    def inputs(self) -> dict[str, str]:
        """Tensor names of the inputs of `serving_default`, in manifest order."""
        return self.signatures[SERVING].inputs

    @property
    def outputs(self) -> dict[str, str]:
        """Tensor names of the outputs of `serving_default`, in manifest order."""
        return self.signatures[SERVING].outputs


@dataclass(frozen=True, slots=True)
class GraphFunction:
    """One imported signature: arrays by name in, arrays by name out. May be called from several threads."""

    signature: Signature
    native: NativeFunction | SmallFunction

    def __call__(self, arrays: Mapping[str, NDArray[Any]], call: Call | None = None) -> dict[str, NDArray[Any]]:
        """Run on arrays of the signature's dtypes; other names are not looked at.

        Args:
            arrays: one for each input. Memory aligned to 64 bytes is read in place, other memory is copied.
            call: the run stops between two ops once it ended.

        Returns:
            Outputs by name, views of TensorFlow's memory; an output that is an input unchanged may view the input.

        Raises:
            DeadlinePassed, RequestCancelled: the call ended meanwhile.
            tf.errors.OpError: an op failed.
        """
        answers = self.native.run([arrays[name] for name in self.signature.inputs], call)
        return dict(zip(self.signature.outputs, answers, strict=True))


def read_frozen_graph(path: Path, manifest: ModelManifest) -> FrozenGraph:
    """Parse `saved_model.pb` and hold it to the op allow-list and to the manifest's tensors.

    Raises:
        BundleRefused: not one frozen MetaGraphDef, a forbidden op, initialisers or assets, or a signature that is
            not the manifest's; the message names the op, function or tensor.
    """
    meta_graph = read_meta_graph(path)
    refuse_foreign_ops(meta_graph.graph_def, path)
    return match_signature(meta_graph, manifest, path)


def match_signature(meta_graph: Any, manifest: ModelManifest, path: Path) -> FrozenGraph:
    """Find the graph's tensor of each input and output; BundleRefused where the manifest declares others.

    Only `serving_default` is held to the manifest here; the runner that uses a part holds that part to it.
    """
    stated = meta_graph.signature_def
    foreign = sorted(set(stated) - SIGNATURES)
    if foreign:
        raise BundleRefused(f"{path}: holds the signature {foreign[0]!r:.80}; known are {sorted(SIGNATURES)}")
    signatures = {
        name: Signature(
            {key: stated[name].inputs[key].name for key in sorted(stated[name].inputs)},
            {key: stated[name].outputs[key].name for key in sorted(stated[name].outputs)},
        )
        for name in stated
    }
    signatures[SERVING] = Signature(
        inputs=_matched(manifest.inputs, stated[SERVING].inputs, f"{path}: input"),
        outputs=_matched(manifest.outputs, stated[SERVING].outputs, f"{path}: output"),
    )
    return FrozenGraph(meta_graph.graph_def, signatures)


def import_graph(graph: FrozenGraph) -> GraphFunction:
    """Import `serving_default` of a checked graph."""
    return import_signature(graph, SERVING)


def import_signature(graph: FrozenGraph, name: str, device: str | None = None) -> GraphFunction:
    """Import one signature of a checked graph; only the ops that it needs are kept.

    Args:
        graph: what `read_frozen_graph` gave.
        name: "serving_default", "prepare", "network", "finish", "survey", "slab" or "explain".
        device: TensorFlow's name of the device that runs it, e.g. "/GPU:1"; None leaves it to TensorFlow.

    Raises:
        BundleRefused: the graph has no such signature, the signature needs an input that it does not name, or
            TensorFlow cannot import it.
    """
    if name not in graph.signatures:
        raise BundleRefused(f"saved_model.pb: expected the signature {name!r}, got {sorted(graph.signatures)}")
    signature = graph.signatures[name]
    _refuse_unfed(graph.graph_def, signature, name)
    try:
        return GraphFunction(signature, _imported(graph.graph_def, signature, device))
    except (ValueError, KeyError, tf.errors.OpError) as error:
        reason = str(error).strip().split("\n", 1)[0][:300]
        raise BundleRefused(f"saved_model.pb: the signature {name!r} cannot be imported: {reason}") from error


def _imported(graph_def: Any, signature: Signature, device: str | None) -> NativeFunction | SmallFunction:
    feeds, fetches = list(signature.inputs.values()), list(signature.outputs.values())
    part = None if tf.config.list_physical_devices("GPU") else small_part(graph_def, [*feeds, *fetches])
    if part is not None:
        return SmallFunction(part, feeds, fetches)

    def definition() -> None:
        tf.graph_util.import_graph_def(graph_def, name="")

    return NativeFunction(tf.compat.v1.wrap_function(definition, []).prune(feeds, fetches), device)


def _refuse_unfed(graph_def: Any, signature: Signature, name: str) -> None:
    """Refuse a signature that depends, by value or by order, on a placeholder that is none of its inputs."""
    nodes = {node.name: node for node in graph_def.node}
    seen = {_node_of(tensor) for tensor in signature.inputs.values()}
    waiting = [_node_of(tensor) for tensor in signature.outputs.values()]
    while waiting:
        at = waiting.pop()
        if at in seen or at not in nodes:
            continue  # what is not there is refused by the import
        seen.add(at)
        if nodes[at].op == "Placeholder":
            raise BundleRefused(
                f"saved_model.pb: the signature {name!r} needs {at!r:.80}, which is none of its inputs "
                f"{sorted(signature.inputs)}. Remedy: export it again with training.export.export_bundle."
            )
        waiting += [_node_of(source) for source in nodes[at].input]


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def refuse_foreign_ops(graph_def: Any, path: Path) -> None:
    """Raise BundleRefused naming the first op outside the allow-list, in the graph or any function of its library."""
    for name in sorted(ALLOWED_OPS.intersection(item.signature.name for item in graph_def.library.function)):
        raise BundleRefused(f"{path}: a function of the library hides the op {name!r} behind its name")
    for place, node in _nodes(graph_def):
        if node.op not in ALLOWED_OPS:
            raise BundleRefused(
                f"{path}: {place} holds the op {node.op!r} (node {node.name!r:.80}), which a frozen model may not "
                f"hold. Remedy: export it with training.export.export_bundle, without variables, files and callbacks."
            )
    if graph_def.library.gradient:
        raise BundleRefused(f"{path}: the function library holds gradient definitions, which a model does not need")


def count_ops(graph_def: Any) -> int:
    """Count the ops of the graph and of its function library."""
    return sum(1 for _ in _nodes(graph_def))


def _nodes(graph_def: Any) -> Iterator[tuple[str, Any]]:
    yield from (("the graph", node) for node in graph_def.node)
    for function in graph_def.library.function:
        yield from ((f"function {function.signature.name!r}", node) for node in function.node_def)


def read_meta_graph(path: Path) -> Any:
    """Parse the one frozen MetaGraphDef of a `saved_model.pb`; BundleRefused where it is anything else."""
    saved_model = saved_model_pb2.SavedModel()
    try:
        size = path.stat().st_size
        if size > GRAPH_BYTES_MOST:
            raise BundleRefused(f"{path}: expected less than 2 GiB, got {size} bytes; it was not parsed")
        saved_model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise BundleRefused(f"{path}: cannot be read as a SavedModel: {error}") from error
    serving = [item for item in saved_model.meta_graphs if SERVE_TAG in item.meta_info_def.tags]
    if len(serving) != 1 or SERVING not in serving[0].signature_def:
        raise BundleRefused(f"{path}: must hold one graph tagged {SERVE_TAG!r} with the signature {SERVING!r}")
    _refuse_initialisers(serving[0], path)
    return serving[0]


def _refuse_initialisers(meta_graph: meta_graph_pb2.MetaGraphDef, path: Path) -> None:
    parts = {
        "collections": meta_graph.collection_def,
        "assets": meta_graph.asset_file_def,
        "a saver": meta_graph.saver_def.restore_op_name,
        "an object graph": meta_graph.object_graph_def.nodes,
    }
    found = [name for name, part in parts.items() if part]
    if found:
        raise BundleRefused(f"{path}: holds {', '.join(found)}; a frozen model has none of them. Remedy: freeze it.")


def _matched(declared: Iterable[Tensor], stated: Any, what: str) -> dict[str, str]:
    expected = {tensor.name: tensor for tensor in declared}
    if set(expected) != set(stated):
        raise BundleRefused(f"{what}s: the manifest declares {sorted(expected)}, the signature {sorted(stated)}")
    for name, tensor in expected.items():
        datatype = datatype_of(tf.dtypes.as_dtype(stated[name].dtype).as_numpy_dtype, name=name)
        shape = tf.TensorShape(stated[name].tensor_shape)
        sizes = [-1 if size is None else size for size in shape] if shape.rank is not None else list(tensor.shape)
        try:
            check_tensor(tensor, datatype, sizes)
        except TensorError as error:
            raise BundleRefused(f"{what} differs from the manifest: {error}") from error
    return {name: stated[name].name for name in expected}
