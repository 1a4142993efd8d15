"""The inference service as a child process: started, waited for, started again when it dies, stopped."""

import json
import subprocess
import sys
import threading
import time
from os import getpid
from pathlib import Path

import structlog

from node.errors import InferenceUnavailable, SettingsError
from node.settings import InferenceSettings

_log = structlog.get_logger(__name__)
READY_FILE = "inference.ready"
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.5, 30.0
STEADY_S = 60.0
"""A service that lived this long starts again with the first back-off."""
_USAGE_ERROR = 2
_POLL_S = 0.05


class ServiceProcess:
    """Keeps `python -m inference` alive as a child; it ends with this process, however this process ends."""

    def __init__(
        self, settings: InferenceSettings, models_directory: Path, run_directory: Path, *, log_level: str = "info"
    ) -> None:
        """Prepare; `run_directory` takes the ready file. Listens on the endpoint of the settings (port 0 is free)."""
        self._settings = settings
        self._models_directory = models_directory
        self._ready_file = run_directory / READY_FILE
        self._listen = settings.endpoint
        self._log_level = log_level
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._lock = threading.Lock()
        self.restarts = 0

    @property
    def endpoint(self) -> str:
        """The address that the service listens on, with its real port once it has started."""
        return self._listen

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self, timeout_s: float = 120.0) -> str:
        """Start the service and return its endpoint once all its models are warmed.

        Raises:
            SettingsError: it refuses its command line (address taken, no such model); its log says why.
            InferenceUnavailable: it ended, or was not ready in time.
        """
        self._ready_file.parent.mkdir(parents=True, exist_ok=True)
        self._spawn()
        try:
            self._listen = self._wait_until_ready(timeout_s)
        except (SettingsError, InferenceUnavailable):
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._watch, name="inference-service", daemon=True)
        self._watcher.start()
        return self._listen

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the service: SIGTERM, and SIGKILL where it has not ended within `timeout_s`."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watcher is not None:
            self._watcher.join(timeout_s)
        self._ready_file.unlink(missing_ok=True)

    def _spawn(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        # -P: a folder "inference" in the working directory must not be taken for the service.
        command = [sys.executable, "-P", "-m", "inference", "--models", str(self._models_directory)]
        command += ["--listen", self._listen, "--max-message-mb", str(self._settings.max_message_mb)]
        command += ["--ready-file", str(self._ready_file), "--parent-pid", str(getpid())]
        command += ["--log-level", self._log_level]
        for name in self._settings.models:
            command += ["--model", name]
        with self._lock:
            if self._stopping.is_set():
                return
            # A session of its own: Ctrl-C in the terminal reaches the node alone, which then stops the service.
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def _wait_until_ready(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        process = self._process
        while process is not None and time.monotonic() < deadline:
            if self._ready_file.exists():
                ready = json.loads(self._ready_file.read_text(encoding="utf-8"))
                return str(ready["addresses"][0])
            if (status := process.poll()) is not None:
                message = f"the inference service ended with status {status} before it was ready; its log says why"
                raise SettingsError(message) if status == _USAGE_ERROR else InferenceUnavailable(message)
            self._stopping.wait(_POLL_S)
        raise InferenceUnavailable(f"the inference service was not ready within {timeout_s:g} s; its log says why")

    def _watch(self) -> None:
        backoff = BACKOFF_FIRST_S
        while not self._stopping.is_set() and (process := self._process) is not None:
            started = time.monotonic()
            status = process.wait()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - started
            backoff = BACKOFF_FIRST_S if lived > STEADY_S else backoff
            _log.warning("inference_service_ended", reason=f"status {status}", seconds=round(lived, 1))
            backoff = self._start_again(backoff)

    def _start_again(self, backoff: float) -> float:
        """Start the service after the back-off, as often as the machine refuses it; return the next back-off."""
        while not self._stopping.wait(backoff):
            backoff = min(2 * backoff, BACKOFF_MOST_S)
            try:
                self._spawn()
            except OSError as error:
                # No descriptor, no memory, no room for the ready file: that passes.
                _log.warning("inference_service_not_started", reason=error.strerror, seconds=backoff)
            else:
                self.restarts += 1
                break
        return backoff
