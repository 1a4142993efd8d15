"""Addresses as they stand on the command line, with their ports, before Ray is started for them."""

import socket
from collections.abc import Iterable
from pathlib import Path

from inference.errors import ListenError

LOOPBACK = "127.0.0.1"
_UNIX = "unix:"


def settled(address: str) -> str:
    """Give an address with a port that is free, where it says 0.

    Raises:
        ListenError: another process listens there.
    """
    if address.startswith(_UNIX):
        _refuse_live_socket(address)
        return address
    host, _, port = address.rpartition(":")
    return f"{host}:{_taken_for_a_moment(host.strip('[]'), int(port), address)}"


def free_port(host: str = LOOPBACK) -> int:
    """Give a port that nothing listens on."""
    return _taken_for_a_moment(host, 0, f"{host}:0")


def port_of(address: str) -> int | None:
    """Give the port of an address, None for a Unix socket."""
    return None if address.startswith(_UNIX) else int(address.rpartition(":")[2])


def remove_sockets(addresses: Iterable[str]) -> None:
    """Remove the Unix sockets that a server left behind which was not ended by itself."""
    for path in (Path(address.removeprefix(_UNIX)) for address in addresses if address.startswith(_UNIX)):
        if path.is_socket():
            path.unlink(missing_ok=True)


def _taken_for_a_moment(host: str, port: int, address: str) -> int:
    try:
        family, kind, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            taken.bind(name)
            taken.listen(1)
            return int(taken.getsockname()[1])
    except OSError as error:
        raise ListenError(f"--listen {address}: cannot be listened on. Remedy: is another service there?") from error


def _refuse_live_socket(address: str) -> None:
    path = Path(address.removeprefix(_UNIX))
    if not path.parent.is_dir():
        raise ListenError(f"--listen {address}: there is no folder {path.parent}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        try:
            there.connect(str(path))
        except OSError:
            return  # nobody; gRPC puts a new socket in place of what a killed service left
    raise ListenError(f"--listen {address}: cannot be listened on. Remedy: is another service there?")
