"""Findings from voxel maps: what a graph cannot do, by parameters of the manifest only.

Threshold, limit to a mask, 3-D connected components, minimum size, measurements, stated sort. Training evaluates with
this same function, and `writer_revision` is part of every result's key.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.findings import Code, Finding, Findings, Measurement
from node.domain.units import unit_for_readers
from node.domain.volume import Volume
from node.errors import InferenceRejected
from node.results import concepts
from node.results.components import Component, components, longest_in_plane_mm
from node.results.label_findings import add_classes
from protos.model_manifest import ComponentFindings, LabelFindings, ModelManifest

writer_revision = 2
"""Raised whenever the same prediction would give another result: thresholds, sort, measurements or objects."""

Labels = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class _Measured:
    component: Component
    probability: float
    diameter_mm: float


def build_findings(manifest: ModelManifest, volume: Volume, outputs: Mapping[str, NDArray[Any]]) -> Findings:
    """Turn the voxel maps of a prediction into findings.

    Args:
        manifest: Its `findings` rules are applied in their order; a voxel belongs to the first rule that takes it.
        volume: The source series in its own orientation; findings lie on its grid.
        outputs: Voxel maps by name, [slice, row, column] on the grid of `volume`.

    Returns:
        The findings of each rule, largest volume first, equal volumes in the order of their first voxel (slice, row,
        column). A finding's probability is the highest voxel value of its component. A label map gives one finding
        for each class that is there, in the order of the classes.

    Raises:
        InferenceRejected: An output is missing or does not lie on the grid of the volume.
    """
    labels: Labels = np.zeros(volume.geometry.shape, np.uint16)
    items: list[Finding] = []
    dropped = beyond = 0
    for rule in manifest.findings:
        if isinstance(rule, LabelFindings):
            dropped += add_classes(rule, volume, _on_grid(rule.output, volume, outputs), items, labels)
            continue
        mask = candidate_mask(rule, volume, outputs)
        if items:
            mask &= labels == 0
        kept, left_out, total = _select(rule, volume, outputs[rule.output], mask)
        beyond += left_out
        dropped += total - left_out - len(kept)
        for number, measured in enumerate(kept, start=1):
            items.append(_finding(rule, volume, measured, number, len(items) + 1))
            labels[measured.component.bounds][measured.component.voxels] = len(items)
    return Findings(tuple(items), labels, dropped, beyond)


def candidate_mask(rule: ComponentFindings, volume: Volume, outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Return True [slice, row, column] where voxel * scale >= threshold, inside `within` where the rule names one."""
    probability = _on_grid(rule.output, volume, outputs)
    bound = rule.threshold / rule.scale
    if probability.dtype.kind in "iu":
        bound = math.ceil(bound - 1e-9)
    mask: NDArray[np.bool_] = probability >= bound
    if rule.within is not None:
        mask &= _on_grid(rule.within, volume, outputs) != 0
    return mask


def findings_as_rows(findings: Findings) -> list[dict[str, str]]:
    """Return one row of texts per finding for a table, all with the same columns: label, site, each measurement."""
    names = dict.fromkeys(each.concept.meaning for item in findings.items for each in item.measurements)
    rows = []
    for item in findings.items:
        row = {"Finding": item.label, "Site": item.site.meaning if item.site else "", **dict.fromkeys(names, "")}
        for each in item.measurements:
            row[each.concept.meaning] = f"{each.value:.2f} {unit_for_readers(each.unit.value)}".rstrip()
        rows.append(row)
    return rows


def _on_grid(name: str, volume: Volume, outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if name not in outputs or outputs[name].shape != volume.geometry.shape:
        shape = outputs[name].shape if name in outputs else "absent"
        raise InferenceRejected(
            f"output {name!r} is {shape}; the series is {volume.geometry.shape} [slice, row, column]. "
            f"Remedy: check the model's signature against its manifest."
        )
    return outputs[name]


def _select(
    rule: ComponentFindings, volume: Volume, probability: NDArray[Any], mask: NDArray[np.bool_]
) -> tuple[list[_Measured], int, int]:
    """Return what the rule takes, how many more it would take without its `max_findings`, and all components."""
    least = max(rule.min_voxels, math.ceil(rule.min_volume_ml / volume.geometry.voxel_ml - 1e-9))
    found, total = components(mask, rule.connectivity, least)
    taken = _measured(rule, volume, probability, found)
    kept = list(islice(taken, rule.max_findings))
    return kept, sum(1 for _ in taken), total


def _measured(
    rule: ComponentFindings, volume: Volume, probability: NDArray[Any], found: list[Component]
) -> Iterator[_Measured]:
    _, row_mm, column_mm = volume.geometry.spacing
    for component in found:
        highest = float(probability[component.bounds][component.voxels].max()) * rule.scale
        if highest < rule.min_probability:
            continue
        diameter = longest_in_plane_mm(component.voxels, row_mm, column_mm)
        if diameter >= rule.min_diameter_mm:
            yield _Measured(component, min(highest, 1.0), diameter)


def _finding(rule: ComponentFindings, volume: Volume, measured: _Measured, number: int, ordinal: int) -> Finding:
    component, concept = measured.component, rule.concept
    starts = [side.start for side in component.bounds]
    center = np.argwhere(component.voxels).mean(axis=0) + starts
    x, y, z = volume.geometry.to_patient(center[np.newaxis])[0].tolist()
    return Finding(
        ordinal=ordinal,
        label=f"{rule.label} {number}",
        category=concepts.from_manifest(concept.category),
        type=concepts.from_manifest(concept.type),
        site=concepts.from_manifest(concept.site) if concept.site else None,
        color_rgb=concept.color_rgb,
        probability=measured.probability,
        measurements=_measurements(rule, volume, measured),
        bounds=component.bounds,
        center_mm=(x, y, z),
        per_instance=rule.instances,
    )


def _measurements(rule: ComponentFindings, volume: Volume, measured: _Measured) -> tuple[Measurement, ...]:
    known: dict[str, tuple[Code, float, Code]] = {
        "volume": (concepts.VOLUME, measured.component.count * volume.geometry.voxel_ml, concepts.MILLILITRE),
        "longest_axial_diameter": (concepts.LONG_AXIS, measured.diameter_mm, concepts.MILLIMETRE),
        "probability": (concepts.CERTAINTY, measured.probability * 100.0, concepts.PERCENT),
    }
    if "mean" in rule.measurements:
        known["mean"] = (concepts.MEAN, _mean(volume, measured.component), concepts.value_unit(volume.unit))
    return tuple(Measurement(*known[kind]) for kind in rule.measurements)


def _mean(volume: Volume, component: Component) -> float:
    """Mean of the rescaled values, with the slope and intercept of each slice."""
    stored = volume.voxels[component.bounds][component.voxels].astype(np.float64)
    slices = np.nonzero(component.voxels)[0] + component.bounds[0].start
    return float((stored * volume.slope[slices] + volume.intercept[slices]).mean())
