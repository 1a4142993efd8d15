"""What runs first in every process of the application: Ray's doors are put where the operator said.

Ray Serve's gRPC proxy listens on every interface without TLS, and so do the servers by which its replicas could speak
to each other; neither can be set. Two functions of Ray are replaced for that. Two more are replaced so that a client
hears UNAVAILABLE, which it tries again, where Ray's proxy says NOT_FOUND (while the application is being started or
ended) or INTERNAL (when the ingress dies under a request). Ray's version is pinned; `check_ray` refuses another in
which one of the four is no longer what is replaced here.
"""

import inspect
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from inference.errors import SettingsRefused
from inference.listening import listen
from inference.security import TlsFiles, server_credentials

SETUP_HOOK = f"{__name__}.confine"
VARIABLE = "HILUM_SCALE_DOORS"
StatusOf = Callable[[BaseException, Any, str], Any]
_ANY_INTERFACE = "[::]:"
_GONE = "the process that had the request is gone; try again"
_STARTING = "the service is being started or ended; try again"


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the application may listen."""

    listen: tuple[str, ...]
    """Addresses of the proxy, ports given."""
    tls: tuple[str, ...] = ("", "", "")
    """Paths of certificate, key and the clients' CA; empty where there is none."""
    own_host_only: bool = True
    """Processes of the application speak to each other over loopback alone."""

    def to_environment(self) -> dict[str, str]:
        """Write for the processes that Ray starts."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read what `to_environment` wrote."""
        read = json.loads(os.environ[VARIABLE])
        return cls(tuple(read["listen"]), tuple(read["tls"]), read["own_host_only"])

    @property
    def tls_files(self) -> TlsFiles:
        """Give the PEM files."""
        certificate, key, ca = (Path(name) if name else None for name in self.tls)
        return TlsFiles(certificate, key, ca)


def check_ray() -> None:
    """Raise SettingsRefused where a function that is replaced is not what it was in the version that is pinned."""
    from ray._common import tls_utils
    from ray.serve._private import default_impl, proxy

    for function, wanted in (
        (tls_utils.add_port_to_grpc_server, ["server", "address"]),
        (default_impl.add_grpc_address, ["grpc_server", "server_address"]),
        (proxy.gRPCProxy.not_found_response, ["self", "proxy_request"]),
        (proxy.get_grpc_response_status, ["exc", "request_timeout_s", "request_id"]),
    ):
        found = list(inspect.signature(function).parameters)
        if found != wanted:
            raise SettingsRefused(
                f"ray: {function.__qualname__} takes {found}, expected {wanted}. Remedy: install the version of Ray "
                f"that the extra 'scale' names"
            )


def confine() -> None:
    """Replace what Ray listens with; named to Ray as `worker_process_setup_hook`."""
    from ray._common import tls_utils

    doors = Doors.from_environment()
    if doors.own_host_only:
        tls_utils.add_port_to_grpc_server = _on_loopback(tls_utils.add_port_to_grpc_server)

    from ray.serve._private import default_impl

    default_impl.add_grpc_address = lambda server, _address: _open(doors, server)


def _on_loopback(add_port: Callable[[Any, str], int]) -> Callable[[Any, str], int]:
    def add(server: Any, address: str) -> int:
        return add_port(server, address.replace(_ANY_INTERFACE, "127.0.0.1:"))

    return add


def _open(doors: Doors, server: Any) -> None:
    """Listen on the operator's addresses; this runs in the proxy alone."""
    from ray.serve._private import proxy

    proxy.gRPCProxy.not_found_response = _not_yet
    proxy.get_grpc_response_status = _again_after_a_death(proxy.get_grpc_response_status)
    credentials = server_credentials(doors.tls_files)
    for address in doors.listen:
        listen(server, address, credentials)


async def _not_yet(_proxy: Any, _request: Any) -> AsyncIterator[Any]:
    yield _unavailable(_STARTING)


def _again_after_a_death(status_of: StatusOf) -> StatusOf:
    from ray.exceptions import RayActorError

    def status(error: BaseException, timeout_s: Any, request_id: str) -> Any:
        return _unavailable(_GONE) if isinstance(error, RayActorError) else status_of(error, timeout_s, request_id)

    return status


def _unavailable(sentence: str) -> Any:
    from ray.serve._private.proxy_request_response import ResponseStatus

    return ResponseStatus(code=grpc.StatusCode.UNAVAILABLE, message=sentence, is_error=True)
