"""Bundles that try the inference service: echoes, a slow one, one that answers NaN, forbidden ops. Run as a script.

`python -m tests.odd_bundles DIR` writes them under DIR/good and DIR/bad; it needs TensorFlow, its caller does not.
"""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protos.model_manifest import MANIFEST_FILE, ModelManifest, write_digest_list, write_manifest
from tests.bundles import ROOT, threshold_manifest

INPUTS = [
    {"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]},
    {"name": "slope", "datatype": "FP32", "shape": [-1]},
    {"name": "intercept", "datatype": "FP32", "shape": [-1]},
    {"name": "spacing", "datatype": "FP32", "shape": [3]},
]


def manifest_of(name: str, outputs: dict[str, str], *, image: str = "INT16", padding: bool = False) -> ModelManifest:
    """Manifest of a voxel model whose outputs (name -> datatype) lie on the input grid."""
    base = threshold_manifest(name=name).model_dump(mode="json", exclude_none=True)
    inputs = [{**INPUTS[0], "datatype": image}, *INPUTS[1:]]
    if padding:
        inputs.append({"name": "padding", "datatype": "INT16", "shape": []})
    changed = {
        "inputs": inputs,
        "outputs": [{"name": key, "datatype": value, "shape": [-1, -1, -1]} for key, value in outputs.items()],
        "findings": [{**base["findings"][0], "output": next(iter(outputs))}],
        "value_rules": {"padding": "send" if padding else "ignore"},
    }
    return ModelManifest.model_validate({**base, **changed})


ECHO = manifest_of("echo", {"stored": "INT16", "values": "FP32"}, padding=True)
ECHO_UINT8 = manifest_of("echo_uint8", {"stored": "UINT8"}, image="UINT8")
ECHO_FP32 = manifest_of("echo_fp32", {"stored": "FP32"}, image="FP32")
LOGARITHM = manifest_of("logarithm", {"values": "FP32"})
SLOW = manifest_of("slow", {"probability": "UINT8"})
HUNGRY = manifest_of("hungry", {"probability": "UINT8"}).model_copy(
    update={"memory": threshold_manifest().memory.model_copy(update={"base_mb": 1e9})}
)
READS_FILE = manifest_of("reads_file", {"probability": "UINT8"})
READS_FILE_IN_LOOP = manifest_of("reads_file_in_loop", {"probability": "UINT8"})
GOOD = (ECHO, ECHO_UINT8, ECHO_FP32, LOGARITHM, SLOW, HUNGRY)
BAD = (READS_FILE, READS_FILE_IN_LOOP)


@functools.cache
def odd_bundles() -> Path:
    """Build them once a test session and give the folder with `good` and `bad`."""
    directory = Path(tempfile.mkdtemp(prefix="hilum-odd-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = [sys.executable, "-m", "tests.odd_bundles", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def _functions() -> dict[str, Callable[..., dict[str, Any]]]:
    import tensorflow as tf

    def values(image: Any, slope: Any, intercept: Any) -> Any:
        return tf.cast(image, tf.float32) * slope[:, None, None] + intercept[:, None, None]

    def marked(image: Any) -> dict[str, Any]:
        return {"probability": tf.cast(image > 0, tf.uint8)}

    def slow(image: Any, **_: Any) -> dict[str, Any]:
        """About a millisecond for each unit of the highest stored value."""
        square = tf.random.stateless_uniform([256, 256], seed=[1, 2]) + 0 * tf.cast(image[0, 0, 0], tf.float32)
        turns = tf.cast(tf.reduce_max(image), tf.int32)
        _, result = tf.while_loop(
            lambda turn, _now: turn < turns,
            lambda turn, now: (turn + 1, tf.matmul(now, square) / 128),
            (tf.constant(0), square),
        )
        return marked(image + tf.cast(0 * tf.reduce_sum(result), tf.int16))

    def reads(image: Any, **_: Any) -> dict[str, Any]:
        length = tf.strings.length(tf.io.read_file("/etc/hostname"))
        return marked(image + tf.cast(length, tf.int16))

    def reads_in_loop(image: Any, **_: Any) -> dict[str, Any]:
        def body(turn: Any, total: Any) -> tuple[Any, Any]:
            return turn + 1, total + tf.strings.length(tf.io.read_file("/etc/hostname"))

        _, total = tf.while_loop(lambda turn, _: turn < 1, body, (tf.constant(0), tf.constant(0)))
        return marked(image + tf.cast(total, tf.int16))

    return {
        "echo": lambda image, slope, intercept, spacing, padding: {
            "stored": tf.where(image == padding, tf.zeros_like(image), image) + 0 * tf.cast(spacing[0], tf.int16),
            "values": values(image, slope, intercept),
        },
        "echo_uint8": lambda image, **_: {"stored": tf.identity(image)},
        "echo_fp32": lambda image, **_: {"stored": tf.identity(image)},
        "logarithm": lambda image, slope, intercept, **_: {"values": tf.math.log(values(image, slope, intercept))},
        "slow": slow,
        "hungry": lambda image, **_: marked(image),
        "reads_file": reads,
        "reads_file_in_loop": reads_in_loop,
    }


def _write_unchecked(function: Callable[..., Any], manifest: ModelManifest, directory: Path) -> None:
    """Write a bundle as an attacker would: whole and listed, past the checks of the export."""
    from inference.graph.frozen import SAVED_MODEL_FILE
    from training import export

    target = directory / manifest.identity.name / manifest.identity.version
    target.mkdir(parents=True)
    saved_model = export._frozen_saved_model(function, manifest)
    (target / SAVED_MODEL_FILE).write_bytes(saved_model.SerializeToString())
    write_manifest(manifest, target / MANIFEST_FILE)
    write_digest_list(target)


def _main(directory: Path) -> None:
    from training.export import export_bundle

    functions = _functions()
    for manifest in GOOD:
        export_bundle(functions[manifest.identity.name], manifest, directory / "good", None)
    for manifest in BAD:
        _write_unchecked(functions[manifest.identity.name], manifest, directory / "bad")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
