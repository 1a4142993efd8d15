"""What Ray Serve costs beside the single service: the same models through both, in turns, in one run.

`python -m bench.ray_serve [OPTION ...]` builds its models, starts both, asks them in alternating rounds and prints
medians; options are those of `hilum inference-scale`, e.g. `--by-value`.
`python -m bench.ray_serve build DIR` is its child.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.dense_model import SIZE, expected, manifest, request_of
from bench.dense_model import build as build_dense
from bench.serving_peers import Service, service
from protos.model_manifest import ModelManifest
from protos.open_inference_pb2 import ModelInferRequest
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub

ROUNDS = 9
TINY_CALLS, VOLUME_CALLS = 100, 3
CLIENTS, BATCHED_CALLS = 8, 50
VOLUME = (100, 512, 512)
LIMIT = 1 << 30
OPTIONS = (
    ("grpc.max_send_message_length", LIMIT),
    ("grpc.max_receive_message_length", LIMIT),
    ("grpc.use_local_subchannel_pool", 1),
)
Measure = Callable[[GRPCInferenceServiceStub], float]


def build(directory: Path) -> None:
    """Export a tiny model, one in tiles, and one that marks the bright voxels of a volume."""
    import tensorflow as tf

    from training.export import export_bundle

    build_dense(directory)
    described = manifest("volume", 1, None).model_dump(mode="json", exclude_none=True)
    described["inputs"] = [{"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]}]
    described["outputs"] = [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]
    described["memory"] = {"base_mb": 1, "bytes_per_voxel": 8}
    marking = ModelManifest.model_validate(described)
    export_bundle(lambda image: {"mask": tf.cast(image > 0, tf.uint8)}, marking, directory, None)


def tiny(stub: GRPCInferenceServiceStub) -> float:
    """Median milliseconds of a call, one after the other."""
    request = request_of("tiny", np.zeros(4, np.float32))
    return statistics.median(_milliseconds(stub, request) for _ in range(TINY_CALLS))


def batched(stub: GRPCInferenceServiceStub) -> float:
    """Requests a second that `CLIENTS` get of the model in tiles; every answer is checked."""
    inputs = np.random.default_rng(11).normal(size=(BATCHED_CALLS, SIZE)).astype(np.float32)
    right = expected(inputs)

    def client(_: int) -> None:
        for values, wanted in zip(inputs, right, strict=True):
            answer = stub.ModelInfer(request_of("batched", values), timeout=60).raw_output_contents[0]
            assert np.abs(np.frombuffer(answer, np.float32) - wanted).max() < 1e-3

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    return CLIENTS * BATCHED_CALLS / (time.perf_counter() - began)


def volume(stub: GRPCInferenceServiceStub) -> float:
    """Median milliseconds of a volume of 52 MB in and 26 MB out, by message."""
    voxels = np.random.default_rng(3).integers(-99, 99, VOLUME, np.int16)
    request = ModelInferRequest(model_name="volume", raw_input_contents=[voxels.tobytes()])
    request.inputs.add(name="image", datatype="INT16", shape=VOLUME)
    return statistics.median(_milliseconds(stub, request) for _ in range(VOLUME_CALLS))


def _milliseconds(stub: GRPCInferenceServiceStub, request: ModelInferRequest) -> float:
    began = time.perf_counter()
    stub.ModelInfer(request, timeout=120)
    return (time.perf_counter() - began) * 1000


def compare(single: Service, scaled: Service, measure: Measure) -> tuple[float, float]:
    """Ask both in turns; give the medians of the rounds after the first, which warms."""
    found: dict[str, list[float]] = {single.tcp: [], scaled.tcp: []}
    with (
        grpc.insecure_channel(single.tcp, OPTIONS) as first,
        grpc.insecure_channel(scaled.tcp, OPTIONS) as second,
    ):
        stubs = {single.tcp: GRPCInferenceServiceStub(first), scaled.tcp: GRPCInferenceServiceStub(second)}
        for _ in range(ROUNDS):
            for address, stub in stubs.items():
                found[address].append(measure(stub))
    return statistics.median(found[single.tcp][1:]), statistics.median(found[scaled.tcp][1:])


def main() -> None:
    """Build, start, ask, print."""
    measures: dict[str, Any] = {"tiny, p50 ms": tiny, "52 MB volume, p50 ms": volume, "8 clients, requests/s": batched}
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        subprocess.run([sys.executable, "-m", "bench.ray_serve", "build", folder], check=True)
        names = ("--model", "tiny", "--model", "batched", "--model", "volume")
        scale = (*names, "--num-cpus", "0.5", "--object-store-mb", "1024", *sys.argv[1:])
        with (
            service(Path(folder), *names) as single,
            service(Path(folder), *scale, program="inference.scale") as scaled,
        ):
            print(f"seconds to ready: single {single.seconds_to_ready:.1f}, on Ray {scaled.seconds_to_ready:.1f}")
            for name, measure in measures.items():
                one, other = compare(single, scaled, measure)
                print(f"{name}: single {one:.2f}, on Ray {other:.2f}, ratio {other / one:.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]))
    else:
        main()
