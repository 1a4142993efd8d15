"""A landmark painted at a known place in the patient stays there: series -> volume -> axes of a model -> and back.

The series are files, in any orientation: flipped, oblique, feet first (the patient axes are turned, so cosines are),
shuffled, and the mask is painted on the turned grid as a model would.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.domain.geometry import Geometry
from node.domain.instances import SopReference
from node.domain.orientation import reorient, reorientation_of
from node.domain.volume import Volume
from node.errors import GeometryRefusal
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume
from tests.image_headers import rotation
from tests.series_factory import SeriesPlan, patient_point, write_series

LANDMARK = 1500
SIGNS = st.sampled_from((-1.0, 1.0))
AXES = st.permutations(range(3)).flatmap(
    lambda order: st.tuples(*(st.sampled_from(("LR", "AP", "SI")[axis]) for axis in order)).map("".join)
)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Direction cosines along any pair of patient axes, either way, then up to 20 degrees oblique."""
    first, second = draw(st.permutations(range(3)))[:2]
    column, row = np.zeros(3), np.zeros(3)
    column[first], row[second] = draw(SIGNS), draw(SIGNS)
    axis = draw(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda values: np.linalg.norm(values) > 0.1))
    turn = rotation(axis, draw(st.sampled_from((0.0, 0.0, 7.3, 19.0))))
    return tuple(float(value) for value in np.concatenate([turn @ column, turn @ row]))


@st.composite
def plans(draw: st.DrawFn) -> tuple[SeriesPlan, tuple[int, int, int]]:
    shape = draw(st.tuples(st.integers(2, 7), st.integers(1, 9), st.integers(1, 9)))
    at = draw(st.tuples(*(st.integers(0, size - 1) for size in shape)))
    seed = draw(st.integers(0, 2**31))
    voxels = np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)
    voxels[at] = LANDMARK
    spacing = draw(st.tuples(st.floats(0.4, 6.0), st.floats(0.3, 2.0), st.floats(0.3, 2.0)))
    origin = draw(st.tuples(*[st.floats(-400, 400)] * 3))
    plan = SeriesPlan(
        voxels=voxels, spacing=spacing, origin=origin, orientation=draw(orientations()), seed=seed, shuffle=True
    )
    return plan, at


@given(case=plans(), axes=AXES)
@settings(max_examples=150, deadline=None)
def test_a_landmark_stays_where_it_lies_in_the_patient(
    case: tuple[SeriesPlan, tuple[int, int, int]], axes: str
) -> None:
    plan, at = case
    painted = patient_point(plan, at)
    with tempfile.TemporaryDirectory() as folder:
        volume = build_volume(read_headers(write_series(plan, Path(folder))), max_bytes=1 << 20)
    turned, way = reorient(volume, axes, 40.0)
    half_voxel = 0.5 * min(plan.spacing)

    # As the model sees it: the bright voxel of the turned volume lies at the landmark.
    seen = np.argwhere(turned.voxels == LANDMARK)
    assert len(seen) == 1
    assert np.linalg.norm(turned.geometry.to_patient(seen.astype(float))[0] - painted) < half_voxel

    # As the result says it: a mask painted there, brought back, lies at the landmark of the source.
    mask = np.zeros(turned.geometry.shape, np.uint8)
    nearest = np.rint(turned.geometry.to_index(painted[None]))[0].astype(int)
    mask[tuple(nearest)] = 1
    back = np.argwhere(way.back(mask))
    assert len(back) == 1
    assert volume.voxels[tuple(back[0])] == LANDMARK
    assert np.linalg.norm(volume.geometry.to_patient(back.astype(float))[0] - painted) < half_voxel


@given(case=plans(), axes=AXES)
@settings(max_examples=30, deadline=None)
def test_turning_back_is_the_exact_inverse(case: tuple[SeriesPlan, tuple[int, int, int]], axes: str) -> None:
    plan, _ = case
    _, way = reorient(volume_of(plan.voxels), axes, 45.0)
    assert np.array_equal(way.back(way.forth(plan.voxels)), plan.voxels)
    boxes = np.stack([plan.voxels, plan.voxels + 1], axis=-1)
    assert np.array_equal(way.back(way.forth(boxes)), boxes)


def volume_of(voxels: np.ndarray, *, slope: tuple[float, ...] | None = None, **directions: tuple) -> Volume:
    count = len(voxels)
    geometry = Geometry(
        shape=voxels.shape,
        spacing=(3.0, 0.5, 0.8),
        origin=(1.0, 2.0, 3.0),
        slice_direction=directions.get("slices", (0.0, 0.0, 1.0)),
        row_direction=directions.get("rows", (0.0, 1.0, 0.0)),
        column_direction=directions.get("columns", (1.0, 0.0, 0.0)),
    )
    return Volume(
        voxels=voxels,
        slope=np.array(slope or [1.0] * count, np.float32),
        intercept=np.arange(count, dtype=np.float32) if slope else np.zeros(count, np.float32),
        geometry=geometry,
        frame_of_reference_uid="2.25.1",
        study_uid="2.25.2",
        series_uid="2.25.3",
        sources=tuple(SopReference("1.2.840.10008.5.1.4.1.1.2", f"2.25.{index}") for index in range(count)),
        unit="1",
    )


VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_an_axial_supine_volume_is_taken_as_it_is_without_a_copy() -> None:
    volume = volume_of(VOXELS)
    turned, way = reorient(volume, "SPL", 0.0)
    assert turned.voxels.base is volume.voxels or turned.voxels is volume.voxels or turned.voxels.base is VOXELS.base
    assert turned.voxels.flags.c_contiguous
    assert way.permutation == (0, 1, 2)
    assert way.flips == (False, False, False)
    assert turned.geometry == volume.geometry


def test_rescale_and_sources_follow_flipped_slices() -> None:
    volume = volume_of(VOXELS, slope=(2.0, 3.0))
    turned, way = reorient(volume, "IAR", 5.0)
    assert way.flips == (True, True, True)
    assert turned.slope.tolist() == [3.0, 2.0]
    assert turned.intercept.tolist() == [1.0, 0.0]
    assert turned.sources == volume.sources[::-1]
    assert turned.geometry.origin == pytest.approx((1.0 + 3 * 0.8, 2.0 + 2 * 0.5, 3.0 + 3.0))


def test_a_volume_turned_to_other_slices_has_no_sources_and_keeps_one_rescale() -> None:
    turned, way = reorient(volume_of(VOXELS), "PSL", 5.0)
    assert not way.keeps_slices
    assert turned.geometry.shape == (3, 2, 4)
    assert turned.geometry.spacing == (0.5, 3.0, 0.8)
    assert turned.sources == ()
    assert turned.slope.tolist() == [1.0, 1.0, 1.0]


def test_different_rescales_cannot_follow_slices_that_are_turned_away() -> None:
    with pytest.raises(GeometryRefusal, match="differ between slices, and the axes PSL"):
        reorient(volume_of(VOXELS, slope=(2.0, 3.0)), "PSL", 5.0)


def test_an_oblique_volume_is_refused_with_its_angle() -> None:
    turn = rotation((1.0, 0.0, 0.0), 24.0)
    oblique = volume_of(VOXELS, slices=tuple(turn[:, 2]), rows=tuple(turn[:, 1]), columns=tuple(turn[:, 0]))
    with pytest.raises(GeometryRefusal, match=r"24\.0 degrees oblique to the axes SPL; at most 20 degrees"):
        reorient(oblique, "SPL", 20.0)
    assert reorientation_of(oblique.geometry, "SPL").oblique_deg == pytest.approx(24.0)
