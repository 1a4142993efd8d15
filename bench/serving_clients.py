"""Clients of the service as a process of their own: threads that ask one request after the other and check answers.

`python -m bench.serving_clients ADDRESS THREADS POOL.npz` asks what the lines of its standard input say, JSON with
`model`, `first`, `step` and `last` (numbers of requests), and answers each line with one of counts and milliseconds.
`model` "doubler" gets voxels that are drawn anew for each number and must come back doubled, bit by bit; any other gets
the image of the pool of that number, and must answer as the pool says.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from protos.open_inference_pb2 import ModelInferRequest
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensors import datatype_of

DOUBLER = "doubler"
WRONG_BEYOND = 1e-3
"""Of the pool's answers, which `bench.serving_batching` holds to be much further apart than that."""
_LATE_S = 120.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of some requests."""

    requests: int = 0
    wrong: int = 0
    failed: int = 0
    seconds: float = 0.0
    """From the first to the last; of several processes the longest."""
    each_ms: list[float] = field(default_factory=list)

    def joined(self, other: "Asked") -> "Asked":
        """Put what came of requests at the same time together."""
        return Asked(
            self.requests + other.requests,
            self.wrong + other.wrong,
            self.failed + other.failed,
            max(self.seconds, other.seconds),
            [*self.each_ms, *other.each_ms],
        )


@dataclass(frozen=True, slots=True)
class Clients:
    """Processes of clients that wait for what to ask."""

    processes: Sequence["Popen[str]"]

    def ask(self, model: str, requests: int) -> Asked:
        """Share `requests` among the processes, and give what came of all."""
        many = len(self.processes)
        for first, process in enumerate(self.processes):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"model": model, "first": first, "step": many, "last": requests}) + "\n")
            process.stdin.flush()
        found = Asked()
        for process in self.processes:
            assert process.stdout is not None
            found = found.joined(Asked(**json.loads(process.stdout.readline())))
        return found


@contextmanager
def clients(address: str, pool: Path, processes: int, threads: int) -> Iterator[Clients]:
    """Start processes of clients, each of `threads`, every thread with a connection of its own."""
    command = [sys.executable, "-m", "bench.serving_clients", address, str(threads), str(pool)]
    with ExitStack() as opened:
        started = [opened.enter_context(Popen(command, stdin=PIPE, stdout=PIPE, text=True)) for _ in range(processes)]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield Clients(started)
        for process in started:
            assert process.stdin is not None
            process.stdin.close()


def request_of(model: str, array: NDArray[Any]) -> ModelInferRequest:
    """Write a request for an image."""
    request = ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    request.inputs.add(name="image", datatype=datatype_of(array.dtype), shape=array.shape)
    return request


class _Asker:
    """Knows the request and the right answer of each number."""

    def __init__(self, pool: Path) -> None:
        with np.load(pool) as arrays:
            self._images, self._answers = arrays["images"], arrays["answers"]

    def request(self, model: str, number: int) -> ModelInferRequest:
        if model == DOUBLER:
            return request_of(model, _voxels(number))
        return request_of(model, self._images[number % len(self._images)])

    def is_right(self, model: str, number: int, raw: bytes) -> bool:
        if model == DOUBLER:
            return raw == (2 * _voxels(number)).tobytes()
        right = self._answers[number % len(self._answers)]
        return raw != b"" and bool(np.abs(np.frombuffer(raw, np.float32) - right).max() <= WRONG_BEYOND)


def _voxels(number: int) -> NDArray[np.int16]:
    drawn = np.random.default_rng(number)
    return drawn.integers(-9999, 9999, (1 + number % 4, 8, 8), np.int16)


class _Threads:
    """Threads with connections that stay open."""

    def __init__(self, address: str, threads: int, asker: _Asker) -> None:
        self._asker, self._many = asker, threads
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._stubs = [GRPCInferenceServiceStub(grpc.insecure_channel(address, options)) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)

    def ask(self, model: str, numbers: range) -> Asked:
        together = threading.Barrier(self._many)
        parts = [numbers[start :: self._many] for start in range(self._many)]
        running = [
            self._pool.submit(self._one, stub, model, part, together)
            for stub, part in zip(self._stubs, parts, strict=True)
        ]
        found = Asked()
        for item in running:
            found = found.joined(item.result())
        return found

    def _one(self, stub: Any, model: str, numbers: range, together: threading.Barrier) -> Asked:
        requests = {number: self._asker.request(model, number) for number in numbers}
        wrong, failed, each = 0, 0, []
        together.wait(_LATE_S)
        begun = time.perf_counter()
        for number, request in requests.items():
            asked = time.perf_counter()
            try:
                answer = stub.ModelInfer(request, timeout=_LATE_S)
            except grpc.RpcError:
                failed += 1
                continue
            each.append((time.perf_counter() - asked) * 1e3)
            wrong += not self._asker.is_right(model, number, answer.raw_output_contents[0])
        return Asked(len(requests), wrong, failed, time.perf_counter() - begun, each)


def main() -> None:
    """Answer the lines of the standard input."""
    threads = _Threads(sys.argv[1], int(sys.argv[2]), _Asker(Path(sys.argv[3])))
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        found = threads.ask(wanted["model"], range(wanted["first"], wanted["last"], wanted["step"]))
        names = ("requests", "wrong", "failed", "seconds", "each_ms")
        print(json.dumps({name: getattr(found, name) for name in names}), flush=True)


if __name__ == "__main__":
    main()
