"""`hilum models import` as people type it: networks become bundles that the real service serves and the node runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from node.domain.geometry import Geometry
from node.domain.prediction import Prediction
from protos.model_manifest import MANIFEST_FILE, open_bundle, read_manifest
from tests.foreign_models import (
    FILES,
    REACH,
    expected,
    expected_flat,
    flat_recipe,
    foreign_models,
    recipe_of,
    write_recipe,
)
from tests.inference_service import RunningService, client_of, running_service, volume_of
from tests.series_factory import SeriesPlan, write_series
from tests.waiting import wait_until

NETWORKS = {
    "keras": {"run": "blocks", "block": [13, 12, 11]},
    "h5": {"run": "whole"},
    "keras2": {"run": "windows", "window": [20, 24, 22]},
    "saved_model": {"run": "blocks", "block": [12, 13, 14], "halo": REACH},
}
GRIDS = [((9, 21, 33), (2.7, 0.9, 0.8)), ((31, 17, 12), (1.1, 1.7, 2.0)), ((1, 2, 1), (3.0, 1.0, 1.0))]


def hilum(*command: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-P", "-m", "node.cli", *map(str, command)]
    environment = {**os.environ, "COLUMNS": "240"}
    done = subprocess.run(full, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with every network imported."""
    models, recipes = tmp_path_factory.mktemp("imported") / "models", tmp_path_factory.mktemp("recipes")
    for kind, file in FILES.items():
        recipe = flat_recipe() if kind == "flat" else recipe_of(f"net_{kind}", network=NETWORKS[kind])
        path = write_recipe(recipes / f"{kind}.toml", recipe)
        done = hilum("models", "import", foreign_models() / file, path, "--models", models)
        assert done.returncode == 0, done.stderr
        assert "digest" in done.stdout
    return models


@pytest.fixture(scope="module")
def service(imported: Path) -> Iterator[RunningService]:
    with running_service(imported) as running:
        yield running


def stored(shape: tuple[int, ...]) -> NDArray[np.int16]:
    smooth = np.add.outer(np.add.outer(*(np.sin(np.arange(size) / 2.3) for size in shape[:2])), np.arange(shape[2]) / 9)
    return (300 + 200 * smooth + np.random.default_rng(3).normal(0, 60, shape)).astype(np.int16)


def answer(service: RunningService, name: str, voxels: Any, spacing: tuple[float, ...]) -> Prediction:
    volume = volume_of(voxels, slope=1.5, intercept=-20.0)
    geometry = replace(volume.geometry, spacing=spacing)
    assert isinstance(geometry, Geometry)
    with client_of(service.unix) as client:
        return client.infer(open_bundle(service.models / name / "1"), replace(volume, geometry=geometry))


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("kind", FILES)
def test_the_service_answers_what_numpy_says_on_the_input_grid(
    kind: str, shape: tuple[int, ...], spacing: tuple[float, ...], service: RunningService
) -> None:
    voxels = stored(shape)
    got = answer(service, "flat" if kind == "flat" else f"net_{kind}", voxels, spacing).outputs
    reference = expected_flat if kind == "flat" else expected
    labels, lead = reference(voxels * 1.5 - 20.0, spacing)
    assert got["labels"].shape == shape
    differs = got["labels"] != labels
    assert not differs[lead > 1e-3].any()
    assert differs.mean() <= 0.002
    assert 0 < got["certainty"].item() <= 1
    if voxels.size > 100:
        assert len(np.unique(labels)) > 1


def test_the_bundle_says_where_it_comes_from_and_passes_its_check(imported: Path) -> None:
    manifest = read_manifest(imported / "net_keras" / "1" / MANIFEST_FILE)
    assert manifest.origin is not None
    assert (manifest.origin.kind, manifest.origin.file) == ("keras", "net.keras")
    assert manifest.licence == "MIT"
    assert manifest.memory.base_mb > 0
    done = hilum("models", "check", imported / "net_keras" / "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Somebody else" in done.stdout
    assert "FAIL" not in done.stdout


def test_the_node_makes_coded_segments_of_a_series(imported: Path, service: RunningService, tmp_path: Path) -> None:
    voxels = stored((12, 40, 36)).astype(np.uint16)
    plan = SeriesPlan(voxels, modality="MR", spacing=(2.0, 1.0, 1.0), orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    write_series(plan, tmp_path / "in")
    out = tmp_path / "out"
    done = hilum(
        "run", tmp_path / "in", "--out", out, "--models", imported, "--model", "net_keras", "--endpoint", service.unix
    )
    assert done.returncode == 0, done.stdout + done.stderr
    objects = [dcmread(path) for path in out.rglob("*.dcm")]
    (segmentation,) = (item for item in objects if item.Modality == "SEG")
    found = {item.SegmentLabel: item for item in segmentation.SegmentSequence}
    assert set(found) == {"Liver", "Spleen"}
    assert found["Spleen"].SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert {item.Modality for item in objects} == {"SEG", "SR"}


@pytest.mark.parametrize(
    ("file", "network", "said"),
    [
        ("lambda.keras", {}, "is a Lambda, which runs Python code"),
        ("reads_file", {}, "holds the op 'ReadFile'"),
        ("scores.keras", {}, "expected a map on the tile's own grid"),
        ("net_saved", {"run": "blocks", "block": [16, 16, 16], "halo": 2}, "blocks answer otherwise than the whole"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_leaves_nothing(
    file: str, network: dict[str, Any], said: str, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", recipe_of(network={"run": "whole", **network}))
    done = hilum("models", "import", foreign_models() / file, recipe, "--models", tmp_path / "models")
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert not (tmp_path / "models").exists()


def test_labels_that_the_network_does_not_answer_are_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", recipe_of(labels=recipe_of()["labels"][:1]))
    done = hilum("models", "import", foreign_models() / "net.keras", recipe, "--models", tmp_path)
    assert done.returncode == 2
    assert "the network answers 3 classes, the recipe names 1" in done.stderr


def test_a_version_that_is_there_stays_unless_it_shall_be_replaced(imported: Path, tmp_path: Path) -> None:
    bundle = imported / "net_h5" / "1"
    before = open_bundle(bundle).digest
    recipe = write_recipe(tmp_path / "recipe.toml", recipe_of("net_h5", origin={"licence": "MIT", "credit": "Another"}))
    again = hilum("models", "import", foreign_models() / "net.h5", recipe, "--models", imported)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert "--replace" in again.stderr
    assert open_bundle(bundle).digest == before
    target = tmp_path / "models" / "net_h5" / "1"
    target.mkdir(parents=True)
    done = hilum("models", "import", foreign_models() / "net.h5", recipe, "--models", tmp_path / "models", "--replace")
    assert done.returncode == 0, done.stderr
    origin = open_bundle(target).manifest.origin
    assert origin is not None
    assert origin.credit == "Another"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net_h5"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_child_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", recipe_of())
    models = tmp_path / "models"
    command = ["models", "import", str(foreign_models() / "net.keras"), str(recipe), "--models", str(models)]
    full = [sys.executable, "-P", "-m", "node.cli", *command]
    with subprocess.Popen(full, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("checking and loading" in line for line in process.stderr)
        (work,) = models.glob(".import-*")
        children = [pid for pid in map(str, Path("/proc").iterdir()) if str(work).encode() in _command_line(pid)]
        process.send_signal(number)
        assert process.wait(60) in (130, 128 + number)
    assert len(children) == 1
    wait_until(lambda: not _command_line(children[0]), timeout_s=20, what="the end of the child")
    assert not models.exists()


def _command_line(process: str) -> bytes:
    try:
        return Path(process, "cmdline").read_bytes()
    except OSError:
        return b""
