"""Who a client is, and the service's end of TLS and mutual TLS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc

from inference.errors import SettingsRefused

UNIX_CLIENT = "unix"
_ALTERNATIVE_NAMES, _COMMON_NAME = "x509_subject_alternative_name", "x509_common_name"


def client_of(context: grpc.ServicerContext) -> str:
    """Name the client: its certificate's first SAN (URI, DNS or IP), else its CN, else its address without the port.

    A client on a Unix socket is "unix". gRPC verified the certificate: without `--client-ca` none is asked for.
    """
    stated = context.auth_context()
    for key in (_ALTERNATIVE_NAMES, _COMMON_NAME):
        names = _names(stated, key)
        if names:
            return names[0]
    return address_of(context.peer())


def certificate_names(context: grpc.ServicerContext) -> frozenset[str]:
    """Give the SANs of the client's verified certificate; "unix" alone for a client on a Unix socket.

    A certificate cannot claim "unix": that name is left out of its SANs.
    """
    names = _names(context.auth_context(), _ALTERNATIVE_NAMES)
    if names:
        return frozenset(names) - {UNIX_CLIENT}
    return frozenset({UNIX_CLIENT} if address_of(context.peer()) == UNIX_CLIENT else ())


def _names(stated: Any, key: str) -> list[str]:
    return [name.decode("utf-8", "replace") for name in stated.get(key, ())]


def address_of(peer: str) -> str:
    """Give a gRPC peer without its port: "ipv4:10.0.0.1:4711" is "10.0.0.1", a Unix socket "unix"."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return UNIX_CLIENT
    if kind not in ("ipv4", "ipv6"):
        return peer
    return unquote(rest).rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the service: its certificate chain and key, and the CA that clients' certificates must come from."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    """Set: mutual TLS, no client gets through without a certificate of this CA."""

    def __post_init__(self) -> None:
        """Refuse half of a pair; raise SettingsRefused."""
        if (self.certificate is None) != (self.key is None):
            missing = "--tls-key" if self.key is None else "--tls-cert"
            raise SettingsRefused(f"{missing}: is missing. --tls-cert and --tls-key go together")
        if self.client_ca is not None and self.certificate is None:
            raise SettingsRefused(f"--client-ca {self.client_ca}: needs --tls-cert and --tls-key")

    @property
    def is_on(self) -> bool:
        """Tell whether TCP addresses speak TLS."""
        return self.certificate is not None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials | None:
    """Read the PEM files; None without TLS. gRPC speaks TLS 1.2 and 1.3 and nothing older.

    Raises:
        SettingsRefused: a file cannot be read or holds no PEM block of its kind.
    """
    if files.certificate is None or files.key is None:
        return None
    pair = (_pem(files.key, "--tls-key", "PRIVATE KEY"), _pem(files.certificate, "--tls-cert", "CERTIFICATE"))
    ca = None if files.client_ca is None else _pem(files.client_ca, "--client-ca", "CERTIFICATE")
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)


def _pem(path: Path, option: str, kind: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsRefused(f"{option} {path}: cannot be read: {error.strerror}") from error
    if kind.encode() not in content:
        raise SettingsRefused(f"{option} {path}: holds no PEM block '{kind}'")
    return content
