"""The floor of any transport between hosts: the same bytes there and back over one plain TCP connection.

`python -m bench.raw_socket IN_BYTES OUT_BYTES` is the peer: it reads IN_BYTES into memory that it keeps, answers with
OUT_BYTES, again and again, until its standard input is closed; the first line of its output is its port.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numpy.typing import NDArray

CHUNK = 1 << 20


@contextmanager
def raw_peer(received: int, answered: int) -> Iterator[socket.socket]:
    """Run the peer and give a connection to it."""
    command = [sys.executable, "-m", "bench.raw_socket", str(received), str(answered)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection
        process.stdin.close()
        process.wait(10)


def there_and_back(connection: socket.socket, sent: NDArray, into: NDArray) -> None:
    """Send the bytes of `sent` and fill `into` with the answer."""
    connection.sendall(memoryview(sent).cast("B"))
    fill(connection, memoryview(into).cast("B"))


def fill(connection: socket.socket, place: memoryview) -> None:
    """Receive until `place` is full; EOFError where the peer ends before."""
    done = 0
    while done < len(place):
        got = connection.recv_into(place[done : done + CHUNK])
        if not got:
            raise EOFError(f"{done} of {len(place)} bytes came")
        done += got


def main() -> None:
    """Answer one connection."""
    received, answered = bytearray(int(sys.argv[1])), bytes(int(sys.argv[2]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=lambda: (sys.stdin.read(), connection.close()), daemon=True).start()
        try:
            while True:
                fill(connection, memoryview(received))
                connection.sendall(answered)
        except (EOFError, OSError):
            return


if __name__ == "__main__":
    main()
