"""The floor of gRPC for Python: the same bytes in a bare stream each way, without messages, regions or checks.

`python -m bench.bare_stream IN_BYTES OUT_BYTES` is the peer: it copies what comes into memory that it keeps, and
answers with OUT_BYTES in chunks, until its standard input is closed; the first line of its output is its port.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from inference.allocator import keep_freed_memory

CHUNK = 2 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.max_frame_size", 1 << 20),
)


@dataclass(frozen=True, slots=True)
class BareStream:
    """The two methods of a peer that runs."""

    pid: int
    _up: Any
    _down: Any

    def upload(self, sent: NDArray[Any]) -> None:
        """Send the bytes of an array."""
        content = memoryview(sent).cast("B")
        answer = self._up(bytes(content[start : start + CHUNK]) for start in range(0, len(content), CHUNK))
        assert int(answer) == len(content)

    def download(self, into: NDArray[np.uint8]) -> None:
        """Fill an array with the answer."""
        place, done = memoryview(into), 0
        for chunk in self._down(b""):
            place[done : done + len(chunk)] = chunk
            done += len(chunk)
        assert done == len(place)


@contextmanager
def bare_stream(received: int, answered: int) -> Iterator[BareStream]:
    """Run the peer and give its methods."""
    command = [sys.executable, "-m", "bench.bare_stream", str(received), str(answered)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
            yield BareStream(process.pid, channel.stream_unary("/bare/Up"), channel.unary_stream("/bare/Down"))
        process.stdin.close()
        process.wait(10)


def _methods(received: int, answered: int) -> grpc.GenericRpcHandler:
    room, answer = memoryview(bytearray(received)), memoryview(bytearray(answered))

    def up(chunks: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
        done = 0
        for chunk in chunks:
            room[done : done + len(chunk)] = chunk
            done += len(chunk)
        return str(done).encode()

    def down(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        return (bytes(answer[start : start + CHUNK]) for start in range(0, answered, CHUNK))

    methods = {"Up": grpc.stream_unary_rpc_method_handler(up), "Down": grpc.unary_stream_rpc_method_handler(down)}
    return grpc.method_handlers_generic_handler("bare", methods)


def main() -> None:
    """Serve until the end of the standard input."""
    keep_freed_memory()
    server = grpc.server(ThreadPoolExecutor(4), options=_OPTIONS)
    server.add_generic_rpc_handlers((_methods(int(sys.argv[1]), int(sys.argv[2])),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
