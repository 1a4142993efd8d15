"""Tiles of a contact sheet: one slice, or a part of it, in grey with outlines, orientation letters and captions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from node.domain.geometry import Geometry, Vector
from node.domain.volume import Volume

TILE = 320
"""Side of a tile in pixels."""
_CT_UNIT = "[hnsf'U]"
_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""Toward smaller and greater x, y, z of LPS coordinates (PS3.3 C.7.6.1.1.1)."""

Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """Which values are shown from black to white."""

    name: str
    center: float
    width: float

    def grey(self, values: NDArray[np.float32]) -> Grey:
        """Return values as grey, 0 to 255."""
        return np.asarray(np.clip((values - self.center) / self.width + 0.5, 0, 1) * 255, np.uint8)


LUNG, SOFT_TISSUE = Window("lung window", -600, 1500), Window("soft tissue window", 40, 400)


def slice_values(volume: Volume, index: int) -> NDArray[np.float32]:
    """Return the rescaled values of one slice [row, column]."""
    stored = volume.voxels[index].astype(np.float32)
    return np.asarray(stored * volume.slope[index] + volume.intercept[index], np.float32)


def window_for(volume: Volume, values: NDArray[np.float32]) -> Window:
    """Return the window that suits a region: lung or soft tissue for CT, else the range of nearly all values."""
    if volume.unit == _CT_UNIT:
        airy = np.count_nonzero((values > -980) & (values < -500))
        return LUNG if airy > 0.12 * values.size else SOFT_TISSUE
    low, high = np.percentile(values, (1, 99.5))
    return Window("full range", float(low + high) / 2, max(float(high - low), 1e-6))


def orientation_letters(direction: Vector) -> tuple[str, str]:
    """Return the letters at the low and the high end of an image axis that runs in `direction`, e.g. ("R", "L")."""
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    named = [axis for axis in order if abs(direction[axis]) > 0.3]
    low = "".join(_LETTERS[axis][direction[axis] < 0] for axis in named)
    return low, "".join(_LETTERS[axis][direction[axis] > 0] for axis in named)


def outline(mask: Mask) -> Mask:
    """Return the pixels just outside `mask`, so that the outline hides nothing of what it surrounds."""
    padded = np.pad(mask, 1)
    around = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return np.asarray(around & ~mask, np.bool_)


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a slice that a tile shows, and the mask to outline in it."""

    values: NDArray[np.float32]
    mask: Mask
    window: Window
    color: tuple[int, int, int]


def tile(part: Part, geometry: Geometry) -> Image.Image:
    """Return a tile of `part` with square pixels in mm, black where it is not square itself."""
    rows, columns = part.values.shape
    tall, wide = rows * geometry.spacing[1], columns * geometry.spacing[2]
    size = max(1, round(TILE * wide / max(tall, wide))), max(1, round(TILE * tall / max(tall, wide)))
    grey = Image.fromarray(part.window.grey(part.values)).resize(size, Image.Resampling.BICUBIC)
    mask = np.asarray(Image.fromarray(part.mask).resize(size, Image.Resampling.NEAREST))
    colored = np.asarray(grey.convert("RGB")).copy()
    colored[outline(mask)] = part.color
    whole = Image.new("RGB", (TILE, TILE))
    whole.paste(Image.fromarray(colored), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    _letter(whole, geometry)
    return whole


def _letter(image: Image.Image, geometry: Geometry) -> None:
    left, right = orientation_letters(geometry.column_direction)
    top, bottom = orientation_letters(geometry.row_direction)
    pen, middle = ImageDraw.Draw(image), TILE // 2
    for text, place, anchor in (
        (left, (4, middle), "lm"),
        (right, (TILE - 4, middle), "rm"),
        (top, (middle, 3), "mt"),
        (bottom, (middle, TILE - 3), "mb"),
    ):
        pen.text(place, text, (255, 220, 90), font(15), anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of the sheet, which comes with Pillow."""
    return ImageFont.load_default(size)
