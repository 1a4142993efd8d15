"""The models on disk, laid out as TensorFlow Serving has it: `<models>/<name>/<version>/`."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import tensorflow as tf

from inference.admission import MemoryState, memory_state
from inference.allocator import give_freed_memory_back
from inference.call import Call
from inference.errors import BundleRefused, ModelNotFound, ModelNotReady, ServiceError, SettingsRefused
from inference.graph.frozen import SAVED_MODEL_FILE
from inference.ports import LoadedModel, ModelState
from inference.repository_folders import Key, Lookout, Sighting, stamp_of
from inference.repository_policy import VersionPolicy
from inference.repository_shelf import Shelf, names_in
from inference.runners.loading import load_runner
from protos.model_manifest import BundleIncomplete, ModelBundle, bundle_directories, open_bundle

_log = structlog.get_logger(__name__)
_REASON_MOST = 600
_LOADED_BYTES = 2
"""A graph in memory takes about so many times its file."""
_BROKEN = (ServiceError, OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError, tf.errors.OpError)
"""What opening, importing or warming a bundle can raise; ManifestError is a ValueError."""


@dataclass(frozen=True, slots=True)
class MemoryFloor:
    """Free memory that must stay; below it the least recently used models that nobody holds are dropped."""

    bytes: int = 0
    state: Callable[[], MemoryState] = memory_state
    give_back: Callable[[], object] = give_freed_memory_back
    """What is tried before a model is dropped."""


class ModelRepository:
    """Opens, checks and warms the versions that the policy wants, follows the folder, and lends models to requests.

    A version that fails its checks stays out with its reason and leaves the others undisturbed; where an older
    content of it answers, that goes on answering.
    """

    def __init__(
        self,
        directory: Path,
        names: tuple[str, ...] = (),
        *,
        policy: VersionPolicy | None = None,
        floor: MemoryFloor | None = None,
    ) -> None:
        """Take stock of the folder, loading nothing yet; SettingsRefused where a named model is not there."""
        found = [path for path in bundle_directories(directory) if not names or path.parent.name in names]
        missing = set(names) - {path.parent.name for path in found}
        if missing or not found:
            raise SettingsRefused(
                f"--models {directory}: no bundle {', '.join(sorted(missing)) or '<name>/<version>/model.toml'} there"
            )
        self._lookout = Lookout(directory, names)
        self._policy, self._floor = policy or VersionPolicy(), floor or MemoryFloor()
        self._shelf = Shelf()
        self._judged: dict[Key, str] = {}
        self._unloaded: set[str] = set()
        self._loading = threading.Lock()
        self._closed = threading.Event()
        self._is_complete = False
        for name in {path.parent.name for path in found}:
            for version in self._policy.chosen(path.name for path in found if path.parent.name == name):
                self._shelf.expect((name, version))

    def load_all(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Load and warm one version after the other; stop between two when `until()` turns true."""
        with self._loading:
            self._follow(self._lookout.look(), urgent=True, until=until)
            self._is_complete = not until()

    def poll(self) -> None:
        """Look at the folder once: load what is new or changed beside the old, swap, drop what is gone.

        A folder whose files do not yet match their list is left alone for two polls after its last change.
        """
        with self._loading:
            self._follow(self._lookout.look(), urgent=False, until=self._closed.is_set)
        self._shelf.give_memory_back()

    def watch(self, interval_s: float) -> None:
        """Poll on a thread of its own from now on until `close`; 0 never polls."""
        if interval_s > 0:
            threading.Thread(target=self._watch, args=(interval_s,), name="models-watch", daemon=True).start()

    def close(self) -> None:
        """End the watching; what is loaded stays."""
        self._closed.set()

    @contextmanager
    def lease(self, name: str, version: str = "", call: Call | None = None) -> Iterator[LoadedModel]:
        """Hold a model while the block runs, loading it again where it was dropped for lack of memory.

        Raises:
            ModelNotFound: no such name or version.
            BundleRefused: the version failed its checks (or every version did).
            ModelNotReady: it is still loading, unloaded, or did not come back before the deadline of `call`.
            RequestCancelled: the client of `call` is gone.
        """
        key, copy = self._shelf.take(name, version)
        if copy is None:
            self._bring_back(key, call)
            key, copy = self._shelf.take(*key)
        if copy is None:
            raise ModelNotReady(f"model {'/'.join(key)}: memory is short and it was dropped again; try again later")
        try:
            yield copy.model
        finally:
            self._shelf.give_back(key, copy)

    def load(self, name: str) -> None:
        """Look at the model's folder again and load what the policy wants; return when it answers.

        Raises:
            ModelNotFound: no such folder, or not among the models that are served.
            BundleRefused: a version that the policy wants failed its checks; what answered before still does.
        """
        with self._loading:
            sights = {key: seen for key, seen in self._lookout.look().items() if key[0] == name and not seen.missed}
            if not self._policy.chosen(version for _, version in sights):
                raise ModelNotFound(f"model: expected a name with a version folder that is served, got {name!r:.80}")
            if name in self._unloaded:
                self._unloaded.discard(name)
                self._shelf_forget(name)
            self._follow(sights, urgent=True, until=self._closed.is_set)
        self._shelf.give_memory_back()
        for state in self._shelf.states():
            if state.name == name and (state.state != "READY" or state.reason) and (name, state.version) in sights:
                raise BundleRefused(f"model {name}/{state.version}: {state.reason}")

    def unload(self, name: str) -> None:
        """Stop answering for the model until `load`; running requests end first.

        Raises:
            ModelNotFound: no such model.
        """
        with self._loading:
            keys = [key for key in self._shelf.answering() if key[0] == name]
            if not keys:
                raise ModelNotFound(
                    f"model: expected one of {names_in(iter(self._shelf.answering()))}, got {name!r:.80}"
                )
            self._unloaded.add(name)
            for key in keys:
                self._judged.pop(key, None)
                self._shelf.drop(key, "unloaded on request", known=True)
        self._shelf.give_memory_back()

    def relieve(self, missing_bytes: int) -> bool:
        """Give freed memory back, then drop idle models, the least recently used first, until so much more is free.

        Returns False where that freed nothing that helps.
        """
        wanted = self._floor.state().free + missing_bytes
        return self._make_room(wanted) or self._floor.state().free >= wanted

    def index(self) -> list[ModelState]:
        """Give every version with its state and the reason where it does not answer."""
        return self._shelf.states()

    def versions(self, name: str) -> list[str]:
        """Give the versions known of a model, in rising order."""
        return sorted((version for known, version in self._shelf.answering() if known == name), key=int)

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Give the models that answer."""
        return self._shelf.loaded()

    def refused(self) -> dict[str, str]:
        """Give "name/version" -> reason of the bundles that failed their checks and do not answer."""
        states = [state for state in self._shelf.states() if state.state == "UNAVAILABLE"]
        return {f"{state.name}/{state.version}": state.reason for state in states if state.name not in self._unloaded}

    @property
    def is_ready(self) -> bool:
        """Tell whether the first loading is over and every model has a version that answers, save those unloaded."""
        answering = self._shelf.answering()
        able = {name for (name, _), answers in answering.items() if answers} | self._unloaded
        return self._is_complete and bool(answering) and all(name in able for name, _ in answering)

    def _watch(self, interval_s: float) -> None:
        while not self._closed.wait(interval_s):
            try:
                self.poll()
            except OSError as error:
                _log.warning("models_not_read", reason=str(error)[:_REASON_MOST])

    def _follow(self, sights: dict[Key, Sighting], *, urgent: bool, until: Callable[[], bool]) -> None:
        known = {key[0] for key in self._shelf.answering()}
        for name in sorted({key[0] for key in sights} | (set() if urgent else known)):
            if name in self._unloaded:
                continue
            wanted = self._policy.chosen(version for found, version in sights if found == name)
            for version in wanted:
                if until():
                    return
                self._consider((name, version), sights[name, version], urgent=urgent)
            self._drop_unwanted(name, wanted, sights)

    def _consider(self, key: Key, seen: Sighting, *, urgent: bool) -> None:
        if seen.missed or self._judged.get(key) == seen.stamp:
            return
        try:
            bundle = open_bundle(seen.path)
        except BundleIncomplete as error:
            if urgent or seen.is_settled:
                self._refuse(key, seen, error)
        except _BROKEN as error:
            self._refuse(key, seen, error)
        else:
            self._adopt(key, seen, bundle)

    def _adopt(self, key: Key, seen: Sighting, bundle: ModelBundle) -> None:
        if bundle.digest == self._shelf.digest_of(key):
            self._judged[key] = seen.stamp
            self._shelf.confirm(key)
            return
        started = time.monotonic()
        self._shelf.expect(key)
        self._make_room(self._floor.bytes + _LOADED_BYTES * (bundle.directory / SAVED_MODEL_FILE).stat().st_size)
        try:
            model = LoadedModel(bundle, load_runner(bundle))
        except _BROKEN as error:
            self._refuse(key, seen, error)
            return
        if stamp_of(seen.path) != seen.stamp:
            self._refuse(key, seen, BundleRefused(f"{seen.path}: changed while it was read"))
            del self._judged[key]
            return
        self._judged[key] = seen.stamp
        replaced = self._shelf.put(key, model)
        seconds = round(time.monotonic() - started, 3)
        if replaced:
            _log.info("model_replaced", model="/".join(key), digest=bundle.digest, replaced=replaced, seconds=seconds)
        else:
            _log.info("model_loaded", model="/".join(key), digest=bundle.digest, seconds=seconds)

    def _refuse(self, key: Key, seen: Sighting, error: Exception) -> None:
        reason = (str(error) or type(error).__name__)[:_REASON_MOST]
        self._judged[key] = seen.stamp
        self._shelf.refuse(key, reason)
        _log.error("model_refused", model="/".join(key), reason=reason)

    def _drop_unwanted(self, name: str, wanted: Iterable[str], sights: dict[Key, Sighting]) -> None:
        answering = self._shelf.answering()
        all_answer = all(answering.get((name, version), False) for version in wanted)
        for key in [key for key in answering if key[0] == name and key[1] not in wanted]:
            if key not in sights or all_answer:
                self._judged.pop(key, None)
                self._shelf.drop(
                    key, "no longer wanted by the version policy" if key in sights else "its folder is gone"
                )

    def _shelf_forget(self, name: str) -> None:
        for key in [key for key in self._shelf.answering() if key[0] == name]:
            self._shelf.drop(key, "loaded anew")

    def _make_room(self, wanted_bytes: int) -> bool:
        dropped = False
        if self._floor.state().free < wanted_bytes:
            self._floor.give_back()
        while self._floor.state().free < wanted_bytes and self._shelf.evict_idle() is not None:
            dropped = True
            self._shelf.give_memory_back()
        return dropped

    def _bring_back(self, key: Key, call: Call | None) -> None:
        if self._shelf.begin_return(key):
            threading.Thread(target=self._return, args=(key,), name="model-return", daemon=True).start()
        if not self._shelf.await_return(key, call):
            raise ModelNotReady(f"model {'/'.join(key)}: is being loaded again; try again")

    def _return(self, key: Key) -> None:
        path = self._lookout.directory.joinpath(*key)
        with self._loading:
            seen = Sighting(path, stamp_of(path))
            try:
                bundle = open_bundle(path)
            except _BROKEN as error:
                self._refuse(key, seen, error)
                return
            self._adopt(key, seen, bundle)
