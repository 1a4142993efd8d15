"""What the child tells its parent: one JSON object a line, nothing but text and numbers.

A child that was taken over may send anything, so the parent takes bounded lines and shows no control characters.
"""

import json
import os
from dataclasses import dataclass
from typing import Literal

LINE_BYTES_MOST = 1 << 16
SENTENCE_MOST = 2000
Said = Literal["step", "note", "refused", "unisolated", "done"]


@dataclass(frozen=True, slots=True)
class Message:
    """One thing said: `step` begins some work, `note` is for people, the others end the child."""

    said: Said
    text: str


def send(descriptor: int, said: Said, text: str) -> None:
    """Write one message to a pipe."""
    os.write(descriptor, json.dumps({"said": said, "text": text[:SENTENCE_MOST]}).encode() + b"\n")


def received(line: bytes) -> Message | None:
    """Read one line; None where it is no message."""
    try:
        item = json.loads(line)
        said, text = item["said"], str(item["text"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if said not in ("step", "note", "refused", "unisolated", "done"):
        return None
    return Message(said, plain(text))


def plain(text: str) -> str:
    """Leave what a terminal shows as it is, and nothing that moves it."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:SENTENCE_MOST]
