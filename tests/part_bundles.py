"""Bundles whose graphs have parts: tiles that are mixed over requests, and slabs. Built in a child process.

`python -m tests.part_bundles DIR` is that child.
"""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from protos.model_manifest import Batching, ModelManifest, Slabs, Tensor
from tests.bundles import ROOT, threshold_manifest

CLASSES = 4
SURVEY_STATE = (
    Tensor(name="state/sum", datatype="FP32", shape=()),
    Tensor(name="state/count", datatype="FP32", shape=()),
)
Shapes = dict[str, tuple[str, list[int]]]


def _manifest(name: str, inputs: Shapes, outputs: Shapes, **parts: Any) -> ModelManifest:
    described = threshold_manifest().model_dump()
    described["identity"] |= {"name": name, "title": name}
    described["inputs"] = [{"name": key, "datatype": kind, "shape": shape} for key, (kind, shape) in inputs.items()]
    described["outputs"] = [{"name": key, "datatype": kind, "shape": shape} for key, (kind, shape) in outputs.items()]
    described["findings"] = []
    described["memory"] = {"base_mb": 1, "bytes_per_voxel": 16}
    return ModelManifest.model_validate(described | parts)


_PICTURE: Shapes = {"image": ("UINT8", [-1, -1, 3])}
_VOLUME: Shapes = {"image": ("INT16", [-1, -1, -1])}
CLASSIFIER = _manifest(
    "classifier", _PICTURE, {"scores": ("FP32", [CLASSES])}, batching=Batching(max_batch=8, max_delay_ms=5.0)
)
"""Mean of red, green and blue over 255, and the logarithm of their mean: a black image has no finite score."""
NARROW = _manifest(
    "narrow",
    {"image": ("FP32", [-1, 256, 256])},
    {"mean": ("FP32", [-1])},
    batching=Batching(max_batch=1, max_delay_ms=0.0, max_queue=2),
)
"""One tile a slice, about a millisecond each for every unit of a slice's first value; its queue holds two tiles."""
DOUBLER = _manifest(
    "doubler",
    {"image": ("INT16", [-1, 8, 8])},
    {"image_doubled": ("INT16", [-1, 8, 8])},
    batching=Batching(max_batch=8, max_delay_ms=2.0, preferred=(4,)),
)
"""One tile a slice; exact."""
MIXER = _manifest("mixer", {"image": ("FP32", [-1, 4])}, {"shares": ("FP32", [-1, 4])}, batching=Batching(max_batch=4))
"""Wrong on purpose: a tile's answer depends on the others of its run."""
TINY = _manifest("tiny", {"values": ("FP32", [4])}, {"sums": ("FP32", [4])})
COPY = _manifest("copy_in_slabs", _VOLUME, {"mask": ("UINT8", [-1, -1, -1])}, slabs=Slabs(slices=4, along=("image",)))
ABOVE_MEAN = _manifest(
    "above_mean",
    _VOLUME,
    {"mask": ("UINT8", [-1, -1, -1])},
    slabs=Slabs(slices=4, along=("image",), state=SURVEY_STATE),
)


@functools.cache
def part_bundles() -> Path:
    """Build them once a test session and give the folder with `good` and `bad`."""
    directory = Path(tempfile.mkdtemp(prefix="hilum-parts-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = [sys.executable, "-m", "tests.part_bundles", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def _classifier() -> Any:
    import tensorflow as tf

    from training.parts import TileParts

    def network(tiles: Any) -> dict[str, Any]:
        means = tf.reduce_mean(tiles, [1, 2])
        return {"answers": tf.concat([means, tf.math.log(tf.reduce_mean(means, -1, keepdims=True))], -1)}

    return TileParts(
        lambda image: {"tiles": tf.image.resize(tf.cast(image, tf.float32) / 255, [8, 8])[None]},
        network,
        lambda answers: {"scores": answers[0]},
    )


def _narrow() -> Any:
    import tensorflow as tf

    from training.parts import TileParts

    def slowly(tile: Any) -> Any:
        turns = tf.cast(tile[0, 0], tf.int32)
        _, result = tf.while_loop(
            lambda turn, _: turn < turns, lambda turn, now: (turn + 1, tf.matmul(now, tile) * 0), (0, tile)
        )
        return tf.reduce_mean(tile) + 0 * tf.reduce_sum(result)

    return TileParts(
        lambda image: {"tiles": tf.identity(image)},
        lambda tiles: {"answers": tf.map_fn(slowly, tiles)},
        lambda answers: {"mean": tf.identity(answers)},
    )


def _doubler() -> Any:
    import tensorflow as tf

    from training.parts import TileParts

    return TileParts(
        lambda image: {"tiles": tf.cast(image, tf.int32)},
        lambda tiles: {"answers": tiles * 2},
        lambda answers: {"image_doubled": tf.cast(answers, tf.int16)},
    )


def _mixer() -> Any:
    import tensorflow as tf

    from training.parts import TileParts

    return TileParts(
        lambda image: {"tiles": tf.identity(image)},
        lambda tiles: {"answers": tiles / tf.cast(tf.shape(tiles)[0], tf.float32)},
        lambda answers: {"shares": tf.identity(answers)},
    )


def _copy() -> Any:
    import tensorflow as tf

    from training.parts import SlabParts

    return SlabParts(lambda image: {"mask": tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)})


def _above_mean() -> Any:
    import tensorflow as tf

    from training.parts import SlabParts

    def survey(image: Any, **known: Any) -> dict[str, Any]:
        return {
            "state/sum": known["state/sum"] + tf.reduce_sum(tf.cast(image, tf.float32)),
            "state/count": known["state/count"] + tf.cast(tf.size(image), tf.float32),
        }

    def slab(image: Any, **known: Any) -> dict[str, Any]:
        above = tf.cast(image, tf.float32) > known["state/sum"] / known["state/count"]
        return {"mask": tf.cast(above, tf.uint8), **{item.name: tf.identity(known[item.name]) for item in SURVEY_STATE}}

    return SlabParts(slab, SURVEY_STATE, survey)


def _main(directory: Path) -> None:
    import numpy as np

    from training.export import export_bundle

    pictures = {"image": np.random.default_rng(3).integers(1, 255, (16, 16, 3), np.uint8)}
    volume = {"image": np.random.default_rng(4).integers(-99, 300, (9, 16, 16), np.int16)}
    slices = {"image": np.random.default_rng(5).integers(-99, 99, (11, 8, 8), np.int16)}
    good = directory / "good"
    export_bundle(_classifier(), CLASSIFIER, good, pictures)
    export_bundle(_doubler(), DOUBLER, good, slices)
    export_bundle(_narrow(), NARROW, good, {"image": np.ones((2, 256, 256), np.float32)})
    export_bundle(lambda values: {"sums": values + 1}, TINY, good, {"values": np.arange(4, dtype=np.float32)})
    export_bundle(_copy(), COPY, good, volume)
    export_bundle(_above_mean(), ABOVE_MEAN, good, volume)
    export_bundle(_mixer(), MIXER, directory / "bad", {"image": np.ones((1, 4), np.float32)})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
