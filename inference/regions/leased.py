"""Regions that the server lends: each belongs to a lease, one stream of one client, and dies with it.

A region dies by release, by expiry, or with its lease. From then on nobody finds it; its memory and its share of the
client's quota stay until the last request that uses it has ended.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

import structlog

from inference.call import Call
from inference.errors import Busy, RegionNotFound, RegionNotReady, RequestRefused, RequestTooLarge
from inference.regions.limits import RegionLimits
from inference.regions.memory import RegionMemory
from inference.regions.upload import Slots

_log = structlog.get_logger(__name__)
_SWEEPS_EACH_EXPIRY = 8
_SWEEP_MOST_S = 5.0
_SHOWN = 80
Ending = Callable[[], object]


@dataclass(frozen=True, slots=True)
class RegionCounts:
    """What is lent now, and what was since the start."""

    leases: int = 0
    regions: int = 0
    bytes: int = 0
    created: int = 0
    expired: int = 0
    refused: int = 0


@dataclass(slots=True, eq=False)
class LeasedRegion:
    """One region; all but its bytes is guarded by the lock of `LeasedRegions`."""

    name: str
    byte_size: int
    memory: RegionMemory
    lease: "RegionLease"
    expires_at: float
    slots: Slots | None = None
    """Set while an upload is not committed: then no request may use the region."""
    users: int = 0
    is_written: bool = False
    is_dead: bool = False
    endings: list[Ending] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class RegionLease:
    """One stream of one client and the regions that live with it."""

    client: str
    on_close: Ending
    regions: dict[str, LeasedRegion] = field(default_factory=dict)
    is_ended: bool = False


@dataclass(slots=True)
class _Account:
    regions: int = 0
    bytes: int = 0


class LeasedRegions:
    """Lends regions and takes them back. Implements `inference.ports.Regions` for the names it holds."""

    def __init__(self, limits: RegionLimits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or RegionLimits()
        self._clock = clock
        self._lock = threading.Lock()
        self._allocation = threading.Lock()
        self._regions: dict[str, LeasedRegion] = {}
        self._leases: set[RegionLease] = set()
        self._accounts: dict[str, _Account] = {}
        self._counts = RegionCounts()
        self._ended: SimpleQueue[RegionLease | None] = SimpleQueue()
        self._closed = False

    def start(self) -> None:
        """Begin to end what expires, in a thread of its own, until `close`."""
        threading.Thread(target=self._keep_swept, name="region-sweep", daemon=True).start()

    def close(self) -> None:
        """End every lease and its stream; requests that run keep what they use."""
        with self._lock:
            self._closed = True
            leases = list(self._leases)
        self._ended.put(None)
        for lease in leases:
            self.end(lease)
            lease.on_close()

    def counts(self) -> RegionCounts:
        """Give the figures of this moment."""
        with self._lock:
            accounts = self._accounts.values()
            return replace(
                self._counts,
                leases=len(self._leases),
                regions=sum(account.regions for account in accounts),
                bytes=sum(account.bytes for account in accounts),
            )

    def open_lease(self, client: str, on_close: Ending) -> RegionLease:
        """Begin a lease; `on_close` ends its stream when the service stops.

        Raises:
            Busy: too many are open, or the service is stopping.
        """
        lease = RegionLease(client, on_close)
        with self._lock:
            if self._closed or len(self._leases) >= self.limits.leases_most:
                raise Busy(f"leases: {len(self._leases)} of {self.limits.leases_most} are open; try again later")
            self._leases.add(lease)
        return lease

    def end(self, lease: RegionLease) -> None:
        """End a lease and its regions; a second time does nothing."""
        with self._lock:
            lease.is_ended = True
            self._leases.discard(lease)
            regions = list(lease.regions.values())
        self._retire(regions)

    def end_soon(self, lease: RegionLease) -> None:
        """End a lease from a thread that must not wait for memory to be given back."""
        self._ended.put(lease)

    def create(self, lease: RegionLease, byte_size: int, *, local: bool) -> LeasedRegion:
        """Lend `byte_size` bytes of zeros under a new name.

        Raises:
            RequestRefused: no bytes are asked for.
            RequestTooLarge: more than a region may have.
            Busy: the client's quota or the machine's memory is taken.
        """
        try:
            self._take_quota(lease.client, byte_size)
            try:
                with self._allocation:
                    memory = RegionMemory(byte_size, local=local)
            except Busy:
                self._give_quota(lease.client, byte_size)
                raise
        except (Busy, RequestTooLarge):
            with self._lock:
                self._counts = replace(self._counts, refused=self._counts.refused + 1)
            raise
        return self._enrolled(lease, byte_size, memory)

    def renew(self, lease: RegionLease, name: str) -> None:
        """Let a region of the lease (empty name: all) live on from now; raise RegionNotFound where it has none."""
        self.sweep()
        with self._lock:
            for region in self._of_lease(lease, name):
                region.expires_at = self._clock() + self.limits.expiry_s

    def release(self, lease: RegionLease, name: str) -> None:
        """Let a region of the lease (empty name: all) die; raise RegionNotFound where it has none."""
        with self._lock:
            regions = list(self._of_lease(lease, name))
        self._retire(regions)

    def sweep(self) -> None:
        """End regions whose time has come."""
        now = self._clock()
        with self._lock:
            expired = [region for region in self._regions.values() if region.expires_at <= now]
            for region in expired:
                del self._regions[region.name]
            self._counts = replace(self._counts, expired=self._counts.expired + len(expired))
        self._retire(expired)
        for region in expired:
            _log.info("region_expired", bytes=region.byte_size, after_s=self.limits.expiry_s)

    @contextmanager
    def view(self, name: str, offset: int, byte_size: int, call: Call, *, writable: bool) -> Iterator[memoryview]:
        """Hold bytes of a region while the block runs; see `inference.ports.Regions`.

        Raises:
            RegionNotFound: this client has leased none of that name.
            RegionNotReady: it is under upload.
            RequestRefused: not all of the bytes lie in it.
        """
        with self._used(name, call, writes=False) as region:
            part = _part(region, offset, byte_size)
            yield part if writable else part.toreadonly()

    @contextmanager
    def reading(self, name: str, offset: int, byte_size: int, call: Call, on_end: Ending) -> Iterator[memoryview]:
        """View bytes as `view` does, and call `on_end` when the region dies meanwhile."""
        with self._used(name, call, writes=False, on_end=on_end) as region:
            yield _part(region, offset, byte_size).toreadonly()

    @contextmanager
    def writing(self, name: str, call: Call, on_end: Ending) -> Iterator[LeasedRegion]:
        """Hold a region alone, to upload or to commit; `on_end` is called when it dies meanwhile.

        Raises:
            RegionNotFound: this client has leased none of that name.
            RegionNotReady: it is in use.
        """
        with self._used(name, call, writes=True, on_end=on_end) as region:
            yield region

    @contextmanager
    def _used(self, name: str, call: Call, *, writes: bool, on_end: Ending | None = None) -> Iterator[LeasedRegion]:
        region = self._entered(name, call, writes=writes, on_end=on_end)
        try:
            yield region
        finally:
            self._leave(region, on_end, wrote=writes)

    def _entered(self, name: str, call: Call, *, writes: bool, on_end: Ending | None) -> LeasedRegion:
        with self._lock:
            region = self._regions.get(name)
            if region is None or region.lease.client != call.client or region.expires_at <= self._clock():
                raise RegionNotFound(f"region {name!r:.{_SHOWN}}: this client has leased none of that name")
            if region.is_written or (region.slots is not None and not writes):
                raise RegionNotReady(f"region {name!r:.{_SHOWN}}: is under upload; commit it first")
            if writes and region.users:
                raise RegionNotReady(f"region {name!r:.{_SHOWN}}: {region.users} request(s) use it; upload later")
            region.users += 1
            region.is_written = writes
            if on_end is not None:
                region.endings.append(on_end)
            return region

    def _leave(self, region: LeasedRegion, on_end: Ending | None, *, wrote: bool) -> None:
        with self._lock:
            region.users -= 1
            region.is_written = region.is_written and not wrote
            if on_end is not None:
                region.endings.remove(on_end)
            last = region.is_dead and not region.users
        if last:
            self._free(region)

    def _retire(self, regions: Iterable[LeasedRegion]) -> None:
        with self._lock:
            dying = [region for region in regions if not region.is_dead]
            for region in dying:
                region.is_dead = True
                self._regions.pop(region.name, None)
                region.lease.regions.pop(region.name, None)
            idle = [region for region in dying if not region.users]
            endings = [ending for region in dying for ending in region.endings]
        for ending in endings:
            ending()
        for region in idle:
            self._free(region)

    def _free(self, region: LeasedRegion) -> None:
        region.slots = None
        region.memory.close()
        self._give_quota(region.lease.client, region.byte_size)

    def _enrolled(self, lease: RegionLease, byte_size: int, memory: RegionMemory) -> LeasedRegion:
        expires_at = self._clock() + self.limits.expiry_s
        region = LeasedRegion(secrets.token_hex(16), byte_size, memory, lease, expires_at)
        with self._lock:
            lease.regions[region.name] = self._regions[region.name] = region
            self._counts = replace(self._counts, created=self._counts.created + 1)
            too_late = lease.is_ended
        if too_late:
            self._retire([region])
        return region

    def _of_lease(self, lease: RegionLease, name: str) -> Iterable[LeasedRegion]:
        if not name:
            return lease.regions.values()
        if name not in lease.regions:
            raise RegionNotFound(f"region {name!r:.{_SHOWN}}: this lease has none of that name")
        return (lease.regions[name],)

    def _take_quota(self, client: str, byte_size: int) -> None:
        limits = self.limits
        if byte_size < 1:
            raise RequestRefused("byte_size: expected 1 or more, got 0")
        if byte_size > limits.region_max_bytes:
            raise RequestTooLarge(f"byte_size: a region has at most {limits.region_max_bytes} bytes, got {byte_size}")
        with self._lock:
            account = self._accounts.get(client, _Account())
            if account.regions >= limits.client_regions:
                raise Busy(f"this client has {account.regions} regions of {limits.client_regions}; release one")
            if account.bytes + byte_size > limits.client_quota_bytes:
                raise Busy(
                    f"this client's regions have {account.bytes} bytes of {limits.client_quota_bytes}, "
                    f"{byte_size} more do not fit; release one"
                )
            self._accounts[client] = _Account(account.regions + 1, account.bytes + byte_size)

    def _give_quota(self, client: str, byte_size: int) -> None:
        with self._lock:
            account = self._accounts[client]
            if account.regions == 1:
                del self._accounts[client]
            else:
                self._accounts[client] = _Account(account.regions - 1, account.bytes - byte_size)

    def _keep_swept(self) -> None:
        pause = min(_SWEEP_MOST_S, self.limits.expiry_s / _SWEEPS_EACH_EXPIRY)
        while not self._closed:
            try:
                lease = self._ended.get(timeout=pause)
            except Empty:
                self.sweep()
                continue
            if lease is not None:
                self.end(lease)


def _part(region: LeasedRegion, offset: int, byte_size: int) -> memoryview:
    if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
        raise RequestRefused(
            f"region {region.name!r}: expected bytes within its {region.byte_size}, "
            f"got {byte_size} from offset {offset} on"
        )
    return region.memory.view[offset : offset + byte_size]
