"""The models of the folder as the application starts with them: which get replicas, which are refused and why.

Digest and manifest are checked here, without TensorFlow. Ops, signatures and golden pair are checked by each replica,
which loads its model as the single service does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.errors import SettingsRefused
from inference.repository_folders import Key
from inference.repository_policy import VersionPolicy
from protos.model_manifest import Batching, ManifestError, bundle_directories, open_bundle


@dataclass(frozen=True, slots=True)
class Offer:
    """What the folder offers."""

    models: Mapping[str, Batching | None]
    """Names with a sound version; how requests of the highest one share runs."""
    versions: tuple[Key, ...]
    """Every version that is wanted of them."""
    refused: Mapping[Key, str]
    """Versions of the other names, and what is wrong with each."""


def look_at(directory: Path, names: tuple[str, ...], policy: VersionPolicy) -> Offer:
    """Open the bundles that the policy wants.

    Raises:
        SettingsRefused: a named model is not there, or none at all.
    """
    found = [path for path in bundle_directories(directory) if not names or path.parent.name in names]
    missing = set(names) - {path.parent.name for path in found}
    if missing or not found:
        raise SettingsRefused(
            f"--models {directory}: no bundle {', '.join(sorted(missing)) or '<name>/<version>/model.toml'} there"
        )
    models: dict[str, Batching | None] = {}
    broken: dict[Key, str] = {}
    versions: list[Key] = []
    for name in sorted({path.parent.name for path in found}):
        for version in policy.chosen(path.name for path in found if path.parent.name == name):
            versions.append((name, version))
            try:
                manifest = open_bundle(directory / name / version).manifest
            except (ManifestError, OSError) as error:
                broken[name, version] = str(error)
            else:
                models[name] = manifest.batching if manifest.slabs is None else None
    refused = {key: reason for key, reason in broken.items() if key[0] not in models}
    return Offer(models, tuple(key for key in versions if key[0] in models), refused)
