"""A picture of what was found: slices with the segmentation drawn on, for people who try the node without a viewer.

Not for diagnosis: 8-bit pictures of a research result, and the sheet says so.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from node.domain.findings import Finding, Findings
from node.domain.units import unit_for_readers
from node.domain.volume import Volume
from node.testing.sheet_tiles import TILE, Part, font, outline, slice_values, tile, window_for

MOST_FINDINGS = 10
_MARGIN, _CAPTION, _HEAD, _FOOT = 10, 64, 44, 34
_INK, _FAINT, _GROUND, _WARNING = (235, 235, 235), (165, 165, 165), (18, 18, 20), (255, 190, 80)
_ZOOM_MM = 60.0
_EMPTY_SLICES = 8


@dataclass(frozen=True, slots=True)
class _Panel:
    tiles: tuple[Image.Image, ...]
    title: str
    details: str
    color: tuple[int, int, int]

    @property
    def width(self) -> int:
        return len(self.tiles) * TILE


def write_contact_sheet(volume: Volume, findings: Findings, path: Path, *, title: str = "Findings") -> None:
    """Write a PNG: each finding's largest section in its slice and enlarged; evenly spaced slices if there is none.

    Raises:
        ValueError: labels and volume are not on the same grid.
        OSError: `path` cannot be written.
    """
    if findings.labels.shape != volume.geometry.shape:
        raise ValueError(f"labels {findings.labels.shape} are not on the volume's grid {volume.geometry.shape}")
    shown = findings.items[:MOST_FINDINGS]
    if shown:
        panels = [_finding_panel(volume, findings, finding) for finding in shown]
        said = f"{len(findings.items)} found" + (
            f", the first {len(shown)} shown" if len(shown) < len(findings.items) else ""
        )
    else:
        panels = [_plain_panel(volume, index) for index in _spread(volume.geometry.shape[0])]
        said = "nothing found"
    if findings.beyond_limit:
        said += f", {findings.beyond_limit} more beyond the model's limit left out"
    _sheet(panels, f"{title}: {said}").save(path, format="PNG")


def _spread(slices: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, slices - 1, min(slices, _EMPTY_SLICES) + 2).round()[1:-1]})


def _plain_panel(volume: Volume, index: int) -> _Panel:
    values = slice_values(volume, index)
    window = window_for(volume, values)
    part = Part(values, np.zeros(values.shape, np.bool_), window, _INK)
    title = f"slice {index + 1} of {volume.geometry.shape[0]}"
    return _Panel((tile(part, volume.geometry),), title, window.name, _INK)


def _finding_panel(volume: Volume, findings: Findings, finding: Finding) -> _Panel:
    inside = findings.labels[finding.bounds] == finding.ordinal
    index = finding.bounds[0].start + int(inside.sum(axis=(1, 2)).argmax())
    mask = findings.labels[index] == finding.ordinal
    values = slice_values(volume, index)
    rows, columns = _around(volume, finding)
    zoom = Part(
        values[rows, columns], mask[rows, columns], window_for(volume, values[rows, columns]), finding.color_rgb
    )
    box = np.zeros_like(mask)
    box[rows, columns] = True
    whole = Part(values, box | outline(box), zoom.window, finding.color_rgb)
    numbers = "   ".join(
        f"{item.concept.meaning} {item.value:.4g} {unit_for_readers(item.unit.value)}" for item in finding.measurements
    )
    where = f"slice {index + 1} of {volume.geometry.shape[0]}, {zoom.window.name}"
    tiles = tile(whole, volume.geometry), tile(zoom, volume.geometry)
    return _Panel(tiles, f"{finding.label}   ({where})", numbers, finding.color_rgb)


def _around(volume: Volume, finding: Finding) -> tuple[slice, slice]:
    """Return rows and columns of a square of _ZOOM_MM, or more for a large finding, around its middle."""
    spans = []
    longest = max(
        (bound.stop - bound.start) * step
        for bound, step in zip(finding.bounds[1:], volume.geometry.spacing[1:], strict=True)
    )
    side = max(_ZOOM_MM, 1.4 * longest)
    for bound, step, count in zip(
        finding.bounds[1:], volume.geometry.spacing[1:], volume.geometry.shape[1:], strict=True
    ):
        wide = min(count, max(2, round(side / step)))
        first = min(max(0, (bound.start + bound.stop - wide) // 2), count - wide)
        spans.append(slice(first, first + wide))
    return spans[0], spans[1]


def _sheet(panels: list[_Panel], title: str) -> Image.Image:
    width = max(panel.width for panel in panels)
    across = max(1, min(len(panels), 4 * TILE // width))
    down = -(-len(panels) // across)
    cell, row = width + _MARGIN, TILE + _CAPTION
    sheet = Image.new("RGB", (across * cell + _MARGIN, _HEAD + down * row + _FOOT), _GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _HEAD // 2), title, _INK, font(22), anchor="lm")
    for number, panel in enumerate(panels):
        x, y = _MARGIN + number % across * cell, _HEAD + number // across * row
        for position, picture in enumerate(panel.tiles):
            sheet.paste(picture, (x + position * TILE, y))
        pen.text((x, y + TILE + 6), panel.title, panel.color, font(16))
        _fit(pen, (x, y + TILE + 30), panel.details, panel.width)
    foot = sheet.height - _FOOT // 2
    pen.text((_MARGIN, foot), "AI result, research use. Not for diagnosis.", _WARNING, font(16), anchor="lm")
    return sheet


def _fit(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Write `text` as large as `width` allows."""
    size = next((size for size in (15, 13, 11, 9) if pen.textlength(text, font(size)) <= width), 8)
    pen.text(place, text, _FAINT, font(size))
