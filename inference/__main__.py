"""`python -m inference`: the inference service as a process of its own."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.errors import ListenError, SettingsRefused
from inference.log import LOG_LEVELS, configure_log
from inference.quiet import quiet_tensorflow
from inference.settings import BUNDLED_MODELS, DEFAULT_LISTEN, ServiceSettings

USAGE_ERROR = 2


def read_settings(arguments: Sequence[str]) -> ServiceSettings:
    """Read the command line; SettingsRefused where an option cannot be right."""
    parser = argparse.ArgumentParser(prog="python -m inference", description=__doc__)
    parser.add_argument("--models", type=Path, default=BUNDLED_MODELS, metavar="DIR", help="holds <name>/<version>/")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="serve only this; may be repeated")
    parser.add_argument("--listen", action="append", default=[], metavar="ADDRESS", help="host:port or unix:/path")
    parser.add_argument("--max-message-mb", type=int, default=1024, metavar="N")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written when all models are warmed")
    parser.add_argument("--parent-pid", type=int, metavar="N", help="end when this parent process ends")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="least level that is written")
    given = parser.parse_args(arguments)
    return ServiceSettings(
        models_directory=given.models,
        models=tuple(given.model),
        listen=tuple(given.listen) or (DEFAULT_LISTEN,),
        max_message_mb=given.max_message_mb,
        ready_file=given.ready_file,
        parent_pid=given.parent_pid,
        log_level=given.log_level,
    )


def serve(settings: ServiceSettings) -> int:
    """Run the service until it is told to end; TensorFlow is loaded here."""
    configure_log(settings.log_level)
    with quiet_tensorflow():
        from inference.app import InferenceService, stop_on_signals, stop_with_parent
    service = InferenceService(settings)
    stop_on_signals(service)
    if settings.parent_pid is not None:
        stop_with_parent(service, settings.parent_pid)
    return service.run()


def main() -> int:
    """Run from the command line: 0 stopped as asked, 1 no model could be loaded, 2 the command line cannot be right."""
    try:
        return serve(read_settings(sys.argv[1:]))
    except (SettingsRefused, ListenError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("tensorflow", "grpc_health"):
            raise
        sys.stderr.write(f"{error.name} is not installed. Remedy: pip install 'hilum[inference]'\n")
        return USAGE_ERROR


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A prediction that outlived its grace must not hold the process: its thread cannot be stopped from outside.
    os._exit(status)
