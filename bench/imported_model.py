"""An imported label model on a NIfTI volume: through the real service, with time, memory, volumes and a picture.

`python -m bench.imported_model --models DIR --model NAME --image T1.nii.gz --out FOLDER` starts a service, turns the
volume to the model's axes, asks, turns the answer back and builds the findings as the node does. It prints the volume
of each class on either side of the middle, and writes `overlay.png` (axial, coronal and sagittal slices), and with
`--series` the volume as DICOM files for `hilum run`. Pictures of real people stay out of the repository.
"""

import argparse
import gzip
import struct
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.serving_peers import MIB, PeakMemory, memory_of, service
from node.domain.findings import Findings
from node.domain.geometry import Geometry
from node.domain.instances import SopReference
from node.domain.orientation import reorient
from node.domain.volume import Volume
from node.inference_client.client import InferenceClient
from node.results.findings_builder import build_findings
from node.settings import InferenceSettings
from protos.model_manifest import ModelBundle, open_bundle
from tests.series_factory import SeriesPlan, write_series

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
DTYPES = {2: "u1", 4: "<i2", 256: "i1", 512: "<u2"}
SLICES = 6
LARGER = 2


def read_nifti(path: Path) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Read integer voxels [i, j, k] and the affine to RAS mm of a NIfTI-1 file with an sform."""
    raw = gzip.decompress(path.read_bytes())
    sizes = struct.unpack("<8h", raw[40:56])
    (code,), (begin,), (sform,) = (
        struct.unpack("<h", raw[70:72]), struct.unpack("<f", raw[108:112]), struct.unpack("<h", raw[254:256]),
    )  # fmt: skip
    assert sizes[0] >= 3
    assert sform > 0, "a file with an sform is wanted"
    values = np.frombuffer(raw, DTYPES[code], int(np.prod(sizes[1:4])), int(begin)).reshape(sizes[1:4], order="F")
    affine = np.vstack([np.array(struct.unpack("<12f", raw[280:328])).reshape(3, 4), [0, 0, 0, 1]])
    return values.astype(np.int16), affine


def volume_of(voxels: NDArray[np.int16], affine: NDArray[np.float64]) -> Volume:
    """Make a volume in the patient system of DICOM, whose x and y run against those of NIfTI."""
    to_patient = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(to_patient[:3, :3], axis=0)
    directions = [tuple(map(float, to_patient[:3, at] / spacing[at])) for at in range(3)]
    slices = voxels.shape[0]
    return Volume(
        voxels=np.ascontiguousarray(voxels),
        slope=np.ones(slices, np.float32),
        intercept=np.zeros(slices, np.float32),
        geometry=Geometry(
            shape=voxels.shape,
            spacing=tuple(map(float, spacing)),
            origin=tuple(map(float, to_patient[:3, 3])),
            slice_direction=directions[0],
            row_direction=directions[1],
            column_direction=directions[2],
        ),
        frame_of_reference_uid="2.25.10",
        study_uid="2.25.11",
        series_uid="2.25.12",
        sources=tuple(SopReference(MR_IMAGE_STORAGE, f"2.25.13.{number}") for number in range(slices)),
        unit="1",
    )


def asked(bundle: ModelBundle, volume: Volume, models: Path) -> Findings:
    """Ask a service of its own, say what it took, and build the findings on the volume's grid."""
    turned, way = reorient(volume, bundle.manifest.accepts.axes, 45.0)
    with service(models, "--model", bundle.manifest.identity.name) as running:
        ready = memory_of(running.pid)
        print(f"ready after {running.seconds_to_ready:.0f} s, private memory {ready['RssAnon'] // MIB} MiB")
        client = InferenceClient(InferenceSettings(endpoint=running.unix, deadline_s=3600))
        with PeakMemory(running.pid) as peak:
            begun, before = time.monotonic(), processor_seconds(running.pid)
            answer = client.infer(bundle, turned)
            took, worked = time.monotonic() - begun, processor_seconds(running.pid) - before
        print(f"{volume.geometry.shape} in {took:.0f} s, {worked:.0f} s of processor time")
        print(f"private memory at the peak {peak.bytes // MIB} MiB")
        print({name: array.item() for name, array in answer.outputs.items() if array.size == 1})
        on_source = {name: way.back(array) for name, array in answer.outputs.items() if array.ndim == 3}
        findings = build_findings(bundle.manifest, volume, on_source)
        client.close()
    return findings


def processor_seconds(pid: int) -> float:
    """Read the processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def print_volumes(findings: Findings, volume: Volume) -> None:
    """Print each class in ml, on the right and on the left of the middle of all that was found."""
    turned, way = reorient(volume, "LSP", 45.0)
    labels = way.forth(findings.labels)
    places = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    weights = (labels > 0).sum(axis=(1, 2))
    middle = round(float((weights * np.arange(len(weights))).sum() / weights.sum()))
    print(f"found from {places[0]} to {places[-1]} of {len(weights)} from right to left, middle {middle}")
    ml = turned.geometry.voxel_ml
    total = 0.0
    for item in findings.items:
        sides = [int((part == item.ordinal).sum()) * ml for part in (labels[:middle], labels[middle:])]
        total += sum(sides)
        print(f"{item.label:32} {sum(sides):8.1f} ml   right {sides[0]:7.1f}   left {sides[1]:7.1f}")
    print(f"{'all':32} {total:8.1f} ml")


def write_overlay(findings: Findings, volume: Volume, path: Path) -> None:
    """Draw slices with their labels: axial, coronal, sagittal; seen from the feet, the front and the left."""
    colors = np.zeros((int(findings.labels.max()) + 1, 3))
    for item in findings.items:
        colors[item.ordinal] = item.color_rgb
    rows = []
    for axes in ("SPL", "PIL", "LIP"):
        turned, way = reorient(volume, axes, 45.0)
        labels = way.forth(findings.labels)
        found = np.flatnonzero((labels > 0).any(axis=(1, 2)))
        chosen = np.linspace(found[0], found[-1], SLICES + 2).round().astype(int)[1:-1]
        rows.append(np.hstack([_drawn(turned.voxels[at], labels[at], colors) for at in chosen]))
    width = max(row.shape[1] for row in rows)
    sheet = np.vstack([np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0))) for row in rows])
    picture = Image.fromarray(sheet)
    ImageDraw.Draw(picture).text((8, 8), "axial / coronal / sagittal, research use", fill=(255, 255, 255))
    picture.save(path)


def _drawn(values: NDArray[np.int16], labels: NDArray[np.uint16], colors: NDArray[np.float64]) -> NDArray[np.uint8]:
    grey = np.clip(values / max(float(np.percentile(values, 99.5)), 1) * 255, 0, 255)[..., None].repeat(3, axis=-1)
    mixed = np.where((labels > 0)[..., None], 0.45 * grey + 0.55 * colors[labels], grey).astype(np.uint8)
    both = np.vstack([grey.astype(np.uint8), mixed])
    return both.repeat(LARGER, axis=0).repeat(LARGER, axis=1)


def write_dicom(volume: Volume, folder: Path) -> None:
    """Write the volume as an MR series of sagittal, coronal or axial slices, as its own slices lie."""
    geometry = volume.geometry
    turned, _ = reorient(volume, "SPL", 45.0)
    geometry = turned.geometry
    write_series(
        SeriesPlan(
            voxels=np.ascontiguousarray(turned.voxels).astype(np.uint16),
            spacing=geometry.spacing,
            origin=geometry.origin,
            orientation=(*geometry.column_direction, *geometry.row_direction),
            modality="MR",
            attributes={"BodyPartExamined": "HEAD", "SeriesDescription": "T1 3D"},
        ),
        folder,
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--series", type=Path, help="write the volume as DICOM files into this folder, and ask nobody")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    bundle = open_bundle(given.models / given.model / "1")
    volume = volume_of(*read_nifti(given.image))
    if given.series is not None:
        write_dicom(volume, given.series)
        return
    findings = asked(bundle, volume, given.models)
    np.save(given.out / "labels.npy", findings.labels)
    print_volumes(findings, volume)
    write_overlay(findings, volume, given.out / "overlay.png")
    print(given.out / "overlay.png")


if __name__ == "__main__":
    main()
