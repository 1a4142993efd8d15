"""Blocks put together as a model: exported, every op allowed, and the same answers as before the export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from inference.graph.answers import ensemble_mean, flips_mean, labels_on_grid, tempered
from inference.graph.frozen import SAVED_MODEL_FILE, GraphFunction, import_signature, read_frozen_graph
from inference.graph.intensity import counted_voxels, z_scored
from inference.graph.percentiles import percentiles
from inference.graph.resampling import resampled, sizes_at
from inference.graph.rescale import rescaled
from inference.graph.saliency import explanation
from inference.graph.windowing import linear
from inference.graph.windows import WindowGrid, blended_windows, cut_windows, slid
from protos.model_manifest import Batching, ModelBundle
from tests.bundles import threshold_manifest
from training.export import export_bundle
from training.parts import Explained, TileParts

PADDING = -2000
GRID = WindowGrid((4, 12, 12), (3, 8, 8))
FLAT = WindowGrid((12, 12), (8, 8))
RNG = np.random.default_rng(11)
KERNELS = [RNG.normal(size=(3, 3, 3, 1, 3)).astype(np.float32) for _ in range(2)]
SHAPES = [(1, 1, 1), (3, 33, 7), (6, 21, 18)]


def given(shape: tuple[int, int, int]) -> dict[str, Any]:
    image = np.random.default_rng(12).integers(-300, 300, shape).astype(np.int16)
    image[0, 0, 0] = PADDING
    return {
        "image": image,
        "slope": np.full(shape[0], 1.5, np.float32),
        "intercept": np.full(shape[0], -20, np.float32),
        "spacing": np.array([2.5, 0.7, 0.9], np.float32),
    }


def scaled(image: Any, slope: Any, intercept: Any) -> Any:
    values = rescaled(image, slope, intercept, -1024.0)
    low, high = tf.unstack(tf.cast(percentiles(image, (1, 99), padding=PADDING), tf.float32) * slope[0] + intercept[0])
    return z_scored(tf.clip_by_value(values, low, high), counted_voxels(image, PADDING))


def network(tiles: Any) -> Any:
    members = [lambda x, kernel=kernel: tf.nn.conv3d(x, kernel, (1,) * 5, "SAME") for kernel in KERNELS]
    return flips_mean(lambda x: ensemble_mean(members, x), tiles, ((2, 3),))


def whole(image: Any, slope: Any, intercept: Any, spacing: Any) -> dict[str, Any]:
    wanted = sizes_at(tf.shape(image), spacing, (2.0, 1.5, 1.5))
    coarse = resampled(scaled(image, slope, intercept), wanted, antialias=True)
    logits = slid(coarse, GRID, network, 3)
    return {"probability": labels_on_grid(tempered(logits, 1.5), tf.shape(image))}


def body(image: Any, slope: Any, intercept: Any, **_: Any) -> Any:
    values = linear(rescaled(image, slope, intercept, -1024.0), 0, 400)
    return tf.nn.relu(tf.nn.conv3d(values[None, ..., None], KERNELS[0], (1, 1, 2, 2, 1), "SAME"))


def head(features: Any) -> Any:
    kernel = tf.constant(np.repeat(np.abs(KERNELS[1]), 3, axis=3))
    return tf.reduce_mean(tf.nn.relu(tf.nn.conv3d(features, kernel, (1,) * 5, "SAME")), (1, 2, 3))


def functions(bundle: ModelBundle, *names: str) -> list[GraphFunction]:
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, bundle.manifest)
    return [import_signature(graph, name) for name in names]


def test_an_exported_composition_answers_as_it_did_before(tmp_path: Path) -> None:
    explain = explanation(body, head, 1)
    bundle = export_bundle(Explained(whole, explain), threshold_manifest(), tmp_path, given((6, 20, 20)))
    serve, say_why = functions(bundle, "serving_default", "explain")
    for shape in SHAPES:
        inputs = given(shape)
        eager = {name: tf.constant(array) for name, array in inputs.items()}
        answer, saliency = serve(inputs)["probability"], say_why(inputs)["saliency"]
        assert answer.shape == saliency.shape == shape
        np.testing.assert_array_equal(answer, whole(**eager)["probability"])
        np.testing.assert_allclose(saliency, explain(**eager)["saliency"], atol=1e-5)
    assert len(np.unique(answer)) == 3
    assert saliency.max() > 0.5


def parts() -> TileParts:
    def prepare(image: Any, slope: Any, intercept: Any) -> dict[str, Any]:
        return {"tiles": cut_windows(scaled(image, slope, intercept), FLAT)}

    def answer(tiles: Any) -> dict[str, Any]:
        return {"logits": tf.nn.conv2d(tiles, KERNELS[0][1], 1, "SAME")}

    def finish(logits: Any, image: Any) -> dict[str, Any]:
        blended = blended_windows(logits, tf.shape(image), FLAT)
        return {"probability": labels_on_grid(tempered(blended, 1), tf.shape(image))}

    return TileParts(prepare, answer, finish)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_windows_as_parts_are_the_sliding_window(shape: tuple[int, int, int], tmp_path: Path) -> None:
    described = threshold_manifest().model_copy(update={"batching": Batching()})
    bundle = export_bundle(parts(), described, tmp_path, None)
    known = given(shape)
    for run in functions(bundle, "prepare", "network", "finish"):
        known |= run(known)
    assert known["tiles"].shape[1:] == (12, 12, 1)
    values = scaled(*(tf.constant(known[name]) for name in ("image", "slope", "intercept")))
    logits = slid(values, FLAT, lambda tiles: tf.nn.conv2d(tiles, KERNELS[0][1], 1, "SAME"), 3)
    expected = labels_on_grid(tempered(logits, 1), shape)
    np.testing.assert_array_equal(known["probability"], expected)
