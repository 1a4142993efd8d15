"""The Ray cluster below the application: one started on this machine and ended with it, or one that runs already."""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from inference.errors import SettingsRefused
from inference.scale.confinement import SETUP_HOOK, VARIABLE
from inference.scale.descendants import adopt_orphans, end_descendants
from inference.scale.settings import ClusterSettings, ScaleSettings
from inference.settings import available_cores

_log = structlog.get_logger(__name__)
_MIB = 1 << 20
_PATIENCE_S = 5.0
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
_OWN = {
    # Ray's name for "addresses of this host only": every process then listens on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


def prepare_environment(settings: ClusterSettings) -> None:
    """Set what Ray reads when it is imported: no reports of usage; a cluster of our own is for this user and host."""
    os.environ |= _QUIET
    if settings.address is None:
        os.environ |= _OWN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.pop("RAY_ADDRESS", None)


@contextmanager
def cluster(settings: ScaleSettings, doors: Mapping[str, str]) -> Iterator[None]:
    """Be connected to the cluster while the block runs.

    Args:
        settings: which cluster, and the bound on messages.
        doors: environment of the application's processes, by `confinement.Doors`.

    Raises:
        SettingsRefused: no cluster answers at the address, or Ray Serve runs there already.
    """
    own = {**doors, "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(settings.max_message_mb * _MIB)}
    if settings.by_value:
        wrapped = str((settings.max_message_mb + 1) * _MIB - 1)  # a request with what Ray says of it
        own |= {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1", "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": wrapped}
    if settings.cluster.address is None:
        with _started(settings.cluster, own):
            yield
    else:
        with _attached(settings.cluster.address, own):
            yield


@contextmanager
def _started(settings: ClusterSettings, own: Mapping[str, str]) -> Iterator[None]:
    adopt_orphans()
    with _temp_directory(settings.temp_directory) as folder:
        try:
            _connect(
                own,
                address="local",
                num_cpus=available_cores(),
                num_gpus=settings.gpus,
                include_dashboard=False,
                object_store_memory=settings.object_store_mb * _MIB,
                _temp_dir=str(folder),
            )
            yield
        finally:
            _disconnect()
            if killed := end_descendants(_PATIENCE_S):
                _log.warning("processes_killed", count=killed)


@contextmanager
def _temp_directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="hilum-", dir="/tmp"))  # $TMPDIR may be too long for a socket
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _attached(address: str, own: Mapping[str, str]) -> Iterator[None]:
    try:
        _connect(own, address=address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsRefused(
            f"--address {address}: no Ray cluster answers there: {error}. Remedy: is it running? One with a token "
            "wants RAY_AUTH_MODE=token and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error
    try:
        _refuse_other_serve(address)
        try:
            yield
        finally:
            _end_serve()
    finally:
        _disconnect()


def _connect(own: Mapping[str, str], **options: Any) -> None:
    import ray

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    os.environ |= own  # what this process reads, and its children on this machine
    ray.init(
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": SETUP_HOOK, "env_vars": dict(own)},
        **options,
    )


def _refuse_other_serve(address: str) -> None:
    from ray.util import list_named_actors

    if any(actor["name"] == _CONTROLLER for actor in list_named_actors(all_namespaces=True)):
        raise SettingsRefused(
            f"--address {address}: Ray Serve runs on this cluster already, and the addresses it listens on cannot be "
            "changed. Remedy: end it with `serve shutdown`, or use another cluster"
        )


def _end_serve() -> None:
    from ray import serve

    serve.shutdown()


def _disconnect() -> None:
    import ray

    ray.shutdown()
    os.environ.pop(VARIABLE, None)
