"""The lung nodule model that ships: whole, small, repeatable, and it finds what is plainly there."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.runners.whole import Predictor, load_predictor
from inference.settings import BUNDLED_MODELS
from node.domain.volume import Volume
from node.testing.phantom import phantom_volume
from protos.model_manifest import open_bundle
from training.evaluate import ScanScore, read_reader_nodules
from training.scan_evaluation import Scan, evaluate_scans, phantom_scan, read_series

DIRECTORY = BUNDLED_MODELS / "lung_nodule" / "1"


@functools.cache
def _predictor() -> Predictor:
    return load_predictor(open_bundle(DIRECTORY))


def _predict(volume: Volume) -> dict[str, NDArray[Any]]:
    spacing = np.array(volume.geometry.spacing, np.float32)
    image = volume.voxels.astype(np.int16)
    return _predictor().predict(
        {"image": image, "slope": volume.slope, "intercept": volume.intercept, "spacing": spacing}
    )


def _score(scan: Scan) -> ScanScore:
    return evaluate_scans(_predictor().manifest, _predict, [scan])[0][1]


def test_the_bundle_is_whole_small_and_says_what_it_must() -> None:
    manifest = open_bundle(DIRECTORY).manifest
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) <= 3 << 20
    assert "Research use" in manifest.use.research_use
    assert manifest.datasets[0].licence == "CC BY 3.0"
    assert "LIDC-IDRI" in manifest.datasets[0].credit
    assert len(manifest.datasets[0].digest) == 64
    assert manifest.figures
    assert manifest.use.limits


@pytest.mark.parametrize(("seed", "slices"), [(1, 120), (7, 40)])
def test_every_phantom_nodule_of_6_mm_and_more_is_found(seed: int, slices: int) -> None:
    scan = phantom_scan(phantom_volume(seed=seed, slices=slices), f"phantom {seed}", least_diameter_mm=6.0)
    assert scan.nodules
    score = _score(scan)
    print(f"phantom {seed}: found {score.found}, Dice {score.dice}, others {score.others}")
    assert all(score.found)


def test_the_same_study_twice_gives_the_same_bytes() -> None:
    scan = phantom_scan(phantom_volume(seed=2, slices=16), "phantom", least_diameter_mm=6.0)
    first, again = _predict(scan.volume), _predict(scan.volume)
    for name in first:
        assert first[name].tobytes() == again[name].tobytes()


@pytest.mark.parametrize("name", ["ct_chest_LIDC-IDRI-0001", "ct_chest_LIDC-IDRI-0002"])
def test_real_chest_ct_says_which_nodules_were_found(
    name: str, shared_data: Callable[[str], Path], shared_file: Callable[[str], Path]
) -> None:
    volume = read_series(shared_data(name), "SPL")
    nodules = read_reader_nodules(shared_file(f"dicom/{name}.nodules.json"), volume)
    assert len(nodules) == 1
    score = _score(Scan(name, volume, tuple(nodules)))
    print(f"{name}: found {score.found}, Dice {score.dice}, other candidates {score.others}")
    assert score.others <= 50
