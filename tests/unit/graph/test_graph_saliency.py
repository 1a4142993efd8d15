import numpy as np
import pytest
import tensorflow as tf

from inference.graph.saliency import explanation, grad_cam

RNG = np.random.default_rng(10)
FEATURES = RNG.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
MATRIX = RNG.normal(size=(6, 3)).astype(np.float32)


def head(features: tf.Tensor) -> tf.Tensor:
    return tf.matmul(tf.reduce_mean(features, (1, 2, 3)), MATRIX)


def looping(features: tf.Tensor) -> tf.Tensor:
    made, _ = tf.while_loop(lambda _, turn: turn < 3, lambda x, turn: (x * 2, turn + 1), (features, tf.constant(0)))
    return head(made)


def looping_inside(features: tf.Tensor) -> tf.Tensor:
    return tf.function(looping, autograph=False)(features)


def test_grad_cam_of_a_linear_head_is_its_weighted_features() -> None:
    expected = np.maximum(FEATURES @ MATRIX[:, 1], 0)
    expected /= expected.max((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(grad_cam(tf.constant(FEATURES), head, 1), expected, atol=1e-5)


def test_where_nothing_speaks_for_the_class_the_map_is_zero() -> None:
    assert not grad_cam(-tf.ones((1, 2, 2, 2, 6)), lambda x: tf.reduce_mean(x, (1, 2, 3)), 0).numpy().any()


def test_the_map_points_at_the_blob_on_the_input_grid() -> None:
    image = np.zeros((9, 21, 16), np.float32)
    image[4:7, 12:17, 3:6] = 100

    def body(image: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool3d(image[None, ..., None], (1, 2, 2), (1, 2, 2), "SAME")

    found = explanation(body, lambda x: tf.reduce_mean(x, (1, 2, 3)), 0)(image=tf.constant(image))["saliency"].numpy()
    assert found.shape == image.shape
    assert found[image > 0].mean() > 0.6
    assert found[:2].max() == 0


@pytest.mark.parametrize("wrong", [looping, looping_inside])
def test_a_head_that_loops_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match="While"):
        grad_cam(tf.constant(FEATURES), wrong, 0)


def test_a_head_that_ignores_the_features_is_refused() -> None:
    with pytest.raises(ValueError, match="does not depend"):
        grad_cam(tf.constant(FEATURES), lambda _: tf.ones((2, 1)), 0)
