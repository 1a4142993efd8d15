"""From 300 CT files of 512 x 512 to one volume in order: Hilum beside the code that tutorials show, in one run.

    python bench/files_to_volume.py [--slices 300] [--rounds 7] [--folder DIR] [--min-ratio 20]

Rounds are interleaved, the files lie in the page cache, medians are printed. "straightforward" is dcmread, sorting by
position, apply_modality_lut(pixel_array) and np.stack as float32. Both volumes are checked to be the same, voxel for
voxel in Hounsfield units. "memory reused" builds into the memory of an earlier volume, as a node that has run before
can; --min-ratio is held against it. Also printed: headers alone, and copying the finished volume (the machine's floor).
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.domain.volume import Volume
from node.imaging.headers import read_headers
from node.imaging.volume_builder import build_volume

SIZE = 512


def write_series(folder: Path, slices: int) -> list[Path]:
    """Noise around water, instance numbers shuffled; about as many elements as a scanner writes."""
    rng = np.random.default_rng(1)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID, dataset.Modality = CTImageStorage, "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "2.25.2", "2.25.3", "2.25.4"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240102"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "030405"
    dataset.PatientName, dataset.PatientID, dataset.PatientSex, dataset.PatientAge = "Bench^Mark", "BENCH", "O", "050Y"
    dataset.Manufacturer, dataset.StudyDescription, dataset.SeriesDescription = "Hilum", "bench", "noise"
    dataset.BodyPartExamined, dataset.KVP, dataset.ConvolutionKernel = "CHEST", "120", "B"
    dataset.SliceThickness, dataset.PixelSpacing = "1", [0.7, 0.7]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIZE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    paths = []
    for number, place in enumerate(rng.permutation(slices), start=1):
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"2.25.5{place:05}", number
        dataset.ImagePositionPatient = [-180, -180, int(place) - 150]
        dataset.PixelData = rng.integers(0, 2048, (SIZE, SIZE), np.int16).tobytes()
        paths.append(folder / f"{number:05}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def straightforward(paths: list[Path]) -> np.ndarray[Any, np.dtype[np.float32]]:
    datasets = [pydicom.dcmread(path) for path in paths]
    datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    return np.stack([apply_modality_lut(dataset.pixel_array, dataset).astype(np.float32) for dataset in datasets])


def ours(paths: list[Path], memory: memoryview | None = None) -> Volume:
    return build_volume(read_headers(paths), max_bytes=1 << 31, room=lambda _byte_size: memory)


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    done = work()
    taken = time.perf_counter() - start
    del done
    return taken


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--slices", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--folder", type=Path, help="where the files are written; default: a temporary folder")
    arguments.add_argument("--min-ratio", type=float, default=0.0, help="exit with 1 below this ratio")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        return compare(write_series(Path(folder), chosen.slices), chosen.rounds, chosen.min_ratio)


def compare(paths: list[Path], rounds: int, least: float) -> int:
    volume, expected = ours(paths), straightforward(paths)
    values = volume.voxels * volume.slope[:, None, None] + volume.intercept[:, None, None]
    assert np.array_equal(values, expected), "the two volumes differ"
    del values, expected
    memory = memoryview(bytearray(volume.voxels.nbytes))
    assert np.array_equal(ours(paths, memory).voxels, volume.voxels), "reused memory gives another volume"
    ways: dict[str, Callable[[], object]] = {
        "straightforward": lambda: straightforward(paths),
        "hilum": lambda: ours(paths),
        "hilum, memory reused": lambda: ours(paths, memory),
        "headers alone": lambda: read_headers(paths),
        "copy of the volume": volume.voxels.copy,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(seconds(way))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    print(f"{len(paths)} files, {volume.voxels.nbytes / 1e6:.0f} MB, {rounds} interleaved rounds, medians")
    for name, times in taken.items():
        print(f"  {name:<20} {medians[name] * 1e3:8.1f} ms   ({min(times) * 1e3:.1f} to {max(times) * 1e3:.1f})")
    for name in ("hilum", "hilum, memory reused"):
        ratio = medians["straightforward"] / medians[name]
        fastest = min(taken["straightforward"]) / min(taken[name])
        print(f"  {name}: equal voxel for voxel and {ratio:.1f} times faster (fastest rounds: {fastest:.1f})")
    return 0 if ratio >= least else 1


if __name__ == "__main__":
    sys.exit(main())
