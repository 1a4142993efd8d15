"""Memory of the service's execution: large volumes in slabs, and many requests in a row.

`python -m bench.serving_memory` sends four volumes of 2,000 x 512 x 512 (1 GB each), one after the other, through a
slab model whose input and output are mapped shared memory, as regions are, and looks at the private memory
(`RssAnon`) beyond that of the loaded model. The runner is called directly, in this process: gRPC takes no part.
Then a service as a process of its own answers 10,000 small requests by Unix socket.
"""

import argparse
import gc
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.serving_peers import MIB, PeakMemory, memory_of, service, volume_of
from node.inference_client.requests import build_request
from protos.model_manifest import ModelManifest, Slabs, Tensor, open_bundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import threshold_manifest

NAME = "in_slabs"
STATE = (
    Tensor(name="state/sum", datatype="FP64", shape=()),
    Tensor(name="state/voxels", datatype="FP64", shape=()),
)
SIZE = 512
SETTLED = 1_000
"""Requests before growth is counted."""


def slab_manifest() -> ModelManifest:
    """Manifest of a model that smooths over three slices and marks what is above the mean, 32 slices at a time."""
    return threshold_manifest(name=NAME).model_copy(update={"slabs": Slabs(slices=32, halo=1, state=STATE)})


def build(models: Path) -> None:
    """Export the model; run in a process of its own, so that tracing leaves nothing behind here."""
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


def shared_array(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Make an array in mapped shared memory, which counts as `RssShmem` and not as private."""
    count = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, count * np.dtype(dtype).itemsize), dtype, count).reshape(shape)


def large_volumes(models: Path, slices: int, volumes: int) -> None:
    """Run volumes in a row and print the peak of private memory beyond that of the loaded model."""
    from inference.call import Call
    from inference.runners.loading import load_runner
    from inference.runners.whole import bound_threads

    bound_threads(os.cpu_count() or 1)
    runner = load_runner(open_bundle(models / NAME / "1"))
    gc.collect()
    before = memory_of(os.getpid())["RssAnon"]
    image, output = shared_array((slices, SIZE, SIZE), np.int16), shared_array((slices, SIZE, SIZE), np.uint8)
    rescale = {"slope": np.ones(slices, np.float32), "intercept": np.zeros(slices, np.float32)}
    pattern = np.random.default_rng(2).integers(-1000, 1000, (SIZE, SIZE)).astype(np.int16)
    for number in range(volumes):
        for index in range(slices):
            image[index] = np.roll(pattern, index + number)
        inputs = {"image": image, **rescale, "spacing": np.ones(3, np.float32)}
        begun = time.perf_counter()
        with PeakMemory(os.getpid()) as peak:
            outcome = runner.run(inputs, Call(), {"probability": output.data.cast("B")})
        assert np.shares_memory(outcome.outputs["probability"], output)
        print(
            f"volume {number + 1}: {image.nbytes / 1e9:.2f} GB in, {output.nbytes / 1e9:.2f} GB out in place, "
            f"{time.perf_counter() - begun:.1f} s, marked {outcome.outputs['probability'].mean():.3f}, "
            f"peak beyond the model {(peak.bytes - before) / MIB:.0f} MiB",
            flush=True,
        )


def many_requests(models: Path, count: int) -> None:
    """Answer small requests by Unix socket and print how the service's private memory grew."""
    volume = volume_of(np.random.default_rng(3).integers(-99, 99, (40, 32, 32)).astype(np.int16))
    request = build_request(slab_manifest(), volume, "11111111-2222-3333-4444-555555555555")
    with service(models) as running, grpc.insecure_channel(running.unix) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(SETTLED):
            stub.ModelInfer(request)
        before, begun = memory_of(running.pid)["RssAnon"], time.perf_counter()
        for done in range(1, count + 1):
            stub.ModelInfer(request)
            if done % max(1, count // 4) == 0:
                grown = memory_of(running.pid)["RssAnon"] - before
                print(
                    f"{done} requests, {time.perf_counter() - begun:.0f} s: grown by {grown / MIB:.1f} MiB", flush=True
                )


def main() -> None:
    """Build the model and take both measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=2000)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build is not None:
        build(options.build)
        return
    with tempfile.TemporaryDirectory(prefix="hilum-") as folder:
        subprocess.run([sys.executable, "-m", "bench.serving_memory", "--build", folder], check=True)
        large_volumes(Path(folder), options.slices, options.volumes)
        many_requests(Path(folder), options.requests)


if __name__ == "__main__":
    main()
