"""Grad-CAM (Selvaraju et al. 2017): where in the input the features lie that speak for a class."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from inference.graph.resampling import resampled

_LOOPS = frozenset({"While", "StatelessWhile", "Enter"})
Head = Callable[[Any], Any]
"""Features FP32 [n, ..., channel] -> scores before the softmax FP32 [n, class]."""


def grad_cam(features: Any, head: Head, target: int) -> Any:
    """Return the Grad-CAM map of each item, FP32 [n, ...], 0..1; all 0 where nothing speaks for the class.

    Args:
        features: FP32 [n, ..., channel] of the last layer that still has places.
        head: From the features to the scores.
        target: The class.

    Raises:
        ValueError: the head loops, or its score does not depend on the features.
    """
    refuse_loops(head, features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        score = tf.reduce_sum(head(features)[:, target])
    gradient = tape.gradient(score, features)
    if gradient is None:
        raise ValueError("head: its score does not depend on the features. Remedy: take the head that follows them")
    places = list(range(1, features.shape.rank - 1))
    weights = tf.reduce_mean(gradient, axis=places, keepdims=True)
    found = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
    return tf.math.divide_no_nan(found, tf.reduce_max(found, axis=places, keepdims=True))


def explanation(
    body: Callable[..., Any], head: Head, target: int, grid_of: str = "image"
) -> Callable[..., Mapping[str, Any]]:
    """Return the function of the signature `explain`: `saliency` FP32 [slice, row, column] on the grid of an input.

    Args:
        body: The model's inputs by name -> features FP32 [1, slice, row, column, channel] over the input's extent.
        head: As in `grad_cam`.
        target: The class.
        grid_of: Name of the input [slice, row, column] whose grid the map gets.
    """

    def explain(**inputs: Any) -> dict[str, Any]:
        found = grad_cam(body(**inputs), head, target)[0]
        return {"saliency": resampled(found, tf.shape(inputs[grid_of]))}

    return explain


def refuse_loops(head: Head, features: Any) -> None:
    """Raise ValueError naming the loop that stands in the head: its gradient would keep every turn in memory."""
    spec = tf.TensorSpec(features.shape, features.dtype)
    graph = tf.function(head, autograph=False).get_concrete_function(spec).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        if node.op in _LOOPS:
            raise ValueError(f"head: holds the loop {node.op!r} (node {node.name!r:.80}). Remedy: put it in the body")
