"""Addresses that a gRPC server listens on."""

import os
from typing import Protocol

import grpc
import structlog

from inference.errors import ListenError

_log = structlog.get_logger(__name__)


class PortTaker(Protocol):
    """A gRPC server, of threads or of asyncio."""

    def add_insecure_port(self, address: str) -> int:
        """Bind an address; give its port."""

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Bind an address that speaks TLS; give its port."""


def listen(server: PortTaker, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Bind one address and give it with its real port; raise ListenError where that cannot be."""
    before = os.umask(0o077)  # a Unix socket is for this user alone
    try:
        if credentials is not None and not address.startswith("unix:"):
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
            warn_if_open(address)
    except RuntimeError as error:
        raise ListenError(f"--listen {address}: cannot be listened on. Remedy: is another service there?") from error
    finally:
        os.umask(before)
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def warn_if_open(address: str) -> None:
    """Log a warning where other hosts reach an address that speaks no TLS."""
    host = address.rpartition(":")[0].strip("[]")
    if not address.startswith("unix:") and host not in ("localhost", "::1") and not host.startswith("127."):
        _log.warning("plain_address_opened", address=address)
