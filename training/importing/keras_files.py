"""Keras files looked at before Keras opens them: the zip, the HDF5 tree, the configuration.

What was fixed in Keras once (code in a Lambda, files read through HDF5 links, arrays that claim petabytes) is refused
here whatever Keras is installed.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import h5py

from training.importing.errors import SourceRefused
from training.importing.keras_config import refuse_foreign_classes

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
CONFIG_BYTES_MOST = 16 << 20
UNPACKED_BYTES_MOST = 4 << 30
ARRAY_BYTES_MOST = 4 << 30
OBJECTS_MOST = 100_000
COMPRESSION_MOST = 200
"""Times that stored bytes may grow; zlib itself cannot do 1100."""
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_RESAVE = "Remedy: save the model again with `model.save('model.keras')`"


def check_keras_zip(path: Path, work: Path) -> None:
    """Hold a `.keras` file to what a model has: three entries and assets, layers that ship with Keras, plain weights.

    Args:
        path: of the file.
        work: folder of ours, in which the weights are unpacked and looked at.

    Raises:
        SourceRefused: it is anything else; the message names the entry, layer or array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, path)
            config = archive.read(entries[CONFIG])
            unpacked = work / WEIGHTS
            with archive.open(entries[WEIGHTS]) as packed, unpacked.open("wb") as file:
                while piece := packed.read(1 << 20):
                    file.write(piece)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise SourceRefused(f"{path.name}: cannot be read as a Keras file: {error}. {_RESAVE}") from error
    refuse_foreign_classes(_parsed(config, f"{path.name}: {CONFIG}"), path.name)
    check_hdf5(unpacked, f"{path.name}: {WEIGHTS}")
    unpacked.unlink()


def check_keras_h5(path: Path) -> None:
    """Hold a Keras file in HDF5 to what a model has; SourceRefused as `check_keras_zip`."""
    check_hdf5(path, path.name)
    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise SourceRefused(
            f"{path.name}: has no attribute model_config, so it holds weights and no model. "
            f"Remedy: save the whole model, `model.save('model.keras')`"
        )
    raw = config if isinstance(config, bytes) else str(config).encode()
    refuse_foreign_classes(_parsed(raw, f"{path.name}: model_config"), path.name)


def check_hdf5(path: Path, what: str) -> None:
    """Refuse links out of the file, arrays stored elsewhere, claims beyond what is there, and strange filters."""
    try:
        with h5py.File(path, "r") as file:
            for name, dataset in _datasets(file, what):
                _check_array(dataset, f"{what}: array {name!r:.120}")
    except (OSError, RuntimeError, KeyError) as error:
        raise SourceRefused(f"{what}: cannot be read as HDF5: {error}. {_RESAVE}") from error


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or entry.filename in entries:
            raise SourceRefused(f"{path.name}: entry {entry.filename!r:.120} leads outside or stands there twice")
        if entry.filename not in (CONFIG, WEIGHTS, METADATA) and name.parts[0] != "assets":
            raise SourceRefused(f"{path.name}: entry {entry.filename!r:.120} is none of a Keras file. {_RESAVE}")
        if entry.flag_bits & 1:
            raise SourceRefused(f"{path.name}: entry {entry.filename!r:.120} is encrypted. {_RESAVE}")
        if entry.file_size > COMPRESSION_MOST * max(entry.compress_size, 1 << 16):
            raise SourceRefused(
                f"{path.name}: entry {entry.filename!r:.120} grows from {entry.compress_size} to {entry.file_size} "
                f"bytes; it was not unpacked"
            )
        entries[entry.filename] = entry
    missing = [name for name in (CONFIG, WEIGHTS) if name not in entries]
    if missing:
        raise SourceRefused(f"{path.name}: has no entry {missing[0]!r}, so it is no Keras 3 file. {_RESAVE}")
    if (
        entries[CONFIG].file_size > CONFIG_BYTES_MOST
        or sum(e.file_size for e in entries.values()) > UNPACKED_BYTES_MOST
    ):
        raise SourceRefused(
            f"{path.name}: is larger unpacked than {UNPACKED_BYTES_MOST >> 30} GiB, or its configuration is"
        )
    return entries


def _parsed(raw: bytes, what: str) -> Any:
    if len(raw) > CONFIG_BYTES_MOST:
        raise SourceRefused(f"{what}: expected at most {CONFIG_BYTES_MOST} bytes, got {len(raw)}")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SourceRefused(f"{what}: cannot be read as JSON: {error}") from error


def _datasets(file: h5py.File, what: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every array by a walk of hard links; a group that is reached twice is a loop and is not entered again."""
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    entered: set[Any] = set()
    count = 0
    while waiting:
        place, group = waiting.pop()
        if group.id in entered:
            continue
        entered.add(group.id)
        for key in group:
            name = f"{place}/{key}"
            count += 1
            if count > OBJECTS_MOST:
                raise SourceRefused(f"{what}: holds more than {OBJECTS_MOST} objects")
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise SourceRefused(
                    f"{what}: {name!r:.120} is a link ({type(link).__name__}), which may lead to another "
                    f"file. {_RESAVE}"
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                waiting.append((name, item))
            elif isinstance(item, h5py.Dataset):
                yield name, item
            else:
                raise SourceRefused(f"{what}: {name!r:.120} is neither a group nor an array. {_RESAVE}")


def _check_array(array: h5py.Dataset, what: str) -> None:
    if array.external or array.is_virtual:
        raise SourceRefused(f"{what} is stored in another file. {_RESAVE}")
    if array.dtype.kind not in "fiubSV" or array.dtype.hasobject:
        raise SourceRefused(f"{what} holds {array.dtype}, expected numbers. {_RESAVE}")
    claimed, stored = array.size * array.dtype.itemsize if array.shape is not None else 0, array.id.get_storage_size()
    if claimed > ARRAY_BYTES_MOST or claimed > COMPRESSION_MOST * max(stored, 1 << 16):
        raise SourceRefused(f"{what} claims shape {list(array.shape)}, {claimed} bytes, and stores {stored}")
    made = array.id.get_create_plist()
    strange = {made.get_filter(at)[0] for at in range(made.get_nfilters())} - _FILTERS
    if strange:
        raise SourceRefused(f"{what} is packed by filter {min(strange)}, which is not known. {_RESAVE}")
