import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import encode

from node.errors import NotUnderstood
from node.intake.data_set_walk import walk
from node.intake.presentation import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, TRANSFER_SYNTAXES

JPEG = "1.2.840.10008.1.2.4.50"


def sample() -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data_set.SOPInstanceUID = "1.2.3"
    data_set.Modality = "CT"
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "9.9"
    inner.PurposeOfReferenceCodeSequence = Sequence([Dataset()])
    data_set.ReferencedImageSequence = Sequence([inner, Dataset()])
    data_set.StudyInstanceUID = "1.2"
    data_set.SeriesInstanceUID = "1.2.1"
    data_set.add_new(0x00091001, "UN", b"private")
    data_set.PixelData = bytes(100)
    data_set["PixelData"].VR = "OW"
    return data_set


def encoded(syntax: str) -> bytes:
    is_deflated = syntax == DEFLATED
    return encode(sample(), syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG, is_deflated) or b""


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])
def test_the_uids_are_found_in_every_encoding(syntax: str) -> None:
    outline = walk(memoryview(encoded(syntax)), syntax)
    assert (outline.sop_class_uid, outline.sop_instance_uid) == ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    assert (outline.study_uid, outline.series_uid, outline.modality) == ("1.2", "1.2.1", "CT")


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])
def test_no_cut_goes_unnoticed_within_the_last_element(syntax: str) -> None:
    whole = encoded(syntax)
    for missing in range(1, 50):
        with pytest.raises(NotUnderstood):
            walk(memoryview(whole)[:-missing], syntax)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255), syntax=st.sampled_from(TRANSFER_SYNTAXES))
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_is_refused_or_walked_but_never_crashes(position: int, value: int, syntax: str) -> None:
    changed = bytearray(encoded(syntax))
    changed[position % len(changed)] = value
    _walk_or_refuse(bytes(changed), syntax)


@given(rubbish=st.binary(max_size=300), syntax=st.sampled_from(TRANSFER_SYNTAXES))
@settings(max_examples=400, deadline=None)
def test_random_bytes_never_crash(rubbish: bytes, syntax: str) -> None:
    _walk_or_refuse(rubbish, syntax)


def _walk_or_refuse(data: bytes, syntax: str) -> None:
    with suppress(NotUnderstood):
        walk(memoryview(data), syntax)


def test_encapsulated_pixels_are_walked_by_fragment() -> None:
    head = struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert walk(memoryview(head + fragment * 3 + end), JPEG).elements == 5
    for broken in (head + fragment, head + fragment[:-1], head + fragment + end[:-1], head + fragment * 2 + end + b"x"):
        with pytest.raises(NotUnderstood):
            walk(memoryview(broken), JPEG)
    with pytest.raises(NotUnderstood, match="undefined length"):
        walk(memoryview(head + fragment + end), EXPLICIT_LITTLE)


def test_unknown_sequence_of_undefined_length_is_implicit_inside() -> None:
    head = struct.pack("<HH2s2xI", 0x0009, 0x1010, b"UN", 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 12) + struct.pack("<HHI", 0x0009, 0x1011, 4) + b"abcd"
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert walk(memoryview(head + item + end), EXPLICIT_LITTLE).elements == 4


def test_too_many_elements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.intake.data_set_walk.MOST_ELEMENTS", 100)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    head = struct.pack("<HH2s2xI", 0x0008, 0x1140, b"SQ", 8 * 200)
    with pytest.raises(NotUnderstood, match="more than 100 elements"):
        walk(memoryview(head + item * 200), EXPLICIT_LITTLE)


def test_deflated_rubbish_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for rubbish in (b"\xff\xff\xff\xff", b"", encoded(DEFLATED)[:-20]):
        with pytest.raises(NotUnderstood):
            walk(memoryview(rubbish), DEFLATED)
    monkeypatch.setattr("node.intake.data_set_walk.MOST_INFLATED_BYTES", 1 << 20)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    with pytest.raises(NotUnderstood, match="more than 1 MiB"):
        walk(memoryview(bomb.compress(bytes(2 << 20)) + bomb.flush()), DEFLATED)


def test_every_whole_file_that_pydicom_ships_is_walked() -> None:
    refused = {}
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"):
        found = _split(path)
        if found:
            try:
                walk(*found)
            except NotUnderstood as refusal:
                refused[path.name] = str(refusal)
    assert set(refused) == BROKEN, refused


BROKEN = {
    "MR_truncated.dcm",
    # Elements in group 0001, which PS3.5 7.8 forbids.
    "nested_priv_SQ.dcm",
    "rtplan_truncated.dcm",
    # Says JPEG, which is explicit VR, and is encoded in implicit VR.
    "SC_rgb_jpeg.dcm",
}


def _split(path: Path) -> tuple[memoryview, str] | None:
    content = path.read_bytes()
    if content[128:132] != b"DICM" or content[132:136] != b"\2\0\0\0":
        return None
    meta = pydicom.filereader.read_file_meta_info(path)
    if "TransferSyntaxUID" not in meta:
        return None
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    return memoryview(content)[start:], str(meta.TransferSyntaxUID)


@pytest.mark.parametrize("name", ["wg04_compressed", "dcm_qa_ts", "ct_head_philips28", "highdicom_test_files"])
def test_real_instances_are_walked(shared_data: Callable[[str], Path], name: str) -> None:
    walked = 0
    for path in shared_data(name).rglob("*"):
        found = _split(path) if path.is_file() else None
        if found:
            assert walk(*found).elements > 5
            walked += 1
    assert walked > 0
