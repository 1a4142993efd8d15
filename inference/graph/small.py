"""Small graphs, run in the calling thread: handing a run to TensorFlow's threads takes longer than a few ops do.

On an idle two-core machine a graph of one op took 4 us this way and 83 us by `inference.cancellation`, whose runs go to
a thread of TensorFlow and back. `tf.compat.v1.Session` is TensorFlow's public way to say so (inter-op threads -1); its
callables, which read feeds in place as that does, have a private name, used here alone. Kernels share their work over
the intra-op threads as ever. Without loops there is nothing between whose ops TensorFlow could stop, so a call that
ended meanwhile is noticed after the run.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2

from inference.call import Call

NODES_MOST = 64


def small_part(graph_def: Any, tensors: Iterable[str]) -> Any | None:
    """Give the part of a GraphDef that makes some tensors, or None where it is not small or calls functions.

    Args:
        graph_def: checked.
        tensors: names as "node:0"; feeds among them stay in the part though nothing may need them.
    """
    nodes = {node.name: node for node in graph_def.node}
    functions = {item.signature.name for item in graph_def.library.function}
    found: dict[str, Any] = {}
    wanted = [_node_name(tensor) for tensor in tensors]
    while wanted:
        node = nodes[wanted.pop()]
        if node.name in found:
            continue
        found[node.name] = node
        if len(found) > NODES_MOST or node.op in functions or any(map(_is_function, node.attr.values())):
            return None
        wanted += [_node_name(source) for source in node.input]
    part = type(graph_def)(versions=graph_def.versions)
    part.node.extend(node for node in graph_def.node if node.name in found)
    return part


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _is_function(attribute: Any) -> bool:
    return attribute.WhichOneof("value") == "func" or bool(attribute.list.func)


class SmallFunction:
    """Runs a small graph; safe to share between threads."""

    def __init__(self, graph_def: Any, feeds: Sequence[str], fetches: Sequence[str]) -> None:
        """Import what `small_part` gave; raise ValueError or tf.errors.OpError where TensorFlow cannot."""
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        config = config_pb2.ConfigProto(inter_op_parallelism_threads=-1, intra_op_parallelism_threads=threads)
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        self._callable = self._session._make_callable_from_options(options)  # noqa: SLF001 - said above

    def run(self, feeds: Sequence[NDArray[Any]], call: Call | None = None) -> list[NDArray[Any]]:
        """Give the outputs in order, views of TensorFlow's memory; raise tf.errors.OpError where an op failed."""
        del call
        return [np.asarray(answer) for answer in self._callable(*feeds)]
