"""The models in memory: who holds which, what replaces what, and what has to wait until nobody holds it."""

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from inference.allocator import give_freed_memory_back
from inference.call import Call
from inference.errors import BundleRefused, ModelNotFound, ModelNotReady, ServiceError
from inference.ports import LoadedModel, ModelState
from inference.repository_folders import Key

_log = structlog.get_logger(__name__)
_WAIT_S = 0.1
EVICTED = "was dropped for lack of memory; a request loads it again"


@dataclass(slots=True, eq=False)
class Copy:
    """One loaded content of a version, and how many requests hold it."""

    model: LoadedModel
    leases: int = 0
    retired: str = ""
    """Why it goes once nobody holds it; empty while it answers."""
    used: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class Slot:
    """A version: its copy that answers, or why there is none."""

    copy: Copy | None = None
    loading: bool = False
    evicted: bool = False
    refusal: str = ""
    """Why the content on disk is refused, beside an older copy that may still answer."""
    unloaded: str = ""

    @property
    def answers(self) -> bool:
        """Tell whether a request gets an answer, at once or after loading again."""
        return self.copy is not None or self.evicted


class Shelf:
    """Slots by name and version, safe for many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slots: dict[Key, Slot] = {}
        self._leaving: list[tuple[Key, Copy]] = []
        self._left = False

    def expect(self, key: Key) -> None:
        """State a version as loading."""
        with self._changed:
            self._slots.setdefault(key, Slot()).loading = True

    def put(self, key: Key, model: LoadedModel) -> str:
        """Let a model answer from now on; give the digest of the copy that it replaces, "" where there was none."""
        with self._changed:
            before = self._slots.get(key, Slot()).copy
            if before is not None:
                self._retire(key, before, "replaced")
            self._slots[key] = Slot(Copy(model))
            self._changed.notify_all()
            return before.model.bundle.digest if before is not None else ""

    def refuse(self, key: Key, reason: str) -> None:
        """Keep why the content on disk does not answer; an older copy goes on."""
        with self._changed:
            slot = self._slots.setdefault(key, Slot())
            slot.loading = slot.evicted = False
            slot.refusal = reason
            self._changed.notify_all()

    def confirm(self, key: Key) -> None:
        """State that the content on disk is the copy that answers."""
        with self._changed:
            slot = self._slots[key]
            slot.loading, slot.refusal = False, ""

    def drop(self, key: Key, why: str, *, known: bool = False) -> None:
        """Stop answering for a version; `known` keeps it in the index with the reason."""
        with self._changed:
            slot = self._slots.pop(key, Slot())
            if known:
                self._slots[key] = Slot(unloaded=why)
            if slot.copy is not None:
                self._retire(key, slot.copy, why)
            self._changed.notify_all()

    def evict_idle(self) -> Key | None:
        """Drop the least recently used copy that nobody holds; give its version, None where there is none."""
        with self._changed:
            idle = [(slot.copy.used, key) for key, slot in self._slots.items() if slot.copy and not slot.copy.leases]
            if not idle:
                return None
            key = min(idle)[1]
            slot = self._slots[key]
            if slot.copy is not None:
                self._retire(key, slot.copy, "lack of memory")
            slot.copy, slot.evicted = None, True
            return key

    def take(self, name: str, version: str = "") -> tuple[Key, Copy | None]:
        """Hold a version that answers, the highest where none is asked for; None instead of the copy where evicted.

        Raises:
            ModelNotFound, BundleRefused, ModelNotReady: as `inference.ports.Models.lease` says.
        """
        with self._changed:
            key = self._chosen(name, version)
            slot = self._slots[key]
            if not slot.answers:
                raise _why_not(key, slot)
            if slot.copy is not None:
                slot.copy.leases += 1
                slot.copy.used = time.monotonic()
            return key, slot.copy

    def give_back(self, key: Key, copy: Copy) -> None:
        """End one hold; a retired copy goes with the last."""
        with self._changed:
            copy.leases -= 1
            copy.used = time.monotonic()
            if copy.retired and not copy.leases:
                self._leaving.remove((key, copy))
                self._forget(key, copy)

    def begin_return(self, key: Key) -> bool:
        """Tell whether the caller shall load an evicted version again, since nobody does yet."""
        with self._changed:
            slot = self._slots.get(key)
            if slot is None or not slot.evicted or slot.loading:
                return False
            slot.loading = True
            return True

    def await_return(self, key: Key, call: Call | None) -> bool:
        """Wait until a version is no longer away; False where the call's deadline came first.

        Raises:
            RequestCancelled: the client is gone.
        """
        with self._changed:
            while (slot := self._slots.get(key)) is not None and slot.evicted:
                remaining = call.remaining_s() if call is not None else None
                if remaining is not None and remaining <= 0:
                    return False
                if call is not None:
                    call.stop_if_unwanted()
                self._changed.wait(_WAIT_S if remaining is None else min(_WAIT_S, remaining))
            return True

    def digest_of(self, key: Key) -> str:
        """Give the digest of the copy that answers, "" where there is none."""
        with self._changed:
            slot = self._slots.get(key)
            return slot.copy.model.bundle.digest if slot is not None and slot.copy is not None else ""

    def answering(self) -> dict[Key, bool]:
        """Give every version and whether it answers."""
        with self._changed:
            return {key: slot.answers for key, slot in sorted(self._slots.items())}

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Give the models that are in memory and answer."""
        with self._changed:
            return tuple(slot.copy.model for _, slot in sorted(self._slots.items()) if slot.copy is not None)

    def states(self) -> list[ModelState]:
        """Give every version in the words of Triton's index."""
        with self._changed:
            leaving = {key: copy.retired for key, copy in self._leaving}
            slots = {key: slot for key, slot in self._slots.items() if slot.copy is not None or key not in leaving}
            found = [_state(key, slot) for key, slot in slots.items()]
            found += [ModelState(*key, "UNLOADING", why) for key, why in leaving.items() if key not in slots]
        return sorted(found, key=lambda state: (state.name, int(state.version)))

    def give_memory_back(self) -> None:
        """Free what dropped graphs left: their objects refer to each other, and malloc keeps freed pages."""
        with self._changed:
            left, self._left = self._left, False
        if left:
            gc.collect()
            give_freed_memory_back()

    def _chosen(self, name: str, version: str) -> Key:
        versions = sorted((item for known, item in self._slots if known == name), key=int)
        if not versions:
            names = sorted({known for known, _ in self._slots})
            raise ModelNotFound(f"model: expected one of {names}, got {name!r:.80}")
        if version and version not in versions:
            raise ModelNotFound(f"model {name!r}: expected a version of {versions}, got {version!r:.40}")
        able = [item for item in versions if self._slots[name, item].answers]
        return name, version or (able or versions)[-1]

    def _retire(self, key: Key, copy: Copy, why: str) -> None:
        copy.retired = why
        if copy.leases:
            self._leaving.append((key, copy))
        else:
            self._forget(key, copy)

    def _forget(self, key: Key, copy: Copy) -> None:
        self._left = True
        _log.info("model_unloaded", model="/".join(key), digest=copy.model.bundle.digest, reason=copy.retired)


def names_in(keys: Iterator[Key]) -> list[str]:
    """Give the names, sorted, each once."""
    return sorted({name for name, _ in keys})


def _state(key: Key, slot: Slot) -> ModelState:
    if slot.copy is not None:
        return ModelState(*key, "READY", f"newer content is refused: {slot.refusal}" if slot.refusal else "")
    if slot.loading:
        return ModelState(*key, "LOADING")
    return ModelState(*key, "UNAVAILABLE", slot.refusal or slot.unloaded or EVICTED)


def _why_not(key: Key, slot: Slot) -> ServiceError:
    if slot.refusal:
        return BundleRefused(f"model {'/'.join(key)} failed its checks: {slot.refusal}")
    if slot.unloaded:
        return ModelNotReady(f"model {'/'.join(key)}: {slot.unloaded}")
    return ModelNotReady(f"model {'/'.join(key)} is still loading")
