"""One series on its way into a region before it is whole: slices in order of arrival, proven before they are used.

The region becomes a tensor only where it holds exactly the instances of the finished volume, and the service finds the
CRC-32 there that this node takes of that volume. Whatever else happens, the upload is given up.
"""

import math
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc
from numpy.typing import NDArray

from node.errors import InferenceError
from node.inference_client.endpoints import Endpoint
from node.inference_client.message_stream import MessageStream, StreamCut
from node.inference_client.region_pool import LeasedRegion, RegionPool
from protos.region_wire import CHUNK_UNSTATED, Framed
from protos.tensor_regions_pb2 import CommitRequest, UploadRequest, UploadResponse
from protos.tensors import datatype_of, dtype_of, to_raw

STREAM_S: Final = 1800.0
"""Deadline of the open stream: no study takes longer to arrive, or it is uploaded whole."""
_PATIENCE_S: Final = 10.0
_GIVE_UP_S: Final = 2.0
_MESSAGES_MOST: Final = 8


class EarlyUploadLost(Exception):
    """The slices sent so far cannot be used; the volume is to be uploaded whole."""


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """What every slice of one upload is, and for how many there is room."""

    datatype: str
    shape: tuple[int, int]
    """Rows and columns in the model's axes."""
    slots: int

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slice."""
        return math.prod(self.shape) * dtype_of(self.datatype).itemsize


class EarlyUpload:
    """An open upload into one region; safe to share between threads."""

    def __init__(self, endpoint: Endpoint, pool: RegionPool, region: LeasedRegion, plan: SlotPlan) -> None:
        """Open the stream; EarlyUploadLost where the channel is closed."""
        self.endpoint, self.plan = endpoint, plan
        self._pool, self._region = pool, region
        self._turn = threading.Lock()
        self._slots: dict[str, int] = {}
        self._is_closed = self._is_settled = False
        self._stream = MessageStream(most=_MESSAGES_MOST, patience_s=_PATIENCE_S)
        try:
            self._call = endpoint.regions.Upload.future(
                self._stream,  # type: ignore[arg-type]  # the generated stub knows whole messages alone
                timeout=STREAM_S,
            )
        except ValueError as error:  # what gRPC raises on a closed channel
            raise EarlyUploadLost("the channel is closed") from error
        self._call.add_done_callback(lambda _: self._stream.cut())
        start = UploadRequest.Start(region=region.name, slot_byte_size=plan.slot_bytes)
        with self._lost():
            self._stream.put(UploadRequest(start=start))

    @property
    def is_alive(self) -> bool:
        """Tell whether slices can still be sent."""
        return not self._is_closed and not self._call.done() and not self._region.lease.is_ended

    @property
    def count(self) -> int:
        """Slices sent so far."""
        return len(self._slots)

    def send(self, sop_instance_uid: str, pixels: NDArray[Any]) -> None:
        """Send one slice [row, column] as the next slot; an instance that was sent before is passed over.

        Raises:
            EarlyUploadLost: the stream is gone, too slow or full, or the slice is not like the others.
        """
        with self._turn:
            if sop_instance_uid not in self._slots:
                self._send(sop_instance_uid, pixels)

    def complete(self, instances: Sequence[str], voxels: NDArray[Any], *, timeout_s: float) -> tuple[LeasedRegion, int]:
        """Make the tensor `voxels` [slice, row, column] in the region, sending only the slices that are missing.

        Args:
            instances: SOP Instance UID of each slice of `voxels`, in order.
            voxels: as the service shall see them.
            timeout_s: for the rest of the stream, and for putting the slices in order.

        Returns:
            The region, which is the caller's from now on, and the bytes that were still missing.

        Raises:
            EarlyUploadLost: it does not hold that tensor; call `abandon`.
        """
        with self._turn:
            self._check(instances, voxels)
            missing = [(uid, pixels) for uid, pixels in zip(instances, voxels, strict=True) if uid not in self._slots]
            for uid, pixels in missing:
                self._send(uid, pixels)
            self._is_closed = True
        self._stream.end()
        with self._lost():
            self._commit(instances, voxels, timeout_s)
        self._is_settled = True
        return self._region, len(missing) * self.plan.slot_bytes

    def abandon(self) -> bool:
        """Give the region up, so that its memory is free on return where the service answers.

        Returns False, and does nothing, where `complete` handed it over or it was given up before.
        """
        self._stream.cut()
        with self._turn:
            self._is_closed = True
            if self._is_settled:
                return False
            self._is_settled = True
        # The service charges a region until its upload has ended, so that comes first.
        with suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
            self._call.result(timeout=_GIVE_UP_S)
        self._call.cancel()
        self._pool.discard(self._region)
        return True

    def _send(self, sop_instance_uid: str, pixels: NDArray[Any]) -> None:
        if self._is_closed:
            raise EarlyUploadLost("it takes no more slices")
        if datatype_of(pixels.dtype) != self.plan.datatype or pixels.shape != self.plan.shape:
            raise EarlyUploadLost(f"a slice is {pixels.dtype} {pixels.shape}, others {self.plan}")
        slot, content = len(self._slots), to_raw(pixels)
        if slot >= self.plan.slots:
            raise EarlyUploadLost(f"more than {self.plan.slots} slices")
        with self._lost():
            for offset in range(0, len(content), CHUNK_UNSTATED):
                chunk = content[offset : offset + CHUNK_UNSTATED]
                self._stream.put(Framed(UploadRequest(slot=slot, offset=offset), chunk))
        self._slots[sop_instance_uid] = slot

    def _check(self, instances: Sequence[str], voxels: NDArray[Any]) -> None:
        if len(set(instances)) != len(voxels) or voxels.shape[1:] != self.plan.shape:
            raise EarlyUploadLost(f"the volume is {voxels.shape} of {len(instances)} instances, slices {self.plan}")

    def _commit(self, instances: Sequence[str], voxels: NDArray[Any], timeout_s: float) -> None:
        checksum = crc32_of(voxels)  # while the last slices travel
        answer: UploadResponse = self._call.result(timeout=timeout_s)
        sent = (len(self._slots), len(self._slots) * self.plan.slot_bytes)
        if (answer.slots, answer.byte_size) != sent:
            raise EarlyUploadLost(f"the service has {answer.slots} slots, {answer.byte_size} bytes; sent {sent}")
        commit = CommitRequest(
            region=self._region.name,
            datatype=self.plan.datatype,
            shape=voxels.shape,
            permutation=[self._slots[uid] for uid in instances],
            crc32=checksum,
        )
        self.endpoint.call(self.endpoint.regions.Commit, commit, timeout_s=timeout_s)

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Say EarlyUploadLost for whatever ends the upload."""
        try:
            yield
        except grpc.RpcError as error:
            raise EarlyUploadLost(f"{error.code().name}: {(error.details() or '')[:200]}") from error
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError) as error:
            raise EarlyUploadLost("the service did not end the upload in time") from error
        except InferenceError as error:
            raise EarlyUploadLost(str(error)) from error
        except StreamCut as error:
            why = f": {self._call.code().name}" if self._call.done() else ""
            raise EarlyUploadLost(f"{error}{why}") from error


def open_upload(endpoint: Endpoint, pool: RegionPool, plan: SlotPlan) -> EarlyUpload | None:
    """Lease a region and open an upload into it; None where regions are mapped, and copies as fast as memory.

    Raises:
        LeaseRefused: no region now.
        EarlyUploadLost: the channel is closed.
    """
    if pool.maps:
        probe = pool.take(1)
        if probe.room is not None:
            pool.give_back(probe)
            return None
        pool.discard(probe)
    region = pool.take(plan.slots * plan.slot_bytes)
    try:
        return EarlyUpload(endpoint, pool, region, plan)
    except EarlyUploadLost:
        pool.discard(region)
        raise


def crc32_of(voxels: NDArray[Any]) -> int:
    """Return the CRC-32 of a tensor's bytes in C order, slice by slice: a flipped view is never copied whole."""
    checksum = 0
    for part in voxels:
        checksum = zlib.crc32(to_raw(part), checksum)
    return checksum
