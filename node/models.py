"""The model bundles that this node knows: read and checked once, at start."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import structlog

from node.errors import SettingsError
from node.settings import InferenceSettings
from protos.model_manifest import ManifestError, ModelBundle, bundle_directories, open_bundle

log = structlog.get_logger()


def models_directory(settings: InferenceSettings) -> Path:
    """Return the directory of the settings, else the one that ships beside the service."""
    if settings.models_directory is not None:
        return settings.models_directory
    spec = find_spec("inference")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("inference.models_directory is unset and no models ship here. Remedy: name the folder.")
    return Path(spec.submodule_search_locations[0]) / "models"


def open_bundles(settings: InferenceSettings) -> tuple[ModelBundle, ...]:
    """Open the newest version of every wanted model; one model per name.

    Raises:
        SettingsError: the directory holds no sound bundle, or a model that `inference.models` names is not there or
            broken. A broken bundle that nothing names is left out with the event `model_refused`.
    """
    directory = models_directory(settings)
    newest = {path.parent.name: path for path in bundle_directories(directory)}
    missing = sorted(set(settings.models) - newest.keys())
    if missing:
        raise SettingsError(
            f"inference.models: {', '.join(missing)} not found in {directory}; there: {', '.join(newest) or 'nothing'}"
        )
    if not newest:
        raise SettingsError(f"inference.models_directory: {directory} holds no bundle <name>/<version>/model.toml")
    if settings.models:
        return tuple(_open(newest[name]) for name in settings.models)
    sound, broken = _sound(newest.values())
    if not sound:
        raise SettingsError(f"inference.models_directory: no bundle in {directory} is sound: {'; '.join(broken)}")
    return sound


def _sound(directories: Iterable[Path]) -> tuple[tuple[ModelBundle, ...], list[str]]:
    """Open what can be opened; a broken bundle beside sound ones is said and left out."""
    sound: list[ModelBundle] = []
    broken: dict[str, str] = {}
    for path in directories:
        try:
            sound.append(_open_with_findings(path))
        except ManifestError as error:
            broken["/".join(path.parts[-2:])] = str(error)
    for model, reason in broken.items():
        log.error("model_refused", model=model, reason=reason)
    return tuple(sound), list(broken.values())


def _open(directory: Path) -> ModelBundle:
    try:
        return _open_with_findings(directory)
    except ManifestError as error:
        raise SettingsError(f"inference.models_directory: {error}") from error


def _open_with_findings(directory: Path) -> ModelBundle:
    bundle = open_bundle(directory)
    if not bundle.manifest.findings:
        raise ManifestError(
            f"{directory}: the manifest has no findings, so there is nothing to write. "
            f"Remedy: name other models in inference.models, or add findings to the manifest."
        )
    return bundle
