"""What the legs of a remote request cost, each beside a plain TCP connection and a bare gRPC stream.

`python -m bench.serving_upload [ROUNDS]` uploads 300 x 512 x 512 voxels of INT16 (157 MB), downloads as many of UINT8
(79 MB: once random voxels, which do not compress, and once a label map), and asks whole requests of a model that only
converts. All ways take turns in every round. A ratio is the median of the ratios to plain TCP of the same round.
"""

import functools
import logging
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import structlog
from numpy.typing import NDArray

from bench.bare_stream import bare_stream
from bench.legs import PLAIN, Leg, measure, print_table
from bench.raw_socket import raw_peer, there_and_back
from bench.serving_peers import service, volume_of
from node.inference_client.client import InferenceClient
from node.inference_client.endpoints import Endpoint
from node.inference_client.region_pool import LeasedRegion, RegionPool
from node.inference_client.remote_region import download, upload
from node.settings import InferenceSettings
from protos.model_manifest import open_bundle
from protos.open_inference_pb2 import ModelStatisticsRequest
from tests.part_bundles import COPY, part_bundles

SHAPE = (300, 512, 512)
ROUNDS = 9
TIMEOUT_S = 60.0
ORGANS = 12
DRAWN = 30
Go = Callable[[], object]


def label_map(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Draw a body with organs whose borders are ragged by a voxel or two, as a network's are; DRAWN slices repeat."""
    repeats = -(-shape[0] // DRAWN)
    return np.tile(_drawn((DRAWN, *shape[1:])), (repeats, 1, 1))[: shape[0]]


def _drawn(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    places = random.uniform(-0.5, 0.5, (ORGANS, 2))
    labels = np.zeros(shape, np.uint8)
    for number in range(shape[0]):
        ragged = random.normal(0, 0.004, shape[1:])
        along = np.sin(np.pi * (number + 1) / (shape[0] + 1))
        labels[number][np.hypot(rows / 0.7, columns / 0.9) + ragged < 1] = 1
        for organ, (row, column) in enumerate(places):
            radius = 0.05 + 0.012 * organ * along
            labels[number][np.hypot(rows - row, columns - column) + ragged < radius] = organ + 2
    return labels


def main(rounds: int) -> None:
    """Measure and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    models = part_bundles() / "good"
    with ExitStack() as held:
        running = held.enter_context(service(models, "--model", COPY.identity.name))
        client = held.enter_context(closing(InferenceClient(InferenceSettings(endpoint=running.tcp, regions="upload"))))
        legs = [*held.enter_context(_floors()), *held.enter_context(_legs(client.endpoints[0]))]
        bundle = open_bundle(models / COPY.identity.name / "1")
        for name, voxels in (("request, random", _noise()), ("request, label map", label_map(SHAPE).astype(np.int16))):
            volume = volume_of(voxels)
            assert np.array_equal(client.infer(bundle, volume).outputs["mask"], voxels.astype(np.uint8)), name
            ask = functools.partial(client.infer, bundle, volume)
            legs.append(Leg(name, "there and back", ask, lambda: _model_seconds(client.endpoints[0])))
        aside = measure(legs, rounds)
        print_table(legs)
        model = statistics.median(item.model for leg in legs[-2:] for item in leg.taken)
        print(f"The model took {model * 1e3:.0f} ms more. {aside} rounds were set aside: other work took the cores.")


def _noise() -> NDArray[np.int16]:
    return np.random.default_rng(1).integers(0, 200, SHAPE, np.int16)


@contextmanager
def _floors() -> Iterator[list[Leg]]:
    voxels, answer, one = _noise(), np.zeros(SHAPE, np.uint8).reshape(-1), np.zeros(1, np.uint8)
    with (
        raw_peer(voxels.nbytes, 1) as there,
        raw_peer(1, answer.nbytes) as back,
        raw_peer(voxels.nbytes, answer.nbytes) as both,
        bare_stream(voxels.nbytes, answer.nbytes) as bare,
    ):
        yield [
            Leg(PLAIN, "up", lambda: there_and_back(there, voxels, one)),
            Leg("bare gRPC stream", "up", lambda: bare.upload(voxels)),
            Leg(PLAIN, "down", lambda: there_and_back(back, one, answer)),
            Leg("bare gRPC stream", "down", lambda: bare.download(answer)),
            Leg(PLAIN, "there and back", lambda: there_and_back(both, voxels, answer)),
            Leg("bare gRPC streams", "there and back", lambda: (bare.upload(voxels), bare.download(answer))),
        ]


@contextmanager
def _legs(endpoint: Endpoint) -> Iterator[list[Leg]]:
    voxels, labels = _noise(), label_map(SHAPE)
    random = voxels.astype(np.uint8)
    stub = endpoint.regions
    with closing(RegionPool(stub, endpoint.address, maps=False)) as pool:
        regions = [pool.take(size) for size in (voxels.nbytes, random.nbytes, labels.nbytes)]
        names, most = [region.name for region in regions], regions[0].chunk_byte_size
        for name, content in zip(names[1:], (random, labels), strict=True):
            upload(endpoint, stub, name, content, timeout_s=TIMEOUT_S, chunk_byte_size=most)
            got = np.zeros(content.nbytes, np.uint8)
            download(endpoint, stub, name, got, timeout_s=TIMEOUT_S)
            assert np.array_equal(got, content.reshape(-1))
        yield [
            Leg("upload", "up", lambda: _upload(endpoint, regions[0], voxels)),
            Leg("download, random", "down", _downloads(endpoint, names[1], got)),
            Leg("download, label map", "down", _downloads(endpoint, names[2], got)),
        ]


def _upload(endpoint: Endpoint, region: LeasedRegion, voxels: NDArray[np.int16]) -> None:
    most = region.chunk_byte_size
    upload(endpoint, endpoint.regions, region.name, voxels, timeout_s=TIMEOUT_S, chunk_byte_size=most)


def _downloads(endpoint: Endpoint, name: str, into: NDArray[np.uint8]) -> Go:
    return lambda: download(endpoint, endpoint.regions, name, into, timeout_s=TIMEOUT_S)


def _model_seconds(endpoint: Endpoint) -> float:
    request = ModelStatisticsRequest(name=COPY.identity.name)
    (stated,) = endpoint.call(endpoint.stub.ModelStatistics, request, timeout_s=10).model_stats
    return float(stated.inference_stats.compute_infer.ns / 1e9)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
