"""One gRPC channel to an endpoint: message limits, reconnection, TLS."""

from pathlib import Path

import grpc
import structlog
from grpc.experimental import ChannelOptions

from node.errors import SettingsError
from node.settings import InferenceSettings, TlsSettings
from protos.region_wire import FRAME_MOST

_log = structlog.get_logger(__name__)
MIB = 1 << 20
_RECONNECT_FIRST_MS, _RECONNECT_MOST_MS = 200, 5000
_LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")


def open_channel(address: str, settings: InferenceSettings) -> grpc.Channel:
    """Open the channel; nothing is sent before the first call.

    Raises:
        SettingsError: a file of `inference.tls` cannot be read.
    """
    limit = settings.max_message_mb * MIB
    options: list[tuple[str, int | str]] = [
        ("grpc.max_send_message_length", limit),
        ("grpc.max_receive_message_length", limit),
        ("grpc.http2.max_frame_size", FRAME_MOST),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MOST_MS),
        (ChannelOptions.SingleThreadedUnaryStream, 1),  # downloads: no second thread to hand each chunk over
        ("grpc.enable_http_proxy", 0),  # voxels never take a detour over a web proxy of the environment
    ]
    if settings.tls is None or address.startswith("unix:"):
        if not address.startswith(_LOOPBACK):
            _log.warning("endpoint_unencrypted", endpoint=address)
        return grpc.insecure_channel(address, options=options)
    if settings.tls.server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return grpc.secure_channel(address, _credentials(settings.tls), options=options)


def _credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca, "ca"),
        private_key=_read(tls.key, "key"),
        certificate_chain=_read(tls.certificate, "certificate"),
    )


def _read(path: Path | None, key: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"inference.tls.{key} = {path}: {error.strerror}. Remedy: name a PEM file that this user may read."
        ) from error
