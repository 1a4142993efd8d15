"""`hilum models quarantine | pull | warm | bench`: what is refused, and a running service asked from outside."""

import itertools
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import grpc
import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inference.answers import DIGEST_PARAMETER
from inference.golden import warming_inputs
from inference.model_config import MANIFEST_PARAMETER
from inference.settings import BUNDLED_MODELS
from protos import open_inference_pb2 as messages
from protos.model_manifest import MANIFEST_FILE, ManifestError, ModelManifest, describe_validation
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensors import to_raw

_MESSAGE_MOST = 1 << 30
_ASK_S, _INFER_S = 10.0, 300.0
_USAGE = 2
Answer = TypeVar("Answer")

Endpoint = Annotated[str, typer.Argument(help="host:port or unix:/path of the service.")]
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Authority = Annotated[Path | None, typer.Option("--ca", help="PEM of the CA for TLS; unset: no encryption.")]


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What a service states of a model."""

    manifest: ModelManifest
    text: str
    """The manifest's TOML, as it came."""
    digest: str
    """Of the bundle; empty where the service states none."""


def add_remote_commands(models: typer.Typer) -> None:
    """Register the commands in the group `hilum models`."""
    models.command("quarantine")(quarantine)
    models.command("pull")(pull)
    models.command("warm")(warm)
    models.command("bench")(bench)


def quarantine(
    models: Annotated[Path, typer.Option("--models", help="Folder of bundles <name>/<version>/.")] = BUNDLED_MODELS,
) -> None:
    """List the bundles of a folder that the service would refuse, and why; no graph is run. Exit 1: there are some.

    Whether a golden answer comes out is known only by running: `hilum models check`.
    """
    from inference.quiet import quiet_tensorflow

    with quiet_tensorflow():
        from inference.bundle_check import quarantined

    refused = quarantined(models)
    if not refused:
        typer.echo(f"{models}: no bundle is refused")
        return
    table = Table("model", "version", "reason", title=f"Refused bundles in {models}")
    for row in refused:
        table.add_row(*map(escape, row))
    Console().print(table)
    raise typer.Exit(1)


def pull(
    endpoint: Endpoint,
    name: Name,
    models: Annotated[Path, typer.Option("--models", help="Folder that takes <name>/<version>/model.toml.")],
    ca: Authority = None,
) -> None:
    """Write the manifest that a service states for a model, so that it can be read here; never over another."""
    with _channel(endpoint, ca) as channel:
        remote = _asked(lambda: read_remote(GRPCInferenceServiceStub(channel), name))
    identity = remote.manifest.identity
    target = models / identity.name / identity.version
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        _fail(f"{target}: is there already and is left as it is. Remedy: remove it, or give another --models")
    except OSError as error:
        _fail(f"{target}: cannot be made: {error.strerror}")
    (target / MANIFEST_FILE).write_text(remote.text, encoding="utf-8")
    typer.echo(f"{target / MANIFEST_FILE}: written")
    if remote.digest:
        typer.echo(f"identity: digest {remote.digest}, as the service states it")
    else:
        typer.echo(f"identity: declared {identity.name}/{identity.version}; the service states no digest")


def warm(endpoint: Endpoint, name: Name, ca: Authority = None) -> None:
    """Send two small requests of ones and say how long each took: the first may have to load the model again."""
    with _channel(endpoint, ca) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = warming_request(_asked(lambda: read_remote(stub, name)).manifest)
        for word in ("first", "second"):
            started = time.perf_counter()
            _asked(lambda: stub.ModelInfer(request, timeout=_INFER_S))
            typer.echo(f"{word}: {(time.perf_counter() - started) * 1000:.1f} ms")


def bench(
    endpoint: Endpoint,
    name: Name,
    clients: Annotated[int, typer.Option("--clients", min=1, max=256, help="Clients at once, a connection each.")] = 1,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests of each client.")] = 20,
    ca: Authority = None,
) -> None:
    """Measure a model with small inputs of ones: latency, throughput, and what was refused. Exit 1: none was answered.

    The figures are of small inputs; a volume takes longer.
    """
    with _channel(endpoint, ca) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = warming_request(_asked(lambda: read_remote(stub, name)).manifest)
        _asked(lambda: stub.ModelInfer(request, timeout=_INFER_S))
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        rounds = list(pool.map(lambda _: _round(endpoint, ca, request, requests), range(clients)))
    seconds = time.perf_counter() - started
    refused = Counter(itertools.chain.from_iterable(of.refused for of in rounds))
    times = [time_s for of in rounds for time_s in of.times_s]
    for code, count in sorted(refused.items()):
        typer.echo(f"not answered: {count} {code}")
    if not times:
        raise typer.Exit(1)
    p50, p95, p99 = np.percentile(times, (50, 95, 99)) * 1000
    typer.echo(f"answered: {len(times)} of {clients * requests} by {clients} clients in {seconds:.2f} s")
    typer.echo(f"latency: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms")
    typer.echo(f"throughput: {len(times) / seconds:.1f} requests/s")


@dataclass(frozen=True, slots=True)
class _Round:
    times_s: list[float]
    refused: list[str]


def _round(endpoint: str, ca: Path | None, request: messages.ModelInferRequest, count: int) -> _Round:
    found = _Round([], [])
    with _channel(endpoint, ca) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(count):
            started = time.perf_counter()
            try:
                stub.ModelInfer(request, timeout=_INFER_S)
            except grpc.RpcError as error:
                found.refused.append(error.code().name)
            else:
                found.times_s.append(time.perf_counter() - started)
    return found


def read_remote(stub: GRPCInferenceServiceStub, name: str) -> RemoteModel:
    """Ask for a model's manifest and digest.

    Raises:
        grpc.RpcError: the service is away or knows no such model.
        ManifestError: it states no manifest, one that is wrong, or that of another model.
    """
    request = messages.ModelConfigRequest(name=name)
    parameters = stub.ModelConfig(request, timeout=_ASK_S, wait_for_ready=False).config.parameters
    if MANIFEST_PARAMETER not in parameters:
        raise ManifestError(f"model {name}: the service states no {MANIFEST_PARAMETER} in its configuration")
    text = parameters[MANIFEST_PARAMETER].string_value
    digest = parameters[DIGEST_PARAMETER].string_value if DIGEST_PARAMETER in parameters else ""
    try:
        manifest = ModelManifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"model {name}: its stated manifest cannot be read as TOML: {error}") from error
    except ValidationError as error:
        raise ManifestError(f"model {name}: its stated manifest: {describe_validation(error)}") from error
    if manifest.identity.name != name:
        raise ManifestError(f"model {name}: the stated manifest is of {manifest.identity.name!r}")
    return RemoteModel(manifest, text, digest)


def warming_request(manifest: ModelManifest) -> messages.ModelInferRequest:
    """Build a small request of ones for the version that the manifest states."""
    identity = manifest.identity
    request = messages.ModelInferRequest(model_name=identity.name, model_version=identity.version)
    arrays = warming_inputs(manifest)
    for tensor in manifest.inputs:
        array = arrays[tensor.name]
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        request.raw_input_contents.append(bytes(to_raw(array, name=tensor.name)))
    return request


def _channel(endpoint: str, ca: Path | None) -> grpc.Channel:
    options = [
        ("grpc.max_receive_message_length", _MESSAGE_MOST),
        ("grpc.max_send_message_length", _MESSAGE_MOST),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if ca is None:
        return grpc.insecure_channel(endpoint, options=options)
    try:
        roots = ca.read_bytes()
    except OSError as error:
        _fail(f"--ca {ca}: cannot be read: {error.strerror}")
    return grpc.secure_channel(endpoint, grpc.ssl_channel_credentials(roots), options=options)


def _asked(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except grpc.RpcError as error:
        _fail(f"the service answers {error.code().name}: {error.details()}")
    except ManifestError as error:
        _fail(str(error))


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(_USAGE)
