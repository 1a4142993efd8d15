"""What each way of a volume to the service and back costs, beside a copy in memory and a plain TCP connection.

`python -m bench.serving_transport [ROUNDS]` sends 300 x 512 x 512 voxels of INT16 (157 MB), gets as many of UINT8
(79 MB) from a model that only converts them, and prints the medians of rounds in which the ways take turns.
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing

import numpy as np

from bench.raw_socket import raw_peer, there_and_back
from bench.serving_peers import Service, service, volume_of
from node.inference_client.client import InferenceClient
from node.settings import InferenceSettings
from protos.model_manifest import open_bundle
from protos.open_inference_pb2 import ModelStatisticsRequest
from tests.part_bundles import COPY, part_bundles

SHAPE = (300, 512, 512)
ROUNDS = 7
WAYS = ("auto", "upload", "off")


def main(rounds: int) -> None:
    """Measure and print."""
    voxels = np.random.default_rng(1).integers(0, 200, SHAPE, np.int16)
    models = part_bundles() / "good"
    with ExitStack() as open_until_end:
        running = open_until_end.enter_context(service(models, "--model", COPY.identity.name))
        ways: dict[str, Callable[[], object]] = {"memcpy": _memcpy(voxels)}
        bundle, volume = open_bundle(models / COPY.identity.name / "1"), volume_of(voxels)
        for way in WAYS:
            client = open_until_end.enter_context(_client(running, way))
            ways[way] = lambda client=client: client.infer(bundle, volume).outputs["mask"]
        connection = open_until_end.enter_context(raw_peer(voxels.nbytes, voxels.size))
        answer = np.empty(voxels.size, np.uint8)
        ways["raw TCP"] = lambda: there_and_back(connection, voxels, answer)
        for way in WAYS:
            assert np.array_equal(ways[way](), voxels.astype(np.uint8)), f"{way}: the answer is wrong"
        _print(_measured(ways, rounds), _model_seconds(running))


def _memcpy(voxels: np.ndarray) -> Callable[[], object]:
    there, source = np.empty_like(voxels), np.zeros(voxels.size, np.uint8)
    back = np.empty_like(source)
    return lambda: (np.copyto(there, voxels), np.copyto(back, source))


def _client(running: Service, way: str) -> AbstractContextManager[InferenceClient]:
    """Open a client over TCP."""
    return closing(InferenceClient(InferenceSettings(endpoint=running.tcp, regions=way)))


def _measured(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, go in ways.items():
            begun = time.perf_counter()
            go()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def _model_seconds(running: Service) -> float:
    with _client(running, "off") as client:
        endpoint = client.endpoints[0]
        request = ModelStatisticsRequest(name=COPY.identity.name)
        (stated,) = endpoint.call(endpoint.stub.ModelStatistics, request, timeout_s=10).model_stats
    infer = stated.inference_stats.compute_infer
    return float(infer.ns / max(infer.count, 1) / 1e9)


def _print(seconds: dict[str, list[float]], model: float) -> None:
    print(f"{'way':10} {'median s':>9} {'least s':>9} {'most s':>9}")
    for name, taken in seconds.items():
        print(f"{name:10} {statistics.median(taken):9.3f} {min(taken):9.3f} {max(taken):9.3f}")
    print(f"The model's own share of auto, upload and off: {model:.3f} s on average.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
