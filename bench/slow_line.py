"""A line of a stated speed: forwards TCP connections to a port, no faster than so many megabytes a second each way.

`python -m bench.slow_line PORT MEGABYTES` forwards until its standard input is closed; the first line of its output is
the port to connect to. Delay is not imitated, only bandwidth.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 1 << 16
AHEAD_S = 0.002
"""What may be sent at once after a pause: a real line has a small buffer too."""


@contextmanager
def slow_line(port: int, megabytes: float) -> Iterator[int]:
    """Run a line to a port of this machine; give the port of its near end."""
    command = [sys.executable, "-m", "bench.slow_line", str(port), str(megabytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


class Pace:
    """Lets bytes pass at a stated speed."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._due = 0.0

    def wait_for(self, size: int) -> None:
        """Return when the line has taken `size` bytes more."""
        now = time.perf_counter()
        self._due = max(self._due, now - AHEAD_S) + size / self._per_s
        if self._due > now:
            time.sleep(self._due - now)


def _forward(source: socket.socket, target: socket.socket, per_s: float) -> None:
    pace, room = Pace(per_s), bytearray(CHUNK)
    try:
        while got := source.recv_into(room):
            pace.wait_for(got)
            target.sendall(memoryview(room)[:got])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def main() -> None:
    """Forward every connection on two threads."""
    port, per_s = int(sys.argv[1]), float(sys.argv[2]) * 1e6
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown(socket.SHUT_RDWR)), daemon=True).start()
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_forward, args=(source, target, per_s), daemon=True).start()


if __name__ == "__main__":
    main()
