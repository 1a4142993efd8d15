"""The regions of one endpoint: leased as needed, mapped where that can be, used again once nobody views them."""

import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray

from node.inference_client.lease import Lease, LeaseRefused
from node.inference_client.local_region import RegionUnreachable, held, map_region
from protos.tensor_regions_pb2_grpc import TensorRegionsStub

_log = structlog.get_logger(__name__)
ASK_AGAIN_S = 60.0
"""Time after which a service without regions is asked again; it may have been replaced."""
FREE_MOST = 4
IDLE_MOST_S = 300.0
"""A region that was free for so long is released: it holds the service's memory."""
_GRAIN = 1 << 20
_NOT_OFFERED = frozenset(
    {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
)


@dataclass(slots=True, eq=False, weakref_slot=True)
class LeasedRegion:
    """A region, and its bytes where this process maps it."""

    name: str
    byte_size: int
    lease: Lease = field(repr=False)
    room: NDArray[np.uint8] | None = field(default=None, repr=False)
    is_released: bool = False
    """Not to be used for another tensor, though arrays may still view it."""
    chunk_byte_size: int = 0
    """The most bytes that the service takes in a message of an upload; 0 where it does not say."""
    free_since: float = 0.0


class RegionPool:
    """Leases regions over one stream, opened again when it died; safe to share between threads."""

    def __init__(self, stub: TensorRegionsStub, address: str, *, maps: bool) -> None:
        """Lease nothing yet; with `maps` regions are mapped where the service is on this host."""
        self._stub, self._address, self._maps = stub, address, maps
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._free: list[LeasedRegion] = []
        # Filled by finalizers, which may run inside any statement of any thread: no lock there.
        self._let_go: deque[LeasedRegion] = deque()
        self._viewed: weakref.WeakValueDictionary[int, LeasedRegion] = weakref.WeakValueDictionary()
        """By the address of its first byte."""
        self._not_offered_until = 0.0

    @property
    def is_offered(self) -> bool:
        """Tell whether it is worth asking for a region."""
        return time.monotonic() >= self._not_offered_until

    @property
    def maps(self) -> bool:
        """Tell whether regions of this endpoint can be mapped, as far as is known."""
        return self._maps

    def take(self, byte_size: int) -> LeasedRegion:
        """Give a region of at least `byte_size` bytes; mapped if `room` is set.

        Raises:
            LeaseRefused: the service has no regions, no room, or is away.
        """
        with self._lock:
            found = self._take_free(byte_size)
        return found or self._create(-(-byte_size // _GRAIN) * _GRAIN)

    def give_back(self, region: LeasedRegion) -> None:
        """Keep a region for the next tensor that fits; nobody may view or write it any more."""
        self._let_go.append(region)

    def view(self, region: LeasedRegion) -> NDArray[np.uint8]:
        """View a mapped region; it comes back to the pool by itself when no array views it any more."""
        if region.room is None:
            raise ValueError(f"region {region.name} is not mapped")
        self._viewed[region.room.ctypes.data] = region
        return held(region.room, lambda: self._let_go.append(region))

    def region_under(self, array: NDArray[Any]) -> LeasedRegion | None:
        """Give the region whose first bytes are those of `array`, in order; None where there is none to be used."""
        region = self._viewed.get(array.ctypes.data) if array.flags.c_contiguous else None
        if region is None or region.is_released or region.lease.is_ended or array.nbytes > region.byte_size:
            return None
        return region

    def discard(self, region: LeasedRegion) -> None:
        """Release a region that shall not be used again: the service may still write to it."""
        region.is_released = True
        if not region.lease.is_ended:
            region.lease.release(region.name)

    def close(self) -> None:
        """End the lease; arrays that view its regions stay valid."""
        with self._lock:
            lease, self._lease = self._lease, None
            self._free.clear()
        self._let_go.clear()
        if lease is not None:
            lease.close()

    def _take_free(self, byte_size: int) -> LeasedRegion | None:
        self._gather()
        fitting = [item for item in self._free if item.byte_size >= byte_size]
        if not fitting:
            return None
        best = min(fitting, key=lambda item: item.byte_size)
        self._free.remove(best)
        return best

    def _gather(self) -> None:
        while self._let_go:
            region = self._let_go.popleft()
            region.free_since = time.monotonic()
            self._free.append(region)
        self._free = [item for item in self._free if not (item.is_released or item.lease.is_ended)]

    def _create(self, byte_size: int) -> LeasedRegion:
        self._release_free(keep=FREE_MOST - 1)
        try:
            return self._create_on_live_lease(byte_size)
        except LeaseRefused as refusal:
            if refusal.code in _NOT_OFFERED:
                self._not_offered_until = time.monotonic() + ASK_AGAIN_S
                _log.info("regions_declined", endpoint=self._address, reason=refusal.code.name)
                raise
            if refusal.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or not self._release_free(keep=0):
                raise
        return self._create_on_live_lease(byte_size)

    def _create_on_live_lease(self, byte_size: int) -> LeasedRegion:
        lease, is_new = self._live_lease()
        try:
            return self._granted(lease, byte_size)
        except LeaseRefused:
            if is_new or not lease.is_ended:
                raise
        lease, _ = self._live_lease()
        return self._granted(lease, byte_size)

    def _granted(self, lease: Lease, byte_size: int) -> LeasedRegion:
        granted = lease.create(byte_size, local=self._maps)
        room = None
        if self._maps:
            try:
                room = map_region(granted)
            except RegionUnreachable as reason:
                self._maps = False
                _log.info("regions_unmapped", endpoint=self._address, reason=str(reason))
        return LeasedRegion(granted.name, granted.byte_size, lease, room, chunk_byte_size=granted.chunk_byte_size)

    def _live_lease(self) -> tuple[Lease, bool]:
        with self._lock:
            if self._lease is not None and not self._lease.is_ended:
                return self._lease, False
            if self._lease is not None:
                _log.info("lease_lost", endpoint=self._address)
            self._lease = Lease(self._stub, self._release_idle)
            return self._lease, True

    def _release_idle(self) -> None:
        """Release what nobody used for long; called each time the lease is renewed."""
        before = time.monotonic() - IDLE_MOST_S
        with self._lock:
            self._gather()
            idle = [item for item in self._free if item.free_since <= before]
            self._free = [item for item in self._free if item.free_since > before]
        for region in idle:
            self.discard(region)

    def _release_free(self, *, keep: int) -> bool:
        """Release free regions beyond `keep`, the smallest first; tell whether there was one."""
        with self._lock:
            self._free.sort(key=lambda item: item.byte_size)
            count = max(len(self._free) - keep, 0)
            released, self._free = self._free[:count], self._free[count:]
        for region in released:
            self.discard(region)
        return bool(released)
