"""The node's client with several endpoints, and over TLS."""
# ruff: noqa: N802, ARG002 - the server's names and parameters are the protocol's

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from node.errors import InferenceBroken, InferenceUnavailable, SettingsError
from node.inference_client.client import InferenceClient
from node.settings import InferenceSettings, TlsSettings
from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle
from protos.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from tests.bundles import threshold_manifest
from tests.certificates import self_signed
from tests.inference_service import bright_volume

BUNDLE = ModelBundle(Path("bright_regions"), threshold_manifest(), "0" * 64)


class Scripted(GRPCInferenceServiceServicer):
    """Answers with an empty map, or with `refusal`; counts what it was asked."""

    def __init__(self, refusal: grpc.StatusCode | None = None, *, ready: bool = True) -> None:
        self.refusal, self.ready, self.asked = refusal, ready, 0

    def ServerReady(self, request, context):
        return messages.ServerReadyResponse(ready=self.ready)

    def ServerLive(self, request, context):
        return messages.ServerLiveResponse(live=True)

    def ServerMetadata(self, request, context):
        return messages.ServerMetadataResponse(name="scripted", version="1")

    def ModelInfer(self, request, context):
        self.asked += 1
        if self.refusal is not None:
            context.abort(self.refusal, "scripted")
        answer = messages.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        answer.outputs.add(name="probability", datatype="UINT8", shape=request.inputs[0].shape)
        answer.raw_output_contents.append(bytes(4 * 32 * 32))
        return answer


@contextmanager
def serving(servicer: Scripted, credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[str, grpc.Server]]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    place = "127.0.0.1:0"
    port = server.add_insecure_port(place) if credentials is None else server.add_secure_port(place, credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        server.stop(0).wait()


@contextmanager
def asking(settings: InferenceSettings) -> Iterator[InferenceClient]:
    client = InferenceClient(settings)
    try:
        yield client
    finally:
        client.close()


def test_requests_of_many_threads_are_spread_evenly() -> None:
    first, second = Scripted(), Scripted()
    with (
        serving(first) as (one, _),
        serving(second) as (two, _),
        asking(InferenceSettings(endpoints=(one, two))) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(lambda _: client.infer(BUNDLE, bright_volume()), range(20)))
    assert (first.asked, second.asked) == (10, 10)


def test_an_endpoint_that_ends_between_requests_fails_none() -> None:
    first, second = Scripted(), Scripted()
    with (
        serving(first) as (one, ending),
        serving(second) as (two, _),
        asking(InferenceSettings(endpoints=(one, two))) as client,
    ):
        for number in range(10):
            if number == 4:
                ending.stop(0).wait()
            client.infer(BUNDLE, bright_volume())
        assert [item.is_serving for item in client.health_of_each()] == [False, True]
    assert (first.asked, second.asked) == (2, 8)


@pytest.mark.parametrize(
    "away", [Scripted(ready=False), Scripted(grpc.StatusCode.RESOURCE_EXHAUSTED)], ids=["not serving", "busy"]
)
def test_what_one_does_not_take_goes_to_the_next(away: Scripted) -> None:
    there = Scripted()
    with (
        serving(away) as (one, _),
        serving(there) as (two, _),
        asking(InferenceSettings(endpoints=(one, two))) as client,
    ):
        client.infer(BUNDLE, bright_volume())
    assert there.asked == 1


def test_a_request_that_broke_one_endpoint_is_not_carried_to_the_next() -> None:
    breaking, there = Scripted(grpc.StatusCode.UNAVAILABLE), Scripted()
    with (
        serving(breaking) as (one, _),
        serving(there) as (two, _),
        asking(InferenceSettings(endpoints=(one, two))) as client,
        pytest.raises(InferenceBroken, match=one),
    ):
        client.infer(BUNDLE, bright_volume())
    assert there.asked == 0


def test_none_there_names_every_endpoint() -> None:
    with (
        asking(InferenceSettings(endpoints=("unix:/nowhere/a", "unix:/nowhere/b"))) as client,
        pytest.raises(InferenceUnavailable, match=r"nowhere/a.*nowhere/b"),
    ):
        client.infer(BUNDLE, bright_volume())


def test_endpoint_at_odds_with_endpoints_is_refused() -> None:
    with pytest.raises(ValueError, match="is not among endpoints"):
        InferenceSettings(endpoint="a:1", endpoints=("b:1", "c:1"))


def test_mutual_tls_lets_in_who_shows_aself_signed(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "service")
    own, own_key = self_signed(tmp_path, "node")
    pair = [(key.read_bytes(), certificate.read_bytes())]
    credentials = grpc.ssl_server_credentials(pair, own.read_bytes(), require_client_auth=True)
    with serving(Scripted(), credentials) as (address, _):
        tls = TlsSettings(ca=certificate, certificate=own, key=own_key, server_name="service")
        with asking(InferenceSettings(endpoint=address, tls=tls)) as client:
            client.infer(BUNDLE, bright_volume())
        bare = TlsSettings(ca=certificate, server_name="service")
        for other in (bare, None):
            with (
                asking(InferenceSettings(endpoint=address, tls=other)) as client,
                pytest.raises(InferenceUnavailable, match=address),
            ):
                client.infer(BUNDLE, bright_volume())


def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = InferenceSettings(tls=TlsSettings(ca=tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match=r"inference\.tls\.ca = .*none\.pem: No such file"):
        InferenceClient(settings)
