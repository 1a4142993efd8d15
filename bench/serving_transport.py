"""What each way of a volume to the service and back costs, beside a copy in memory and a plain TCP connection.

`python -m bench.serving_transport [ROUNDS]` sends 300 x 512 x 512 voxels of INT16 (157 MB), gets as many of UINT8
(79 MB) from a model that only converts them, and prints the medians of rounds in which the ways take turns:

* memcpy: both arrays copied once, each into memory that is used again;
* built in place: the voxels are written to a mapped region by two threads, as the node builds its volumes;
* mapped: the voxels lie elsewhere and are copied into a mapped region;
* upload: by regions that cannot be mapped (another host);
* messages: in ModelInfer alone;
* raw TCP: the same bytes there and back over one connection, without a model.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import numpy as np

from bench.identity_model import IDENTITY, write_identity_bundle
from bench.raw_socket import raw_peer, there_and_back
from bench.serving_peers import Service, service, volume_of
from node.inference_client.client import InferenceClient
from node.inference_client.requests import copy_slices
from node.settings import InferenceSettings
from protos.model_manifest import ModelBundle, open_bundle
from protos.open_inference_pb2 import ModelStatisticsRequest

SHAPE = (300, 512, 512)
ROUNDS = 9
WAYS = {"mapped": "auto", "upload": "upload", "messages": "off"}
BESIDE = {"built in place": "memcpy", "mapped": "memcpy", "upload": "raw TCP", "messages": "raw TCP"}
Way = Callable[[], object]


def main(rounds: int) -> None:
    """Measure and print."""
    voxels = np.random.default_rng(1).integers(0, 200, SHAPE, np.int16)
    with ExitStack() as open_until_end:
        models = Path(open_until_end.enter_context(tempfile.TemporaryDirectory()))
        bundle = open_bundle(write_identity_bundle(models))
        running = open_until_end.enter_context(service(models))
        clients = {way: open_until_end.enter_context(_client(running, kind)) for way, kind in WAYS.items()}
        connection = open_until_end.enter_context(raw_peer(voxels.nbytes, voxels.size))
        answer = np.empty(voxels.size, np.uint8)
        ways = {"memcpy": _memcpy(voxels), "built in place": _in_place(clients["mapped"], bundle, voxels)}
        ways |= {way: _asked(client, bundle, voxels) for way, client in clients.items()}
        ways["raw TCP"] = lambda: there_and_back(connection, voxels, answer)
        for way in BESIDE:
            assert np.array_equal(ways[way](), voxels.astype(np.uint8)), f"{way}: the answer is wrong"
        _print(_measured(ways, rounds), _model_seconds(running))


def _in_place(client: InferenceClient, bundle: ModelBundle, voxels: np.ndarray) -> Way:
    def go() -> object:
        room = client.room(voxels.nbytes)
        assert room is not None, "the service's regions cannot be mapped here"
        place = np.frombuffer(room, voxels.dtype).reshape(voxels.shape)
        copy_slices(place, voxels)
        return client.infer(bundle, volume_of(place)).outputs["mask"]

    return go


def _asked(client: InferenceClient, bundle: ModelBundle, voxels: np.ndarray) -> Way:
    volume = volume_of(voxels)
    return lambda: client.infer(bundle, volume).outputs["mask"]


def _memcpy(voxels: np.ndarray) -> Way:
    there, source = np.empty_like(voxels), np.zeros(voxels.size, np.uint8)
    back = np.empty_like(source)
    return lambda: (np.copyto(there, voxels), np.copyto(back, source))


def _client(running: Service, way: str) -> AbstractContextManager[InferenceClient]:
    """Open a client over TCP."""
    return closing(InferenceClient(InferenceSettings(endpoint=running.tcp, regions=way)))


def _measured(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
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
        request = ModelStatisticsRequest(name=IDENTITY.identity.name)
        (stated,) = endpoint.call(endpoint.stub.ModelStatistics, request, timeout_s=10).model_stats
    infer = stated.inference_stats.compute_infer
    return float(infer.ns / max(infer.count, 1) / 1e9)


def _print(seconds: dict[str, list[float]], model: float) -> None:
    print("| way | median ms (least-most) | ratio |\n|---|---:|---:|")
    for name, taken in seconds.items():
        row = f"{statistics.median(taken) * 1000:.0f} ({min(taken) * 1000:.0f}-{max(taken) * 1000:.0f})"
        print(f"| {name} | {row} | {_ratio(seconds, name)} |")
    print(f"\nThe model's own share of every request: {model * 1000:.0f} ms on average.")


def _ratio(seconds: dict[str, list[float]], name: str) -> str:
    """Give the median over the rounds of the ratio within a round: other load of the machine strikes both."""
    if name not in BESIDE:
        return ""
    pairs = zip(seconds[name], seconds[BESIDE[name]], strict=True)
    return f"{statistics.median(one / other for one, other in pairs):.2f} x {BESIDE[name]}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
