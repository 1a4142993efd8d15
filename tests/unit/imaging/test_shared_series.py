"""Every CT, MR and PT series of the shared data makes the volume that pydicom's pixels say, or is refused by reason."""

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.domain.instances import ImageHeader, SopReference
from node.domain.volume import Volume
from node.errors import DecodingError, GeometryRefusal, Refusal
from node.imaging.decoding import decode_into
from node.imaging.headers import read_headers
from node.imaging.stored_values import voxel_type
from node.imaging.volume_builder import build_volume

LIMIT = 1 << 29
IMAGES = ("CT", "MR", "PT")
SINGLE_FRAME = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128")
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
SharedData = Callable[[str], Path]

# Data set -> one entry per series, in order of its first file: shape of the volume, or the reason of the refusal.
EXPECTED: dict[str, list[tuple[int, int, int] | str]] = {
    "ct_chest_LIDC-IDRI-0001": [(16, 512, 512)],
    "ct_chest_LIDC-IDRI-0002": [(12, 512, 512)],
    "ct_head_philips28": [(28, 512, 512)],
    "ct_abdomen_totalseg20": ["SOP Class UID (0008,0016) is empty"],
    "mr_brain_PGBM-002_HippoCrop": [(32, 51, 35)],
    "mr_brain_PGBM-003": [(22, 320, 280), (40, 50, 34), (22, 320, 280), (22, 320, 280), (22, 320, 280)],
    "dcm_qa_ts": ["all 9 images lie at one position, -77.96 mm"],
    "dcm_qa_enh": ["with 6 frame(s): volumes are built from single-frame", "with 64 frame(s)"],
    "dcmqi_seg_sr": [
        (3, 512, 512),
        "with 3 frame(s)",
        (3, 38, 23),
        (3, 38, 24),
        "with 3 frame(s)",
        "1 image(s): a volume needs at least two slices",
    ],
    "highdicom_test_files": ["1 image(s)"],
    "pet_suyash": ["1 image(s)", "1 image(s)", "1 image(s)", "with 2 frame(s)"],
    "pydicom_data": [
        "Bits Stored (0028,0101) differs within the series: 14 in 2 images, 16 at 47.00 mm",
        "1 image(s)",
        "all 4 images lie at one position, 92.68 mm",
        "which is no UID (PS3.5 9.1)",
        "with 2 frame(s)",
        "with 10 frame(s)",
        "1 image(s)",
    ],
    "wg04_compressed": [
        "all 5 images lie at one position, -75.70 mm",
        "1 image(s)",
        "all 5 images lie at one position, -545.00 mm",
        "1 image(s)",
        "Bits Stored (0028,0101) differs within the series: 16 in 5 images, 12 at 6.64 mm",
        "1 image(s)",
        "all 6 images lie at one position, -3.24 mm",
        "1 image(s)",
    ],
}


def series_below(folder: Path) -> list[list[ImageHeader]]:
    headers = read_headers(
        (path for path in sorted(folder.rglob("*")) if path.is_file()), on_refused=lambda _path, _error: None
    )
    series: dict[tuple[str, str], list[ImageHeader]] = defaultdict(list)
    for header in headers:
        if header.modality in IMAGES:
            series[header.series_uid, header.modality].append(header)
    return list(series.values())


def pixels_of(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path).pixel_array


def assert_equal(volume: Volume, headers: list[ImageHeader]) -> None:
    """Hold every slice against pydicom's pixel_array of its source, and its place against its own position."""
    by_uid = {header.sop.sop_instance_uid: header for header in headers}
    for index, (source, slice_) in enumerate(zip(volume.sources, volume.voxels, strict=True)):
        header = by_uid[source.sop_instance_uid]
        assert np.array_equal(slice_, pixels_of(header.path)), header.path
        corner = volume.geometry.to_patient(np.array([[index, 0.0, 0.0]]))[0]
        assert corner == pytest.approx(header.position, abs=0.02), header.path


@pytest.mark.parametrize("name", EXPECTED)
def test_every_series_makes_its_volume_or_is_refused_with_its_reason(name: str, shared_data: SharedData) -> None:
    series = series_below(shared_data(name))
    assert len(series) == len(EXPECTED[name])
    for headers, expected in zip(series, EXPECTED[name], strict=True):
        if isinstance(expected, str):
            with pytest.raises(Refusal) as caught:
                build_volume(headers, max_bytes=LIMIT)
            assert expected in str(caught.value)
        else:
            volume = build_volume(headers, max_bytes=LIMIT)
            assert volume.voxels.shape == expected
            assert_equal(volume, headers)


@pytest.mark.parametrize("name", ["dcm_qa_ts", "wg04_compressed", "pydicom_data", "pet_suyash", "highdicom_test_files"])
def test_single_images_of_every_transfer_syntax_make_volumes_equal_to_pydicoms_pixels(
    name: str, shared_data: SharedData
) -> None:
    # Alone they make no stack: each is stacked with itself, one slice higher, under UIDs of our own.
    syntaxes = set()
    for header in (header for headers in series_below(shared_data(name)) for header in headers):
        if header.sop.sop_class_uid not in SINGLE_FRAME or header.position is None:
            continue
        syntaxes.add(header.transfer_syntax)
        if header.transfer_syntax == JPEG_EXTENDED and header.bits_stored == 12:
            with pytest.raises(DecodingError, match=r"SOP instance 2\.25\.1, transfer syntax .*4\.51 \(JPEG Extended"):
                build_volume(with_copy_above(header), max_bytes=LIMIT)
            continue
        volume = build_volume(with_copy_above(header), max_bytes=LIMIT)
        expected = pixels_of(header.path)
        assert np.array_equal(volume.voxels, np.stack([expected, expected])), header.path
    assert syntaxes


def with_copy_above(header: ImageHeader) -> list[ImageHeader]:
    assert header.orientation is not None
    assert header.position is not None
    normal = np.cross(header.orientation[:3], header.orientation[3:])
    above = tuple(np.array(header.position) + 2.0 * normal / np.linalg.norm(normal))
    alike = {"frame_of_reference_uid": "2.25.3", "study_uid": "2.25.4", "series_uid": "2.25.5"}
    return [
        replace(header, sop=SopReference(header.sop.sop_class_uid, uid), position=position, **alike)
        for uid, position in (("2.25.1", header.position), ("2.25.2", above))
    ]


def test_nine_transfer_syntaxes_of_one_slice_decode_to_what_pydicom_decodes(shared_data: SharedData) -> None:
    (headers,) = series_below(shared_data("dcm_qa_ts"))
    assert len({header.transfer_syntax for header in headers}) >= 7
    for header in headers:
        pixels = np.empty((header.rows, header.columns), voxel_type(header))
        decode_into(header, pixels)
        assert np.array_equal(pixels, pixels_of(header.path)), header.path


def test_jpeg_2000_abdomen_makes_its_volume_once_the_empty_uids_are_filled(shared_data: SharedData) -> None:
    (headers,) = series_below(shared_data("ct_abdomen_totalseg20"))
    named = [
        replace(header, sop=SopReference(SINGLE_FRAME[0], f"2.25.{number}"), series_uid="2.25.1000")
        for number, header in enumerate(headers)
    ]
    if not named[0].study_uid:
        named = [replace(header, study_uid="2.25.1001") for header in named]
    volume = build_volume(named, max_bytes=LIMIT)
    assert volume.voxels.shape == (20, 512, 512)
    assert volume.geometry.spacing == (2.0, 0.9765625, 0.9765625)
    assert_equal(volume, named)


def test_lidc_padding_is_minus_2000_though_its_vr_says_63536(shared_data: SharedData) -> None:
    (headers,) = series_below(shared_data("ct_chest_LIDC-IDRI-0001"))
    volume = build_volume(headers, max_bytes=LIMIT)
    assert volume.padding == -2000
    assert volume.unit == "[hnsf'U]"


def test_a_series_without_a_slice_is_refused_with_the_gap(shared_data: SharedData) -> None:
    (headers,) = series_below(shared_data("ct_chest_LIDC-IDRI-0001"))
    left = [header for header in headers if header.position is None or header.position[2] != -110.0]
    with pytest.raises(GeometryRefusal, match=r"1 between -112\.50 mm and -107\.50 mm"):
        build_volume(left, max_bytes=LIMIT)
