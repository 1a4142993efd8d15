"""Studies that are wrong in one way each, made from a sound one."""

import random
from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import JPEGExtended12Bit

META_END = 132


def each_file(source: Path, target: Path, change: Callable[[FileDataset, int], None]) -> Path:
    """Copy a study with UIDs of its own, changed slice by slice by `change(data set, index)`."""
    target.mkdir(parents=True)
    for index, path in enumerate(sorted(source.iterdir())):
        dataset = pydicom.dcmread(path)
        renew_uids(dataset, target.name)
        change(dataset, index)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(target / path.name, enforce_file_format=False)
    return target


def renew_uids(dataset: Dataset, salt: str) -> None:
    number = str(sum(ord(letter) * 31**place for place, letter in enumerate(salt)))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        uid = f"{dataset[name].value}"
        setattr(dataset, name, f"2.25.{int(uid.rpartition('.')[2]) % 10**24}{number[:10]}")


def without_pixels(dataset: FileDataset, _index: int) -> None:
    del dataset.PixelData


def one_in_colour(dataset: FileDataset, index: int) -> None:
    if index == 3:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = bytes(dataset.Rows * dataset.Columns * 3)


def jpeg_of_12_bits(dataset: FileDataset, _index: int) -> None:
    """Pixels that neither Pillow nor GDCM decodes: JPEG Extended of 12 bits."""
    example = pydicom.dcmread(get_testdata_file("JPGExtended.dcm", download=False))
    dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    dataset.PixelData = example.PixelData
    dataset["PixelData"].is_undefined_length = True
    dataset.Rows, dataset.Columns = example.Rows, example.Columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0


def unchanged(_dataset: FileDataset, _index: int) -> None:
    pass


def truncated(source: Path, target: Path) -> Path:
    """One image that ends in the middle of its pixels."""
    target.mkdir(parents=True)
    path = next(iter(sorted(each_file(source, target / "whole", unchanged).iterdir())))
    content = path.read_bytes()
    (target / "truncated.dcm").write_bytes(content[: len(content) - 3000])
    for item in (target / "whole").iterdir():
        item.unlink()
    (target / "whole").rmdir()
    return target


def random_bytes(source: Path, target: Path) -> Path:
    """A file whose data set is noise behind a sound file meta."""
    target.mkdir(parents=True)
    path = min(source.iterdir())
    meta = pydicom.filereader.read_file_meta_info(path)
    meta.MediaStorageSOPInstanceUID = "2.25.424242"
    shell = FileDataset(str(target), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    shell.save_as(target / "noise.dcm", enforce_file_format=False)
    with (target / "noise.dcm").open("ab") as file:
        file.write(random.Random(7).randbytes(5000))
    return target


def escaping_uid(source: Path, target: Path) -> Path:
    """An image whose UIDs are a path out of any store."""
    target.mkdir(parents=True)
    dataset = pydicom.dcmread(min(source.iterdir()))
    with pydicom.config.disable_value_validation():
        dataset.SOPInstanceUID = "../../../../tmp/hilum-escaped"
        dataset.StudyInstanceUID = "../hilum-escaped"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(target / "escape.dcm", enforce_file_format=False)
    return target


def other_patient(source: Path, target: Path) -> Path:
    """The same SOP Instance UIDs under another patient."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir())[:2]:
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.PatientName = "PHANTOM-OTHER", "PHANTOM^OTHER"
        dataset.save_as(target / path.name)
    return target
