"""What lies in a bundle folder is held to its list and to the manifest before TensorFlow runs any of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.bundle_files import LIST_BYTES_MOST, MANIFEST_BYTES_MOST
from protos.model_manifest import DIGEST_LIST_FILE, MANIFEST_FILE, ManifestError, open_bundle, write_digest_list
from tests.bundles import threshold_bundle

pytest.importorskip("tensorflow")

from inference import golden
from inference.bundle_check import quarantined
from inference.errors import BundleRefused

FILES = ("saved_model.pb", "model.toml", "golden.npz", "bundle.sha256")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sound bundle in a models folder of its own."""
    return threshold_bundle(tmp_path / "models").directory


def reason_of(bundle: Path) -> str:
    """Give why the one bundle is quarantined."""
    [(name, version, reason)] = quarantined(bundle.parents[1])
    assert (name, version) == ("bright_regions", "1")
    return reason


def rewritten(bundle: Path, change: Callable[[str], str]) -> None:
    """Change the manifest and list it anew, as one with bad intent would."""
    path = bundle / MANIFEST_FILE
    before = path.read_text(encoding="utf-8")
    assert change(before) != before
    path.write_text(change(before), encoding="utf-8")
    write_digest_list(bundle)


def test_a_sound_bundle_is_not_quarantined(bundle: Path) -> None:
    assert quarantined(bundle.parents[1]) == []


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", FILES)
def test_one_byte_flipped_in_any_file_is_refused(bundle: Path, name: str, place: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (bundle / name).write_bytes(content)
    assert DIGEST_LIST_FILE in reason_of(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(bundle: Path, name: str) -> None:
    os.truncate(bundle / name, (bundle / name).stat().st_size // 2)
    assert DIGEST_LIST_FILE in reason_of(bundle)


def test_two_files_that_changed_places_are_refused(bundle: Path) -> None:
    (bundle / "golden.npz").rename(bundle / "other")
    (bundle / "saved_model.pb").rename(bundle / "golden.npz")
    (bundle / "other").rename(bundle / "saved_model.pb")
    assert "content is not what bundle.sha256 lists" in reason_of(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_place_of_a_file_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)
    with pytest.raises(ManifestError, match=rf"{name}: is a symbolic link"):
        open_bundle(bundle)


def test_a_linked_folder_and_a_pipe_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "assets").symlink_to(tmp_path, target_is_directory=True)
    assert "assets: is a symbolic link" in reason_of(bundle)
    (bundle / "assets").unlink()
    os.mkfifo(bundle / "pipe")
    assert "pipe: is no plain file" in reason_of(bundle)


def test_a_second_list_in_a_folder_is_a_file_like_others(bundle: Path) -> None:
    (bundle / "deeper").mkdir()
    (bundle / "deeper" / DIGEST_LIST_FILE).write_bytes(b"")
    assert "deeper/bundle.sha256" in reason_of(bundle)


@pytest.mark.parametrize("path", ["../1/model.toml", "/etc/hostname", "./model.toml", "a//b", "a\\b", "a/../b"])
def test_a_listed_path_out_of_the_folder_is_refused(bundle: Path, path: str) -> None:
    with (bundle / DIGEST_LIST_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{'0' * 64}  {path}\n")
    assert "a path must lie in the folder" in reason_of(bundle)


def test_a_path_listed_twice_is_refused(bundle: Path) -> None:
    path = bundle / DIGEST_LIST_FILE
    path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")
    assert "twice" in reason_of(bundle)


@pytest.mark.parametrize(("name", "most"), [(DIGEST_LIST_FILE, LIST_BYTES_MOST), (MANIFEST_FILE, MANIFEST_BYTES_MOST)])
def test_what_is_too_large_is_not_parsed(bundle: Path, name: str, most: int) -> None:
    os.truncate(bundle / name, most + 1)
    if name == MANIFEST_FILE:
        write_digest_list(bundle)
    assert f"{name}: expected at most {most} bytes" in reason_of(bundle)


def test_a_golden_pair_that_unpacks_to_too_much_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "GOLDEN_BYTES_MOST", 8000)
    assert (bundle / "golden.npz").stat().st_size < 8000
    assert "golden.npz: expected at most 8000 bytes" in reason_of(bundle)


def test_a_golden_pair_that_is_no_archive_is_refused(bundle: Path) -> None:
    (bundle / "golden.npz").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    write_digest_list(bundle)
    assert "not a golden pair" in reason_of(bundle)


def test_a_golden_pair_outside_the_folder_is_refused(bundle: Path) -> None:
    shutil.copy(bundle / "golden.npz", bundle.parent / "golden.npz")
    rewritten(bundle, lambda text: text.replace('"golden.npz"', '"../golden.npz"'))
    assert "golden.file: expected a file of the bundle" in reason_of(bundle)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "probability"\ndatatype = "UINT8"', 'name = "probability"\ndatatype = "UINT16"', "'probability'"),
        ('name = "spacing"', 'name = "pitch"', "'pitch'"),
        ('datatype = "INT16"', 'datatype = "INT32"', "'image'"),
        ('runtime_minimum = ""', 'runtime_minimum = "99.1"', "needs TensorFlow 99.1"),
    ],
)
def test_a_manifest_at_odds_with_the_signature_is_refused_by_name(
    bundle: Path, old: str, new: str, reason: str
) -> None:
    rewritten(bundle, lambda text: text.replace(old, new, 1))
    assert reason in reason_of(bundle)


@pytest.mark.parametrize(("table", "part"), [("batching", "prepare"), ("slabs", "slab")])
def test_parts_that_the_graph_lacks_are_refused_by_name(bundle: Path, table: str, part: str) -> None:
    rewritten(bundle, lambda text: f"{text}\n[{table}]\n")
    assert f"has [{table}], the graph no signature '{part}'" in reason_of(bundle)


def test_a_golden_file_that_vanished_is_a_refusal(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (bundle / "golden.npz").unlink()
    with pytest.raises(BundleRefused, match="not a golden pair"):
        golden.read_golden(opened)
