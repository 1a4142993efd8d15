"""Synthetic CT and MR series of any orientation, written as Part 10 files."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class SeriesPlan:
    """A series to be: stored values [slice, row, column] and where they lie in the patient."""

    voxels: NDArray[Any]
    spacing: tuple[float, float, float] = (2.5, 0.7, 0.7)
    """mm along slice, row, column."""
    origin: tuple[float, float, float] = (-120.0, -100.0, 40.0)
    orientation: tuple[float, ...] = AXIAL
    """Image Orientation (Patient): where columns, then rows grow."""
    modality: str = "CT"
    slope: float = 1.0
    intercept: float = -1024.0
    seed: int = 1
    shuffle: bool = False
    """File names, instance numbers and UIDs in an order of chance."""
    charset: str | list[str] | None = "ISO_IR 100"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Replaces or, with None, removes top-level attributes."""


def write_series(plan: SeriesPlan, directory: Path) -> list[Path]:
    """Write one file per slice; returns them in the order of their names."""
    directory.mkdir(parents=True, exist_ok=True)
    order = list(range(len(plan.voxels)))
    chance = random.Random(plan.seed)
    if plan.shuffle:
        chance.shuffle(order)
    study, series, frame = (f"2.25.{chance.getrandbits(120)}" for _ in range(3))
    paths = []
    for number, index in enumerate(order, start=1):
        dataset = _slice(plan, index, f"2.25.{chance.getrandbits(120)}")
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.InstanceNumber = number
        _replace(dataset, plan.attributes)
        path = directory / f"{number:04}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def slice_positions(plan: SeriesPlan) -> NDArray[np.float64]:
    """Centres of the first pixel of every slice [n, 3], LPS mm; slices step along the cross product of the cosines."""
    return np.array(plan.origin) + np.arange(len(plan.voxels))[:, None] * plan.spacing[0] * _normal(plan.orientation)


def patient_point(plan: SeriesPlan, index: Sequence[float]) -> NDArray[np.float64]:
    """Where the voxel (slice, row, column) lies, LPS mm."""
    along_columns, along_rows = np.array(plan.orientation[:3]), np.array(plan.orientation[3:])
    start = np.array(plan.origin) + index[0] * plan.spacing[0] * _normal(plan.orientation)
    return start + index[1] * plan.spacing[1] * along_rows + index[2] * plan.spacing[2] * along_columns


def _normal(orientation: tuple[float, ...]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])


def _slice(plan: SeriesPlan, index: int, uid: str) -> Dataset:
    pixels = np.ascontiguousarray(plan.voxels[index])
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if plan.charset is not None:
        dataset.SpecificCharacterSet = plan.charset
    dataset.SOPClassUID, dataset.SOPInstanceUID = SOP_CLASSES[plan.modality], uid
    dataset.update(_identity())
    dataset.Modality = plan.modality
    dataset.SeriesNumber = 3
    dataset.PatientPosition = "HFS"
    dataset.PositionReferenceIndicator = None
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if plan.modality == "CT" else ["ORIGINAL", "PRIMARY"]
    dataset.ImagePositionPatient = [_decimal(value) for value in slice_positions(plan)[index]]
    dataset.ImageOrientationPatient = [_decimal(value) for value in plan.orientation]
    dataset.PixelSpacing = [_decimal(plan.spacing[1]), _decimal(plan.spacing[2])]
    dataset.SliceThickness = _decimal(plan.spacing[0])
    _modality_attributes(dataset, plan)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return dataset


def _identity() -> Dataset:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = "Phantom^Series", "PHANTOM-7"
    dataset.IssuerOfPatientID = "HILUM-TESTS"
    dataset.PatientBirthDate, dataset.PatientSex = "19600229", "O"
    dataset.PatientAge, dataset.PatientWeight = "063Y", "71.5"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240102", "030405", "S-1"
    dataset.SeriesDate, dataset.SeriesTime = "20240102", "030410"
    dataset.ContentDate, dataset.ContentTime = "20240102", "030411"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20240102", "030411"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC-1", "Doctor^A"
    dataset.StudyDescription = "Synthetic study"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Hilum tests", "series factory"
    dataset.PatientID = "PHANTOM-7"
    return dataset


def _modality_attributes(dataset: Dataset, plan: SeriesPlan) -> None:
    if plan.modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimal(plan.slope), _decimal(plan.intercept)
        dataset.RescaleType = "HU"
        dataset.KVP = "120"
        dataset.AcquisitionNumber = 1
    else:
        dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
        dataset.ScanOptions, dataset.MRAcquisitionType = None, "2D"
        dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = "500", "10", 1


def _replace(dataset: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)


def _decimal(value: float) -> str:
    """A Decimal String of at most 16 characters."""
    return f"{float(value):.10g}"[:16]
