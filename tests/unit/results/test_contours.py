"""Outlines run along pixel edges in image coordinates (PS3.3 C.18.6.1.2)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from node.results.contours import Outline, outlines
from node.results.measurement_groups import shown_outlines


def inside(outline: Outline, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre (.5, .5) lies inside, by crossings of a ray to the right."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    crossings = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(outline.points[:-1], outline.points[1:], strict=True):
        if y0 != y1:
            crossings += (min(y0, y1) < rows) & (rows < max(y0, y1)) & (columns < x0)
        assert x0 == x1 or y0 == y1
    return crossings % 2 == 1


def test_one_pixel_is_outlined_by_its_four_corners() -> None:
    plane = np.zeros((4, 5), bool)
    plane[2, 3] = True
    (found,) = outlines(plane, 100)
    assert {tuple(point) for point in found.points} == {(3, 2), (4, 2), (4, 3), (3, 3)}
    assert np.array_equal(found.points[0], found.points[-1])
    assert len(found.points) == 5
    assert found.area == 1


def test_pixels_that_touch_at_a_corner_are_outlined_apart() -> None:
    assert [found.area for found in outlines(np.eye(3, dtype=bool), 100)] == [1, 1, 1]


def test_the_largest_outline_comes_first_and_holes_are_not_outlined() -> None:
    plane = np.zeros((9, 9), bool)
    plane[0, 0] = True
    plane[3:8, 3:8] = True
    plane[5, 5] = False
    assert [found.area for found in outlines(plane, 100)] == [25, 1]


def test_a_long_outline_is_thinned_and_stays_closed() -> None:
    plane = np.indices((40, 40)).sum(axis=0) % 2 == 0
    plane[20] = True
    (found, *_) = outlines(plane, 30)
    assert len(found.points) == 30
    assert np.array_equal(found.points[0], found.points[-1])


def test_an_outline_moves_by_whole_pixels() -> None:
    (found,) = outlines(np.ones((1, 1), bool), 100)
    assert found.shifted(7, 2).points.min(axis=0).tolist() == [7, 2]


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_outlines_enclose_the_mask_with_its_holes_filled(seed: int, filled: float) -> None:
    plane = np.random.default_rng(seed).random((7, 9)) < filled
    covered = np.zeros(plane.shape, bool)
    for found in outlines(plane, 1000):
        covered |= inside(found, plane.shape)
    # Pixels are connected by edges, so the background reaches out also between diagonal pixels.
    outside = ~ndimage.binary_fill_holes(plane, np.ones((3, 3), bool))
    assert not (covered & outside).any()
    assert not (plane & ~covered).any()


def test_a_report_shows_every_slice_and_of_the_specks_only_the_largest() -> None:
    def sized(area: float) -> Outline:
        return Outline(np.zeros((5, 2)), area)

    found = [(0, sized(9)), (0, sized(5)), (0, sized(1)), (1, sized(2)), (2, sized(30)), (2, sized(4))]
    assert [(index, outline.area) for index, outline in shown_outlines(found, 4)] == [(2, 30), (0, 9), (0, 5), (1, 2)]
    assert {index for index, _ in shown_outlines(found, 1)} == {0, 1, 2}
    assert len(shown_outlines(found, 100)) == len(found)
