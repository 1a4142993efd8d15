"""A real graph in parts, loaded as the service loads it."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inference.call import Call
from inference.errors import BundleRefused, DeadlinePassed, ModelNotReady, PredictionFailed
from protos.model_manifest import MANIFEST_FILE, ModelManifest, open_bundle, write_digest_list, write_manifest
from tests.part_bundles import CLASSIFIER, DOUBLER, MIXER, TINY, part_bundles

pytest.importorskip("tensorflow")

from inference.runners.loading import load_runner
from inference.runners.tiles import TileRunner


def loaded(manifest: ModelManifest, folder: str = "good") -> TileRunner:
    runner = load_runner(open_bundle(part_bundles() / folder / manifest.identity.name / "1"))
    assert isinstance(runner, TileRunner)
    return runner


@pytest.fixture(scope="module")
def doubler() -> TileRunner:
    return loaded(DOUBLER)


@pytest.fixture(scope="module")
def classifier() -> TileRunner:
    return loaded(CLASSIFIER)


@pytest.mark.parametrize("slices", [1, 7, 8, 9, 25])
def test_tiles_come_back_in_order(doubler: TileRunner, slices: int) -> None:
    image = np.random.default_rng(slices).integers(-999, 999, (slices, 8, 8), np.int16)
    outcome = doubler.run({"image": image}, Call(), {})
    np.testing.assert_array_equal(outcome.outputs["image_doubled"], 2 * image)
    assert outcome.times.executions == -(-slices // 8)
    assert outcome.times.batch_size == min(slices, 8)


def test_requests_at_once_get_their_own_answers(doubler: TileRunner) -> None:
    def is_right(seed: int) -> bool:
        image = np.random.default_rng(seed).integers(-999, 999, (1 + seed % 5, 8, 8), np.int16)
        answer = doubler.run({"image": image}, Call(), {}).outputs["image_doubled"]
        return bool((answer == 2 * image).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, range(200)))


def test_only_the_request_whose_answer_is_not_finite_fails(classifier: TileRunner) -> None:
    def scores(level: int) -> object:
        try:
            answer = classifier.run({"image": np.full((8, 8, 3), level, np.uint8)}, Call(), {})
        except PredictionFailed as error:
            return str(error)
        return round(float(answer.outputs["scores"][0]) * 255)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(scores, [0, 50, 0, 100, 150, 0, 200, 250] * 10))
    for level, answer in zip([0, 50, 0, 100, 150, 0, 200, 250] * 10, answers, strict=True):
        assert answer == level if level else "NaN or infinity" in str(answer)


def test_a_request_without_time_is_not_run(doubler: TileRunner) -> None:
    with pytest.raises(DeadlinePassed):
        doubler.run({"image": np.zeros((1, 8, 8), np.int16)}, Call(deadline=0.0), {})


def test_no_tiles_is_a_failed_prediction(doubler: TileRunner) -> None:
    with pytest.raises(PredictionFailed, match=r"expected 'tiles' \[1 or more, 8, 8\], got \[0, 8, 8\]"):
        doubler.run({"image": np.zeros((0, 8, 8), np.int16)}, Call(), {})


def test_a_closed_runner_is_not_ready() -> None:
    runner = loaded(DOUBLER)
    runner.close()
    with pytest.raises(ModelNotReady):
        runner.run({"image": np.zeros((1, 8, 8), np.int16)}, Call(), {})


def test_a_network_that_mixes_tiles_is_refused() -> None:
    with pytest.raises(BundleRefused, match="one request would change another's"):
        loaded(MIXER, "bad")


def test_batching_without_parts_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "tiny" / "1"
    shutil.copytree(part_bundles() / "good" / "tiny" / "1", target)
    described = open_bundle(target).manifest.model_copy(update={"batching": CLASSIFIER.batching})
    write_manifest(described, target / MANIFEST_FILE)
    write_digest_list(target)
    with pytest.raises(BundleRefused, match="no signature 'prepare'"):
        load_runner(open_bundle(target))


def test_a_model_without_batching_runs_whole() -> None:
    runner = load_runner(open_bundle(part_bundles() / "good" / TINY.identity.name / "1"))
    answer = runner.run({"values": np.arange(4, dtype=np.float32)}, Call(), {})
    np.testing.assert_array_equal(answer.outputs["sums"], [1, 2, 3, 4])


def test_tiles_of_any_size_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import TileParts

    parts = TileParts(
        lambda image: {"tiles": tf.cast(image, tf.float32)[None]},
        lambda tiles: {"answers": tf.reduce_mean(tiles, [1, 2])},
        lambda answers: {"scores": tf.concat([answers[0], [0.0]], 0)},
    )
    bundle = export_bundle(parts, CLASSIFIER, tmp_path, None)
    with pytest.raises(BundleRefused, match=r"takes tiles \[-1, -1, -1, 3\]; expected \[-1, fixed sizes\]"):
        load_runner(bundle)
