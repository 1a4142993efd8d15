"""What a child leaves is taken only as what was asked for."""

from pathlib import Path
from typing import Any

import pytest

from protos.model_manifest import MANIFEST_FILE, ModelBundle, write_digest_list, write_manifest
from tests.bundles import threshold_bundle
from training.importing.errors import ConversionFailed
from training.importing.parent import _checked


@pytest.fixture
def left(tmp_path: Path) -> ModelBundle:
    return threshold_bundle(tmp_path)


def test_a_bundle_as_asked_for_is_taken(left: ModelBundle) -> None:
    asked = left.manifest.model_copy(update={"golden": None})
    assert _checked(left.directory, asked) == left.directory


@pytest.mark.parametrize(
    "changes",
    [
        {"licence": "another"},
        {"golden": None},
        {"memory": {"base_mb": float("nan"), "bytes_per_voxel": 1.0}},
        {"memory": {"base_mb": 0.0, "bytes_per_voxel": 1.0}},
    ],
)
def test_another_manifest_is_not(changes: dict[str, Any], left: ModelBundle) -> None:
    asked = left.manifest.model_copy(update={"golden": None})
    written = type(left.manifest).model_validate({**left.manifest.model_dump(), **changes})
    write_manifest(written, left.directory / MANIFEST_FILE)
    write_digest_list(left.directory)
    with pytest.raises(ConversionFailed):
        _checked(left.directory, asked)


def test_more_files_links_and_damage_are_not(left: ModelBundle) -> None:
    asked = left.manifest.model_copy(update={"golden": None})
    extra = left.directory / "run.py"
    extra.write_text("print()", encoding="utf-8")
    write_digest_list(left.directory)
    with pytest.raises(ConversionFailed, match="another bundle"):
        _checked(left.directory, asked)
    extra.unlink()
    with pytest.raises(ConversionFailed, match="no sound bundle"):
        _checked(left.directory, asked)
    extra.symlink_to("/etc/hostname")
    with pytest.raises(ConversionFailed, match="no sound bundle"):
        _checked(left.directory, asked)
