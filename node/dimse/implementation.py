"""Who this implementation says it is, in every association and in the file meta of every file (PS3.7 D.3.3.2)."""

from importlib.metadata import PackageNotFoundError, version

IMPLEMENTATION_CLASS_UID = "2.25.291303671462352190391823606404212894837"


def node_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("hilum")
    except PackageNotFoundError:
        return "0"


IMPLEMENTATION_VERSION_NAME = f"HILUM_{node_version()}"[:16]
"""At most 16 characters: the item of an association and (0002,0013) hold no more."""
