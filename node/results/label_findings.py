"""Findings from a label map: one for each class that is there, with its code and volume."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.domain.findings import Finding, Measurement
from node.domain.volume import Volume
from node.errors import InferenceRejected
from node.results import concepts
from node.results.components import Bounds
from protos.model_manifest import LabelClass, LabelFindings


def add_classes(
    rule: LabelFindings,
    volume: Volume,
    label_map: NDArray[np.unsignedinteger],
    items: list[Finding],
    labels: NDArray[np.uint16],
) -> int:
    """Append a finding for each class of `label_map` to `items` and write its ordinal into `labels`.

    Args:
        rule: Its classes, in whose order the findings come.
        volume: The source series.
        label_map: Index of the class of each voxel [slice, row, column] on the grid of `volume`.
        items: Findings of the rules before this one; their voxels keep them.
        labels: [slice, row, column], 0 where no finding is yet.

    Returns:
        How many classes were there and smaller than the rule's `min_volume_ml`.

    Raises:
        InferenceRejected: the map holds a value that is no class of the rule.
    """
    free = np.where(labels == 0, label_map, 0) if items else label_map
    highest = int(free.max(initial=0))
    if highest > len(rule.classes):
        raise InferenceRejected(
            f"output {rule.output!r} holds the class {highest}; the manifest names 1 to {len(rule.classes)}. "
            f"Remedy: name every class of the model in its manifest."
        )
    dropped = 0
    for index, bounds in enumerate(ndimage.find_objects(free), start=1):
        if bounds is None:
            continue
        voxels = free[bounds] == index
        if int(voxels.sum()) * volume.geometry.voxel_ml < rule.min_volume_ml:
            dropped += 1
            continue
        items.append(_finding(rule.classes[index - 1], volume, bounds, voxels, len(items) + 1))
        labels[bounds][voxels] = len(items)
    return dropped


def _finding(stated: LabelClass, volume: Volume, bounds: Bounds, voxels: NDArray[np.bool_], ordinal: int) -> Finding:
    concept = stated.concept
    center = np.argwhere(voxels).mean(axis=0) + [side.start for side in bounds]
    x, y, z = volume.geometry.to_patient(center[np.newaxis])[0].tolist()
    size = int(voxels.sum()) * volume.geometry.voxel_ml
    return Finding(
        ordinal=ordinal,
        label=stated.label,
        category=concepts.from_manifest(concept.category),
        type=concepts.from_manifest(concept.type),
        site=concepts.from_manifest(concept.site) if concept.site else None,
        color_rgb=concept.color_rgb,
        probability=None,
        measurements=(Measurement(concepts.VOLUME, size, concepts.MILLILITRE),),
        bounds=bounds,
        center_mm=(x, y, z),
    )
