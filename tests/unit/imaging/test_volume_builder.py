"""Volumes of synthetic series: every stored value in its place, every encoding, every refusal with its reason."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from node.domain.volume import Volume
from node.errors import DecodingError, GeometryRefusal, NotUnderstood, Refusal
from node.imaging.headers import read_header, read_headers
from node.imaging.volume_builder import build_volume
from tests.series_factory import SeriesPlan, write_series

LIMIT = 1 << 24
VOXELS = np.random.default_rng(5).integers(-1000, 3000, (5, 12, 9)).astype(np.int16)
# JPEG 2000 wants a few wavelet levels.
TWELVE_BITS = np.random.default_rng(6).integers(0, 4096, (5, 64, 48)).astype(np.uint16)
Edit = Callable[[Dataset], None]


def rewrite(paths: list[Path], edit: Edit, **saving: Any) -> None:
    for path in paths:
        data_set = pydicom.dcmread(path)
        edit(data_set)
        data_set.save_as(path, **saving)


def built(paths: list[Path]) -> Volume:
    return build_volume(read_headers(paths), max_bytes=LIMIT)


def in_place(volume: Volume, paths: list[Path]) -> np.ndarray:
    """What pydicom decodes, stacked in the order of the volume's sources."""
    by_uid = {(data_set := pydicom.dcmread(path)).SOPInstanceUID: data_set for path in paths}
    return np.stack([by_uid[source.sop_instance_uid].pixel_array for source in volume.sources])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.int8])
def test_stored_values_of_a_shuffled_series_stand_in_their_places(dtype: type, tmp_path: Path) -> None:
    limits = np.iinfo(dtype)
    voxels = np.random.default_rng(1).integers(limits.min, limits.max, (6, 5, 8), endpoint=True).astype(dtype)
    paths = write_series(SeriesPlan(voxels=voxels, shuffle=True), tmp_path)
    volume = built(paths)
    assert np.array_equal(volume.voxels, voxels)
    assert volume.voxels.dtype == (np.int16 if dtype is np.int8 else dtype)
    assert volume.unit == "[hnsf'U]"
    assert volume.slope.tolist() == [1.0] * 6
    assert volume.intercept.tolist() == [-1024.0] * 6
    assert np.array_equal(volume.voxels, in_place(volume, paths))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian]
)
@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_every_native_encoding_gives_the_same_volume(syntax: pydicom.uid.UID, dtype: type, tmp_path: Path) -> None:
    voxels = (VOXELS % 251).astype(dtype)
    paths = write_series(SeriesPlan(voxels=voxels, shuffle=True), tmp_path)

    def encode(data_set: Dataset) -> None:
        if syntax == ExplicitVRBigEndian and dtype is np.int16:
            data_set.PixelData = data_set.pixel_array.astype(">i2").tobytes()
        data_set.file_meta.TransferSyntaxUID = syntax

    for path in paths:
        data_set = pydicom.dcmread(path)
        encode(data_set)
        pydicom.dcmwrite(
            path,
            data_set,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
            force_encoding=True,
        )
    assert {header.transfer_syntax for header in read_headers(paths)} == {syntax}
    assert np.array_equal(built(paths).voxels, voxels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_every_lossless_compression_gives_the_same_volume(syntax: pydicom.uid.UID, tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=TWELVE_BITS, shuffle=True), tmp_path)
    rewrite(paths, lambda data_set: data_set.compress(syntax, generate_instance_uid=False))
    assert all(header.pixel_offset is None and header.pixel_length == -1 for header in read_headers(paths))
    assert np.array_equal(built(paths).voxels, TWELVE_BITS)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_bits_that_are_not_stored_are_dropped(
    *, signed: bool, high_bit: int, syntax: pydicom.uid.UID, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(-2048, 2048, (3, 4, 6)) if signed else rng.integers(0, 4096, (3, 4, 6))
    low = high_bit - 11
    mask = (0xFFF << low) & 0xFFFF
    rubbish = rng.integers(0, 1 << 16, values.shape) & ~mask & 0xFFFF
    stored = (((values << low) & mask) | rubbish).astype(np.uint16)
    paths = write_series(SeriesPlan(voxels=stored), tmp_path)

    def twelve_bits(data_set: Dataset) -> None:
        data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 12, high_bit, int(signed)
        data_set.file_meta.TransferSyntaxUID = syntax

    rewrite(paths, twelve_bits)
    assert np.array_equal(built(paths).voxels, values)


def test_padding_is_read_as_the_pixels_are_whatever_its_vr_says(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS), tmp_path)

    def as_ge_writes_it(data_set: Dataset) -> None:
        data_set.add_new(0x00280120, "US", 63536)

    rewrite(paths, as_ge_writes_it)
    assert built(paths).padding == -2000


@pytest.mark.parametrize(
    ("dtype", "stored", "stated", "padding"),
    [
        (np.uint8, 8, 65535, None),
        (np.uint8, 8, 255, 255),
        (np.uint16, 12, 63536, None),
        (np.uint16, 12, 4095, 4095),
        (np.uint16, 16, 63536, 63536),
        (np.int16, 12, 0x8000, None),
        (np.int16, 12, 63536, -2000),
        (np.int16, 12, 0x0800, -2048),
        (np.int8, 8, 0xFF80, -128),
        (np.int8, 8, 63536, None),
    ],
)
def test_padding_that_no_pixel_can_hold_is_none(
    dtype: type, stored: int, stated: int, padding: int | None, tmp_path: Path
) -> None:
    paths = write_series(SeriesPlan(voxels=np.ones((3, 4, 6), dtype)), tmp_path)

    def states_it(data_set: Dataset) -> None:
        data_set.BitsStored, data_set.HighBit = stored, stored - 1
        data_set.add_new(0x00280120, "US", stated)

    rewrite(paths, states_it)
    assert built(paths).padding == padding


def test_slope_and_intercept_belong_to_their_slice(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS, shuffle=True), tmp_path)

    def by_height(data_set: Dataset) -> None:
        data_set.RescaleSlope = f"{2 + float(data_set.ImagePositionPatient[2]) / 100:.6f}"
        data_set.RescaleIntercept = str(data_set.ImagePositionPatient[2])

    rewrite(paths, by_height)
    volume = built(paths)
    heights = 40 + 2.5 * np.arange(5)
    assert volume.intercept == pytest.approx(heights)
    assert volume.slope == pytest.approx(2 + heights / 100, abs=1e-6)


def test_unit_of_pet_comes_from_units(tmp_path: Path) -> None:
    def as_pet(units: str, suv_type: str | None) -> str:
        folder = tmp_path / f"{units}{suv_type}"
        attributes = {
            "Modality": "PT",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128",
            "Units": units,
            "RescaleType": units,
        }
        if suv_type:
            attributes["SUVType"] = suv_type
        return built(write_series(SeriesPlan(voxels=VOXELS, attributes=attributes), folder)).unit

    assert as_pet("BQML", None) == "Bq/ml"
    assert as_pet("GML", None) == "g/ml{SUVbw}"
    assert as_pet("GML", "LBM") == "g/ml{SUVlbm}"
    assert as_pet("CM2ML", None) == "cm2/ml{SUVbsa}"
    assert as_pet("ODD", None) == "1"


def test_unit_of_mr_is_one(tmp_path: Path) -> None:
    assert built(write_series(SeriesPlan(voxels=VOXELS, modality="MR"), tmp_path)).unit == "1"


def test_twelve_bit_jpeg_is_a_decoding_error_that_names_instance_and_transfer_syntax(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=TWELVE_BITS), tmp_path)

    def as_jpeg(data_set: Dataset) -> None:
        # An Extended JPEG frame of 12 bits: SOI, SOF1 with precision 12, EOI.
        frame = bytes.fromhex("ffd8 ffc1000b0c0040003001011100 ffd9 00")
        data_set.PixelData = pydicom.encaps.encapsulate([frame])
        data_set.file_meta.TransferSyntaxUID = JPEGExtended12Bit
        data_set.BitsStored, data_set.HighBit = 12, 11

    rewrite(paths, as_jpeg)
    uid = read_header(paths[0]).sop.sop_instance_uid
    with pytest.raises(DecodingError) as caught:
        built(paths)
    assert f"SOP instance {uid}" in str(caught.value)
    assert "1.2.840.10008.1.2.4.51" in str(caught.value)


def test_a_torn_compressed_frame_is_a_decoding_error(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=TWELVE_BITS), tmp_path)
    rewrite(paths, lambda data_set: data_set.compress(RLELossless, generate_instance_uid=False))
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-60])
    with pytest.raises(DecodingError, match=read_header(paths[2]).sop.sop_instance_uid):
        built(paths)


def test_compressed_pixels_of_another_size_than_the_header_says_are_a_decoding_error(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=TWELVE_BITS), tmp_path)
    rewrite(paths, lambda data_set: data_set.compress(JPEG2000Lossless, generate_instance_uid=False))
    rewrite(paths, lambda data_set: setattr(data_set, "Rows", 32))
    with pytest.raises(DecodingError, match="JPEG 2000"):
        built(paths)


def test_a_file_torn_within_its_pixels_is_a_decoding_error(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS), tmp_path)
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-20])
    with pytest.raises(DecodingError, match="the file ends after 196 of 216 bytes of Pixel Data"):
        built(paths)


def test_a_file_that_went_away_is_no_fault_of_the_image(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS), tmp_path)
    headers = read_headers(paths)
    paths[1].unlink()
    with pytest.raises(FileNotFoundError):
        build_volume(headers, max_bytes=LIMIT)


def test_no_pixel_data_is_a_refusal(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS), tmp_path)
    rewrite(paths[2:3], lambda data_set: data_set.__delitem__("PixelData"))
    with pytest.raises(Refusal, match=r"no Pixel Data \(7FE0,0010\)"):
        built(paths)


def test_rgb_in_a_ct_series_is_a_refusal(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS), tmp_path)

    def as_rgb(data_set: Dataset) -> None:
        data_set.SamplesPerPixel, data_set.PhotometricInterpretation, data_set.PlanarConfiguration = 3, "RGB", 0
        data_set.BitsAllocated = data_set.BitsStored = 8
        data_set.HighBit = 7
        data_set.PixelData = bytes(data_set.Rows * data_set.Columns * 3)

    rewrite(paths[3:4], as_rgb)
    with pytest.raises(Refusal, match=r"3 samples per pixel \(RGB\)"):
        built(paths)


def test_a_modality_lut_is_a_refusal(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(voxels=VOXELS), tmp_path)

    def with_lut(data_set: Dataset) -> None:
        lut = Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [2, 0, 16], "US", b"\0\0\1\0"
        data_set.ModalityLUTSequence = Sequence([lut])

    rewrite(paths, with_lut)
    with pytest.raises(Refusal, match="Modality LUT"):
        built(paths)


def test_one_slice_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(GeometryRefusal, match="at least two slices"):
        built(write_series(SeriesPlan(voxels=VOXELS[:1]), tmp_path))


def test_a_volume_larger_than_allowed_is_a_refusal_before_memory_is_taken(tmp_path: Path) -> None:
    headers = read_headers(write_series(SeriesPlan(voxels=VOXELS), tmp_path))
    huge = [replace(header, rows=60000, columns=60000, pixel_length=1 << 33) for header in headers]
    with pytest.raises(Refusal, match=r"takes 36000 MB, more than the 17 MB allowed \(processing.max_volume_mb\)"):
        build_volume(huge, max_bytes=LIMIT)


@pytest.mark.parametrize("spare", [0, 1000])
def test_a_volume_is_built_into_the_memory_given(spare: int, tmp_path: Path) -> None:
    headers = read_headers(write_series(SeriesPlan(voxels=VOXELS, shuffle=True), tmp_path))
    memory = bytearray(VOXELS.nbytes + spare)
    volume = build_volume(headers, max_bytes=LIMIT, room=lambda _byte_size: memoryview(memory))
    assert np.array_equal(volume.voxels, VOXELS)
    assert bytes(memory[: VOXELS.nbytes]) == VOXELS.tobytes()


def test_memory_that_is_too_small_is_left_alone(tmp_path: Path) -> None:
    memory = bytearray(VOXELS.nbytes - 1)
    headers = read_headers(write_series(SeriesPlan(voxels=VOXELS), tmp_path))
    volume = build_volume(headers, max_bytes=LIMIT, room=lambda _byte_size: memoryview(memory))
    assert np.array_equal(volume.voxels, VOXELS)
    assert not any(memory)


def test_a_deflate_bomb_is_cut_off(tmp_path: Path) -> None:
    path = write_series(SeriesPlan(voxels=VOXELS), tmp_path)[0]
    data_set = pydicom.dcmread(path)
    data_set.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data_set.add_new(0x00091001, "OB", bytes(80 << 20))
    data_set.save_as(path)
    with pytest.raises(NotUnderstood, match="16 MiB"):
        read_header(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_an_input_error_of_the_machine_is_no_fault_of_the_image(
    syntax: pydicom.uid.UID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_series(SeriesPlan(voxels=TWELVE_BITS), tmp_path)
    if syntax == RLELossless:
        rewrite(paths, lambda data_set: data_set.compress(syntax, generate_instance_uid=False))
    elif syntax == ImplicitVRLittleEndian:
        for path in paths:
            pydicom.dcmwrite(path, pydicom.dcmread(path), implicit_vr=True, little_endian=True, force_encoding=True)
    headers = read_headers(paths)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.open", fail)
    monkeypatch.setattr("pathlib.Path.open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        build_volume(headers, max_bytes=LIMIT)
    with pytest.raises(OSError, match="Input/output error"):
        read_header(paths[0])
