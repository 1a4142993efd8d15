"""Losses over targets FP32 [n, row, column, 2]: channel 0 the truth (0 or 1), channel 1 the weight (0 ignores)."""

from typing import Any

from keras import ops

_SMOOTH = 1.0


def cross_entropy_and_dice(target: Any, probability: Any) -> Any:
    """Return the mean weighted binary cross-entropy plus one minus the mean soft Dice of tiles that hold a nodule."""
    truth, weight = target[..., :1], target[..., 1:]
    return _cross_entropy(truth, weight, probability) + _one_minus_dice(truth, weight, probability)


def _cross_entropy(truth: Any, weight: Any, probability: Any) -> Any:
    inside = ops.clip(probability, 1e-6, 1 - 1e-6)
    entropy = -truth * ops.log(inside) - (1 - truth) * ops.log(1 - inside)
    return ops.sum(weight * entropy) / (ops.sum(weight) + _SMOOTH)


def _one_minus_dice(truth: Any, weight: Any, probability: Any) -> Any:
    axes = (1, 2, 3)
    both = ops.sum(weight * truth * probability, axis=axes)
    either = ops.sum(weight * (truth + probability), axis=axes)
    holds = ops.cast(ops.sum(truth, axis=axes) > 0, "float32")
    dice = (2 * both + _SMOOTH) / (either + _SMOOTH)
    return ops.sum(holds * (1 - dice)) / (ops.sum(holds) + _SMOOTH)
