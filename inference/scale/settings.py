"""What the command line of `python -m inference.scale` says, checked."""

from dataclasses import dataclass, field
from pathlib import Path

from inference.errors import SettingsRefused
from inference.repository_policy import VersionPolicy
from inference.scale.terms import ModelTerms
from inference.security import TlsFiles
from inference.settings import BUNDLED_MODELS, DEFAULT_LISTEN, MESSAGE_MB_MOST, check_address

_SOCKET_PATH_MOST = 107
"""Bytes of a Unix socket's path."""
_BELOW_TEMP = len("/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")
TEMP_DIRECTORY_MOST = _SOCKET_PATH_MOST - _BELOW_TEMP


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Which Ray cluster the application runs on."""

    address: str | None = None
    """host:port of a running cluster, or "auto"; None starts one on this machine."""
    temp_directory: Path | None = None
    """Where a cluster of this machine keeps sockets and logs; None makes one and removes it at the end."""
    object_store_mb: int = 1024
    """Shared memory in which large requests and answers travel between processes of one host."""
    gpus: float | None = None
    """GPUs that a cluster of this machine hands out; None: those that Ray finds."""

    def __post_init__(self) -> None:
        """Refuse what cannot be right."""
        if self.address is not None and self.address != "auto":
            check_address(self.address, "--address", unix=False)
        if self.object_store_mb < 80:
            raise SettingsRefused(f"--object-store-mb {self.object_store_mb}: must be at least 80")
        if self.gpus is not None and not 0 <= self.gpus <= 64:
            raise SettingsRefused(f"--gpus {self.gpus:g}: must be 0 to 64")
        if self.temp_directory is not None:
            self._refuse_long_path(self.temp_directory)
        if self.address is not None and (self.temp_directory is not None or self.gpus is not None):
            raise SettingsRefused("--address: a running cluster has its own --temp-dir and --gpus; leave them out")

    def _refuse_long_path(self, path: Path) -> None:
        length = len(str(path.absolute()).encode())
        if length > TEMP_DIRECTORY_MOST:
            raise SettingsRefused(
                f"--temp-dir {path}: must be at most {TEMP_DIRECTORY_MOST} bytes long, as Ray's Unix sockets lie deep "
                f"below it; this has {length}"
            )


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """How the application runs; refused when constructed where it cannot be right."""

    models_directory: Path = BUNDLED_MODELS
    models: tuple[str, ...] = ()
    """Names to serve; empty serves all of the directory."""
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    poll_s: float = 2.0
    """Seconds between two looks of a replica at its model's folder; 0 looks only when it starts."""
    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    max_message_mb: int = 1024
    tls: TlsFiles = field(default_factory=TlsFiles)
    reflection: bool = False
    terms: ModelTerms = field(default_factory=ModelTerms)
    """Of every model that the scaling file does not name."""
    scaling: Path | None = None
    ingress_replicas: int = 1
    by_value: bool = False
    """Requests travel between processes by gRPC instead of the object store: quicker when small, slower when large."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    ready_file: Path | None = None
    parent_pid: int | None = None
    log_level: str = "info"
    grace_s: float = 8.0
    """Time that running requests get after SIGTERM."""

    def __post_init__(self) -> None:
        """Refuse what cannot be right."""
        if not self.models_directory.is_dir():
            raise SettingsRefused(f"--models {self.models_directory}: no such folder. It must hold <name>/<version>/.")
        if not self.listen:
            raise SettingsRefused("--listen: at least one address is needed, e.g. 127.0.0.1:8500")
        for address in self.listen:
            check_address(address)
        if not 4 <= self.max_message_mb <= MESSAGE_MB_MOST:
            raise SettingsRefused(f"--max-message-mb {self.max_message_mb}: must be 4 to {MESSAGE_MB_MOST}")
        if not 1 <= self.ingress_replicas <= 64:
            raise SettingsRefused(f"--ingress-replicas {self.ingress_replicas}: must be 1 to 64")
        for option, seconds in (("--grace-s", self.grace_s), ("--poll-s", self.poll_s)):
            if not seconds >= 0:
                raise SettingsRefused(f"{option} {seconds:g}: must be 0 or more")
