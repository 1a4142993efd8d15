"""Memory of the service while four volumes of 2,000 x 512 x 512 (1 GB each) go through it in slabs, one by one.

`python -m bench.serving_memory` runs the service as a process of its own and asks it as the node does: over gRPC, the
voxels written into a region of the service's memory, the answer (0.5 GB) read where the service wrote it. The model
smooths over three slices and marks what is above the volume's mean, 32 slices at a time. Looked at every 5 ms is the
service's private memory (`RssAnon`); regions are shared memory (`RssShmem`) and are the input and the output. Every
voxel of every answer is checked. Needs 6 GB of free memory with the figures as they stand.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.serving_peers import MIB, PeakMemory, memory_of, service, volume_of
from bench.tables import print_machine, print_table, without_log
from node.inference_client.client import InferenceClient
from node.settings import InferenceSettings
from protos.model_manifest import ModelBundle, ModelManifest, Slabs, Tensor, open_bundle
from tests.bundles import threshold_manifest

NAME = "in_slabs"
STATE = (
    Tensor(name="state/sum", datatype="FP64", shape=()),
    Tensor(name="state/voxels", datatype="FP64", shape=()),
)
SIZE = 512
_BLOCK = 50
"""Slices that are checked at a time."""


def slab_manifest() -> ModelManifest:
    """Describe the model."""
    return threshold_manifest(name=NAME).model_copy(update={"slabs": Slabs(slices=32, halo=1, state=STATE)})


def build(models: Path) -> None:
    """Export the model; run in a process of its own, so that TensorFlow stays out of this one."""
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import SlabParts

    def survey(image: Any, **known: Any) -> dict[str, Any]:
        total = tf.reduce_sum(tf.cast(tf.reduce_sum(tf.cast(image, tf.int32), [1, 2]), tf.float64))
        voxels = tf.cast(tf.size(image), tf.float64)
        return {"state/sum": known["state/sum"] + total, "state/voxels": known["state/voxels"] + voxels}

    def slab(image: Any, **known: Any) -> dict[str, Any]:
        wide = tf.pad(tf.cast(image, tf.float32), [[1, 1], [0, 0], [0, 0]])
        mean = tf.cast(known["state/sum"] / known["state/voxels"], tf.float32)
        marked = (wide[:-2] + wide[1:-1] + wide[2:]) / 3 > mean
        kept = {tensor.name: tf.identity(known[tensor.name]) for tensor in STATE}
        return {"probability": tf.cast(marked, tf.uint8), **kept}

    random = np.random.default_rng(1)
    golden = {
        "image": random.integers(-1000, 1000, (6, 16, 16)).astype(np.int16),
        "slope": np.ones(6, np.float32),
        "intercept": np.zeros(6, np.float32),
        "spacing": np.ones(3, np.float32),
    }
    export_bundle(SlabParts(slab, STATE, survey), slab_manifest(), models, golden)


def slices_of(number: int, slices: int) -> Iterator[NDArray[np.int16]]:
    """Give the slices of one of the volumes, each another."""
    pattern = np.random.default_rng(number).integers(-1000, 1000, (SIZE, SIZE)).astype(np.int16)
    for index in range(slices):
        yield np.roll(pattern, 7 * index) + np.int16(index % 100)


def wrong_voxels(image: NDArray[np.int16], marked: NDArray[np.uint8]) -> int:
    """Count the voxels that numpy marks otherwise."""
    total = sum(int(part.sum(dtype=np.int64)) for part in image)
    mean, wrong = np.float32(total / image.size), 0
    for first in range(0, len(image), _BLOCK):
        begin, end = max(0, first - 1), min(len(image), first + _BLOCK + 1)
        wide = image[begin:end].astype(np.float32)
        wide = np.pad(wide, ((begin > first - 1, end < first + _BLOCK + 1), (0, 0), (0, 0)))
        right = (wide[:-2] + wide[1:-1] + wide[2:]) / np.float32(3) > mean
        wrong += np.count_nonzero(right[: len(marked[first : first + _BLOCK])] != marked[first : first + _BLOCK])
    return wrong


def ask(client: InferenceClient, bundle: ModelBundle, number: int, slices: int) -> tuple[float, int, int]:
    """Send a volume; give seconds from its being there to the answer, its bytes and the wrong voxels."""
    room = client.room(slices * SIZE * SIZE * 2)
    assert room is not None, "the service's regions cannot be mapped here"
    place = np.frombuffer(room, np.int16).reshape(slices, SIZE, SIZE)
    for index, part in enumerate(slices_of(number, slices)):
        place[index] = part
    begun = time.perf_counter()
    marked = client.infer(bundle, volume_of(place)).outputs["probability"]
    return time.perf_counter() - begun, place.nbytes + marked.nbytes, wrong_voxels(place, marked)


def measure(models: Path, slices: int, volumes: int) -> None:
    """Send the volumes and print what the service took beyond the model, the inputs and the outputs."""
    bundle = open_bundle(models / NAME / "1")
    with service(models) as running, closing(InferenceClient(InferenceSettings(endpoint=running.unix))) as client:
        before = memory_of(running.pid)["RssAnon"]
        rows, highest = [], 0
        for number in range(volumes):
            with PeakMemory(running.pid) as peak:
                seconds, size, wrong = ask(client, bundle, number, slices)
            assert not wrong, f"volume {number + 1}: {wrong} voxels are wrong"
            after, highest = memory_of(running.pid), max(highest, peak.bytes - before)
            figures = (seconds, size / 1e9, after["RssShmem"] / MIB, (peak.bytes - before) / MIB)
            kept = (after["RssAnon"] - before) / MIB
            rows.append((f"{number + 1}", *(f"{value:.1f}" for value in figures[:2]), *_whole(*figures[2:], kept)))
        header = ("volume", "s", "GB in and out", "regions after it, MiB", "peak beyond, MiB", "kept beyond, MiB")
        print_table(header, rows)
        print(
            f"The service with its model takes {before / MIB:.0f} MiB of private memory; "
            f"at most {highest / MIB:.0f} MiB came to it beside the regions."
        )


def _whole(*values: float) -> tuple[str, ...]:
    return tuple(f"{value:.0f}" for value in values)


def main() -> None:
    """Build the model and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=2000)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build is not None:
        build(options.build)
        return
    without_log()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="hilum-") as folder:
        subprocess.run([sys.executable, "-m", "bench.serving_memory", "--build", folder], check=True)
        measure(Path(folder), options.slices, options.volumes)


if __name__ == "__main__":
    main()
