"""A receiver as a process of its own, to be killed: python tests/receiver_child.py DIRECTORY writes DIRECTORY/port."""

import sys
import threading
from pathlib import Path

from tests.receiving import receiver

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    with receiver(directory) as running:
        part = directory / "port.part"
        part.write_text(str(running.port), encoding="ascii")
        part.rename(directory / "port")
        threading.Event().wait()
