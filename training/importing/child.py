"""`python -P -m training.importing.child`: opens the foreign file, confined, and makes the bundle in its own folder.

Nothing but the standard library is loaded until the process has given up network and files. The order in which it was
told what to do (`Order`) lies in the folder, the answers go through a pipe.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.importing.errors import ImportRefused
from training.importing.isolation import Isolation, Limits, isolate
from training.importing.messages import Said, send

ORDER_FILE, BUNDLES, SCRATCH = "order.json", "bundles", "tmp"
REFUSED = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What the child shall do."""

    recipe: str
    """As JSON."""
    manifest: str
    """As JSON, with memory figures still to be measured."""
    kind: str
    unisolated: bool
    """Go on where the kernel gives no network of its own."""
    memory_bytes: int
    seconds: int
    parent_pid: int

    def write(self, work: Path) -> None:
        """Lay the order into the child's folder."""
        (work / ORDER_FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def main() -> int:
    """Run with the folder and the pipe's number: 0 the bundle is there, 3 refused with a sentence."""
    work, pipe = Path(sys.argv[1]), int(sys.argv[2])
    order = Order(**json.loads((work / ORDER_FILE).read_text(encoding="utf-8")))

    def tell(said: Said, text: str) -> None:
        send(pipe, said, text)

    granted = isolate(work, Limits(order.memory_bytes, order.seconds), order.parent_pid)
    if not _may_go_on(granted, order, tell):
        return REFUSED
    from training.importing.conversion import FAILURES, convert

    try:
        convert(work, order.recipe, order.manifest, order.kind, tell)
    except ImportRefused as error:
        tell("refused", str(error))
        return REFUSED
    except MemoryError:
        tell("refused", "the conversion asks for more memory than it may. Remedy: raise --memory-gb")
        return REFUSED
    except FAILURES as error:
        tell("refused", f"the source cannot be converted: {type(error).__name__}: {_first_lines(error)}")
        return REFUSED
    tell("done", "")
    return 0


def _may_go_on(granted: Isolation, order: Order, tell: Any) -> bool:
    if granted.files_refusal:
        tell("note", f"the kernel does not confine the child's file access ({granted.files_refusal})")
    if not granted.network_refusal:
        return True
    if order.unisolated:
        tell("note", f"the child is NOT cut off from the network ({granted.network_refusal}), as was allowed")
        return True
    tell("unisolated", granted.network_refusal)
    return False


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # TensorFlow's threads need no farewell
