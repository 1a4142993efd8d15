"""The command line of `python -m inference` and `hilum inference`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from inference.client_limits import MB, ClientLimits
from inference.log import LOG_LEVELS
from inference.regions.limits import RegionLimits
from inference.repository_policy import VersionPolicy
from inference.security import TlsFiles
from inference.settings import BUNDLED_MODELS, DEFAULT_LISTEN, ServiceSettings


def read_settings(arguments: Sequence[str], program: str = "python -m inference") -> ServiceSettings:
    """Read the command line; SettingsRefused where an option cannot be right."""
    parser = argparse.ArgumentParser(prog=program, description="Serve models over the Open Inference Protocol.")
    for add_some in (_add_service, _add_repository, _add_running, _add_clients, _add_regions):
        add_some(parser)
    given = parser.parse_args(arguments)
    certificate = TlsFiles(given.tls_cert, given.tls_key, given.client_ca)
    return ServiceSettings(
        models_directory=given.models,
        models=tuple(given.model),
        listen=tuple(given.listen) or (DEFAULT_LISTEN,),
        max_message_mb=given.max_message_mb,
        ready_file=given.ready_file,
        parent_pid=given.parent_pid,
        log_level=given.log_level,
        model_control=given.model_control,
        versions=VersionPolicy.parse(given.versions),
        poll_s=given.poll_s,
        floor_mb=given.floor_mb,
        reflection=given.reflection,
        metrics=given.metrics,
        keepalive_s=given.keepalive_s,
        connection_requests=given.connection_requests,
        concurrency=given.concurrency,
        queue=given.queue,
        grace_s=given.grace_s,
        tls=certificate,
        access=given.access,
        client_limits=ClientLimits(
            given.client_concurrency, given.client_queue, given.client_inflight_mb, given.client_streams
        ),
        region_limits=_region_limits(given),
    )


def _region_limits(given: argparse.Namespace) -> RegionLimits:
    return RegionLimits(
        region_max_bytes=given.region_mb * MB,
        client_quota_bytes=given.client_region_mb * MB,
        client_regions=given.client_regions,
        leases_most=given.leases,
        expiry_s=given.region_expiry_s,
    )


def _add_service(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--models", type=Path, default=BUNDLED_MODELS, metavar="DIR", help="holds <name>/<version>/")
    add("--model", action="append", default=[], metavar="NAME", help="serve only this; may be repeated")
    add("--listen", action="append", default=[], metavar="ADDRESS", help="host:port or unix:/path")
    add("--max-message-mb", type=int, default=1024, metavar="N", help="largest request or answer")
    add("--ready-file", type=Path, metavar="PATH", help="written when all models are warmed")
    add("--parent-pid", type=int, metavar="N", help="end when this parent process ends")
    add("--log-level", choices=LOG_LEVELS, default="info", help="least level that is written")
    add("--model-control", action="store_true", help="let clients load and unload models")


def _add_repository(parser: argparse.ArgumentParser) -> None:
    own, add = ServiceSettings.__dataclass_fields__, parser.add_argument
    add("--versions", default="all", metavar="WHICH", help="all, latest:N, or a list as 1,3")
    add(
        "--poll-s", type=float, default=own["poll_s"].default, metavar="S", help="between looks at the models; 0: never"
    )
    add("--floor-mb", type=int, default=own["floor_mb"].default, metavar="N", help="idle models go below so much free")


def _add_running(parser: argparse.ArgumentParser) -> None:
    own = ServiceSettings
    defaults = {name: own.__dataclass_fields__[name].default for name in ("concurrency", "queue", "grace_s")}
    add = parser.add_argument
    add("--concurrency", type=int, default=defaults["concurrency"], metavar="N", help="predictions that run at once")
    add("--queue", type=int, default=defaults["queue"], metavar="N", help="requests that wait; more are refused")
    add("--grace-s", type=float, default=defaults["grace_s"], metavar="S", help="time of running requests at SIGTERM")
    add("--reflection", action="store_true", help="clients may ask for the services' schema")
    add("--metrics", metavar="HOST:PORT", help="answer GET /metrics for Prometheus there; off by default")
    pause = own.__dataclass_fields__["keepalive_s"].default
    add("--keepalive-s", type=float, default=pause, metavar="S", help="before a silent client is pinged; 0: never")
    most = own.__dataclass_fields__["connection_requests"].default
    add("--connection-requests", type=int, default=most, metavar="N", help="open RPCs of one connection")


def _add_clients(parser: argparse.ArgumentParser) -> None:
    add, most = parser.add_argument, ClientLimits()
    add("--tls-cert", type=Path, metavar="PEM", help="certificate chain; TCP addresses then speak TLS")
    add("--tls-key", type=Path, metavar="PEM", help="its key")
    add("--client-ca", type=Path, metavar="PEM", help="mutual TLS: the CA of the clients' certificates")
    add("--access", type=Path, metavar="TOML", help="SANs that may call each method; the rest is denied")
    add("--client-concurrency", type=int, default=most.concurrency, metavar="N", help="a client's running requests")
    add("--client-queue", type=int, default=most.queue, metavar="N", help="a client's waiting requests")
    add("--client-inflight-mb", type=int, default=most.inflight_mb, metavar="N", help="MiB of a client's requests")
    add("--client-streams", type=int, default=most.streams, metavar="N", help="a client's open streams")


def _add_regions(parser: argparse.ArgumentParser) -> None:
    add, most = parser.add_argument, RegionLimits()
    add("--region-mb", type=int, default=most.region_max_bytes // MB, metavar="N", help="largest leased tensor region")
    quota = most.client_quota_bytes // MB
    add("--client-region-mb", type=int, default=quota, metavar="N", help="MiB of a client's leased regions")
    add("--client-regions", type=int, default=most.client_regions, metavar="N", help="a client's leased regions")
    add("--leases", type=int, default=most.leases_most, metavar="N", help="open leases of all clients; each a thread")
    add(
        "--region-expiry-s",
        type=int,
        default=int(most.expiry_s),
        metavar="S",
        help="a region that is not renewed ends after this",
    )
