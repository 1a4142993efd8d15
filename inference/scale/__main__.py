"""`python -m inference.scale`: the inference service over several processes, on Ray Serve."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.ending import stop_on_signals, stop_with_parent
from inference.errors import ListenError, SettingsRefused
from inference.log import LOG_LEVELS, configure_log
from inference.repository_policy import VersionPolicy
from inference.scale.cluster import prepare_environment
from inference.scale.settings import ClusterSettings, ScaleSettings
from inference.scale.terms import ModelTerms
from inference.security import TlsFiles
from inference.settings import BUNDLED_MODELS, DEFAULT_LISTEN

USAGE_ERROR = 2
INTERRUPTED = 130
_OF_THE_EXTRA = ("ray", "aiohttp", "fastapi", "starlette", "uvicorn", "tensorflow", "grpc_health", "grpc_reflection")


def read_settings(arguments: Sequence[str], program: str = "python -m inference.scale") -> ScaleSettings:
    """Read the command line; SettingsRefused where an option cannot be right."""
    parser = argparse.ArgumentParser(
        prog=program, description="Serve models over the Open Inference Protocol with replicas, on Ray Serve."
    )
    _add_service(parser)
    _add_cluster(parser)
    terms = parser.add_argument_group("replicas of each model (a file given by --scaling overrides them by model)")
    for name, field in ModelTerms.model_fields.items():
        kind = int if field.annotation is int else float
        terms.add_argument(_option(name), type=kind, default=field.default, metavar="N", help=field.description)
    given = parser.parse_args(arguments)
    stated = {name: getattr(given, name) for name in ModelTerms.model_fields}
    return ScaleSettings(
        models_directory=given.models,
        models=tuple(given.model),
        versions=VersionPolicy.parse(given.versions),
        poll_s=given.poll_s,
        listen=tuple(given.listen) or (DEFAULT_LISTEN,),
        max_message_mb=given.max_message_mb,
        tls=TlsFiles(given.tls_cert, given.tls_key, given.client_ca),
        reflection=given.reflection,
        terms=ModelTerms.read(stated, "command line"),
        scaling=given.scaling,
        ingress_replicas=given.ingress_replicas,
        by_value=given.by_value,
        cluster=ClusterSettings(given.address, given.temp_dir, given.object_store_mb, given.gpus),
        ready_file=given.ready_file,
        parent_pid=given.parent_pid,
        log_level=given.log_level,
        grace_s=given.grace_s,
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_service(parser: argparse.ArgumentParser) -> None:
    own, add = ScaleSettings.__dataclass_fields__, parser.add_argument
    add("--models", type=Path, default=BUNDLED_MODELS, metavar="DIR", help="holds <name>/<version>/")
    add("--model", action="append", default=[], metavar="NAME", help="serve only this; may be repeated")
    add("--versions", default="all", metavar="WHICH", help="all, latest:N, or a list as 1,3")
    add("--poll-s", type=float, default=own["poll_s"].default, metavar="S", help="between looks at a model; 0: never")
    add("--listen", action="append", default=[], metavar="ADDRESS", help="host:port or unix:/path")
    add("--max-message-mb", type=int, default=1024, metavar="N", help="largest request or answer")
    add("--tls-cert", type=Path, metavar="PEM", help="certificate chain; TCP addresses then speak TLS")
    add("--tls-key", type=Path, metavar="PEM", help="its key")
    add("--client-ca", type=Path, metavar="PEM", help="mutual TLS: the CA of the clients' certificates")
    add("--reflection", action="store_true", help="clients may ask for the services' schema")
    add("--ready-file", type=Path, metavar="PATH", help="written when all models answer or are refused")
    add("--parent-pid", type=int, metavar="N", help="end when this parent process ends")
    add("--log-level", choices=LOG_LEVELS, default="info", help="least level that is written")
    add(
        "--grace-s", type=float, default=own["grace_s"].default, metavar="S", help="time of running requests at SIGTERM"
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    own, add = ClusterSettings.__dataclass_fields__, parser.add_argument
    add("--address", metavar="HOST:PORT", help="use a running Ray cluster; 'auto' finds it; unset: start one here")
    add("--temp-dir", type=Path, metavar="DIR", help="where Ray keeps sockets and logs; unset: removed at the end")
    add(
        "--object-store-mb",
        type=int,
        default=own["object_store_mb"].default,
        metavar="N",
        help="memory for large requests",
    )
    add("--gpus", type=float, metavar="N", help="GPUs of this machine to hand out; unset: those that Ray finds")
    add("--scaling", type=Path, metavar="TOML", help="a table [name] for each model that differs")
    add("--by-value", action="store_true", help="pass requests on by gRPC: quicker when small, slower for volumes")
    add("--ingress-replicas", type=int, default=1, metavar="N", help="processes that pass requests on")


def serve(settings: ScaleSettings) -> int:
    """Run the application until it is told to end; Ray is loaded here, TensorFlow in the replicas."""
    configure_log(settings.log_level)
    prepare_environment(settings.cluster)
    from inference.scale.app import ScaleService

    service = ScaleService(settings)
    stop_on_signals(service)
    if settings.parent_pid is not None:
        stop_with_parent(service, settings.parent_pid)
    return service.run()


def run(arguments: Sequence[str], program: str = "python -m inference.scale") -> int:
    """Run a command line: 0 ended as asked, 1 no model answers or Ray is lost, 2 the options cannot be right."""
    try:
        return serve(read_settings(arguments, program))
    except (SettingsRefused, ListenError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED  # nothing was started yet
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        sys.stderr.write(f"{error.name} is not installed. Remedy: pip install 'hilum[scale]'\n")
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
