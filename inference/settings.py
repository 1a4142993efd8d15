"""What the command line of `python -m inference` says, checked."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from inference.client_limits import ClientLimits
from inference.errors import SettingsRefused
from inference.regions.limits import RegionLimits
from inference.repository_policy import VersionPolicy
from inference.security import TlsFiles

BUNDLED_MODELS = Path(__file__).parent / "models"
DEFAULT_LISTEN = "127.0.0.1:8500"
MESSAGE_MB_MOST = 2047
"""A protobuf message holds less than 2 GiB."""


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How the service runs; refused when constructed where it cannot be right."""

    models_directory: Path = BUNDLED_MODELS
    models: tuple[str, ...] = ()
    """Names to serve; empty serves all of the directory."""
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    poll_s: float = 2.0
    """Seconds between two looks at the models folder; 0 looks only at the start and when a client asks."""
    floor_mb: int = 256
    """Free memory below which idle models are dropped, the least recently used first."""
    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    """"host:port" (port 0 takes a free one) or "unix:/path"."""
    max_message_mb: int = 1024
    ready_file: Path | None = None
    parent_pid: int | None = None
    model_control: bool = False
    """Clients may load and unload models (RepositoryModelLoad, RepositoryModelUnload)."""
    reflection: bool = False
    """gRPC reflection: clients may ask for the services' schema."""
    tls: TlsFiles = field(default_factory=TlsFiles)
    access: Path | None = None
    """SAN lists per method; set: what is not listed is denied."""
    client_limits: ClientLimits = field(default_factory=ClientLimits)
    region_limits: RegionLimits = field(default_factory=RegionLimits)
    concurrency: int = 1
    """Predictions that run at once; TensorFlow's threads are shared by them."""
    queue: int = 8
    """Requests that wait beyond those; more are answered RESOURCE_EXHAUSTED at once."""
    threads: int = available_cores()
    log_level: str = "info"
    """Least level that is written: debug, info, warning or error."""
    grace_s: float = 8.0
    """Time that running requests get after SIGTERM."""
    metrics: str | None = None
    """host:port for Prometheus, over plain HTTP; None: no metrics."""
    keepalive_s: float = 30.0
    """Seconds after which a silent connection is asked whether its client is there; 0 never asks."""
    connection_requests: int = 1024
    """Open RPCs of one connection; the client itself holds back more."""

    def __post_init__(self) -> None:
        """Refuse what cannot be right."""
        if not self.models_directory.is_dir():
            raise SettingsRefused(f"--models {self.models_directory}: no such folder. It must hold <name>/<version>/.")
        if not self.listen:
            raise SettingsRefused("--listen: at least one address is needed, e.g. 127.0.0.1:8500")
        for address in self.listen:
            check_address(address)
        if self.metrics is not None:
            check_address(self.metrics, "--metrics", unix=False)
        if not 4 <= self.max_message_mb <= MESSAGE_MB_MOST:
            raise SettingsRefused(f"--max-message-mb {self.max_message_mb}: must be 4 to {MESSAGE_MB_MOST}")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        for option, value, least in (
            ("--concurrency", self.concurrency, 1),
            ("--queue", self.queue, 0),
            ("--connection-requests", self.connection_requests, 1),
        ):
            if value < least:
                raise SettingsRefused(f"{option} {value}: must be at least {least}")
        for option, seconds in (
            ("--grace-s", self.grace_s),
            ("--poll-s", self.poll_s),
            ("--floor-mb", self.floor_mb),
            ("--keepalive-s", self.keepalive_s),
        ):
            if not seconds >= 0:
                raise SettingsRefused(f"{option} {seconds:g}: must be 0 or more")
        tcp = [address for address in self.listen if not address.startswith("unix:")]
        if self.access is not None and tcp and self.tls.client_ca is None:
            raise SettingsRefused(f"--access {self.access}: needs --client-ca, or Unix sockets alone; got {tcp[0]}")


def check_address(address: str, option: str = "--listen", *, unix: bool = True) -> None:
    """Raise SettingsRefused unless `address` is host:port or, where `unix` allows it, unix:/absolute/path."""
    host, _, port = address.rpartition(":")
    if unix and address.startswith("unix:"):
        if not address.startswith("unix:/"):
            raise SettingsRefused(f"{option} {address}: the path must be absolute, e.g. unix:/run/hilum/inference.sock")
    elif not host or not port.isdigit() or int(port) > 65535:
        forms = "host:port (port 0 to 65535)" + (" or unix:/path" if unix else "")
        raise SettingsRefused(f"{option} {address}: must be {forms}")
