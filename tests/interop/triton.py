"""The referee: Triton's client and a real Triton server, both in .venv-referee (scripts/referee-setup)."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format

from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import ROOT
from tests.inference_service import START_S, end_process
from tests.waiting import wait_until

REFEREE = ROOT / ".venv-referee"
PYTHON = REFEREE / "bin" / "python"
IS_SET_UP = (REFEREE / ".hilum-referee").exists()
_STUB = "triton_python_backend_stub"


def ask_referee(command: str, argument: str) -> dict[str, Any]:
    """Run tests/interop/triton_referee.py where Triton's client is installed."""
    done = subprocess.run(
        [PYTHON, "-m", "tests.interop.triton_referee", command, argument],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def write_triton_model(models: Path, config: messages.ModelConfig) -> None:
    """Put the threshold model into Triton's repository, under the configuration that our service stated for it."""
    folder = models / config.name / "1"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "interop" / "triton_model.py", folder / "model.py")
    theirs = messages.ModelConfig()
    theirs.CopyFrom(config)
    theirs.platform, theirs.backend, theirs.default_model_filename = "", "python", "model.py"
    (models / config.name / "config.pbtxt").write_text(text_format.MessageToString(theirs), encoding="utf-8")


@contextmanager
def running_triton(models: Path, scratch: Path) -> Iterator[str]:
    """Start the real server on free ports and give its gRPC address."""
    log, port = scratch / "triton.log", _free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(_command(models, scratch, port), env=_environment(), stdout=output, stderr=output)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            wait_until(lambda: process.poll() is not None or _is_ready(stub), timeout_s=START_S, what="Triton")
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-3000:]
        yield f"127.0.0.1:{port}"
    finally:
        end_process(process, timeout_s=60)


def _packages() -> Path:
    return next((REFEREE / "lib").glob("python3*/site-packages"))


def _command(models: Path, scratch: Path, port: int) -> list[str]:
    server = _packages() / "pytriton" / "tritonserver"
    backends = scratch / "backends"
    shutil.copytree(server / "backends" / "python", backends / "python")
    stub = server / "python_backend_stubs" / _packages().parent.name.removeprefix("python") / _STUB
    shutil.copy(stub, backends / "python" / _STUB)
    return [
        str(server / "bin" / "tritonserver"), f"--model-repository={models}", f"--backend-directory={backends}",
        "--grpc-address=127.0.0.1", f"--grpc-port={port}", "--allow-http=false", "--allow-metrics=false",
        "--backend-config=python,shm-default-byte-size=4194304",
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    packages = _packages()
    return {
        **os.environ,
        "PATH": f"{REFEREE / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(packages.parent / "site-packages" / "nvidia_pytriton.libs"),
        "PYTHONPATH": str(packages),
    }


def _is_ready(stub: GRPCInferenceServiceStub) -> bool:
    try:
        return bool(stub.ServerReady(messages.ServerReadyRequest(), timeout=5).ready)
    except grpc.RpcError:
        return False


def _free_port() -> int:
    with ExitStack() as held:
        probe = held.enter_context(closing(socket.socket()))
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
