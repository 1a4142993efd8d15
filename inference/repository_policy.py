"""Which versions of a model are served, as TensorFlow Serving's version policy has it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from inference.errors import SettingsRefused


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """All versions, the latest few, or those that are listed."""

    latest: int | None = None
    """Serve so many of the highest versions."""
    listed: tuple[str, ...] = ()
    """Serve these alone."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "all", "latest:N" or a list as "1,3".

        Raises:
            SettingsRefused: it is none of them.
        """
        if text == "all":
            return cls()
        if match := re.fullmatch(r"latest:([1-9][0-9]{0,5})", text):
            return cls(latest=int(match[1]))
        if re.fullmatch(r"[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*", text):
            return cls(listed=tuple(sorted(set(text.split(",")), key=int)))
        raise SettingsRefused(f"--versions {text[:40]!r}: must be 'all', 'latest:N' or a list as '1,3'")

    def chosen(self, versions: Iterable[str]) -> list[str]:
        """Choose of the versions on disk, in rising order."""
        rising = sorted(versions, key=int)
        if self.listed:
            return [version for version in rising if version in self.listed]
        return rising if self.latest is None else rising[-self.latest :]
