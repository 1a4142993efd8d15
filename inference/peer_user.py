"""Which user of this host a peer is: shared memory of a user may be registered by that user alone."""

import os
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from inference.errors import AccessDenied

_PEER = re.compile(r"ipv[46]:(?:\[|%5B)?([0-9a-fA-F.:]+?)(?:\]|%5D)?:(\d+)")
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def require_own_user(peer: str) -> None:
    """Raise AccessDenied unless a gRPC peer (`context.peer()`) runs on this host as the service's own user.

    A Unix socket of the service is open to its user alone, so whoever is there is that user.
    """
    if peer.startswith("unix:"):
        return
    if uid_of(peer) != os.geteuid():
        raise AccessDenied(
            "system shared memory can be registered only by the service's own user on its own host. "
            "Remedy: send the tensors, or lease regions of the server."
        )


def uid_of(peer: str) -> int | None:
    """Give the user id that holds the other end of a loopback TCP connection; None where it is not on this host."""
    match = _PEER.fullmatch(peer)
    if match is None:
        return None
    address, port = ip_address(match[1]), int(match[2])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if not (mapped or address).is_loopback:
        return None
    ends = {f"{_in_kernel_order(item)}:{port:04X}" for item in _forms(mapped or address)}
    rows = (line.split() for table in _TABLES if table.exists() for line in table.read_text("ascii").splitlines()[1:])
    return next((int(row[7]) for row in rows if row[1] in ends), None)


def _forms(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """An IPv4 address stands in the table of IPv6 sockets as a mapped one."""
    return (address, IPv6Address(f"::ffff:{address}")) if isinstance(address, IPv4Address) else (address,)


def _in_kernel_order(address: IPv4Address | IPv6Address) -> str:
    """Write an address as /proc/net/tcp does: words of 4 bytes, each in the machine's byte order."""
    packed = address.packed
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{socket.ntohl(int.from_bytes(word)) if _LITTLE else int.from_bytes(word):08X}" for word in words)


_LITTLE = socket.ntohl(1) != 1
