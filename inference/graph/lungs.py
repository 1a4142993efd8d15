"""A lung mask of chest CT inside the graph, slice by slice on a coarse grid, so that slabs and whole scans agree.

Air inside the body that is wide enough and not as empty as gas is lung; small holes (nodules, vessels) and bays
(nodules at the pleura, vessels at the hilum) are closed. No connected components are counted: a graph has none.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from inference.graph.morphology import closed, eroded, filled, opened, reconstructed


@dataclass(frozen=True, slots=True)
class LungRules:
    """Thresholds in HU, lengths in mm. Radii are rounded to pixels of the coarse grid."""

    grid_mm: float = 3.0
    air: float = -320.0
    gas: float = -950.0
    """The mean of a lung's core lies above this, that of bowel gas, trachea and outside air below."""
    table: float = 24.0
    """What is thinner than about twice this with its holes filled is not body (table, arms, blankets)."""
    core: float = 9.0
    """A lung holds a disc of this radius in some slice; airways do not. From there it is followed through slices."""
    hole: float = 21.0
    """Enclosed tissue that holds no disc of this radius belongs to the lung."""
    bay: float = 12.0
    """Bays at the pleura narrower than about twice this belong to the lung."""

    def steps(self, length: float) -> int:
        """Return a length in coarse pixels, at least one."""
        return max(1, round(length / self.grid_mm))


def coarse_lungs(values: Any, rules: LungRules) -> Any:
    """Return the lung mask FP32 0 or 1 of the same shape.

    Args:
        values: Rescaled values in HU, averaged onto the coarse grid, FP32 [slice, row, column].
        rules: Thresholds and lengths.
    """
    planes = tf.transpose(values, (1, 2, 0))[None]
    air = tf.cast(planes < rules.air, tf.float32)
    body = opened(filled(1 - air), rules.steps(rules.table))
    inside = air * body
    lung = reconstructed(_cores(planes, inside, rules), inside)
    aerated = inside * tf.cast(planes > rules.gas, tf.float32)
    lung = tf.maximum(lung, reconstructed(lung, aerated, across_slices=True))
    lung = closed(_without_holes(lung, rules), rules.steps(rules.bay)) * body
    return tf.transpose(lung[0], (2, 0, 1))


def _cores(planes: Any, inside: Any, rules: LungRules) -> Any:
    """Return the middle of wide airy regions whose mean is lung and not gas."""
    mean = tf.nn.avg_pool2d(planes, 3, 1, "SAME")
    return eroded(inside, rules.steps(rules.core)) * tf.cast(mean > rules.gas, tf.float32)


def _without_holes(lung: Any, rules: LungRules) -> Any:
    """Fill enclosed tissue, unless it is wide: heart and mediastinum between joined lungs stay out."""
    holes = filled(lung) - lung
    wide = eroded(holes, rules.steps(rules.hole))
    return lung + holes - reconstructed(wide, holes)
