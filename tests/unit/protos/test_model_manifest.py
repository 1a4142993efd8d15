import re
from pathlib import Path

import pytest

from protos.model_manifest import (
    DIGEST_LIST_FILE,
    MANIFEST_FILE,
    Figure,
    Golden,
    ManifestError,
    ModelManifest,
    bundle_directories,
    open_bundle,
    read_manifest,
    write_digest_list,
    write_manifest,
)
from tests.bundles import threshold_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle, but for its graph: the manifest does not look into it."""
    directory = tmp_path / "bright_regions" / "1"
    directory.mkdir(parents=True)
    write_manifest(threshold_manifest(), directory / MANIFEST_FILE)
    (directory / "saved_model.pb").write_bytes(bytes(range(256)))
    write_digest_list(directory)
    return directory


def full_manifest() -> ModelManifest:
    return threshold_manifest().model_copy(
        update={
            "golden": Golden(file="golden.npz", tolerance={"cpu": 1e-3}),
            "figures": (Figure(name="Dice", value=0.55, dataset="LIDC-IDRI", n=40, low=0.5, high=0.6),),
            "calibration": 'temperature 1.3, "held-out" \\ split',
        }
    )


@pytest.mark.parametrize("manifest", [threshold_manifest(), full_manifest()], ids=["small", "full"])
def test_a_written_manifest_reads_back_equal(manifest: ModelManifest, tmp_path: Path) -> None:
    write_manifest(manifest, tmp_path / MANIFEST_FILE)
    assert read_manifest(tmp_path / MANIFEST_FILE) == manifest


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        ("schema_version = 1", "schema_version = 2", "schema_version", "2"),
        ('datatype = "INT16"', 'datatype = "BYTES"', "inputs.0.datatype", "'BYTES'"),
        ('axes = "SPL"', 'axes = "SPA"', "accepts", "'SPA'"),
        ('name = "bright_regions"', 'name = "Bright Regions"', "identity.name", "'Bright Regions'"),
        ("threshold = 0.5", "threshold = 1.5", "findings.0.threshold", "1.5"),
        ('output = "probability"', 'output = "heat"', "document", "'heat'"),
        ("base_mb = 50.0", "base_mb = 50.0\nbase_gb = 1", "memory.base_gb", "1"),
        ('licence = "Apache-2.0"', "", "licence", "Field required"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_value(bundle: Path, old: str, new: str, field: str, value: str) -> None:
    path = bundle / MANIFEST_FILE
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ManifestError) as refusal:
        read_manifest(path)
    assert all(part in str(refusal.value) for part in (str(path), field, value))


@pytest.mark.parametrize("content", [b"schema_version = ", b"\xff\xfe", b""])
def test_what_is_not_a_manifest_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / MANIFEST_FILE
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=re.escape(str(path))):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"model\.toml: no such file$"):
        read_manifest(tmp_path / "model.toml")


def test_an_untouched_bundle_opens_with_the_digest_of_its_list(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.digest == write_digest_list(bundle)
    assert opened.manifest == threshold_manifest()


@pytest.mark.parametrize("name", ["saved_model.pb", MANIFEST_FILE])
@pytest.mark.parametrize("place", [0, -1])
def test_one_flipped_bit_in_any_file_is_refused_by_name(bundle: Path, name: str, place: int) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[place] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ManifestError, match=rf"{name}.*not what {DIGEST_LIST_FILE} lists"):
        open_bundle(bundle)


def test_a_changed_digest_list_is_refused(bundle: Path) -> None:
    path = bundle / DIGEST_LIST_FILE
    text = path.read_text(encoding="utf-8")
    path.write_text(("0" if text[0] != "0" else "1") + text[1:], encoding="utf-8")
    with pytest.raises(ManifestError, match=r"not what bundle\.sha256 lists"):
        open_bundle(bundle)


def test_an_extra_file_is_refused_by_name(bundle: Path) -> None:
    (bundle / "variables").mkdir()
    (bundle / "variables" / "variables.index").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"variables/variables\.index"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["saved_model.pb", MANIFEST_FILE, DIGEST_LIST_FILE])
def test_a_missing_file_is_refused_by_name(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(ManifestError, match=re.escape(name)):
        open_bundle(bundle)


def test_a_bundle_under_another_name_or_version_is_refused(bundle: Path) -> None:
    moved = bundle.rename(bundle.parent / "2")
    with pytest.raises(ManifestError, match="identity bright_regions/1 must equal the folder names bright_regions/2"):
        open_bundle(moved)


def test_versions_are_ordered_as_numbers_and_unfinished_exports_left_out(bundle: Path) -> None:
    for version in ("10", "9", ".11.part"):
        directory = bundle.parent / version
        directory.mkdir()
        (directory / MANIFEST_FILE).write_bytes(b"")
    assert [path.name for path in bundle_directories(bundle.parents[1])] == ["1", "9", "10"]
