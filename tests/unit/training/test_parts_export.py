"""Parts of a model become signatures of one frozen graph, and together they are the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos.model_manifest import Batching, ModelManifest, Slabs, Tensor
from tests.bundles import threshold_manifest

tf = pytest.importorskip("tensorflow")

from inference.graph.answers import labels  # noqa: E402
from inference.graph.frozen import (  # noqa: E402
    SAVED_MODEL_FILE,
    import_signature,
    read_frozen_graph,
    read_meta_graph,
    refuse_foreign_ops,
)
from training.export import export_bundle  # noqa: E402
from training.parts import SlabParts, TileParts  # noqa: E402

KERNEL = np.random.default_rng(1).normal(size=(3, 3, 1, 64)).astype(np.float32)
INPUT = {
    "image": np.random.default_rng(2).integers(-99, 99, (3, 8, 8)).astype(np.int16),
    "slope": np.ones(3, np.float32),
    "intercept": np.zeros(3, np.float32),
    "spacing": np.ones(3, np.float32),
}


def manifest() -> ModelManifest:
    return threshold_manifest().model_copy(update={"batching": Batching()})


def parts() -> TileParts:
    kernel = tf.Variable(KERNEL)

    def prepare(image: Any, slope: Any, intercept: Any) -> dict[str, Any]:
        values = tf.cast(image, tf.float32) * slope[:, None, None] + intercept[:, None, None]
        resized = tf.image.resize(values[..., None], (8, 8))
        return {"tiles": tf.map_fn(lambda tile: tile + 0, resized), "least": tf.reduce_min(values)}

    def network(tiles: Any) -> dict[str, Any]:
        return {"answers": tf.reduce_mean(tf.nn.conv2d(tiles, kernel, 1, "SAME") + tf.constant(KERNEL[0, 0, 0]), -1)}

    def finish(answers: Any, least: Any, image: Any) -> dict[str, Any]:
        return {"probability": tf.cast((answers > least / 100) & (image > -50), tf.uint8)}

    return TileParts(prepare, network, finish)


def functions(path: Path) -> dict[str, Any]:
    meta_graph = read_meta_graph(path)
    refuse_foreign_ops(meta_graph.graph_def, path)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(meta_graph.graph_def, name=""), [])

    def imported(signature: Any) -> Any:
        names = sorted(signature.inputs)
        run = wrapped.prune(
            [signature.inputs[name].name for name in names], {key: item.name for key, item in signature.outputs.items()}
        )
        return lambda known: run(*(tf.constant(known[name]) for name in names))

    return {name: imported(signature) for name, signature in meta_graph.signature_def.items()}


def test_parts_are_the_whole(tmp_path: Path) -> None:
    bundle = export_bundle(parts(), manifest(), tmp_path, INPUT)
    run = functions(bundle.directory / SAVED_MODEL_FILE)
    known: dict[str, Any] = dict(INPUT)
    for name in ("prepare", "network", "finish"):
        known |= run[name](known)
    whole = run["serving_default"](INPUT)["probability"].numpy()
    np.testing.assert_array_equal(known["probability"].numpy(), whole)
    assert 0 < whole.sum() < whole.size


def test_weights_are_stored_once(tmp_path: Path) -> None:
    bundle = export_bundle(parts(), manifest(), tmp_path, None)
    assert (bundle.directory / SAVED_MODEL_FILE).read_bytes().count(KERNEL.tobytes()) == 1


def test_parts_of_tiles_want_batching_in_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batching"):
        export_bundle(parts(), threshold_manifest(), tmp_path, None)


def test_slabs_with_a_survey_are_the_whole(tmp_path: Path) -> None:
    state = (
        Tensor(name="state/sum", datatype="FP32", shape=()),
        Tensor(name="state/voxels", datatype="FP32", shape=()),
    )

    def survey(image: Any, **known: Any) -> dict[str, Any]:
        total = known["state/sum"] + tf.reduce_sum(tf.cast(image, tf.float32))
        return {"state/sum": total, "state/voxels": known["state/voxels"] + tf.cast(tf.size(image), tf.float32)}

    def slab(image: Any, **known: Any) -> dict[str, Any]:
        kept = {name: tf.identity(known[name]) for name in ("state/sum", "state/voxels")}
        mean = known["state/sum"] / known["state/voxels"]
        return {"probability": tf.cast(tf.cast(image, tf.float32) > mean, tf.uint8), **kept}

    described = threshold_manifest().model_copy(update={"slabs": Slabs(slices=2, state=state)})
    bundle = export_bundle(SlabParts(slab, state, survey), described, tmp_path, INPUT)
    run = functions(bundle.directory / SAVED_MODEL_FILE)
    cuts = [{**INPUT, "image": INPUT["image"][a:b], "slope": INPUT["slope"][a:b]} for a, b in ((0, 2), (2, 3))]
    known: dict[str, Any] = {item.name: np.zeros((), np.float32) for item in state}
    for cut in cuts:
        known = run["survey"]({**cut, "intercept": cut["slope"], **known})
    made = [run["slab"]({**cut, "intercept": cut["slope"], **known})["probability"].numpy() for cut in cuts]
    np.testing.assert_array_equal(np.concatenate(made), run["serving_default"](INPUT)["probability"].numpy())


def asserting(part: str) -> TileParts:
    """Parts of which each holds an op with a side effect beside what it answers, for images of more than 50."""

    def prepare(image: Any) -> dict[str, Any]:
        if part == "prepare":
            tf.debugging.assert_less(image, tf.constant(50, tf.int16), "prepare asserts")
        return {"tiles": tf.cast(image, tf.float32)}

    def network(tiles: Any) -> dict[str, Any]:
        if part == "network":
            tf.debugging.Assert(tf.reduce_all(tiles < 50), ["network asserts"])
        return {"answers": tf.math.sqrt(tiles)}

    def finish(answers: Any, image: Any) -> dict[str, Any]:
        tf.debugging.assert_less(image, tf.constant(99, tf.int16), "finish asserts")
        return {"probability": labels(tf.stack((1 - answers, answers), -1))}

    return TileParts(prepare, network, finish)


@pytest.mark.parametrize("part", ["prepare", "network"])
def test_an_op_with_a_side_effect_runs_with_its_own_signature_alone(tmp_path: Path, part: str) -> None:
    """Tracing lets every output wait for every such op, so that `network` would want the inputs of `prepare`."""
    bundle = export_bundle(asserting(part), manifest(), tmp_path, None)
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, bundle.manifest)
    run = {name: import_signature(graph, name) for name in graph.signatures}

    def told(name: str, value: int) -> str:
        image = np.full((1, 8, 8), value, np.int16)
        known = {**INPUT, "image": image, "tiles": np.float32(image), "answers": np.float32(image)}
        try:
            run[name](known)
        except tf.errors.InvalidArgumentError as error:
            return error.message
        return ""

    names = ("serving_default", "prepare", "network", "finish")
    assert [told(name, 4) for name in names] == ["", "", "", ""]
    assert f"{part} asserts" in told("serving_default", 60)
    assert [f"{part} asserts" in told(name, 60) for name in names] == [
        True,
        part == "prepare",
        part == "network",
        False,
    ]
    assert "finish asserts" in told("finish", 100)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_does_not_become_a_label(tmp_path: Path, value: float) -> None:
    bundle = export_bundle(asserting("none"), manifest(), tmp_path, None)
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, bundle.manifest)
    known = {**INPUT, "answers": np.zeros((1, 8, 8), np.float32), "image": np.zeros((1, 8, 8), np.int16)}
    finish = import_signature(graph, "finish")
    assert not finish(known)["probability"].any()
    known["answers"][0, 3, 5] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match="class probabilities: expected finite values"):
        finish(known)


def test_loops_are_left_to_be_lowered(tmp_path: Path) -> None:
    """TensorFlow optimises the ops of a loop only where the loop is part of the graph that it optimises."""

    def counted(image: Any, **_: Any) -> dict[str, Any]:
        def inner(at: Any, total: Any) -> Any:
            return at + 1, total + tf.while_loop(lambda by, _: by < 2, lambda by, x: (by + 1, x * 2), (0, at))[1]

        _, total = tf.while_loop(lambda at, _: at < 3, inner, (0, 0))
        return {"probability": tf.cast(image + tf.cast(total, tf.int16), tf.uint8)}

    bundle = export_bundle(counted, threshold_manifest(), tmp_path, None)
    graph = read_meta_graph(bundle.directory / SAVED_MODEL_FILE).graph_def
    loops = [
        node
        for nodes in (graph.node, *(function.node_def for function in graph.library.function))
        for node in nodes
        if node.op in ("While", "StatelessWhile")
    ]
    assert len(loops) == 2
    assert all(node.attr["_lower_using_switch_merge"].b for node in loops)
    image = functions(bundle.directory / SAVED_MODEL_FILE)["serving_default"](INPUT)["probability"].numpy()
    np.testing.assert_array_equal(image, (INPUT["image"] + 12).astype(np.uint8))
