"""How big tensors travel: mapped, uploaded, in the message; what happens when regions go away."""
# ruff: noqa: N802, ARG002 - the server's names and parameters are the protocol's

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from structlog.testing import capture_logs

from inference.regions.leased import LeasedRegions, RegionLimits
from inference.regions.servicer import add_to
from node.errors import InferenceBroken
from node.inference_client import region_pool
from node.inference_client.client import InferenceClient
from node.inference_client.local_region import RegionUnreachable
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle, open_bundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server
from tests.inference_service import RunningService, bright_volume, client_of, kill, running_service, volume_of
from tests.waiting import wait_until

Clients = dict[str, InferenceClient]
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 37))
DTYPES = st.sampled_from([("echo", np.int16), ("echo", np.uint16), ("echo_uint8", np.uint8), ("echo_fp32", np.float32)])


def bundle_of(service: RunningService, name: str) -> ModelBundle:
    return open_bundle(service.models / name / "1")


def mapped_regions() -> set[str]:
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {line.split()[4] for line in lines if "memfd:hilum-region" in line}


@pytest.fixture(scope="module")
def clients(service: RunningService) -> Iterator[Clients]:
    with (
        client_of(service.tcp, regions="auto") as auto,
        client_of(service.tcp, regions="upload") as upload,
        client_of(service.tcp, regions="off") as off,
    ):
        yield {"auto": auto, "upload": upload, "off": off}


@given(shape=SHAPES, kind=DTYPES, drawn=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_way_gives_the_same_outputs(
    clients: Clients, service: RunningService, shape: tuple[int, ...], kind: tuple[str, type], drawn: st.DataObject
) -> None:
    model, dtype = kind
    finite = {"elements": st.floats(-(2**20), 2**20, width=32)} if dtype is np.float32 else {}
    voxels = drawn.draw(arrays.arrays(dtype, shape, **finite))
    volume = volume_of(voxels, slope=0.5, intercept=3)
    answers = {way: client.infer(bundle_of(service, model), volume).outputs for way, client in clients.items()}
    for way in ("auto", "upload"):
        assert answers[way].keys() == answers["off"].keys()
        for name, expected in answers["off"].items():
            assert answers[way][name].dtype == expected.dtype
            np.testing.assert_array_equal(answers[way][name], expected)
            assert not answers[way][name].flags.writeable


def test_only_auto_maps(service: RunningService) -> None:
    before = mapped_regions()
    for way in ("upload", "off"):
        with client_of(service.tcp, regions=way) as client, capture_logs() as events:
            client.infer(bundle_of(service, "echo"), bright_volume())
            assert mapped_regions() <= before
            assert [item["event"] for item in events] == ["prediction_received"]
    with client_of(service.tcp, regions="auto") as client:
        prediction = client.infer(bundle_of(service, "echo"), bright_volume())
        assert len(mapped_regions() - before) == 2
    np.testing.assert_array_equal(prediction.outputs["stored"], bright_volume().voxels)


@pytest.mark.parametrize("way", ["auto", "upload"])
def test_threads_share_a_client(clients: Clients, service: RunningService, way: str) -> None:
    bundle = bundle_of(service, "echo")

    def ask(number: int) -> bool:
        voxels = np.full((3, 40, 41 + number), number + 1, np.int16)
        return bool(np.array_equal(clients[way].infer(bundle, volume_of(voxels)).outputs["stored"], voxels))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(ask, range(16)))


def test_a_region_is_used_again_and_never_under_an_array_that_is_held(service: RunningService) -> None:
    bundle = bundle_of(service, "echo")
    before = mapped_regions()
    with client_of(service.tcp) as client:
        held = client.infer(bundle, volume_of(np.full((2, 9, 9), 7, np.int16))).outputs["stored"][1:, 2:5]
        for number in range(8):
            client.infer(bundle, volume_of(np.full((2, 9, 9), number, np.int16)))
            assert np.all(held == 7)
        # One for the images, one under `held`, and two for the answers: each comes before the last one is dropped.
        assert len(mapped_regions() - before) <= 4
    assert np.all(held == 7)


def test_after_the_lease_is_cut_the_next_request_opens_another(service: RunningService) -> None:
    bundle = bundle_of(service, "echo")
    with client_of(service.tcp) as client:
        first = client.infer(bundle, volume_of(np.full((2, 9, 9), 7, np.int16)))
        lease = client._transports[client.endpoints[0]]._pool._lease
        lease._call.cancel()
        wait_until(lambda: lease.is_ended, timeout_s=10, what="the end of the lease")
        with capture_logs() as events:
            again = client.infer(bundle, volume_of(np.full((2, 9, 9), 8, np.int16)))
        assert [item["event"] for item in events] == ["lease_lost", "prediction_received"]
    assert np.all(first.outputs["stored"] == 7)
    assert np.all(again.outputs["stored"] == 8)


def test_a_region_that_the_service_forgot_is_leased_anew(service: RunningService) -> None:
    bundle = bundle_of(service, "echo")
    with client_of(service.tcp) as client:
        client.infer(bundle, bright_volume())
        client._transports[client.endpoints[0]]._pool._lease.release("")
        answer = client.infer(bundle, bright_volume())
    np.testing.assert_array_equal(answer.outputs["stored"], bright_volume().voxels)


def test_a_service_started_again_is_asked_with_new_regions(good_models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    bundle = open_bundle(good_models / "bright_regions" / "1")
    with client_of(address) as client:
        for _ in range(2):
            with running_service(good_models, "--model", "bright_regions", "--listen", address):
                client.wait_ready("bright_regions", "1", 30)
                outputs = [client.infer(bundle, bright_volume()).outputs["probability"] for _ in range(2)]
            assert np.count_nonzero(outputs[0]) == np.count_nonzero(outputs[1]) > 0


@pytest.mark.parametrize(("size", "uploads"), [(32, 0), (1024, 2)])
def test_where_mapping_fails_large_images_are_uploaded(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, size: int, uploads: int
) -> None:
    def unreachable(_granted: object) -> None:
        raise RegionUnreachable("another host")

    monkeypatch.setattr(region_pool, "map_region", unreachable)
    uploaded = []
    with client_of(service.tcp) as client, capture_logs() as events:
        stub = client.endpoints[0].regions
        send = stub.Upload
        stub.Upload = lambda *args, **options: uploaded.append(1) or send(*args, **options)
        for _ in range(2):
            client.infer(bundle_of(service, "bright_regions"), bright_volume(slices=3, size=size))
    assert [item["event"] for item in events].count("regions_unmapped") == 1
    assert len(uploaded) == uploads


class Plain(GRPCInferenceServiceServicer):
    """Answers requests without regions; refuses others."""

    def ServerLive(self, request, context):
        return messages.ServerLiveResponse(live=True)

    def ModelInfer(self, request, context):
        if any(item.parameters for item in request.inputs):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected no region")
        answer = messages.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        answer.outputs.add(name="probability", datatype="UINT8", shape=request.inputs[0].shape)
        answer.raw_output_contents.append(bytes(4 * 32 * 32))
        return answer


@contextmanager
def plain_service(limits: RegionLimits | None) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(8))
    add_GRPCInferenceServiceServicer_to_server(Plain(), server)
    leased = LeasedRegions(limits)
    if limits is not None:
        add_to(server, leased)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        leased.close()
        server.stop(0).wait()


@pytest.mark.parametrize("way", ["auto", "upload"])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        # Room for the image and not for the answer, for neither, and no regions at all.
        (RegionLimits(client_quota_bytes=1 << 20), ["region_refused"] * 2),
        (RegionLimits(region_max_bytes=4096), ["region_refused"] * 2),
        (None, ["regions_declined"]),
    ],
    ids=["quota", "too large", "foreign"],
)
def test_without_room_the_request_travels_as_a_message(
    service: RunningService, way: str, limits: RegionLimits | None, expected: list[str]
) -> None:
    with plain_service(limits) as address, client_of(address, regions=way) as client, capture_logs() as events:
        for _ in range(2):
            client.infer(bundle_of(service, "bright_regions"), bright_volume())
    assert [item["event"] for item in events if item["event"].startswith("region")] == expected


def test_of_two_services_one_is_killed_under_traffic(good_models: Path) -> None:
    bundle = open_bundle(good_models / "bright_regions" / "1")
    done, broken = [], []
    lock, killed = threading.Lock(), threading.Event()
    only = ("--model", "bright_regions")
    with running_service(good_models, *only) as one, running_service(good_models, *only) as two:
        client = InferenceClient(InferenceSettings(endpoints=(one.tcp, two.tcp)))

        def ask(_: int) -> None:
            try:
                answer = client.infer(bundle, bright_volume())
            except InferenceBroken as error:
                broken.append(error)
                return
            assert np.argwhere(answer.outputs["probability"]).min(axis=0).tolist() == [1, 10, 10]
            with lock:
                done.append(answer)
                if len(done) == 20 and not killed.is_set():
                    killed.set()
                    kill(one.process.pid)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, range(60)))
        client.close()
        one.process.wait(10)
    assert killed.is_set()
    assert len(broken) <= 2, "more than what the two threads had in flight"
    assert len(done) + len(broken) == 60
