"""The file that says where the service listens and what it serves, once it does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_ready_file(path: Path, line: Mapping[str, Any]) -> None:
    """Write one line of JSON; whoever sees the file sees it whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(line) + "\n", encoding="utf-8")
    part.replace(path)
