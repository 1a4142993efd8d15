"""Slices in order: by position along the normal of their planes, never by instance number (PS3.3 C.7.6.2.1.1).

What does not make one evenly spaced, right-angled stack is refused, and the message names the positions: millimetres
along the normal (row cosine x column cosine of Image Orientation (Patient)) from the origin of the patient system.

Tolerances, and why:

* two images lie at one position when they are at most 0.01 mm apart: what rounding leaves, far below any slice spacing;
* a slice may lie off the even grid by 5 % of the spacing: devices round positions (0.1 mm in old scanners), while a
  missing slice shows as 100 %; a twentieth of a voxel moves no finding into another voxel;
* a stack may drift sideways by half a pixel from its first to any other slice, the error that nearest voxels have
  anyway; beyond that it is a tilted gantry (sheared stack) or a displaced slice;
* direction cosines may differ by 0.001 (0.06 degrees): devices write them with as few as three digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.domain.geometry import Geometry, Vector
from node.domain.image_rules import listed, padding_of, require_alike, require_image
from node.domain.instances import ImageHeader
from node.errors import GeometryRefusal

SAME_POSITION_MM: Final = 0.01
UNEVEN_FRACTION: Final = 0.05
DRIFT_PIXELS: Final = 0.5
COSINE_TOLERANCE: Final = 1e-3

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stack:
    """The images of one series in ascending order along their normal, and the grid that they make."""

    headers: tuple[ImageHeader, ...]
    geometry: Geometry


def stack_of(headers: Sequence[ImageHeader]) -> Stack:
    """Return the images of one series in order, on a proven grid.

    Raises:
        Refusal: an image is not a single-frame slice of linear values (no pixel data, colour, MONOCHROME1, ...).
        GeometryRefusal: the images do not make one evenly spaced, right-angled volume; the message names positions.
    """
    for header in headers:
        require_image(header)
    if len(headers) < 2:
        raise GeometryRefusal(f"{len(headers)} image(s): a volume needs at least two slices")
    column, row = _cosines(headers)
    normal = np.cross(column, row)
    points = np.array([_position(header) for header in headers])
    places = points @ normal
    named = {id(header): _mm(place) for header, place in zip(headers, places, strict=True)}
    require_alike(headers, lambda header: named[id(header)])
    padding_of(headers)
    spacing = _pixel_spacing(headers, named)
    _require_frame_of_reference(headers[0])
    order = np.argsort(places, kind="stable")
    step = _even_step(places[order])
    _require_right_angle(points[order], normal, min(spacing))
    ordered = tuple(headers[index] for index in order)
    geometry = Geometry(
        shape=(len(ordered), ordered[0].rows, ordered[0].columns),
        spacing=(step, *spacing),
        origin=_vector(points[order[0]]),
        slice_direction=_vector(normal),
        row_direction=_vector(row),
        column_direction=_vector(column),
    )
    return Stack(ordered, geometry)


def plane_of(header: ImageHeader) -> Geometry:
    """Return the grid of one image alone, in which a stack of its kind will lie: one slice, for want of others 1 mm.

    Raises:
        Refusal, GeometryRefusal: as `stack_of`, where the image alone says so.
    """
    require_image(header)
    column, row = _perpendicular(_orientation(header))
    spacing = _pixel_spacing([header], {id(header): "the only image"})
    _require_frame_of_reference(header)
    return Geometry(
        shape=(1, header.rows, header.columns),
        spacing=(1.0, *spacing),
        origin=_position(header),
        slice_direction=_vector(np.cross(column, row)),
        row_direction=_vector(row),
        column_direction=_vector(column),
    )


def _cosines(headers: Sequence[ImageHeader]) -> tuple[_Floats, _Floats]:
    """Return the directions of growing column and row index, made exactly perpendicular; one plane for all images."""
    every = np.array([_orientation(header) for header in headers])
    if np.abs(every - every[0]).max() > COSINE_TOLERANCE:
        kinds = _kinds(every)
        parts = [f"{count} images {_plane_name(kind)} {np.round(kind, 3).tolist()}" for kind, count in kinds]
        raise GeometryRefusal(
            f"Image Orientation (Patient) (0020,0037) differs: the series holds {len(kinds)} orientations, so more "
            f"than one stack, and none is chosen silently: {listed(parts)}"
        )
    return _perpendicular(every[0])


def _kinds(every: _Floats) -> list[tuple[_Floats, int]]:
    """Return each orientation of `every` [image, 6] with its number of images."""
    kinds = []
    rest = every
    while len(rest):
        alike = np.abs(rest - rest[0]).max(axis=1) <= COSINE_TOLERANCE
        kinds.append((rest[0], int(alike.sum())))
        rest = rest[~alike]
    return kinds


def _perpendicular(cosines: _Floats) -> tuple[_Floats, _Floats]:
    column, row = cosines[:3], cosines[3:]
    products = np.array([column @ column - 1, row @ row - 1, column @ row])
    if np.abs(products).max() > COSINE_TOLERANCE:
        raise GeometryRefusal(
            f"Image Orientation (Patient) (0020,0037) {cosines.tolist()} is not two perpendicular unit vectors"
        )
    column = column / np.linalg.norm(column)
    row = row - (row @ column) * column
    return column, row / np.linalg.norm(row)


def _plane_name(cosines: _Floats) -> str:
    normal = np.cross(cosines[:3], cosines[3:])
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _orientation(header: ImageHeader) -> _Floats:
    if header.orientation is None:
        raise GeometryRefusal(f"Image Orientation (Patient) (0020,0037) is absent in {header.sop.sop_instance_uid}")
    return np.array(header.orientation)


def _position(header: ImageHeader) -> Vector:
    if header.position is None:
        raise GeometryRefusal(f"Image Position (Patient) (0020,0032) is absent in {header.sop.sop_instance_uid}")
    return header.position


def _pixel_spacing(headers: Sequence[ImageHeader], named: dict[int, str]) -> tuple[float, float]:
    """Return mm between rows and between columns, the same in all images to a thousandth."""
    first = headers[0].pixel_spacing
    if first is None or min(first) <= 0:
        raise GeometryRefusal(f"Pixel Spacing (0028,0030) is {first or 'absent'}: the size of a pixel is unknown")
    for header in headers:
        stated = header.pixel_spacing
        if stated != first and (stated is None or not np.allclose(stated, first, rtol=1e-3, atol=0)):
            raise GeometryRefusal(
                f"Pixel Spacing (0028,0030) differs within the series: {first} at {named[id(headers[0])]}, "
                f"{stated} at {named[id(header)]}"
            )
    return first


def _require_frame_of_reference(header: ImageHeader) -> None:
    if not header.frame_of_reference_uid:
        raise GeometryRefusal(
            "Frame of Reference UID (0020,0052) is absent: nothing says that the positions share one coordinate system"
        )


def _even_step(places: _Floats) -> float:
    """Return the spacing of ascending `places` mm; raise GeometryRefusal where they repeat, jump or crowd."""
    gaps = np.diff(places)
    if gaps.min() <= SAME_POSITION_MM:
        raise GeometryRefusal(_repeated(places, gaps))
    step = float(places[-1] - places[0]) / len(gaps)
    off_grid = np.abs(places - (places[0] + step * np.arange(len(places))))
    if off_grid.max() <= UNEVEN_FRACTION * step:
        return round(step, 6)
    raise GeometryRefusal(_uneven(places, gaps, off_grid))


def _repeated(places: _Floats, gaps: _Floats) -> str:
    starts = np.flatnonzero(np.concatenate(([True], gaps > SAME_POSITION_MM)))
    counts = np.diff(np.append(starts, len(places)))
    if len(starts) == 1:
        return f"all {len(places)} images lie at one position, {_mm(places[0])}: no stack"
    if counts.min() == counts.max():
        return (
            f"{counts[0]} images at each of {len(starts)} positions from {_mm(places[0])} to {_mm(places[-1])}: the "
            f"series holds {counts[0]} stacks (temporal phases, echoes, b-values?), and none is chosen silently"
        )
    repeated = [f"{count} at {_mm(places[at])}" for at, count in zip(starts, counts, strict=True) if count > 1]
    return f"several images at one position: {listed(repeated)}, where the others stand alone"


def _uneven(places: _Floats, gaps: _Floats, off_grid: _Floats) -> str:
    step = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - step) > UNEVEN_FRACTION * step)
    missing = [at for at in odd if gaps[at] / step >= 1.5 and abs(gaps[at] / step - round(gaps[at] / step)) <= 0.2]
    if len(odd) and len(missing) == len(odd):
        parts = [f"{round(gaps[at] / step) - 1} between {_mm(places[at])} and {_mm(places[at + 1])}" for at in missing]
        return f"slices are missing: {listed(parts)} (spacing {step:.3f} mm)"
    if len(odd):
        parts = [f"{gaps[at]:.3f} mm from {_mm(places[at])} to {_mm(places[at + 1])}" for at in odd]
        return f"slices are unevenly spaced: {listed(parts)}, where the usual spacing is {step:.3f} mm"
    worst = int(off_grid.argmax())
    return (
        f"slices are unevenly spaced: the slice at {_mm(places[worst])} lies {off_grid[worst]:.3f} mm off the even "
        f"grid from {_mm(places[0])} to {_mm(places[-1])}"
    )


def _require_right_angle(points: _Floats, normal: _Floats, pixel_mm: float) -> None:
    """Refuse stacks whose origins do not lie on one line along the normal (`points` are in order)."""
    from_first = points - points[0]
    along = from_first @ normal
    sideways = from_first - np.outer(along, normal)
    drift = np.linalg.norm(sideways, axis=1)
    if drift.max() <= DRIFT_PIXELS * pixel_mm:
        return
    sheared = sideways[-1] / along[-1]
    if np.linalg.norm(sideways - np.outer(along, sheared), axis=1).max() <= DRIFT_PIXELS * pixel_mm:
        angle = np.degrees(np.arctan(np.linalg.norm(sheared)))
        raise GeometryRefusal(
            f"the stack is sheared by {angle:.2f} degrees: origins run {drift[-1]:.2f} mm sideways of the normal from "
            f"the first to the last slice (gantry tilt); such a stack needs resampling, which is not done"
        )
    place = float(points[int(drift.argmax())] @ normal)
    raise GeometryRefusal(
        f"slices are displaced within their plane: the one at {_mm(place)} by {drift.max():.2f} mm against the first"
    )


def _mm(place: float) -> str:
    return f"{place:.2f} mm"


def _vector(values: _Floats) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
