"""The parent's side of an import: a folder, a child in it, its messages, and the bundle moved to its place.

The child's bundle is taken as what it is, the work of a process that opened a foreign file: it must be the files of a
bundle, with the manifest that the recipe makes. The service holds its graph to the allow-list whenever it loads it.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from inference.peak_memory import resident_bytes
from protos.bundle_files import ManifestError, files_of
from protos.model_manifest import DIGEST_LIST_FILE, MANIFEST_FILE, Memory, ModelBundle, ModelManifest, open_bundle
from training.importing.child import BUNDLES, SCRATCH, Order
from training.importing.described import described
from training.importing.errors import ConversionFailed, ImportRefused, IsolationRefused
from training.importing.messages import LINE_BYTES_MOST, Message, plain, received
from training.importing.recipe import Recipe
from training.importing.source import take_source

_FILES = ["golden.npz", MANIFEST_FILE, "saved_model.pb"]
_LOG, _REPLACED = "child.log", "replaced"
_LOG_BYTES_SHOWN = 2000
ADDRESSES_PER_BYTE = 4
_LOOK_S = 0.1
PROCESSOR_S, CLOCK_S = 3600, 4 * 3600
"""Time that the child gets; a busy machine gives it less than a second of processor for one on the clock."""
Show = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the child may use, and whether it may have a network."""

    memory_gb: int = 8
    """Of resident memory."""
    unisolated: bool = False


def import_model(source: Path, recipe: Recipe, models: Path, terms: Terms, show: Show) -> ModelBundle:
    """Convert a source in a child of its own and publish the bundle as `<models>/<name>/<version>`.

    A version that is there is put aside for the new one and only then removed; whether that is wanted is asked before
    (`refuse_existing`). Whatever ends the import, nothing is left of it.

    Raises:
        ImportRefused: the source or the recipe is wrong, the kernel does not isolate, or the child failed.
        OSError: the models folder cannot be written to.
    """
    identity = recipe.identity
    target = models / identity.name / identity.version
    with _folder_in(models) as work:
        show(Message("step", "copying the source"))
        taken = take_source(source, work)
        manifest = described(recipe, taken)
        _order(recipe, manifest, taken.kind, terms).write(work)
        _run_child(work, terms, show)
        made = _checked(work / BUNDLES / identity.name / identity.version, manifest)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(work / _REPLACED)
        made.rename(target)
    return open_bundle(target)


def refuse_existing(models: Path, recipe: Recipe) -> None:
    """Raise ImportRefused where the version is there already."""
    target = models / recipe.identity.name / recipe.identity.version
    if target.exists():
        raise ImportRefused(
            f"{target}: is there already. Remedy: raise identity.version in the recipe, or give --replace"
        )


@contextmanager
def _folder_in(models: Path) -> Iterator[Path]:
    """Make a folder beside the models, where a rename is atomic, and leave nothing of it."""
    is_new = not models.exists()
    models.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".import-", dir=models)).resolve()
    (work / SCRATCH).mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                models.rmdir()


def _order(recipe: Recipe, manifest: ModelManifest, kind: str, terms: Terms) -> Order:
    return Order(
        recipe=recipe.model_dump_json(),
        manifest=manifest.model_dump_json(),
        kind=kind,
        unisolated=terms.unisolated,
        memory_bytes=ADDRESSES_PER_BYTE * terms.memory_gb << 30,
        seconds=PROCESSOR_S,
        parent_pid=os.getpid(),
    )


def _run_child(work: Path, terms: Terms, show: Show) -> None:
    """Start the child, show what it says, and raise what it ended with; it is gone when this returns."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answers, (work / _LOG).open("wb") as log:
        try:
            child = _started(work, writing, log)
        finally:
            os.close(writing)
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(child.pid, terms.memory_gb << 30, ended), daemon=True)
        watch.start()
        try:
            last = _followed(answers, show)
            status = child.wait()
        finally:
            ended.set()
            watch.join()
            _kill(child)
    _raise_refusal(last, status, work, terms)


def _started(work: Path, pipe: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-s", "-m", "training.importing.child", str(work), str(pipe)]
    return subprocess.Popen(
        command,
        env=_environment(work),
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(pipe,),
        start_new_session=True,
    )


def _environment(work: Path) -> dict[str, str]:
    """Return all that the child's environment holds."""
    scratch = str(work / SCRATCH)
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "KERAS_HOME": scratch,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _followed(answers: IO[bytes], show: Show) -> Message | None:
    """Show steps and notes until the pipe closes; give the message that ended the child."""
    last = None
    while line := answers.readline(LINE_BYTES_MOST):
        message = received(line)
        if message is not None and message.said in ("step", "note"):
            show(message)
        elif message is not None:
            last = message
    return last


def _watch(pid: int, memory_bytes: int, ended: threading.Event) -> None:
    """Kill the child when it holds more memory than it may, or works too long.

    Its address space is limited too (RLIMIT_AS), and more widely: TensorFlow asks for much more than it touches.
    """
    until = time.monotonic() + CLOCK_S
    while not ended.wait(_LOOK_S):
        if resident_bytes(pid) > memory_bytes or time.monotonic() > until:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            return


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _raise_refusal(last: Message | None, status: int, work: Path, terms: Terms) -> None:
    if last is not None and last.said == "refused":
        raise ImportRefused(last.text)
    if last is not None and last.said == "unisolated":
        raise IsolationRefused(
            f"the kernel does not cut the child off from the network ({last.text}), so the source was not opened. "
            f"Remedy: allow user namespaces, or give --allow-network-unisolated for a source that you trust"
        )
    if last is not None and status == 0:
        return
    with (work / _LOG).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES_SHOWN))
        shown = " | ".join(plain(line) for line in log.read().decode(errors="replace").splitlines()[-3:])
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    raise ConversionFailed(
        f"the child ended by {how} without an answer; it may hold {terms.memory_gb} GiB (--memory-gb) and "
        f"{PROCESSOR_S} s of processor time. Its last lines: {shown or 'none'}"
    )


def _checked(directory: Path, manifest: ModelManifest) -> Path:
    """Hold the child's bundle to the files and the manifest that it was asked for."""
    try:
        found = sorted(files_of(directory))
        bundle = open_bundle(directory)
    except (OSError, ManifestError) as error:
        raise ConversionFailed(f"the child left no sound bundle: {error}") from error
    memory, golden = bundle.manifest.memory, bundle.manifest.golden
    asked = bundle.manifest.model_copy(update={"memory": manifest.memory, "golden": None})
    if found != sorted(_FILES) or asked != manifest or golden is None or not _is_sane(memory):
        raise ConversionFailed(f"the child left another bundle than was asked for, beside {DIGEST_LIST_FILE}: {found}")
    return directory


def _is_sane(memory: Memory) -> bool:
    return all(math.isfinite(figure) and figure > 0 for figure in (memory.base_mb, memory.bytes_per_voxel))
