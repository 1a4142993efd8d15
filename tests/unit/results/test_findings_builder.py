"""Findings from voxel maps: threshold, limits, components, measurements, sort."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.commands.tables import findings_table
from node.domain.geometry import Geometry
from node.domain.instances import SopReference
from node.domain.volume import Volume
from node.errors import InferenceRejected
from node.results import concepts
from node.results.components import components, longest_in_plane_mm
from node.results.findings_builder import build_findings, findings_as_rows
from tests.evidence_cases import ball, nodule_manifest, nodule_rule, probability_of

SHAPE = (8, 20, 30)


def volume(spacing: tuple[float, float, float] = (2.0, 0.5, 0.8), shape: tuple[int, int, int] = SHAPE) -> Volume:
    slices = shape[0]
    return Volume(
        voxels=np.arange(np.prod(shape), dtype=np.int16).reshape(shape) % 500,
        slope=np.linspace(1, 2, slices, dtype=np.float32),
        intercept=np.linspace(-1024, -1000, slices, dtype=np.float32),
        geometry=Geometry(shape, spacing, (5.0, 6.0, 7.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
        frame_of_reference_uid="1.2.3",
        study_uid="1.2.4",
        series_uid="1.2.5",
        sources=tuple(SopReference("1.2.840.10008.5.1.4.1.1.2", f"1.2.6.{index}") for index in range(slices)),
        unit="[hnsf'U]",
    )


def box(*sides: slice, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[sides] = True
    return mask


LARGE = box(slice(1, 4), slice(2, 6), slice(3, 9))
SMALL = box(slice(5, 6), slice(10, 12), slice(20, 22))


def test_findings_come_largest_first_and_label_the_volume_by_ordinal() -> None:
    found = build_findings(nodule_manifest(), volume(), {"probability": probability_of(SMALL, LARGE)})
    assert [item.label for item in found.items] == ["Nodule 1", "Nodule 2"]
    assert np.array_equal(found.labels == 1, LARGE)
    assert np.array_equal(found.labels == 2, SMALL)
    assert found.items[0].bounds == (slice(1, 4), slice(2, 6), slice(3, 9))
    assert found.labels.dtype == np.uint16


def test_equal_sizes_come_in_the_order_of_their_first_voxel() -> None:
    first, second = box(slice(2, 3), slice(4, 6), slice(8, 9)), box(slice(2, 3), slice(8, 10), slice(0, 1))
    found = build_findings(nodule_manifest(), volume(), {"probability": probability_of(second, first)})
    assert np.array_equal(found.labels == 1, first)


def test_the_threshold_is_met_by_voxel_times_scale() -> None:
    probability = np.zeros(SHAPE, np.uint8)
    probability[1, 1, 1], probability[3, 3, 3] = 127, 128
    found = build_findings(nodule_manifest(), volume(), {"probability": probability})
    assert np.argwhere(found.labels).tolist() == [[3, 3, 3]]
    assert found.items[0].probability == pytest.approx(128 / 255)


def test_a_float_map_is_compared_as_it_is() -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[1, 1, 1], probability[3, 3, 3] = 0.49, 0.5
    manifest = nodule_manifest(nodule_rule(scale=1.0))
    found = build_findings(manifest, volume(), {"probability": probability})
    assert np.argwhere(found.labels).tolist() == [[3, 3, 3]]


def test_findings_are_formed_only_within_the_named_mask() -> None:
    within = np.zeros(SHAPE, np.uint8)
    within[:3] = 7
    manifest = nodule_manifest(nodule_rule(within="lungs"))
    found = build_findings(manifest, volume(), {"probability": probability_of(LARGE, SMALL), "lungs": within})
    assert np.array_equal(found.labels > 0, LARGE & (within > 0))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"min_voxels": 5}, 1),
        ({"min_voxels": 4}, 2),
        ({"min_volume_ml": 4 * 0.8e-3}, 2),
        ({"min_volume_ml": 4.5 * 0.8e-3}, 1),
        ({"min_diameter_mm": 1.88}, 2),
        ({"min_diameter_mm": 1.9}, 1),
        ({"min_probability": 0.8}, 1),
    ],
)
def test_limits_drop_candidates_and_count_them(changes: dict[str, float], kept: int) -> None:
    manifest = nodule_manifest(nodule_rule(**changes))
    outputs = {"probability": probability_of(LARGE, SMALL, values=(250, 150))}
    found = build_findings(manifest, volume(), outputs)
    assert (len(found.items), found.candidates_dropped) == (kept, 2 - kept)


def test_findings_beyond_the_most_are_counted_apart_from_what_met_no_limit() -> None:
    speck = box(slice(7, 8), slice(0, 1), slice(0, 1))
    manifest = nodule_manifest(nodule_rule(max_findings=1, min_voxels=2))
    found = build_findings(manifest, volume(), {"probability": probability_of(LARGE, SMALL, speck)})
    assert (len(found.items), found.beyond_limit, found.candidates_dropped) == (1, 1, 1)
    assert "1 more beyond the most that the model reports" in str(findings_table(found).title)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity_decides_what_touches(connectivity: int, count: int) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, 1] = mask[1, 2, 2] = mask[2, 3, 3] = True
    manifest = nodule_manifest(nodule_rule(connectivity=connectivity))
    assert len(build_findings(manifest, volume(), {"probability": probability_of(mask)}).items) == count


def test_measurements_are_coded_with_ucum_units_and_right_values() -> None:
    source = volume()
    found = build_findings(nodule_manifest(), source, {"probability": probability_of(LARGE, values=(204,))})
    values = {each.concept: (each.value, each.unit.value) for each in found.items[0].measurements}
    expected = source.voxels * source.slope[:, None, None].astype(float) + source.intercept[:, None, None]
    assert values[concepts.VOLUME] == (pytest.approx(LARGE.sum() * 0.8 / 1000), "mL")
    assert values[concepts.LONG_AXIS] == (pytest.approx(np.hypot(4 * 0.5, 6 * 0.8)), "mm")
    assert values[concepts.MEAN] == (pytest.approx(expected[LARGE].mean()), "[hnsf'U]")
    assert values[concepts.CERTAINTY] == (pytest.approx(80.0), "%")
    assert found.items[0].center_mm == pytest.approx((5 + 5.5 * 0.8, 6 + 3.5 * 0.5, 7 + 2 * 2.0))


def test_a_voxel_belongs_to_the_first_rule_that_takes_it() -> None:
    manifest = nodule_manifest(nodule_rule(threshold=0.9, label="Dense"), nodule_rule(threshold=0.3, label="Faint"))
    probability = probability_of(LARGE, values=(100,))
    probability[2, 3, 4] = 250
    found = build_findings(manifest, volume(), {"probability": probability})
    assert [item.label for item in found.items] == ["Dense 1", "Faint 1"]
    assert np.argwhere(found.labels == 1).tolist() == [[2, 3, 4]]
    assert (found.labels == 2).sum() == LARGE.sum() - 1


def test_nothing_found_is_a_result() -> None:
    found = build_findings(nodule_manifest(), volume(), {"probability": np.zeros(SHAPE, np.uint8)})
    assert (found.items, found.candidates_dropped, findings_as_rows(found)) == ((), 0, [])


def test_rows_have_the_same_columns_also_where_rules_measure_differently() -> None:
    manifest = nodule_manifest(nodule_rule(threshold=0.9, measurements=("volume",)), nodule_rule(label="Faint"))
    found = build_findings(manifest, volume(), {"probability": probability_of(LARGE, SMALL, values=(250, 150))})
    rows = findings_as_rows(found)
    assert [list(row) for row in rows] == [
        ["Finding", "Site", "Volume", "Long axis", "Mean", "Certainty of Finding"]
    ] * 2
    assert rows[0]["Long axis"] == ""
    assert rows[1]["Finding"] == "Faint 1"


@pytest.mark.parametrize("outputs", [{}, {"probability": np.zeros((1, 2, 3), np.uint8)}])
def test_an_output_that_is_not_on_the_grid_is_refused(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(InferenceRejected, match="probability"):
        build_findings(nodule_manifest(), volume(), outputs)


def test_the_diameter_of_a_disc_is_its_feret_diameter_in_anisotropic_pixels() -> None:
    disc = ball((1, 200, 100), (0, 100, 50), (1, 80, 40))  # 0.25 mm rows, 0.5 mm columns: a circle of 40 mm
    assert longest_in_plane_mm(disc, 0.25, 0.5) == pytest.approx(40.0, abs=0.6)


def test_the_diameter_of_one_pixel_is_its_diagonal() -> None:
    assert longest_in_plane_mm(np.ones((1, 1, 1), bool), 3.0, 4.0) == 5.0


def test_the_diameter_is_taken_within_a_plane_not_across_slices() -> None:
    assert longest_in_plane_mm(np.eye(9, dtype=bool)[:, np.newaxis, :], 1.0, 1.0) == pytest.approx(np.sqrt(2))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([6, 18, 26]), st.floats(0.02, 0.6))
def test_components_cover_the_mask_once_and_are_sorted(seed: int, connectivity: int, filled: float) -> None:
    mask = np.random.default_rng(seed).random((4, 9, 7)) < filled
    found, total = components(mask, connectivity, 1)
    painted = np.zeros(mask.shape, int)
    for component in found:
        painted[component.bounds] += component.voxels
        assert component.voxels.sum() == component.count
    assert np.array_equal(painted, mask.astype(int))
    assert total == len(found)
    assert [item.count for item in found] == sorted((item.count for item in found), reverse=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 3.0), st.floats(0.2, 3.0))
def test_the_diameter_is_the_largest_corner_distance(seed: int, row_mm: float, column_mm: float) -> None:
    mask = np.random.default_rng(seed).random((2, 5, 6)) < 0.4
    mask[0, 2, 3] = True
    longest = 0.0
    for plane in mask:
        corners = np.array([(r + dr, c + dc) for r, c in np.argwhere(plane) for dr in (0, 1) for dc in (0, 1)])
        if len(corners):
            points = corners * (row_mm, column_mm)
            longest = max(longest, float(np.linalg.norm(points[:, None] - points[None], axis=2).max()))
    assert longest_in_plane_mm(mask, row_mm, column_mm) == pytest.approx(longest)


def test_a_search_of_a_whole_chest_needs_no_mask_per_finding() -> None:
    shape = (60, 256, 256)
    source = replace(volume(shape=(60, 8, 8)), voxels=np.zeros(shape, np.int16), geometry=volume(shape=shape).geometry)
    probability = (np.random.default_rng(3).random(shape) > 0.999).astype(np.uint8) * 200
    found = build_findings(nodule_manifest(nodule_rule(max_findings=5)), source, {"probability": probability})
    assert len(found.items) == 5
    assert (found.candidates_dropped, found.beyond_limit > 1000) == (0, True)
