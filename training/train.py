"""The training loop, top to bottom. It imports keras and numpy, so that any backend can run it."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import structlog

from inference.graph.tile_grid import TileGrid
from training.augmentation import Mixture, TrainingCrops, batches
from training.losses import cross_entropy_and_dice


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn."""

    steps: int
    peak_rate: float = 2e-3
    warm_up_steps: int = 100
    weight_decay: float = 1e-3
    average_momentum: float = 0.995
    """Of the moving average of the weights, which is what the run returns."""
    report_every: int = 100
    mixture: Mixture = field(default_factory=Mixture)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


def train(
    model: keras.Model,
    crops: TrainingCrops,
    grid: TileGrid,
    schedule: Schedule,
    *,
    seed: int,
    weights_file: Path | None = None,
) -> float:
    """Train `model` in place, leave it with the averaged weights and return the last reported mean loss.

    Raises TrainingError when the loss is no longer finite.
    """
    log = structlog.get_logger()

    optimizer = _optimizer(schedule)
    model.compile(optimizer=optimizer, loss=cross_entropy_and_dice)

    # -- Loop: a batch depends on seed and step alone --------------------------------------------------------------
    losses: list[float] = []
    mean = float("nan")
    started = time.monotonic()
    for step, (tiles, targets) in enumerate(batches(crops, grid, schedule.mixture, seed=seed), start=1):
        losses.append(float(model.train_on_batch(tiles, targets)))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"the loss is {losses[-1]} at step {step}. Remedy: lower the learning rate.")
        if step % schedule.report_every == 0 or step == schedule.steps:
            mean = float(np.mean(losses[-schedule.report_every :]))
            seconds = time.monotonic() - started
            log.info("training_progressed", step=step, of=schedule.steps, loss=round(mean, 4), seconds=round(seconds))
            if weights_file is not None:
                model.save_weights(weights_file)
        if step == schedule.steps:
            break

    # -- Averaged weights; batch statistics stay those of the last steps --------------------------------------------
    optimizer.finalize_variable_values(model.trainable_variables)
    if weights_file is not None:
        model.save_weights(weights_file)
    return mean


def _optimizer(schedule: Schedule) -> keras.optimizers.Optimizer:
    """AdamW with warm-up, then cosine to zero, and a moving average of the weights."""
    warm_up = min(schedule.warm_up_steps, schedule.steps // 5)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=schedule.peak_rate / 20,
        decay_steps=schedule.steps - warm_up,
        warmup_target=schedule.peak_rate,
        warmup_steps=warm_up,
    )
    return keras.optimizers.AdamW(
        rate,
        weight_decay=schedule.weight_decay,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=schedule.average_momentum,
    )
