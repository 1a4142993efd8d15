"""The files of a bundle and the list `bundle.sha256` that they are held to: plain files inside the folder alone."""

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath

DIGEST_LIST_FILE = "bundle.sha256"
LIST_BYTES_MOST = MANIFEST_BYTES_MOST = 1 << 20
"""1 MiB; what is larger is not read."""
_ROW = re.compile(r"([0-9a-f]{64})  (\S.*)")


class ManifestError(ValueError):
    """A bundle or its manifest is not what it must be; the message names file, field, value and remedy."""


class BundleIncomplete(ManifestError):
    """The files of a bundle are not what its list says: damaged, changed, or still being copied."""


def check_files(directory: Path) -> dict[str, str]:
    """Hold every file of a bundle to its list and give path -> hex SHA-256 as listed.

    Raises:
        BundleIncomplete: a file is missing, changed or not listed.
        ManifestError: the folder or the list holds what no bundle may hold: links, devices, paths outside.
    """
    present = set(files_of(directory))
    listed = read_digest_list(directory / DIGEST_LIST_FILE)
    if present != set(listed):
        odd = sorted(present ^ set(listed))
        raise BundleIncomplete(
            f"{directory}: {', '.join(odd)} stand(s) only in the folder or only in {DIGEST_LIST_FILE}. "
            f"Remedy: copy the bundle again."
        )
    for name, digest in listed.items():
        if sha256_of(directory / name) != digest:
            raise BundleIncomplete(
                f"{directory / name}: content is not what {DIGEST_LIST_FILE} lists. Remedy: copy the bundle again."
            )
    return listed


def read_digest_list(path: Path) -> dict[str, str]:
    """Read a `bundle.sha256`: path -> hex SHA-256.

    Raises:
        BundleIncomplete: it is not there, or a line is not "sha256  path".
        ManifestError: it is too large, a path leads out of the folder, or one path is listed twice.
    """
    try:
        rows = _rows(read_bounded(path, LIST_BYTES_MOST).decode())
    except (OSError, UnicodeDecodeError, _NotARowError) as error:
        raise BundleIncomplete(f"{path}: cannot be read as 'sha256  path' lines: {error}") from error
    listed: dict[str, str] = {}
    for name, digest in rows:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or "/".join(parts) != name:
            raise ManifestError(f"{path}: lists {name!r:.120}; a path must lie in the folder, as 'a/b' without '..'")
        if name in listed:
            raise ManifestError(f"{path}: lists {name!r:.120} twice. Remedy: export the bundle again.")
        listed[name] = digest
    return listed


def files_of(directory: Path) -> list[str]:
    """Give the paths of all files of a bundle but the list itself, sorted; ManifestError where one is no plain file."""
    found = []
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = Path(folder, name)
            _refuse_odd_kind(path)
            if name in files and path != directory / DIGEST_LIST_FILE:
                found.append(path.relative_to(directory).as_posix())
    return sorted(found)


def read_bounded(path: Path, most: int) -> bytes:
    """Read a plain file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ManifestError: it is a link or larger; nothing was read.
    """
    _refuse_odd_kind(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ManifestError(f"{path}: expected at most {most} bytes, got more; it was not parsed")
    return content


def sha256_of(path: Path) -> str:
    """Give the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_odd_kind(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no plain file"
        raise ManifestError(f"{path}: is {kind}; a bundle holds plain files and folders only. Remedy: copy it again.")


class _NotARowError(ValueError):
    pass


def _rows(text: str) -> list[tuple[str, str]]:
    *lines, rest = text.split("\n")
    if rest:
        raise _NotARowError(f"the last line does not end, got {rest!r:.80}")
    return [_row(line) for line in lines]


def _row(line: str) -> tuple[str, str]:
    match = _ROW.fullmatch(line)
    if match is None:
        raise _NotARowError(f"got {line!r:.80}")
    return match[2], match[1]
