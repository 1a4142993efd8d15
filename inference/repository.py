"""The models on disk, laid out as TensorFlow Serving has it: `<models>/<name>/<version>/`."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from inference.errors import BundleRefused, ModelNotFound, ModelNotReady, ServiceError, SettingsRefused
from inference.ports import LoadedModel, ModelState
from inference.runners.loading import load_runner
from protos.model_manifest import ManifestError, bundle_directories, open_bundle

_log = structlog.get_logger(__name__)
Key = tuple[str, str]
"""Name and version."""


class ModelRepository:
    """Opens, checks and warms every version of the models asked for, and finds them by name and version.

    A version that fails its checks stays out with its reason and leaves the others undisturbed.
    """

    def __init__(self, directory: Path, names: tuple[str, ...] = ()) -> None:
        """Take stock of the folder, loading nothing yet; SettingsRefused where a named model is not there."""
        found = [path for path in bundle_directories(directory) if not names or path.parent.name in names]
        missing = set(names) - {path.parent.name for path in found}
        if missing or not found:
            raise SettingsRefused(
                f"--models {directory}: no bundle {', '.join(sorted(missing)) or '<name>/<version>/model.toml'} there"
            )
        self._pending: dict[Key, Path] = {(path.parent.name, path.name): path for path in found}
        self._loaded: dict[Key, LoadedModel] = {}
        self._refused: dict[Key, BundleRefused] = {}
        self._lock = threading.Lock()

    def load_all(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Load and warm one version after the other; stop between two when `until()` turns true."""
        for key, path in list(self._pending.items()):
            if until():
                return
            self._load(key, path)

    def find(self, name: str, version: str = "") -> LoadedModel:
        """Give a model that answers; the highest version that loaded where none is asked for.

        Raises:
            ModelNotFound: no such name or version.
            BundleRefused: the version failed its checks (or every version did).
            ModelNotReady: it is still loading.
        """
        with self._lock:
            versions = self.versions(name)
            if not versions:
                raise ModelNotFound(f"model: expected one of {self._names()}, got {name!r}")
            if version and version not in versions:
                raise ModelNotFound(f"model {name!r}: expected a version of {versions}, got {version!r}")
            wanted = [version] if version else [item for item in reversed(versions) if (name, item) in self._loaded]
            key = (name, wanted[0] if wanted else versions[-1])
            if key in self._loaded:
                return self._loaded[key]
            raise self._why_not(key)

    @contextmanager
    def lease(self, name: str, version: str = "") -> Iterator[LoadedModel]:
        """Hold a model while the block runs; see `inference.ports.Models`."""
        yield self.find(name, version)

    def index(self) -> list[ModelState]:
        """Give every version with its state."""
        with self._lock:
            return [
                *(ModelState(*key, "READY") for key in self._loaded),
                *(ModelState(*key, "LOADING") for key in self._pending),
                *(ModelState(*key, "UNAVAILABLE", str(error)) for key, error in self._refused.items()),
            ]

    def load(self, name: str) -> None:
        """Load a model anew."""
        raise ModelNotReady(f"model {name!r}: loading on request is not offered")

    def unload(self, name: str) -> None:
        """Stop answering for a model."""
        raise ModelNotReady(f"model {name!r}: unloading on request is not offered")

    def versions(self, name: str) -> list[str]:
        """Give the versions of a model that are on disk, in rising order."""
        found = {item for known, item in (*self._pending, *self._loaded, *self._refused) if known == name}
        return sorted(found, key=int)

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Give the models that answer."""
        with self._lock:
            return tuple(self._loaded[key] for key in sorted(self._loaded))

    def refused(self) -> dict[str, str]:
        """Give "name/version" -> reason of the bundles that failed their checks."""
        with self._lock:
            return {"/".join(key): str(error) for key, error in sorted(self._refused.items())}

    @property
    def is_ready(self) -> bool:
        """Tell whether every model that was asked for is loaded and warmed."""
        with self._lock:
            return bool(self._loaded) and not self._pending and not self._refused

    def _load(self, key: Key, path: Path) -> None:
        started = time.monotonic()
        try:
            bundle = open_bundle(path)
            model = LoadedModel(bundle, load_runner(bundle))
        except (ManifestError, BundleRefused) as error:
            refusal = error if isinstance(error, BundleRefused) else BundleRefused(str(error))
            _log.error("model_refused", model="/".join(key), reason=str(refusal))
            with self._lock:
                self._refused[key] = refusal
                del self._pending[key]
            return
        with self._lock:
            self._loaded[key] = model
            del self._pending[key]
        seconds = round(time.monotonic() - started, 3)
        _log.info("model_loaded", model="/".join(key), digest=bundle.digest, seconds=seconds)

    def _names(self) -> list[str]:
        return sorted({name for name, _ in (*self._pending, *self._loaded, *self._refused)})

    def _why_not(self, key: Key) -> ServiceError:
        if key in self._refused:
            return BundleRefused(f"model {'/'.join(key)} failed its checks: {self._refused[key]}")
        return ModelNotReady(f"model {'/'.join(key)} is still loading")
