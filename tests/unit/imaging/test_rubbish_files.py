"""Whatever bytes a file holds, reading its header and building a volume end in an answer of ours."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from node.domain.instances import ImageHeader
from node.errors import DecodingError, NotUnderstood, Refusal
from node.imaging import attribute_values as values
from node.imaging.headers import read_header, read_headers
from node.imaging.volume_builder import build_volume
from tests.series_factory import SeriesPlan, write_series

VOXELS = np.random.default_rng(2).integers(0, 4000, (2, 16, 16)).astype(np.uint16)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One image in each kind of encoding that the readers treat differently."""
    folder = tmp_path_factory.mktemp("samples")
    found = {}
    for name, syntax in (
        ("explicit", None),
        ("implicit", ImplicitVRLittleEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
        ("rle", RLELossless),
    ):
        path = write_series(SeriesPlan(voxels=VOXELS), folder / name)[0]
        data_set = pydicom.dcmread(path)
        data_set.ReferencedImageSequence = [pydicom.Dataset()]
        data_set.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "2.25.9"
        data_set["ReferencedImageSequence"].is_undefined_length = True
        if syntax == RLELossless:
            data_set.compress(syntax)
        elif syntax is not None:
            data_set.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, data_set, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        found[name] = path.read_bytes()
    return found


def answer(path: Path) -> ImageHeader | None:
    """Read and build; anything but our own errors fails the test."""
    try:
        header = read_header(path)
    except NotUnderstood as error:
        assert str(error)  # noqa: PT017  # every refusal says why
        return None
    try:
        build_volume([header, header], max_bytes=1 << 20)
    except (Refusal, DecodingError) as error:
        assert str(error)  # noqa: PT017  # every refusal says why
    return header


@pytest.mark.parametrize("name", ["explicit", "implicit", "deflated", "rle"])
def test_changed_bytes_never_crash(name: str, samples: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "changed.dcm"
    for seed in range(300):
        chance = random.Random(seed)
        changed = bytearray(samples[name])
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(128, len(changed))] = chance.choice((0, 255, chance.randrange(256)))
        path.write_bytes(changed)
        answer(path)


@pytest.mark.parametrize("name", ["explicit", "implicit", "deflated", "rle"])
def test_torn_files_never_crash(name: str, samples: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "torn.dcm"
    whole = samples[name]
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        answer(path)


@given(content=st.binary(max_size=600), prefixed=st.booleans())
@settings(max_examples=200, deadline=None)
@example(content=b"", prefixed=True)
@example(content=b"\x02\x00\x10\x00UI\xff\xff", prefixed=True)
def test_random_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, content: bytes, *, prefixed: bool) -> None:
    path = tmp_path_factory.mktemp("random") / "bytes.dcm"
    path.write_bytes((bytes(128) + b"DICM" if prefixed else b"") + content)
    answer(path)


def test_a_file_torn_before_its_pixels_is_not_understood_or_refused(tmp_path: Path) -> None:
    path = write_series(SeriesPlan(voxels=VOXELS), tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:700])
    assert answer(path) is None or read_header(path).pixel_length == 0


def test_sequences_nested_ten_thousand_deep_cost_no_recursion(tmp_path: Path) -> None:
    path = write_series(SeriesPlan(voxels=VOXELS), tmp_path)[0]
    whole = path.read_bytes()
    sequence = bytes.fromhex("08004011") + b"SQ\0\0" + b"\xff" * 4 + bytes.fromhex("feff00e0ffffffff")
    ends = bytes.fromhex("feff0de000000000feffdde000000000")
    at = whole.index(bytes.fromhex("10001000") + b"PN")
    path.write_bytes(whole[:at] + sequence * 10_000 + ends * 10_000 + whole[at:])
    assert read_header(path).rows == 16


@pytest.mark.parametrize(
    ("keyword", "raw", "named"),
    [
        ("ImagePositionPatient", b"1\\2", r"ImagePositionPatient \(0020,0032\).*2 values, where 3 are needed"),
        ("ImagePositionPatient", b"1\\2\\nan", "not a decimal number"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\1\\1e999 ", "not finite"),
        ("PixelSpacing", b"0,7\\0,7 ", r"PixelSpacing \(0028,0030\)"),
        ("RescaleSlope", b"1\\2 ", "2 values, where one is allowed"),
        ("RescaleIntercept", b"1_000 ", "not a decimal number"),
        ("NumberOfFrames", b"2.5 ", "not a whole number"),
    ],
)
def test_an_attribute_that_cannot_be_meant_is_named(keyword: str, raw: bytes, named: str, tmp_path: Path) -> None:
    path = write_series(SeriesPlan(voxels=VOXELS), tmp_path)[0]
    data_set = pydicom.dcmread(path)
    tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
    data_set._dict[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(raw), raw, 0, False, True)
    data_set.save_as(path)
    with pytest.raises(NotUnderstood, match=named):
        read_header(path)


def test_values_written_loosely_are_read_as_they_are_meant() -> None:
    assert values.decimals(b" 1.5\\-2e1 \\+.5\0") == (1.5, -20.0, 0.5)
    assert values.integer(b"12.0") == 12
    assert values.integer(b" ") is None
    assert values.decimals(b"") == ()
    assert values.short(b"", little_endian=True) is None
    assert values.short(b"\x01\x02", little_endian=False) == 258
    assert values.texts(b"ORIGINAL\\PRIMARY\\\\AXIAL ") == ("ORIGINAL", "PRIMARY", "", "AXIAL")


@pytest.mark.parametrize(
    ("raw", "years"),
    [(b"045Y", 45.0), (b"018M", 1.5), (b"002W", 14 / 365.2425), (b"010D", 10 / 365.2425), (b"7y", 7.0)],
)
def test_ages_are_years(raw: bytes, years: float) -> None:
    assert values.age_years(raw) == pytest.approx(years)


@pytest.mark.parametrize("raw", [b"", b"45", b"Y", b"1234Y", b"-01Y", b"forty"])
def test_ages_that_say_nothing_are_none(raw: bytes) -> None:
    assert values.age_years(raw) is None


def test_descriptions_are_read_in_their_character_set() -> None:
    assert values.described("胸部 CT".encode("gb18030"), b"GB18030") == "胸部 CT"
    assert values.described("Größe".encode("latin-1"), b"ISO_IR 100") == "Größe"
    assert values.described("肺".encode(), b"ISO_IR 192") == "肺"
    assert values.described(b"\xff\xfe", b"no such set") != ""
    assert values.described("腹部".encode("iso2022_jp"), b"\\ISO 2022 IR 87") == "腹部"


def test_read_headers_raises_for_the_first_bad_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotUnderstood):
        read_headers([tmp_path / "a"])
