"""One model's replicas, asked through Ray; its errors become the service's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError

from inference.errors import Busy, ModelNotReady, RequestCancelled
from inference.scale.replies import Asker, Reply

_FULL = "the queue is full; try again later"

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests of a model there may be at once."""

    in_replica: int
    """That a replica takes."""
    queue: int
    """That wait beyond those."""


class RemoteModel:
    """Sends requests to whichever replica has least to do.

    The queue is bounded here: Ray's own bound counts a request that is only being handed over as waiting, and would
    refuse a burst that the replicas have room for.
    """

    def __init__(self, name: str, handle: "DeploymentHandle[Any]", room: Room, replicas: Callable[[], int]) -> None:
        """Ask `replicas` how many run now."""
        self._name = name
        self._handle = handle
        self._room = room
        self._replicas = replicas
        self._here = 0

    async def infer(self, request: bytes, asker: Asker, *, in_stream: bool) -> Reply:
        """Ask a replica; cancelling this cancels the request there.

        Raises:
            Busy: the model's queue is full, or the cluster's memory.
            ModelNotReady: no replica runs, or the one that computed is gone.
            RequestCancelled: the client is gone.
        """
        with self._place():
            return await self._answer(request, asker, in_stream=in_stream)

    async def _answer(self, request: bytes, asker: Asker, *, in_stream: bool) -> Reply:
        try:
            reply: Reply = await self._handle.infer.remote(request, asker, in_stream=in_stream)
        except BackPressureError as error:
            raise Busy(_FULL) from error
        except (ObjectStoreFullError, OutOfDiskError, OutOfMemoryError) as error:
            raise Busy(f"model {self._name}: the cluster has no room for the request; try again later") from error
        except RequestCancelledError as error:
            raise RequestCancelled("the client cancelled the request") from error
        except RayTaskError:
            raise  # a fault of ours in the replica
        except (RayError, RayServeException) as error:
            raise ModelNotReady(f"model {self._name}: its replica is gone; try again") from error
        return reply

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._here >= self._room.queue + self._room.in_replica * max(1, self._replicas()):
            raise Busy(_FULL)
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1
