"""The user behind a connection on this host, as the kernel knows it."""

import os
import socket
from collections.abc import Iterator

import pytest

from inference.errors import AccessDenied
from inference.peer_user import require_own_user, uid_of


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["ipv4", "ipv6"])
def peer(request: pytest.FixtureRequest) -> Iterator[str]:
    """The other end of a connection, written as gRPC writes it."""
    family, host = request.param
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with server, socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        address, port = accepted.getpeername()[:2]
        yield f"ipv4:{address}:{port}" if family == socket.AF_INET else f"ipv6:%5B{address}%5D:{port}"


def test_the_kernel_names_the_user_of_a_local_peer(peer: str) -> None:
    assert uid_of(peer) == os.geteuid()
    require_own_user(peer)


def test_a_unix_socket_is_for_the_own_user() -> None:
    require_own_user("unix:")


@pytest.mark.parametrize("stranger", ["ipv4:192.0.2.1:4000", "ipv6:%5B2001:db8::1%5D:4000", "ipv4:127.0.0.1:1", "odd"])
def test_whoever_is_not_known_is_refused(stranger: str) -> None:
    with pytest.raises(AccessDenied, match="own user"):
        require_own_user(stranger)
