import csv
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets.lidc_crops import (
    EXCLUDED_PATIENTS,
    Crop,
    DatasetError,
    read_crops,
    split_by_patient,
    without_padding,
)
from training.datasets.lidc_spacing import read_spacing, write_spacing

SPACING = {f"LIDC-IDRI-{number:04}": 0.7 for number in range(1, 200)}
COLUMNS = ("id", "patient", "nodule", "n_slices", "max_readers", "area2", "x0", "y0", "x1", "y1")


def write_set(directory: Path, patients: Sequence[str], *, size: int = 24) -> Path:
    """Write an unpacked set with one crop for each patient."""
    for folder in ("images", "readers"):
        (directory / folder).mkdir(parents=True)
    with (directory / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, patient in enumerate(patients):
            name = f"{patient[-4:]}_0_{number:02}"
            writer.writerow((name, patient, "nodule-0", 3, 4, 20, 8, 8, 15, 15))
            pixels = np.random.default_rng(number).integers(0, 255, (size, size)).astype(np.uint8)
            readers = np.zeros((size, size), np.uint8)
            readers[8:16, 8:16] = number % 5
            Image.fromarray(pixels).save(directory / "images" / f"{name}.png")
            Image.fromarray(readers).save(directory / "readers" / f"{name}.png")
    return directory


def crop_of(patient: str, number: int = 0) -> Crop:
    empty = np.zeros((8, 8), np.uint8)
    return Crop(f"{patient}-{number}", patient, "nodule-0", 0.7, empty, empty)


def test_the_test_studies_patients_are_excluded_by_name() -> None:
    assert {"LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"} == EXCLUDED_PATIENTS


def test_excluded_patients_are_left_out_even_if_they_appear(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [*sorted(EXCLUDED_PATIENTS), "LIDC-IDRI-0004", "LIDC-IDRI-0005"])
    crops = read_crops(folder, SPACING)
    assert {crop.patient for crop in crops} == {"LIDC-IDRI-0004", "LIDC-IDRI-0005"}


def test_a_split_refuses_an_excluded_patient() -> None:
    with pytest.raises(DatasetError, match="LIDC-IDRI-0002"):
        split_by_patient([crop_of("LIDC-IDRI-0002")], seed=1)


def test_no_patient_stands_in_two_parts_and_the_split_repeats() -> None:
    crops = [crop_of(f"LIDC-IDRI-{number:04}", slice_) for number in range(4, 300) for slice_ in range(3)]
    split, again = split_by_patient(crops, seed=1), split_by_patient(crops[::-1], seed=1)
    parts = [{crop.patient for crop in part} for part in (split.training, split.validation, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(map(len, (split.training, split.validation, split.test))) == len(crops)
    assert min(map(len, parts)) > 15
    assert split.digest == again.digest
    assert split.digest != split_by_patient(crops, seed=2).digest


def test_another_patient_moves_nobody() -> None:
    crops = [crop_of(f"LIDC-IDRI-{number:04}") for number in range(4, 100)]
    before = {crop.patient for crop in split_by_patient(crops, seed=1).test}
    after = {crop.patient for crop in split_by_patient([*crops, crop_of("LIDC-IDRI-0999")], seed=1).test}
    assert after - {"LIDC-IDRI-0999"} == before


def test_a_missing_file_a_wrong_size_and_an_unknown_spacing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"index\.csv"):
        read_crops(tmp_path, SPACING)
    folder = write_set(tmp_path / "set", ["LIDC-IDRI-0004"])
    with pytest.raises(DatasetError, match="LIDC-IDRI-0004"):
        read_crops(folder, {})
    image = folder / "images" / "0004_0_00.png"
    Image.new("L", (5, 5)).save(image)
    with pytest.raises(DatasetError, match="0004_0_00"):
        read_crops(folder, SPACING)
    image.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_crops(folder, SPACING)


def test_padding_far_below_air_is_lifted_and_true_air_is_kept() -> None:
    padded = np.array([[0, 0, 100, 150, 255]], np.uint8)
    np.testing.assert_array_equal(without_padding(padded), [[0, 0, 0, 82, 255]])
    plain = np.array([[0, 3, 100, 255]], np.uint8)
    np.testing.assert_array_equal(without_padding(plain), plain)


def test_committed_spacing_is_complete_and_plausible() -> None:
    spacing = read_spacing()
    assert len(spacing) == 1010
    assert min(spacing.values()) > 0.4
    assert max(spacing.values()) < 1.0
    assert spacing["LIDC-IDRI-0001"] == pytest.approx(0.703125)


def test_spacing_is_read_from_sqlite_alone(tmp_path: Path) -> None:
    database = tmp_path / "scans.sqlite"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE scans (patient_id VARCHAR, pixel_spacing FLOAT)")
    connection.executemany("INSERT INTO scans VALUES (?, ?)", [("B", 0.7), ("A", 0.5), ("A", 0.6)])
    connection.commit()
    connection.close()
    assert write_spacing(database, tmp_path / "spacing.csv") == 2
    assert read_spacing(tmp_path / "spacing.csv") == {"A": pytest.approx(0.55), "B": 0.7}
