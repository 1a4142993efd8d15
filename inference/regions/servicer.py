"""RPCs of `hilum.inference.TensorRegions`: messages in, calls of the leased regions, messages out."""
# ruff: noqa: N802 - names are the protocol's

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import grpc

from inference.error_interceptor import sentence_of
from inference.errors import Busy, RegionNotReady, RequestCancelled, RequestRefused, ServiceError
from inference.interception import Handler
from inference.regions.encoding import encoded
from inference.regions.leased import LeasedRegion, LeasedRegions, RegionLease
from inference.regions.upload import Slots, UploadedTensor
from inference.servicer_parts import caller
from protos import tensor_regions_pb2 as messages
from protos.region_wire import CHUNK_MOST, CHUNK_UNSTATED, Framed, read_upload, written

TRANSFERS_MOST = 64
"""Uploads and downloads of all clients at once; each holds a thread."""
_CHUNK_LEAST = 4096
_SERVICE = messages.DESCRIPTOR.services_by_name["TensorRegions"].full_name
Upload = Framed[messages.UploadRequest]
Download = Framed[messages.DownloadChunk]


class TensorRegionsServicer:
    """Lends regions, fills them, and gives their bytes."""

    def __init__(self, leased: LeasedRegions) -> None:
        self._leased = leased
        self._transfers = threading.BoundedSemaphore(TRANSFERS_MOST)

    def Lease(
        self, request_iterator: Iterator[messages.LeaseRequest], context: grpc.ServicerContext
    ) -> Iterator[messages.LeaseResponse]:
        """Answer in order until the stream ends; then its regions are gone.

        Raises:
            Busy: too many leases are open.
            RequestCancelled: the client is gone.
        """
        lease = self._leased.open_lease(caller(context).client, context.cancel)
        try:
            if not context.add_callback(partial(self._leased.end_soon, lease)):
                return
            with _client_there():
                for request in request_iterator:
                    yield self._answer(lease, request)
        finally:
            self._leased.end(lease)

    def _answer(self, lease: RegionLease, request: messages.LeaseRequest) -> messages.LeaseResponse:
        try:
            response = self._done(lease, request)
        except ServiceError as error:
            number: int = error.code.value[0]
            return messages.LeaseResponse(error_message=sentence_of(error), error_code=number)
        response.expires_after_s = int(self._leased.limits.expiry_s)
        return response

    def _done(self, lease: RegionLease, request: messages.LeaseRequest) -> messages.LeaseResponse:
        action = request.WhichOneof("action")
        if action == "create":
            return _stated(self._leased.create(lease, request.create.byte_size, local=request.create.local))
        if action == "renew":
            self._leased.renew(lease, request.renew.name)
            return messages.LeaseResponse(name=request.renew.name)
        if action == "release":
            self._leased.release(lease, request.release.name)
            return messages.LeaseResponse(name=request.release.name)
        raise RequestRefused("action: expected create, renew or release, got none")

    def Upload(self, request_iterator: Iterator[Upload], context: grpc.ServicerContext) -> messages.UploadResponse:
        """Fill slots until the client has sent all; an upload begins anew what an earlier one left.

        Raises:
            RegionNotFound, RegionNotReady: no such region, or it is in use.
            RequestRefused: no start, or a chunk that does not fit.
            RequestCancelled: the client is gone, or the region died.
            Busy: too many transfers.
        """
        with self._transfer(), _client_there():
            first = next(request_iterator, None)
            if first is None or not first.head.HasField("start"):
                raise RequestRefused("start: expected in the first message, got none")
            start = first.head.start
            with self._leased.writing(start.region, caller(context), context.cancel) as region:
                slots = Slots(region.memory.view, start.slot_byte_size)
                region.slots = slots
                if first.chunk:
                    _put(slots, first)
                _fill(slots, request_iterator)
                return messages.UploadResponse(slots=slots.count, byte_size=slots.byte_size)

    def Commit(self, request: messages.CommitRequest, context: grpc.ServicerContext) -> messages.CommitResponse:
        """Put the slots into their order; from then on requests may use the region.

        Raises:
            RegionNotFound, RegionNotReady: no such region, nothing uploaded, or slots are not full.
            RequestRefused: order, shape or CRC-32 do not fit what was uploaded.
        """
        crc32 = request.crc32 if request.HasField("crc32") else None
        tensor = UploadedTensor(request.datatype, tuple(request.shape), request.permutation, crc32)
        with self._leased.writing(request.region, caller(context), _nothing) as region:
            if region.slots is None:
                raise RegionNotReady("region: expected an upload before the commit, there was none")
            region.slots.commit(tensor)
            region.slots = None
        return messages.CommitResponse()

    def Download(self, request: messages.DownloadRequest, context: grpc.ServicerContext) -> Iterator[Download]:
        """Give bytes of a region in chunks, each packed where the client reads that and it pays.

        Raises:
            RegionNotFound, RegionNotReady: no such region, or it is under upload.
            RequestRefused: out of bounds, or chunks below 4 KiB.
            Busy: too many transfers.
        """
        size = min(request.chunk_byte_size or CHUNK_UNSTATED, CHUNK_MOST)
        if size < _CHUNK_LEAST:
            raise RequestRefused(f"chunk_byte_size: expected 0 or {_CHUNK_LEAST} and more, got {size}")
        asked = (request.region, request.offset, request.byte_size)
        with self._transfer(), self._leased.reading(*asked, caller(context), context.cancel) as view:
            for start in range(0, request.byte_size, size):
                part = view[start : start + size]
                encoding, content = encoded(part, request.encodings)
                offset = request.offset + start
                head = messages.DownloadChunk(offset=offset, encoding=encoding, byte_size=part.nbytes)
                yield Framed(head, content)

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        if not self._transfers.acquire(blocking=False):
            raise Busy(f"{TRANSFERS_MOST} uploads and downloads run; try again later")
        try:
            yield
        finally:
            self._transfers.release()


def add_to(server: grpc.Server, leased: LeasedRegions) -> None:
    """Offer the service at a server; what carries chunks goes without protobuf's copies of them."""
    servicer = TensorRegionsServicer(leased)
    methods: dict[str, Handler] = {
        "Lease": grpc.stream_stream_rpc_method_handler(
            servicer.Lease, messages.LeaseRequest.FromString, messages.LeaseResponse.SerializeToString
        ),
        "Upload": grpc.stream_unary_rpc_method_handler(
            servicer.Upload, read_upload, messages.UploadResponse.SerializeToString
        ),
        "Commit": grpc.unary_unary_rpc_method_handler(
            servicer.Commit, messages.CommitRequest.FromString, messages.CommitResponse.SerializeToString
        ),
        "Download": grpc.unary_stream_rpc_method_handler(
            servicer.Download, messages.DownloadRequest.FromString, written
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))


def threads_of(leased: LeasedRegions) -> int:
    """Count the threads that leases and transfers may hold at most."""
    return leased.limits.leases_most + TRANSFERS_MOST


@contextmanager
def _client_there() -> Iterator[None]:
    """Say RequestCancelled where gRPC's iterator of requests says that the RPC ended early."""
    try:
        yield
    except grpc.RpcError as error:
        error.__traceback__ = None  # gRPC keeps the error, and its frames would keep the region's memory
        raise RequestCancelled("the client is gone, or the region died") from None


def _fill(slots: Slots, requests: Iterator[Upload]) -> None:
    for request in requests:
        if request.head.HasField("start"):
            raise RequestRefused("start: expected in the first message alone")
        _put(slots, request)


def _put(slots: Slots, request: Upload) -> None:
    head = request.head
    slots.put(head.slot, head.offset, request.chunk, head.whole_slots)


def _stated(region: LeasedRegion) -> messages.LeaseResponse:
    memory = region.memory
    return messages.LeaseResponse(
        name=region.name,
        byte_size=region.byte_size,
        key=memory.key,
        proof=memory.proof,
        not_local_because=memory.not_local_because,
        chunk_byte_size=CHUNK_MOST,
    )


def _nothing() -> None:
    """End nothing: a commit is short and is not broken off."""
