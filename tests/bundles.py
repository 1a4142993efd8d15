"""Bundles that only tests use: real frozen graphs, built in a child process so that the caller loads no TensorFlow.

`python -m tests.bundles DIR` is that child.
"""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from protos.model_manifest import (
    MANIFEST_FILE,
    ModelBundle,
    ModelManifest,
    open_bundle,
    read_manifest,
    write_digest_list,
    write_manifest,
)

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
    """Put the threshold model into the models directory `directory`.

    The graph is built once a test session; another name, version or modality is another manifest beside the same graph.
    """
    built = _built_once()
    target = directory / name / version
    shutil.copytree(built, target)
    golden = read_manifest(built / MANIFEST_FILE).golden
    manifest = threshold_manifest(modality, name, version).model_copy(update={"golden": golden})
    write_manifest(manifest, target / MANIFEST_FILE)
    write_digest_list(target)
    return open_bundle(target)


@functools.cache
def _built_once() -> Path:
    cache = Path(tempfile.mkdtemp(prefix="hilum-bundles-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    command = [sys.executable, "-m", "tests.bundles", str(cache)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return cache / THRESHOLD_NAME / "1"


def _build(directory: Path) -> None:
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
    export_bundle(bright, threshold_manifest(), directory, golden)


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
