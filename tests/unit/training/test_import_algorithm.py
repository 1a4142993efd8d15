"""What stands around an imported network: channel axes, activations, normalisation, cuts, and how far layers look."""

from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from tests.foreign_models import flat_recipe, recipe_of  # noqa: E402
from training.importing.algorithm import Algorithm, conformed, normalised  # noqa: E402
from training.importing.errors import RecipeRefused, SourceRefused  # noqa: E402
from training.importing.layer_reach import layer_reach  # noqa: E402
from training.importing.networks import ForeignNetwork, batch_of, of_model, one_form  # noqa: E402
from training.importing.proofs import chosen_halo, tile_size, try_blocks, try_network  # noqa: E402
from training.importing.recipe import Recipe  # noqa: E402

LEVELS = (0.0, 1.0, 2.5)
RNG = np.random.default_rng(8)


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(recipe_of(**changes))


def by_level(values: Any) -> Any:
    """Logits of three classes at each voxel: how near the value is to each level."""
    return tf.stack([-tf.abs(values - level) for level in LEVELS], -1)


def foreign(call: Any, *shape: int | None, dtype: Any = tf.float32) -> ForeignNetwork:
    return ForeignNetwork(call, tf.TensorSpec(shape, dtype), None, "")


CHANNELS = {
    "last": (lambda given: by_level(given[..., 0]), (None, None, None, None, 1)),
    "first": (lambda given: tf.transpose(by_level(given[:, 0]), (0, 4, 1, 2, 3)), (None, 1, None, None, None)),
    "none": (by_level, (None, None, None, None)),
}


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_channel_axis_may_stand_anywhere(channels: str) -> None:
    call, shape = CHANNELS[channels]
    wanted = recipe(network={"channels": channels})
    network = one_form(foreign(call, *shape), wanted)
    tiles = RNG.uniform(0, 3, (1, 4, 5, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(network(tf.constant(tiles)), tf.nn.softmax(by_level(tiles[..., 0])), atol=1e-6)


def test_sigmoid_makes_two_classes_and_none_leaves_probabilities() -> None:
    tiles = tf.constant(RNG.normal(size=(2, 5, 6, 1)).astype(np.float32))
    flat = Recipe.model_validate(flat_recipe() | {"grid": {}})
    answer = one_form(foreign(lambda given: given, None, None, None, 1), flat)(tiles)
    np.testing.assert_allclose(answer[..., 1], 1 / (1 + np.exp(-tiles[..., 0])), atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(answer, -1), np.ones((2, 5, 6)), atol=1e-6)
    wanted = recipe(network={"activation": "none"})
    raw = foreign(lambda given: tf.repeat(given, 3, -1), None, None, None, None, 1)
    with pytest.raises(RecipeRefused, match="do not sum to 1"):
        try_network(one_form(raw, wanted), wanted)


@pytest.mark.parametrize(
    ("network", "changes", "said"),
    [
        (foreign(None, None, None, None, None, 3), {}, "not one channel there; only networks of one channel"),
        (
            foreign(None, None, None, None, None, 1),
            {"network": {"channels": "first"}},
            r"network\.channels = 'first': the network takes \[any, any, any, any, 1\]",
        ),
        (foreign(None, None, None, None, 1), {}, r"make an input of 5 axes; the network takes \[any, any, any, 1\]"),
        (foreign(None, None, 16, 16, 16, 1), {}, r"grid\.size = \[16, 16, 16\]"),
        (
            foreign(None, None, 16, 16, 16, 1),
            {"network": {"run": "windows", "window": [8, 16, 16]}},
            r"network\.window = \[8, 16, 16\]: .* Remedy: network\.window = \[16, 16, 16\]",
        ),
        (
            foreign(None, None, 16, 16, 16, 1),
            {"network": {"run": "blocks", "block": [16, 16, 16], "halo": 1}},
            "Remedy: run = 'whole' or 'windows'",
        ),
    ],
)
def test_an_input_that_the_recipe_does_not_say_is_refused(
    network: ForeignNetwork, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeRefused, match=said):
        one_form(network, recipe(**changes))


def test_whole_numbers_and_fixed_batches_are_refused_and_a_batch_of_one_is_kept() -> None:
    with pytest.raises(SourceRefused, match="expected a float type"):
        one_form(foreign(None, None, None, None, None, 1, dtype=tf.uint8), recipe())
    with pytest.raises(SourceRefused, match="4 images at once"):
        one_form(foreign(None, 4, None, None, None, 1), recipe())
    assert batch_of(foreign(None, 1, None, None, None, 1), 4) == 1
    assert batch_of(foreign(None, None, None, None, None, 1), 4) == 4


def test_a_network_that_answers_nan_is_refused() -> None:
    raw = foreign(lambda given: tf.repeat(given, 3, -1) / 0.0 * 0.0, None, None, None, None, 1)
    with pytest.raises(SourceRefused, match="NaN or infinity"):
        try_network(one_form(raw, recipe()), recipe())


VALUES = RNG.normal(100, 30, (6, 9, 8)).astype(np.float32)
VALUES[:2, 3] = 0
IMAGE = np.ones(VALUES.shape, bool)
IMAGE[5] = False
NONZERO = IMAGE & (VALUES != 0)


def _z(kept: Any) -> Any:
    return (VALUES - kept.mean()) / kept.std()


def _ramp(low: float, high: float) -> Any:
    return (VALUES - low) / (high - low)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"kind": "none"}, VALUES),
        ({"kind": "scale", "subtract": 50.0, "divide": 4.0}, (VALUES - 50) / 4),
        ({"kind": "window", "center": 100.0, "width": 50.0}, np.clip((VALUES - 100) / 50 + 0.5, 0, 1)),
        ({"kind": "zscore"}, np.where(IMAGE, _z(VALUES[IMAGE]), 0)),
        ({"kind": "zscore", "counted": "all"}, _z(VALUES)),
        ({"kind": "zscore", "counted": "nonzero"}, np.where(NONZERO, _z(VALUES[NONZERO]), 0)),
        ({"kind": "range", "counted": "all"}, _ramp(VALUES.min(), VALUES.max())),
        ({"kind": "quantiles", "counted": "all", "lower": 0.1, "upper": 0.8}, _ramp(*np.quantile(VALUES, (0.1, 0.8)))),
        (
            {"kind": "quantiles", "lower": 0.1, "upper": 0.8, "clip": True},
            np.where(IMAGE, np.clip(_ramp(*np.quantile(VALUES[IMAGE], (0.1, 0.8))), 0, 1), 0),
        ),
    ],
)
def test_values_are_scaled_as_numpy_does_by_what_counts(how: dict[str, Any], expected: Any) -> None:
    got = normalised(tf.constant(VALUES), tf.constant(IMAGE), recipe(normalisation=how).normalisation)
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_the_canvas_is_a_multiple_and_holds_floor_and_fill() -> None:
    wanted = recipe(grid={"multiple_of": [4, 8, 8], "fill": -7.0, "floor": -5.0}, normalisation={"kind": "none"})
    image = tf.constant(np.full((5, 9, 8), -100, np.int16))
    fit, canvas = conformed(wanted, (image, tf.ones(5), tf.zeros(5)), tf.ones(3))
    assert tuple(canvas.shape) == tuple(fit.canvas.numpy()) == (8, 16, 8)
    assert sorted(set(np.unique(canvas))) == [-7, -5]
    assert (canvas.numpy() == -5).sum() == 5 * 9 * 8


SPECS = (
    tf.TensorSpec((None, None, None), tf.int16),
    tf.TensorSpec((None,)),
    tf.TensorSpec((None,)),
    tf.TensorSpec((3,)),
)


@pytest.mark.parametrize(
    "way", [{"run": "whole"}, {"run": "windows", "window": [8, 8, 8]}, {"run": "blocks", "block": [9, 7, 8]}]
)
@pytest.mark.parametrize(
    "grid", [{}, {"size": [12, 16, 20]}, {"spacing_mm": [2.0, 1.5, 0.9], "multiple_of": [4, 4, 4]}]
)
def test_every_cut_answers_on_exactly_the_input_grid(way: dict[str, Any], grid: dict[str, Any]) -> None:
    wanted = recipe(grid=grid, network=way, normalisation={"kind": "none"})
    algorithm = Algorithm(wanted, lambda tiles: tf.nn.softmax(20 * by_level(tiles[..., 0])), 0)
    run = tf.function(algorithm, autograph=False, input_signature=SPECS)
    for shape in ((1, 1, 1), (3, 33, 7), (21, 5, 18)):
        image = np.broadcast_to(np.arange(shape[0])[:, None, None] % 3, shape).astype(np.int16)
        got = run(tf.constant(image), tf.ones(shape[0]), tf.zeros(shape[0]), tf.constant((3.1, 1.0, 0.7)))
        assert got["labels"].shape == shape
        if not grid:
            np.testing.assert_array_equal(got["labels"], image)


def test_the_reach_of_layers_adds_up_along_the_longest_way() -> None:
    layers = keras.layers
    given = keras.Input((None, None, None, 1))
    long = layers.Conv3D(2, 3, padding="same", dilation_rate=4)(layers.Conv3D(2, 5, padding="same")(given))
    short = layers.Activation("relu")(layers.Conv3D(2, 3, padding="same")(given))
    joined = layers.BatchNormalization()(layers.Add()([long, short]))
    assert layer_reach(keras.Model(given, layers.Conv3D(2, 1)(joined))) is None  # padding "valid" cuts the border off
    assert layer_reach(keras.Model(given, layers.Conv3D(2, 1, padding="same")(joined))) == 6
    assert layer_reach(keras.Model(given, layers.Conv3D(2, 4, padding="same")(given))) == 2
    assert layer_reach(keras.Model(given, layers.Conv3D(2, 3, strides=2, padding="same")(given))) is None
    assert layer_reach(keras.Model(given, layers.MaxPooling3D()(given))) is None


def blocks(**changes: Any) -> Recipe:
    return recipe(network={"run": "blocks", "block": [16, 16, 16], **changes})


def reaching(reach: int | None) -> ForeignNetwork:
    return ForeignNetwork(None, None, reach, "")


def test_the_halo_is_the_stated_one_or_that_of_the_layers() -> None:
    assert chosen_halo(reaching(3), blocks()) == 3
    assert chosen_halo(reaching(3), blocks(halo=5)) == 5
    assert chosen_halo(reaching(None), blocks(halo=5)) == 5
    assert chosen_halo(reaching(3), recipe()) == 0
    for reach, halo, said in (
        (3, 2, "the layers look 3 voxels around. Remedy: halo = 3"),
        (None, None, "network.halo is missing"),
        (8, None, "must be larger than two halos of 8"),
    ):
        with pytest.raises(RecipeRefused, match=said):
            chosen_halo(reaching(reach), blocks(**({} if halo is None else {"halo": halo})))


def test_blocks_are_tried_against_the_whole() -> None:
    def looks_two_around(tiles: Any) -> Any:
        return tf.nn.conv3d(tiles, tf.ones((5, 5, 5, 1, 3)) * [1.0, 0.0, -1.0], (1,) * 5, "SAME")

    def pools(tiles: Any) -> Any:
        pooled = tf.nn.max_pool3d(tiles, 2, 2, "VALID")
        return tf.repeat(tf.repeat(tf.repeat(tf.repeat(pooled, 2, 1), 2, 2), 2, 3), 3, 4)

    assert try_blocks(looks_two_around, blocks(), 2) < 1e-5
    with pytest.raises(RecipeRefused, match="blocks answer otherwise than the whole"):
        try_blocks(looks_two_around, blocks(), 1)
    with pytest.raises(RecipeRefused, match="so it has strides"):
        try_blocks(pools, blocks(), 2)


def test_a_model_of_two_inputs_is_refused() -> None:
    one, two = (keras.Input((None, None, None, 1)) for _ in range(2))
    with pytest.raises(SourceRefused, match="2 inputs and 1 outputs"):
        of_model(keras.Model([one, two], keras.layers.Add()([one, two])))


def test_tiles_have_the_size_that_the_network_gets() -> None:
    assert tile_size(recipe(grid={"size": [8, 9, 10]})) == (8, 9, 10)
    assert tile_size(recipe(grid={"multiple_of": [16, 24, 5]})) == (32, 48, 35)
    assert tile_size(recipe(network={"run": "windows", "window": [7, 8, 9]})) == (7, 8, 9)
