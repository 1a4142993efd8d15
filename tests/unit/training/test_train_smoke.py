"""A few steps of real training on drawn crops, and the bundle that comes of it."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from inference.graph.nodule_map import NoduleMap
from inference.graph.tile_grid import TileGrid
from inference.runners.whole import load_predictor
from tests.drawn_crops import nodule_crop
from training.augmentation import Mixture, TrainingCrops
from training.experiments.lung_nodule import crop_predictor, golden_input
from training.experiments.lung_nodule_card import OperatingPoint, lung_nodule_manifest
from training.export import export_bundle
from training.networks.unet import unet
from training.train import Schedule, TrainingError, train

# keras 3.15 copies TensorFlow variables in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
GRID = TileGrid(size=32, spacing_mm=0.8, overlap=8)
CROPS = TrainingCrops(tuple(nodule_crop(number) for number in range(4)))
SCHEDULE = Schedule(steps=6, warm_up_steps=2, average_momentum=0.8, report_every=3, mixture=Mixture(size=8))
WIDTHS = (6, 8)


def _trained(weights: Path | None = None) -> tuple[keras.Model, float]:
    keras.utils.set_random_seed(0)
    network = unet(WIDTHS)
    return network, train(network, CROPS, GRID, SCHEDULE, seed=0, weights_file=weights)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return _trained()[0]


def test_a_few_steps_repeat_exactly_and_can_be_loaded(tmp_path: Path) -> None:
    file = tmp_path / "net.weights.h5"
    network, loss = _trained(file)
    again, loss_again = _trained()
    assert np.isfinite(loss)
    assert loss == loss_again
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded = unet(WIDTHS)
    loaded.load_weights(file)
    tile = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
    np.testing.assert_allclose(loaded(tile), network(tile), atol=1e-6)


def test_a_loss_that_is_not_a_number_ends_training() -> None:
    network = unet(WIDTHS)
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    with pytest.raises(TrainingError, match="step 1"):
        train(network, CROPS, GRID, SCHEDULE, seed=0)


def test_the_exported_graph_answers_as_the_network_did_in_training(network: keras.Model, tmp_path: Path) -> None:
    algorithm = NoduleMap(lambda tiles: network(tiles, training=False), GRID)
    manifest = lung_nodule_manifest(OperatingPoint(0.5, 0.5, "smoke"), (), "")
    asked = golden_input()
    bundle = export_bundle(algorithm, manifest, tmp_path, asked)
    served, trained = (
        load_predictor(bundle).predict(asked),
        algorithm(**{key: tf.constant(asked[key]) for key in asked}),
    )
    for name, answer in served.items():
        np.testing.assert_allclose(answer, trained[name].numpy().astype(float), atol=1)
    crop = CROPS.lidc[0]
    probability = crop_predictor(algorithm)(crop)
    assert probability.shape == crop.pixels.shape
    assert 0 <= probability.min() <= probability.max() <= 1
