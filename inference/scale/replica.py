"""One process that answers for one model: the repository, admission and servicer of the single service, behind Ray."""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import Message

from inference.call import Call
from inference.error_interceptor import answered, sentence_of
from inference.errors import ServiceError
from inference.log import configure_log
from inference.quiet import quiet_tensorflow
from inference.repository_policy import VersionPolicy
from inference.scale.replies import Asker, Reply, Report
from inference.scale.running_calls import RunningCalls
from inference.scale.unoffered import NoRegions
from inference.statistics import Statistics
from protos.open_inference_pb2 import ModelInferRequest

_log = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from inference.repository import ModelRepository
    from inference.servicer import InferenceServicer

_REPORT_S = 1.0
_ANSWER_S = 5.0
_SPARE_THREADS = 2


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What a replica starts with."""

    application: str
    model: str
    models_directory: Path
    versions: VersionPolicy
    poll_s: float
    ongoing_most: int
    concurrency: int
    num_cpus: float
    log_level: str = "info"


class ModelReplica:
    """The deployment of one model; Ray starts as many of it as the load wants."""

    def __init__(self, settings: ReplicaSettings) -> None:
        """Load and warm the model's versions; one that is refused stays out with its reason."""
        from ray import serve

        configure_log(settings.log_level)
        self._settings = settings
        self._name = serve.get_replica_context().replica_id.unique_id
        self._statistics = Statistics()
        self._repository = _load(settings)
        self._servicer = _servicer_of(self._repository, self._statistics, settings)
        self._threads = ThreadPoolExecutor(settings.ongoing_most + _SPARE_THREADS, thread_name_prefix="infer")
        self._calls = RunningCalls()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_reporting, name="reports", daemon=True).start()

    async def infer(self, request: bytes, asker: Asker, *, in_stream: bool) -> Reply:
        """Answer a serialised ModelInferRequest, or one of a stream; stop soon after this is cancelled."""
        call = Call(asker.client)
        answer = self._streamed if in_stream else self._inferred
        with self._calls.running(asker.ingress, call):
            return await asyncio.get_running_loop().run_in_executor(self._threads, answer, request, call)

    def __del__(self) -> None:
        """End the threads; Ray calls this when the replica is stopped."""
        self._ended.set()
        self._repository.close()

    def _inferred(self, request: bytes, call: Call) -> Reply:
        found = answered(lambda: self._servicer.infer(ModelInferRequest.FromString(request), call), "ModelInfer")
        if isinstance(found, ServiceError):
            return Reply(self._name, self._statistics.snapshot(), b"", found.code.name, sentence_of(found))
        return self._reply(found)

    def _streamed(self, request: bytes, call: Call) -> Reply:
        return self._reply(self._servicer.infer_in_stream(ModelInferRequest.FromString(request), call))

    def _reply(self, message: Message) -> Reply:
        return Reply(self._name, self._statistics.snapshot(), message.SerializeToString())

    def _report(self) -> Report:
        return Report(
            self._name,
            self._settings.model,
            tuple(self._repository.index()),
            tuple(model.bundle for model in self._repository.loaded()),
            self._statistics.snapshot(),
        )

    def _keep_reporting(self) -> None:
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        while not self._ended.is_set():
            try:
                ingress = serve.get_app_handle(self._settings.application)
                answers = ingress.broadcast("note", self._report())
                heard = answers.results(timeout_s=_ANSWER_S, return_exceptions=True)
                self._calls.hear(name for name in heard if isinstance(name, str))
            except (RayError, RayServeException, TimeoutError) as error:
                _log.debug("report_postponed", reason=type(error).__name__)  # the ingress is being started, or again
            self._ended.wait(_REPORT_S)


def _load(settings: ReplicaSettings) -> "ModelRepository":
    with quiet_tensorflow():
        from inference.repository import ModelRepository
        from inference.runners.whole import bound_threads
    bound_threads(max(1, math.ceil(settings.num_cpus)))
    repository = ModelRepository(settings.models_directory, (settings.model,), policy=settings.versions)
    repository.load_all()
    repository.watch(settings.poll_s)
    return repository


def _servicer_of(
    repository: "ModelRepository", statistics: Statistics, settings: ReplicaSettings
) -> "InferenceServicer":
    from inference.admission import Admission
    from inference.servicer import InferenceServicer
    from inference.servicer_parts import Parts

    admission = Admission(settings.concurrency, settings.ongoing_most)
    nowhere = NoRegions()
    return InferenceServicer(Parts(repository, admission, nowhere, nowhere, statistics))
