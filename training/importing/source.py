"""What somebody hands in: a Keras file, an HDF5 file or a SavedModel folder, known by its first bytes.

Nothing is parsed here. The bytes are hashed and, for the child, copied, so that what is checked is what is opened.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from training.importing.errors import SourceRefused

Kind = Literal["keras", "h5", "saved_model"]
SOURCE_BYTES_MOST = 4 << 30
FILES_MOST = 1000
GRAPH_FILE = "saved_model.pb"
COPIED_AS: Final[dict[str, str]] = {"keras": "model.keras", "h5": "model.h5", "saved_model": "saved_model"}
_PIECE = 1 << 20
_MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = ((b"PK\x03\x04", "keras"), (b"\x89HDF\r\n\x1a\n", "h5"))
_OTHERS = {
    ".onnx": "an ONNX file",
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".tflite": "a TensorFlow Lite file",
    ".pb": "a file of a SavedModel: name its folder",
    ".json": "a Keras configuration without weights",
}
_TAKEN = "Taken are a .keras file, an HDF5 file (.h5) and a SavedModel folder"


@dataclass(frozen=True, slots=True)
class Source:
    """A recognised source, by the bytes that it had."""

    name: str
    kind: Kind
    sha256: str
    size: int
    """Bytes of all its files."""


def take_source(path: Path, copy_to: Path | None = None) -> Source:
    """Recognise and hash a source, and copy it under `COPIED_AS` into a folder where one is given.

    Raises:
        SourceRefused: there is nothing, or not what is taken, or too much of it, or a folder that holds links.
    """
    try:
        kind = _kind_of(path)
        target = None if copy_to is None else copy_to / COPIED_AS[kind]
        if kind != "saved_model":
            digest, size = _copied(path, target, SOURCE_BYTES_MOST)
            return Source(path.name, kind, digest, size)
        lines, total = [], 0
        for file in _files_of(path):
            place = file.relative_to(path).as_posix()
            digest, size = _copied(file, None if target is None else target / place, SOURCE_BYTES_MOST - total)
            lines.append(f"{digest}  {place}\n")
            total += size
    except OSError as error:
        raise SourceRefused(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    return Source(path.resolve().name, kind, hashlib.sha256("".join(lines).encode()).hexdigest(), total)


def _kind_of(path: Path) -> Kind:
    if path.is_dir():
        if (path / GRAPH_FILE).is_file():
            return "saved_model"
        raise SourceRefused(f"{path}: a folder without {GRAPH_FILE} is no SavedModel. {_TAKEN}")
    if not path.exists():
        raise SourceRefused(f"{path}: no such file or folder. {_TAKEN}")
    with path.open("rb") as file:
        begin = file.read(8)
    for magic, kind in _MAGIC:
        if begin.startswith(magic):
            return kind
    what = _OTHERS.get(path.suffix.lower(), f"a file that begins with {begin[:4]!r}")
    raise SourceRefused(f"{path}: is {what}. {_TAKEN}")


def _files_of(folder: Path) -> Iterator[Path]:
    found = []
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise SourceRefused(
                    f"{path}: is a link or no plain file. Remedy: copy the folder with its links resolved"
                )
            if stat.S_ISREG(mode):
                found.append(path)
    if len(found) > FILES_MOST:
        raise SourceRefused(f"{folder}: expected at most {FILES_MOST} files, got {len(found)}")
    yield from sorted(found)


def _copied(path: Path, target: Path | None, most: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as file, (target or Path(os.devnull)).open("wb") as copy:
        while piece := file.read(_PIECE):
            size += len(piece)
            if size > most:
                raise SourceRefused(f"{path}: the source is larger than {SOURCE_BYTES_MOST >> 30} GiB")
            digest.update(piece)
            copy.write(piece)
    return digest.hexdigest(), size
