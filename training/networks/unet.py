"""A small U-Net: the stem halves the grid, so that whole scans run on two cores."""

from collections.abc import Sequence
from typing import Any

from keras import Model, layers

WIDTHS = (24, 48, 80, 112)
MULTIPLE = 16
"""Rows and columns of the input must be multiples of this."""


def unet(widths: Sequence[int] = WIDTHS) -> Model:
    """Map tiles FP32 [n, row, column, 1] in 0..1 to probabilities FP32 [n, row, column, 1].

    Each level has two 3 x 3 convolutions with batch normalisation and a shortcut; the way up adds the way down's
    features instead of stacking them, which halves the cost of the finest level.
    """
    tiles = layers.Input((None, None, 1), name="tiles")
    features = layers.Conv2D(widths[0], 4, strides=2, padding="same", name="stem")(tiles)
    features = _level(features, widths[0], "down_0")
    skips = []
    for number, width in enumerate(widths[1:], start=1):
        skips.append(features)
        features = layers.MaxPooling2D(2, name=f"pool_{number}")(features)
        features = _level(features, width, f"down_{number}")
    for number in reversed(range(len(skips))):
        features = layers.Conv2D(widths[number], 1, use_bias=False, name=f"narrow_{number}")(features)
        features = layers.UpSampling2D(2, interpolation="nearest", name=f"up_{number}_grid")(features)
        features = layers.Add(name=f"join_{number}")([features, skips[number]])
        features = _level(features, widths[number], f"up_{number}")
    logits = layers.Conv2DTranspose(1, 4, strides=2, padding="same", name="logits")(features)
    return Model(tiles, layers.Activation("sigmoid", name="probability")(logits), name="unet")


def _level(features: Any, width: int, name: str) -> Any:
    """Two convolutions; the second adds to the first's output."""
    first = _convolution(features, width, f"{name}_a")
    second = _convolution(first, width, f"{name}_b")
    return layers.Add(name=f"{name}_sum")([first, second])


def _convolution(features: Any, width: int, name: str) -> Any:
    features = layers.Conv2D(width, 3, padding="same", use_bias=False, name=name)(features)
    features = layers.BatchNormalization(momentum=0.98, name=f"{name}_norm")(features)
    return layers.Activation("relu", name=f"{name}_relu")(features)
