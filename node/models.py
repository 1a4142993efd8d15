"""The model bundles that this node knows: read and checked once, at start."""

from importlib.util import find_spec
from pathlib import Path

from node.errors import SettingsError
from node.settings import InferenceSettings
from protos.model_manifest import ManifestError, ModelBundle, bundle_directories, open_bundle


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
        SettingsError: the directory holds no bundle, a wanted model is not there, or its bundle is broken.
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
    wanted = settings.models or tuple(newest)
    return tuple(_open(newest[name]) for name in wanted)


def _open(directory: Path) -> ModelBundle:
    try:
        return open_bundle(directory)
    except ManifestError as error:
        raise SettingsError(f"inference.models_directory: {error}") from error
