"""What the servicer needs of the parts behind it, and they of each other: the seams of the service."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from inference.call import Call
from protos.model_manifest import ModelBundle

Arrays = dict[str, NDArray[Any]]
Places = Mapping[str, memoryview]
"""Output name -> writable bytes where the answer shall lie."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds that one prediction spent waiting for its turn or for a batch, and computing; how large its batch was."""

    queue_s: float = 0.0
    compute_s: float = 0.0
    batch_size: int = 1
    executions: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outputs of one prediction, already held to the manifest. An output may be a view of its place."""

    outputs: Arrays
    times: StageTimes = StageTimes()


class Runner(Protocol):
    """One model version ready to answer."""

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        """Answer checked inputs, given in manifest order; stop soon after `call.ended` or its deadline.

        Outputs named in `places` are written there where the runner can; the servicer copies the rest. A place may be
        larger than the output, or too small for it: then the runner leaves it alone and the servicer refuses.
        Inputs from regions begin at multiples of 64 bytes; others need not.

        Raises:
            PredictionFailed: the graph failed, or an output is not what the manifest declares or not finite.
            Busy: memory or queue is taken.
            DeadlinePassed, RequestCancelled: nobody waits any more.
        """


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle and its warmed runner."""

    bundle: ModelBundle
    runner: Runner


@dataclass(frozen=True, slots=True)
class ModelState:
    """One version in the repository, in the words of Triton's index."""

    name: str
    version: str
    state: Literal["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
    reason: str = ""


class Models(Protocol):
    """The repository as requests see it."""

    def lease(self, name: str, version: str = "", call: Call | None = None) -> AbstractContextManager[LoadedModel]:
        """Hold a model that answers while the block runs; it is dropped only when no block holds it.

        One that was dropped for lack of memory is loaded again, for which `call` waits no longer than its deadline.

        Raises:
            ModelNotFound, BundleRefused, ModelNotReady, RequestCancelled.
        """

    def versions(self, name: str) -> Sequence[str]:
        """Give the versions known, in rising order."""

    def index(self) -> Sequence[ModelState]:
        """Give every version with its state and the reason where it does not answer."""

    def load(self, name: str) -> None:
        """Look at the model's folder again and load what the version policy wants; return when it answers."""

    def unload(self, name: str) -> None:
        """Stop answering for the model; running requests end first."""

    @property
    def is_ready(self) -> bool:
        """Tell whether every model that was asked for is loaded and warmed."""


class Regions(Protocol):
    """Tensor regions as requests see them, registered ones (Triton's) and leased ones alike."""

    def view(
        self, name: str, offset: int, byte_size: int, call: Call, *, writable: bool
    ) -> AbstractContextManager[memoryview]:
        """Hold bytes of a region while the block runs.

        Raises:
            RequestRefused: unknown to this client, out of bounds, or the file behind it is too short.
        """


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """A region that a client registered: its file under /dev/shm, and the bytes of it that are the region."""

    name: str
    key: str
    offset: int
    byte_size: int


class Registrations(Protocol):
    """Triton's system shared memory: regions that clients own, each seen by the client that registered it."""

    def register(self, name: str, key: str, offset: int, byte_size: int, call: Call) -> None:
        """Map bytes of the client's shared memory under a name.

        Raises:
            AlreadyRegistered: the name is taken.
            RequestRefused: no such key, or not that many bytes.
        """

    def unregister(self, name: str, call: Call) -> None:
        """Forget a region; with an empty name all of this client's.

        Raises:
            RegionNotFound: this client has none of that name.
        """

    def status(self, name: str, call: Call) -> Sequence[RegionStatus]:
        """Give a region; with an empty name all of this client's.

        Raises:
            RegionNotFound: this client has none of that name.
        """
