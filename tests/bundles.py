"""Bundles that only tests use: real frozen graphs, built in a child process so that the caller loads no TensorFlow."""

import argparse
import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from protos.model_manifest import ModelBundle, ModelManifest, open_bundle

ROOT = Path(__file__).resolve().parents[1]
THRESHOLD_NAME = "bright_regions"


def threshold_manifest(
    modality: tuple[str, ...] = ("CT", "MR"), name: str = THRESHOLD_NAME, version: str = "1"
) -> ModelManifest:
    """Manifest of a model that marks voxels above mean + 2 standard deviations, of any series of 2 or more slices."""
    return ModelManifest.model_validate(
        {
            "schema_version": 1,
            "identity": {
                "name": name,
                "version": version,
                "title": "Bright regions",
                "manufacturer": "Hilum tests",
            },
            "use": {"intended_use": "Tests of the data path.", "research_use": "Not for use on patients."},
            "accepts": {
                "modalities": list(modality),
                "body_part_missing": "accept",
                "max_oblique_deg": 45.0,
                "slices": {"least": 2},
            },
            "inputs": [
                {"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]},
                {"name": "slope", "datatype": "FP32", "shape": [-1]},
                {"name": "intercept", "datatype": "FP32", "shape": [-1]},
                {"name": "spacing", "datatype": "FP32", "shape": [3]},
            ],
            "outputs": [{"name": "probability", "datatype": "UINT8", "shape": [-1, -1, -1]}],
            "findings": [
                {
                    "output": "probability",
                    "threshold": 0.5,
                    "min_voxels": 4,
                    "max_findings": 20,
                    "label": "Bright region",
                    "concept": {
                        "category": {
                            "value": "49755003",
                            "scheme": "SCT",
                            "meaning": "Morphologically Altered Structure",
                        },
                        "type": {"value": "4147007", "scheme": "SCT", "meaning": "Mass"},
                    },
                }
            ],
            "memory": {"base_mb": 50, "bytes_per_voxel": 16},
            "licence": "Apache-2.0",
        }
    )


def threshold_bundle(
    directory: Path, *, modality: tuple[str, ...] = ("CT", "MR"), name: str = THRESHOLD_NAME, version: str = "1"
) -> ModelBundle:
    """Put the threshold model into the models directory `directory`; built once a test session, then copied."""
    built = _built_once(modality, name, version)
    target = directory / name / version
    shutil.copytree(built, target)
    return open_bundle(target)


@functools.cache
def _built_once(modality: tuple[str, ...], name: str, version: str) -> Path:
    cache = Path(tempfile.mkdtemp(prefix="hilum-bundles-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    command = [sys.executable, "-m", "tests.bundles", str(cache), "--name", name, "--version", version]
    done = subprocess.run(
        [*command, *(f"--modality={item}" for item in modality)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return cache / name / version


def _build(directory: Path, modality: tuple[str, ...], name: str, version: str) -> None:
    import numpy as np
    import tensorflow as tf

    from training.export import export_bundle

    def bright(image: tf.Tensor, slope: tf.Tensor, intercept: tf.Tensor, spacing: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.cast(image, tf.float32) * slope[:, None, None] + intercept[:, None, None]
        mean, variance = tf.nn.moments(values, axes=[0, 1, 2])
        marked = values > mean + 2 * tf.sqrt(variance)
        possible = tf.reduce_all(spacing > 0)
        return {"probability": tf.where(marked & possible, tf.constant(255, tf.uint8), tf.constant(0, tf.uint8))}

    image = np.zeros((4, 32, 32), np.int16)
    image[1:3, 10:14, 10:14] = 1000
    rescale = {"slope": np.ones(4, np.float32), "intercept": np.full(4, -1024, np.float32)}
    golden = {"image": image, "spacing": np.array([2, 1, 1], np.float32), **rescale}
    export_bundle(bright, threshold_manifest(modality, name, version), directory, golden)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", default=THRESHOLD_NAME)
    parser.add_argument("--version", default="1")
    parser.add_argument("--modality", action="append", default=[])
    given = parser.parse_args()
    _build(given.directory, tuple(given.modality) or ("CT", "MR"), given.name, given.version)


if __name__ == "__main__":
    _main()
