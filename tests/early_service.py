"""A service with real tensor regions whose model is a comparison: it keeps what it was asked, and counts what arrives.

Everything that early uploads touch is the real thing (leases, streams, slots, commits); only TensorFlow is left out.
"""
# ruff: noqa: N802 - names are the protocol's

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from inference.call import Call
from inference.error_interceptor import ErrorInterceptor
from inference.errors import Busy
from inference.interception import AroundInterceptor
from inference.regions.leased import LeasedRegions, RegionLimits
from inference.regions.servicer import add_to
from inference.servicer_parts import caller
from protos import open_inference_pb2 as messages
from protos.model_manifest import (
    MANIFEST_FILE,
    ModelBundle,
    ModelManifest,
    open_bundle,
    write_digest_list,
    write_manifest,
)
from protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server
from protos.region_wire import Framed
from protos.tensor_regions_pb2 import UploadRequest
from protos.tensors import dtype_of
from tests.bundles import threshold_manifest

Chunk = Framed[UploadRequest]
BRIGHT = 500
"""Stored values above it are what the comparison marks."""


@dataclass
class Ledger:
    """What reached the service."""

    images: list[NDArray[Any]] = field(default_factory=list)
    """The image of every request, as the model saw it."""
    uploads: list[int] = field(default_factory=list)
    """Bytes of each upload so far, in the order in which they began."""
    change: Callable[[Chunk], Chunk] = lambda chunk: chunk
    """What the line does to a chunk."""
    gate: threading.Event = field(default_factory=threading.Event)
    """While it is clear, uploads are not read."""

    is_full: bool = False
    """Requests are refused for want of room."""

    def __post_init__(self) -> None:
        self.gate.set()


class _Line(AroundInterceptor):
    """Stands between gRPC and the service's own Upload."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def concerns(self, method: str) -> bool:
        return method.endswith("/Upload")

    @contextmanager
    def around(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Iterator[Chunk]]:
        del method
        self._ledger.uploads.append(0)
        yield self._counted(request, len(self._ledger.uploads) - 1, context)

    def _counted(self, chunks: Iterator[Chunk], number: int, context: grpc.ServicerContext) -> Iterator[Chunk]:
        for chunk in chunks:
            while not self._ledger.gate.wait(0.05) and context.is_active():
                pass
            yield self._ledger.change(chunk)
            self._ledger.uploads[number] += len(chunk.chunk)


class _Comparison(GRPCInferenceServiceServicer):
    def __init__(self, leased: LeasedRegions, ledger: Ledger) -> None:
        self._leased, self._ledger = leased, ledger

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> messages.ServerLiveResponse:
        del request, context
        return messages.ServerLiveResponse(live=True)

    def ModelInfer(
        self, request: messages.ModelInferRequest, context: grpc.ServicerContext
    ) -> messages.ModelInferResponse:
        call = caller(context)
        if self._ledger.is_full:
            raise Busy("no memory for it now")
        image = self._image(request, call)
        self._ledger.images.append(image)
        marked = np.where(image > BRIGHT, np.uint8(255), np.uint8(0))
        response = messages.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        output = response.outputs.add(name="probability", datatype="UINT8", shape=image.shape)
        for wanted in request.outputs:
            if "shared_memory_region" in wanted.parameters:
                name, offset = _place(wanted)
                with self._leased.view(name, offset, marked.nbytes, call, writable=True) as room:
                    room[:] = marked.tobytes()
                output.parameters["shared_memory_region"].string_param = name
                output.parameters["shared_memory_offset"].int64_param = offset
                output.parameters["shared_memory_byte_size"].int64_param = marked.nbytes
                response.raw_output_contents.append(b"")
                return response
        response.raw_output_contents.append(marked.tobytes())
        return response

    def _image(self, request: messages.ModelInferRequest, call: Call) -> NDArray[Any]:
        stated = request.inputs[0]
        dtype, shape = dtype_of(stated.datatype), tuple(stated.shape)
        if "shared_memory_region" not in stated.parameters:
            return np.frombuffer(request.raw_input_contents[0], dtype).reshape(shape).copy()
        name, offset = _place(stated)
        size = int(np.prod(shape)) * dtype.itemsize
        with self._leased.view(name, offset, size, call, writable=False) as room:
            return np.frombuffer(bytes(room), dtype).reshape(shape)


def _place(tensor: Any) -> tuple[str, int]:
    parameters = tensor.parameters
    return parameters["shared_memory_region"].string_param, parameters["shared_memory_offset"].int64_param


class EarlyService:
    """Listens on a port of its own; `restart` forgets all that it had, on the same port."""

    def __init__(self, limits: RegionLimits | None = None) -> None:
        self.ledger = Ledger()
        self._limits = limits
        self._port = 0
        self._start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def _start(self) -> None:
        self.leased = LeasedRegions(self._limits)
        self._server = grpc.server(
            ThreadPoolExecutor(24),
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 30)),
            interceptors=[ErrorInterceptor(), _Line(self.ledger)],
        )
        add_GRPCInferenceServiceServicer_to_server(_Comparison(self.leased, self.ledger), self._server)
        add_to(self._server, self.leased)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self) -> None:
        self.ledger.gate.set()
        ended = self._server.stop(0)
        self.leased.close()
        ended.wait(10)

    def restart(self) -> None:
        self.stop()
        self._start()


@contextmanager
def early_service(limits: RegionLimits | None = None) -> Iterator[EarlyService]:
    running = EarlyService(limits)
    try:
        yield running
    finally:
        running.stop()


def manifest_bundle(directory: Path, manifest: ModelManifest | None = None) -> ModelBundle:
    """Write a bundle that holds a manifest alone: all that a node reads of one."""
    manifest = manifest or threshold_manifest()
    target = directory / manifest.identity.name / manifest.identity.version
    target.mkdir(parents=True)
    write_manifest(manifest, target / MANIFEST_FILE)
    write_digest_list(target)
    return open_bundle(target)
