from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from node.domain.findings import Code, Finding, Findings, Measurement
from node.domain.geometry import Geometry
from node.domain.instances import SopReference
from node.domain.volume import Volume
from node.testing.contact_sheet import write_contact_sheet
from node.testing.sheet_tiles import LUNG, SOFT_TISSUE, TILE, orientation_letters, outline, window_for

NODULE = Code("27925004", "SCT", "Nodule")
RED = (255, 40, 40)


def volume_of(value: float, *, unit: str = "[hnsf'U]", slices: int = 20) -> Volume:
    shape = (slices, 64, 48)
    return Volume(
        voxels=np.full(shape, value, np.int16),
        slope=np.ones(slices, np.float32),
        intercept=np.zeros(slices, np.float32),
        geometry=Geometry(shape, (2.0, 1.0, 1.0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),
        frame_of_reference_uid="2.25.1",
        study_uid="2.25.2",
        series_uid="2.25.3",
        sources=tuple(SopReference("1.2", f"2.25.{10 + index}") for index in range(slices)),
        unit=unit,
    )


def findings_of(volume: Volume, count: int) -> Findings:
    labels = np.zeros(volume.geometry.shape, np.uint16)
    items = []
    for ordinal in range(1, count + 1):
        bounds = (slice(ordinal, ordinal + 3), slice(10, 16), slice(ordinal * 3, ordinal * 3 + 3))
        labels[bounds] = ordinal
        size = Measurement(Code("1", "SCT", "Volume"), 0.05, Code("mL", "UCUM", "milliliter"))
        label = f"Nodule {ordinal}"
        items.append(Finding(ordinal, label, NODULE, NODULE, None, RED, 0.9, (size,), bounds, (0.0, 0.0, 0.0)))
    return Findings(tuple(items), labels, 0)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def test_the_outline_of_a_finding_is_drawn_in_its_color(tmp_path: Path) -> None:
    volume = volume_of(-850)
    write_contact_sheet(volume, findings_of(volume, 2), tmp_path / "sheet.png")
    picture = np.asarray(opened(tmp_path / "sheet.png"))
    assert picture.shape[2] == 3
    assert np.count_nonzero((picture == RED).all(axis=2)) > 200


def test_without_findings_it_shows_evenly_spaced_slices(tmp_path: Path) -> None:
    volume = volume_of(40)
    write_contact_sheet(volume, findings_of(volume, 0), tmp_path / "sheet.png")
    picture = opened(tmp_path / "sheet.png")
    assert picture.width > 4 * TILE
    assert picture.height > 2 * TILE


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_few_slices_do(tmp_path: Path, slices: int) -> None:
    volume = volume_of(40, slices=slices)
    write_contact_sheet(volume, findings_of(volume, 0), tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").width > TILE


def test_more_findings_than_fit_are_counted(tmp_path: Path) -> None:
    volume = volume_of(-850)
    write_contact_sheet(volume, findings_of(volume, 14), tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").height < 7 * (TILE + 100)


def test_labels_of_another_grid_are_refused(tmp_path: Path) -> None:
    volume = volume_of(40)
    other = findings_of(volume_of(40, slices=9), 0)
    with pytest.raises(ValueError, match="not on the volume's grid"):
        write_contact_sheet(volume, other, tmp_path / "sheet.png")


def test_the_window_follows_what_is_shown() -> None:
    lung, liver = np.full((8, 8), -850, np.float32), np.full((8, 8), 60, np.float32)
    assert window_for(volume_of(0), lung) is LUNG
    assert window_for(volume_of(0), liver) is SOFT_TISSUE
    ramp = np.linspace(100, 900, 64, dtype=np.float32).reshape(8, 8)
    assert window_for(volume_of(0, unit="1"), ramp).center == pytest.approx(500, abs=30)


def test_letters_name_the_ends_of_straight_and_oblique_axes() -> None:
    assert orientation_letters((1.0, 0.0, 0.0)) == ("R", "L")
    assert orientation_letters((0.0, -1.0, 0.0)) == ("P", "A")
    assert orientation_letters((0.0, 0.0, -1.0)) == ("H", "F")
    assert orientation_letters((0.8, 0.6, 0.0)) == ("RA", "LP")


def test_an_outline_hides_nothing_of_what_it_surrounds() -> None:
    mask = np.zeros((7, 7), np.bool_)
    mask[2:5, 2:5] = True
    assert not (outline(mask) & mask).any()
    assert outline(mask).sum() == 12
