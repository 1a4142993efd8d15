"""What the service adds to the call of a tiny model (four numbers plus one), beside Triton's Python backend.

`python -m bench.serving_latency` asks, one request after the other, in rounds in which the ways take turns: the
function called in this process; a bare gRPC server of the same library that answers with the input (the floor of a
Python server); the service by Unix socket and by TCP; and, where scripts/referee-setup was run, a real Triton by TCP
that calls the same SavedModel by its signature, as its users have done since Triton dropped its TensorFlow backend, and
one that adds with numpy and has no TensorFlow at all. All clients are the same stub with the same request, every answer
is checked, and the service writes its log of every request as it does by default.
"""

import argparse
import gc
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np

from bench.serving_peers import service
from bench.tables import print_machine, print_table
from protos.model_manifest import open_bundle
from protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from protos.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)
from tests.interop.triton import IS_SET_UP, running_triton
from tests.part_bundles import TINY, part_bundles

NAME = TINY.identity.name
VALUES = np.arange(4, dtype=np.float32)
RIGHT = (VALUES + 1).tobytes()
DIRECT, BARE, UNIX, TCP = "the function called directly", "a bare gRPC server", "Hilum, Unix socket", "Hilum, TCP"
TRITON, TRITON_NUMPY = "Triton, Python backend, the same SavedModel", "Triton, Python backend, numpy instead"
_TRITON_CONFIG = """name: "{name}" backend: "python" max_batch_size: 0
input [{{name: "values" data_type: TYPE_FP32 dims: [4]}}]
output [{{name: "sums" data_type: TYPE_FP32 dims: [4]}}]
instance_group [{{kind: KIND_CPU count: 1}}]
"""
_TRITON_MODEL = """import sys
sys.path.append({packages!r})
import numpy as np
import triton_python_backend_utils as backend
{setup}

class TritonPythonModel:
    def execute(self, requests):
        return [backend.InferenceResponse([backend.Tensor("sums", self.answer(request))]) for request in requests]

    def answer(self, request):
        values = backend.get_input_tensor_by_name(request, "values").as_numpy()
        return {answer}
"""
_TENSORFLOW = """import tensorflow as tf
LOADED = tf.saved_model.load({path!r})
FUNCTION = LOADED.signatures["serving_default"]
"""
Way = Callable[[], object]


class BareServicer(GRPCInferenceServiceServicer):
    """Answers with what it got."""

    def ModelInfer(self, request: ModelInferRequest, context: grpc.ServicerContext) -> ModelInferResponse:  # noqa: N802
        del context
        response = ModelInferResponse(model_name=NAME, raw_output_contents=request.raw_input_contents)
        response.outputs.add(name="sums", datatype="FP32", shape=[4])
        return response


def serve_bare() -> None:
    """Serve until the standard input is closed; the first line of the output is the address."""
    server = grpc.server(ThreadPoolExecutor(8))
    add_GRPCInferenceServiceServicer_to_server(BareServicer(), server)
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None).wait()


@contextmanager
def bare_server() -> Iterator[str]:
    """Run the bare server as a process of its own and give its address."""
    command = [sys.executable, "-m", "bench.serving_latency", "--bare"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(10)


@contextmanager
def triton(models: Path) -> Iterator[str]:
    """Run Triton with both models and give its address."""
    loaded = _TENSORFLOW.format(path=str(models / NAME / "1"))
    packages = sysconfig.get_paths()["purelib"]  # TensorFlow is there, and the numpy that goes with it
    of_tensorflow = 'FUNCTION(values=tf.constant(values))["sums"].numpy()'
    with tempfile.TemporaryDirectory(prefix="hilum-triton-") as folder:
        for name, setup, answer in (
            ("tensorflow", loaded, of_tensorflow),
            ("numpy", "", "values + np.float32(1)"),
        ):
            directory = Path(folder) / "models" / name
            (directory / "1").mkdir(parents=True)
            text = _TRITON_MODEL.format(packages=packages, setup=setup, answer=answer)
            (directory / "1" / "model.py").write_text(text)
            (directory / "config.pbtxt").write_text(_TRITON_CONFIG.format(name=name))
        with running_triton(Path(folder) / "models", Path(folder)) as address:
            yield address


def asking(address: str, model: str, right: bytes, opened: ExitStack) -> Way:
    """Give what asks a server once and checks the answer."""
    request = ModelInferRequest(model_name=model, raw_input_contents=[VALUES.tobytes()])
    request.inputs.add(name="values", datatype="FP32", shape=[4])
    ask = GRPCInferenceServiceStub(opened.enter_context(grpc.insecure_channel(address))).ModelInfer

    def once() -> None:
        got = ask(request).raw_output_contents[0]
        assert got == right, f"{address} {model}: the answer {np.frombuffer(got, np.float32)} is wrong"

    return once


def direct(models: Path) -> Way:
    """Give what calls the model in this process, without admission, protocol and checks of the request."""
    from inference.runners.loading import load_runner
    from inference.runners.whole import Predictor

    predictor = load_runner(open_bundle(models / NAME / "1"))
    assert isinstance(predictor, Predictor)

    def once() -> None:
        assert predictor.function({"values": VALUES})["sums"].tobytes() == RIGHT

    return once


def ways(models: Path, opened: ExitStack) -> dict[str, Way]:
    """Start every server and give the ways to ask."""
    running = opened.enter_context(service(models, "--model", NAME))
    found = {
        DIRECT: direct(models),
        BARE: asking(opened.enter_context(bare_server()), NAME, VALUES.tobytes(), opened),
        UNIX: asking(running.unix, NAME, RIGHT, opened),
        TCP: asking(running.tcp, NAME, RIGHT, opened),
    }
    if IS_SET_UP:
        address = opened.enter_context(triton(models))
        found[TRITON] = asking(address, "tensorflow", RIGHT, opened)
        found[TRITON_NUMPY] = asking(address, "numpy", RIGHT, opened)
    return found


def measured(asked: dict[str, Way], rounds: int, calls: int) -> dict[str, list[list[float]]]:
    """Give the seconds of each call, round by round."""
    for once in asked.values():
        for _ in range(calls):
            once()
    gc.collect()
    gc.freeze()
    seconds: dict[str, list[list[float]]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, once in asked.items():
            taken = []
            for _ in range(calls):
                begun = time.perf_counter()
                once()
                taken.append(time.perf_counter() - begun)
            seconds[name].append(taken)
    return seconds


def report(seconds: dict[str, list[list[float]]]) -> None:
    """Print the table and the ratios."""
    rows, p50 = [], {}
    for name, rounds in seconds.items():
        cuts = statistics.quantiles([value for taken in rounds for value in taken], n=100)
        p50[name] = cuts[49]
        added = "-" if name == DIRECT else f"{(cuts[49] - p50[DIRECT]) * 1e3:.2f}"
        rows.append((name, f"{cuts[49] * 1e3:.3f}", f"{cuts[98] * 1e3:.2f}", added))
    print_table(("way", "p50, ms", "p99, ms", "added to the call, p50, ms"), rows)
    for other in (TRITON, TRITON_NUMPY):
        if other in seconds:
            each = [
                statistics.median(ours) / statistics.median(theirs)
                for ours, theirs in zip(seconds[TCP], seconds[other], strict=True)
            ]
            print(f"{TCP} / {other}: {statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f}).")
    if TRITON not in seconds:
        print("Triton was left out: run scripts/referee-setup first.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=200, help="of each way in each round")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        serve_bare()
        return
    print_machine()
    with ExitStack() as opened:
        report(measured(ways(part_bundles() / "good", opened), options.rounds, options.calls))


if __name__ == "__main__":
    main()
