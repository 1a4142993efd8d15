"""`python -m inference`: the inference service as a process of its own."""

import os
import sys

from inference.allocator import keep_freed_memory
from inference.ending import stop_on_signals, stop_with_parent
from inference.errors import ListenError, SettingsRefused
from inference.log import configure_log
from inference.options import read_settings
from inference.quiet import quiet_tensorflow, without_collecting
from inference.settings import ServiceSettings

USAGE_ERROR = 2
_OF_THE_EXTRA = ("tensorflow", "grpc_health", "grpc_reflection", "prometheus_client")


def serve(settings: ServiceSettings) -> int:
    """Run the service until it is told to end; TensorFlow is loaded here."""
    keep_freed_memory()
    configure_log(settings.log_level)
    with quiet_tensorflow(), without_collecting():
        from inference.app import InferenceService
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
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        sys.stderr.write(f"{error.name} is not installed. Remedy: pip install 'hilum[inference]'\n")
        return USAGE_ERROR


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A prediction that outlived its grace must not hold the process: its thread cannot be stopped from outside.
    os._exit(status)
