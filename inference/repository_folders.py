"""What lies in the models folder, and for how long it has lain there unchanged."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from protos.model_manifest import bundle_directories

Key = tuple[str, str]
"""Name and version."""
LOOKS_MISSED = 2
"""A folder that two looks in a row do not find is gone: one may be just being replaced."""
LOOKS_SETTLED = 3
"""What three looks in a row find unchanged is no longer being copied."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A bundle folder as the last look found it."""

    path: Path
    stamp: str
    """Changes with any file's path, size, time or inode."""
    looks: int = 1
    """Looks in a row with this stamp."""
    missed: int = 0
    """Looks in a row that did not find the folder."""

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing changed for two intervals."""
        return self.looks >= LOOKS_SETTLED


class Lookout:
    """Looks at the models folder from time to time; one thread at a time."""

    def __init__(self, directory: Path, names: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self._names = names
        self._known: dict[Key, Sighting] = {}

    def look(self) -> dict[Key, Sighting]:
        """Give every bundle folder; unchanged where the models folder itself is away."""
        if not self.directory.is_dir():
            return dict(self._known)
        fresh = {}
        for path in bundle_directories(self.directory):
            key = (path.parent.name, path.name)
            if not self._names or path.parent.name in self._names:
                fresh[key] = _seen_again(self._known.get(key), path)
        for key, before in self._known.items():
            if key not in fresh and before.missed + 1 < LOOKS_MISSED:
                fresh[key] = replace(before, missed=before.missed + 1)
        self._known = fresh
        return dict(fresh)


def stamp_of(directory: Path) -> str:
    """Digest paths, sizes, times and inodes of the files; no file is opened."""
    rows = []
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted((*folders, *files)):
            path = os.path.join(folder, name)  # noqa: PTH118 - a name may be any bytes
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            rows.append((path, found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode))
    return hashlib.sha256(repr(rows).encode("utf-8", "surrogateescape")).hexdigest()


def _seen_again(before: Sighting | None, path: Path) -> Sighting:
    stamp = stamp_of(path)
    if before is not None and before.stamp == stamp:
        return replace(before, looks=before.looks + 1, missed=0)
    return Sighting(path, stamp)
