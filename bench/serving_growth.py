"""Does the service grow: 1,000 times a model unloaded and loaded, and 10,000 requests by every way that tensors go?

`python -m bench.serving_growth` asks one service, a process of its own. Four models take turns at being unloaded,
loaded and asked, over gRPC: one whole and small, one of parts whose tiles are batched, one in slabs, one with a loop.
Then the ways of a volume take turns: in the message, in a mapped region, uploaded into a region, and in a stream. After
each hundredth part the service's private memory (`RssAnon`), open files and threads are looked at; the slope is a
line fitted through the last 80 % of those looks.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.serving_peers import MIB, Service, memory_of, service, volume_of
from bench.tables import print_machine, print_table, without_log
from node.inference_client.client import InferenceClient
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages
from protos.model_manifest import open_bundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensors import datatype_of
from tests.part_bundles import CLASSIFIER, COPY, NARROW, TINY, part_bundles

SETTLING = 0.2
"""Of the looks; arenas, thread pools and caches fill in these."""
MODELS = part_bundles() / "good"
_PICTURE = np.full((16, 16, 3), 51, np.uint8)
_VOLUME = np.arange(40 * 32 * 32, dtype=np.int16).reshape(40, 32, 32) % 200
Step = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Look:
    """What a process holds at one moment."""

    done: int
    private: int
    files: int
    threads: int


def look(pid: int, done: int) -> Look:
    """Look at a process."""
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    return Look(done, memory_of(pid)["RssAnon"], files, threads)


def growth(pid: int, step: Step, count: int) -> tuple[list[Look], float]:
    """Do something `count` times; give a hundred looks, and the seconds that it took."""
    every, looks, begun = max(1, count // 100), [], time.perf_counter()
    for done in range(count):
        step(done)
        if (done + 1) % every == 0:
            looks.append(look(pid, done + 1))
    return looks, time.perf_counter() - begun


def row_of(what: str, looks: list[Look], seconds: float) -> tuple[str, ...]:
    """Write a row of the table."""
    settled = looks[int(len(looks) * SETTLING) :]
    slope = np.polyfit([one.done for one in settled], [one.private for one in settled], 1)[0]
    first, last = settled[0], looks[-1]
    return (
        what,
        f"{seconds:.0f}",
        f"{first.private / MIB:.1f}",
        f"{last.private / MIB:.1f}",
        f"{slope:.0f}",
        f"{first.files} to {last.files}",
        f"{first.threads} to {last.threads}",
    )


def request_of(model: str, name: str, array: NDArray[Any]) -> messages.ModelInferRequest:
    """Write a request of one tensor."""
    request = messages.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    request.inputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
    return request


def reloading(stub: Any) -> Step:
    """Give what unloads, loads and asks the models in turn."""
    requests = [
        request_of(TINY.identity.name, "values", np.arange(4, dtype=np.float32)),
        request_of(CLASSIFIER.identity.name, "image", _PICTURE),
        request_of(COPY.identity.name, "image", _VOLUME[:9]),
        request_of(NARROW.identity.name, "image", np.ones((1, 256, 256), np.float32)),
    ]
    right = [stub.ModelInfer(request).raw_output_contents[0] for request in requests]

    def step(number: int) -> None:
        request = requests[number % len(requests)]
        stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name=request.model_name))
        stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name=request.model_name))
        answer = stub.ModelInfer(request, timeout=60).raw_output_contents[0]
        assert answer == right[number % len(requests)], f"{request.model_name}: the answer is wrong"

    return step


def asking(running: Service, stub: Any, opened: ExitStack) -> Step:
    """Give what asks for a volume by one way after the other."""
    bundle, volume = open_bundle(MODELS / COPY.identity.name / "1"), volume_of(_VOLUME)
    right = np.clip(_VOLUME, 0, 255).astype(np.uint8)
    ways: list[Callable[[], NDArray[Any]]] = []
    for way in ("off", "auto", "upload"):
        client = opened.enter_context(closing(InferenceClient(InferenceSettings(endpoint=running.tcp, regions=way))))
        ways.append(lambda client=client: client.infer(bundle, volume).outputs["mask"])
    request = request_of(COPY.identity.name, "image", _VOLUME)

    def streamed() -> NDArray[Any]:
        (answer,) = stub.ModelStreamInfer(iter([request]), timeout=60)
        assert not answer.error_message
        return np.frombuffer(answer.infer_response.raw_output_contents[0], np.uint8).reshape(right.shape)

    ways.append(streamed)

    def step(number: int) -> None:
        assert np.array_equal(ways[number % len(ways)](), right), "the answer is wrong"

    return step


def report(rows: Iterable[tuple[str, ...]]) -> None:
    """Print the table."""
    header = ("what", "s", "MiB at 20 %", "MiB at the end", "bytes each, fitted", "open files", "threads")
    print_table(header, rows)


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    without_log()
    print_machine()
    with ExitStack() as opened:
        running = opened.enter_context(service(MODELS, "--model-control", "--poll-s", "0"))
        stub = GRPCInferenceServiceStub(opened.enter_context(grpc.insecure_channel(running.unix)))
        rows = []
        for what, step, count in (
            (f"{options.cycles} times unloaded, loaded, asked", reloading(stub), options.cycles),
            (f"{options.requests} requests by four ways in turn", asking(running, stub, opened), options.requests),
        ):
            rows.append(row_of(what, *growth(running.pid, step, count)))
    report(rows)


if __name__ == "__main__":
    main()
