"""What durability alone costs on the disk in use: the limit of any receiver that acknowledges it."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path


def seconds_to_keep(files: Sequence[Path], directory: Path) -> float:
    """Write the files' bytes again, each with fsync, rename and directory fsync; return the seconds that took."""
    contents = [path.read_bytes() for path in files]
    directory.mkdir()
    begun = time.perf_counter()
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for number, content in enumerate(contents):
        part = directory / f"{number}.part"
        with part.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        part.rename(directory / f"{number}.dcm")
        os.fsync(folder)
    os.close(folder)
    seconds = time.perf_counter() - begun
    shutil.rmtree(directory)
    return seconds
