"""What travels between the processes of the application."""

from collections.abc import Mapping
from dataclasses import dataclass

from inference.ports import ModelState
from inference.statistics import Key, ModelFigures
from protos.model_manifest import ModelBundle


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants an answer: the client, and the ingress replica that has its request."""

    client: str
    ingress: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A replica's answer to one inference request: a serialised message, or why there is none."""

    replica: str
    figures: Mapping[Key, ModelFigures]
    """Of this replica, the request counted in."""
    content: bytes = b""
    code: str = "OK"
    """Name of the gRPC status."""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica says of itself every second."""

    replica: str
    model: str
    states: tuple[ModelState, ...]
    bundles: tuple[ModelBundle, ...]
    """Of the versions that answer."""
    figures: Mapping[Key, ModelFigures]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message that is serialised already, as Ray's proxy wants one."""

    content: bytes = b""

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name is protobuf's
        """Give the message's bytes."""
        return self.content
