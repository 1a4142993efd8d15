"""What batching gives 32 clients, whether every answer is right, and what the service adds to a tiny model's call.

`python -m bench.serving_batching` builds its models, asks services of its own, and prints figures.
`python -m bench.serving_batching build DIR` is its child.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.serving_peers import service
from protos.model_manifest import Batching, ModelManifest, open_bundle
from protos.open_inference_pb2 import ModelInferRequest
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub

SIZE, LAYERS = 1024, 4
CLIENTS = 32
BATCHED_REQUESTS, WHOLE_REQUESTS, TINY_REQUESTS = 10_000, 2_000, 2_000
WRONG_BEYOND = 1e-3
"""Greatest difference of an answer (values of -1 to 1) from the one that numpy gives."""


@dataclass(frozen=True, slots=True)
class Load:
    """What `CLIENTS` at once got of a model."""

    requests: int
    wrong: int
    failed: int
    per_second: float
    p50_ms: float
    p99_ms: float


def weights() -> list[NDArray[np.float32]]:
    """Draw the layers of the model, always the same."""
    drawn = np.random.default_rng(7)
    return [(drawn.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)).astype(np.float32) for _ in range(LAYERS)]


def expected(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answer as the model must: values [n, SIZE] -> [n, SIZE]."""
    for layer in weights():
        values = np.tanh(values @ layer)
    return values


def _manifest(name: str, size: int, batching: Batching | None) -> ModelManifest:
    tensor = {"datatype": "FP32", "shape": [size]}
    return ModelManifest.model_validate(
        {
            "schema_version": 1,
            "identity": {"name": name, "version": "1", "title": name, "manufacturer": "Hilum bench"},
            "use": {"intended_use": "Measuring the service.", "research_use": "Not for use on patients."},
            "accepts": {
                "modalities": ["CT"],
                "body_part_missing": "accept",
                "max_oblique_deg": 45.0,
                "slices": {"least": 1},
            },
            "inputs": [{"name": "values", **tensor}],
            "outputs": [{"name": "answers", **tensor}],
            "memory": {"base_mb": 1, "bytes_per_voxel": 64},
            "licence": "Apache-2.0",
            "batching": batching,
        }
    )


def build(directory: Path) -> None:
    """Export the model with tiles, the same whole, and a tiny one."""
    import tensorflow as tf

    from training.export import export_bundle
    from training.parts import TileParts

    layers = [tf.constant(layer) for layer in weights()]

    def network(tiles: Any) -> dict[str, Any]:
        for layer in layers:
            tiles = tf.tanh(tf.matmul(tiles, layer))
        return {"many": tiles}

    parts = TileParts(lambda values: {"tiles": values[None]}, network, lambda many: {"answers": many[0]})
    export_bundle(parts, _manifest("batched", SIZE, Batching(max_batch=16, max_delay_ms=2.0)), directory, None)
    export_bundle(lambda values: parts(values=values), _manifest("whole", SIZE, None), directory, None)
    export_bundle(lambda values: {"answers": values + 1}, _manifest("tiny", 4, None), directory, None)


def request_of(model: str, values: NDArray[np.float32]) -> ModelInferRequest:
    """Write a request."""
    request = ModelInferRequest(model_name=model, raw_input_contents=[values.tobytes()])
    request.inputs.add(name="values", datatype="FP32", shape=values.shape)
    return request


def load(address: str, model: str, requests: int) -> Load:
    """Ask a model `requests` times from `CLIENTS` threads, each with a channel of its own."""
    inputs = np.random.default_rng(11).normal(size=(256, SIZE)).astype(np.float32)
    right, ready = expected(inputs), threading.Barrier(CLIENTS + 1)

    def client(number: int) -> tuple[list[float], int, int]:
        spent, wrong, failed = [], 0, 0
        with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            ask = GRPCInferenceServiceStub(channel).ModelInfer
            ask(request_of("tiny", np.zeros(4, np.float32)))
            ready.wait()
            for index in range(number, requests, CLIENTS):
                began = time.perf_counter()
                try:
                    answer = ask(request_of(model, inputs[index % 256]), timeout=60).raw_output_contents[0]
                except grpc.RpcError:
                    failed += 1
                    continue
                spent.append(time.perf_counter() - began)
                difference = np.abs(np.frombuffer(answer, np.float32) - right[index % 256]).max()
                wrong += not difference <= WRONG_BEYOND
        return spent, wrong, failed

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client, number) for number in range(CLIENTS)]
        ready.wait()
        began = time.perf_counter()
        found = [item.result() for item in running]
        seconds = time.perf_counter() - began
    p50, p99 = _percentiles([value for spent, _, _ in found for value in spent])
    wrong, failed = sum(item[1] for item in found), sum(item[2] for item in found)
    return Load(requests, wrong, failed, round((requests - failed) / seconds, 1), p50, p99)


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    """Give p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return round(cuts[49] * 1000, 3), round(cuts[98] * 1000, 3)


def latencies(ask: Callable[[], object]) -> tuple[float, float]:
    """Call again and again, one after the other; p50 and p99 in milliseconds."""
    spent = []
    for _ in range(TINY_REQUESTS):
        began = time.perf_counter()
        ask()
        spent.append(time.perf_counter() - began)
    return _percentiles(spent[TINY_REQUESTS // 10 :])


def over(address: str) -> tuple[float, float]:
    """Measure the tiny model through the service."""
    request = request_of("tiny", np.zeros(4, np.float32))
    with grpc.insecure_channel(address) as channel:
        ask = GRPCInferenceServiceStub(channel).ModelInfer
        return latencies(lambda: ask(request))


def direct(models: Path) -> tuple[float, float]:
    """Measure the tiny model in this process, by the same runner."""
    from inference.call import Call
    from inference.runners.loading import load_runner

    runner = load_runner(open_bundle(models / "tiny" / "1"))
    values = np.zeros(4, np.float32)
    return latencies(lambda: runner.run({"values": values}, Call(), {}))


def main() -> None:
    """Build, ask, print."""
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        models = Path(folder)
        subprocess.run([sys.executable, "-m", "bench.serving_batching", "build", folder], check=True)
        with service(models, "--queue", "64") as running:
            print("batched ", json.dumps(asdict(load(running.tcp, "batched", BATCHED_REQUESTS))), flush=True)
            print("whole   ", json.dumps(asdict(load(running.tcp, "whole", WHOLE_REQUESTS))), flush=True)
            print("tiny by Unix socket, p50 and p99 in ms", over(running.unix), flush=True)
            print("tiny by TCP,         p50 and p99 in ms", over(running.tcp), flush=True)
        print("tiny called directly, p50 and p99 in ms", direct(models))


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]))
    else:
        main()
