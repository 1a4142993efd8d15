"""The Open Inference Protocol with Triton's extensions: proto <-> arrays, and nothing else."""
# ruff: noqa: N802 - names are the protocol's

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import grpc
import structlog

from inference.admission import memory_need
from inference.after_answer import after_answer
from inference.answers import build_response, places_of
from inference.call import Call
from inference.error_interceptor import answered, sentence_of
from inference.errors import Busy, ServiceError
from inference.parameters import request_terms
from inference.ports import LoadedModel
from inference.requests import RegionReader, read_inputs, wanted_outputs
from inference.servicer_memory import SharedMemoryRpcs
from inference.servicer_models import ModelRpcs
from inference.servicer_parts import Parts, caller, on_terms
from inference.servicer_unoffered import UnofferedRpcs
from inference.statistics import Stages
from protos import open_inference_pb2 as messages
from protos.model_manifest import Identity

_log = structlog.get_logger(__name__)
INFER_STREAMS_MOST = 16
"""Open ModelStreamInfer streams; each holds a thread of the server while it is open."""
_ID_MOST = 64
_STREAM = "ModelStreamInfer"
_FINAL = "triton_final_response"


class InferenceServicer(ModelRpcs, SharedMemoryRpcs, UnofferedRpcs):
    """Answers from its parts; errors are raised and become status codes in the interceptor."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._streams = threading.BoundedSemaphore(INFER_STREAMS_MOST)

    def ModelInfer(
        self, request: messages.ModelInferRequest, context: grpc.ServicerContext
    ) -> messages.ModelInferResponse:
        """Run the model on the request's tensors, waiting for a turn no longer than the client does."""
        began = time.monotonic()
        response = self._infer(request, caller(context))
        after_answer(partial(_log_answer, request, response, time.monotonic() - began))
        return response

    def ModelStreamInfer(
        self, request_iterator: Iterator[messages.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[messages.ModelStreamInferResponse]:
        """Answer the requests of a stream one after the other, in their order.

        A refused request gets its sentence in `error_message` and its id in `infer_response.id`; the stream goes on.
        """
        if not self._streams.acquire(blocking=False):
            raise Busy(f"{_STREAM}: {INFER_STREAMS_MOST} streams are open, which is the most; use ModelInfer")
        try:
            call = caller(context)
            for request in request_iterator:
                yield self.infer_in_stream(request, call)
        finally:
            self._streams.release()

    def infer_in_stream(self, request: messages.ModelInferRequest, call: Call) -> messages.ModelStreamInferResponse:
        """Run the model for one request of a stream, where a refusal is an answer too."""
        found = answered(lambda: self.infer(request, call), _STREAM)
        if isinstance(found, ServiceError):
            return stream_refusal(request.id, found)
        found.parameters[_FINAL].bool_param = True
        return messages.ModelStreamInferResponse(infer_response=found)

    def infer(self, request: messages.ModelInferRequest, call: Call) -> messages.ModelInferResponse:
        """Run the model for a call; raise the ServiceError that refuses it."""
        began = time.monotonic()
        response = self._infer(request, call)
        _log_answer(request, response, time.monotonic() - began)
        return response

    def _infer(self, request: messages.ModelInferRequest, call: Call) -> messages.ModelInferResponse:
        started = time.monotonic()
        with self._parts.models.lease(request.model_name, request.model_version, call) as model, ExitStack() as held:
            identity = model.bundle.manifest.identity
            held.push(lambda kind, *_: self._count_failure(identity, started) if kind else None)
            terms = on_terms(call, request_terms(request))
            return self._answer(model, request, RegionReader(self._parts.regions, terms, held))

    def _count_failure(self, identity: Identity, started: float) -> None:
        self._parts.statistics.record_failure(identity.name, identity.version, time.monotonic() - started)

    def _answer(
        self, model: LoadedModel, request: messages.ModelInferRequest, reader: RegionReader
    ) -> messages.ModelInferResponse:
        manifest, call = model.bundle.manifest, reader.call
        began = time.monotonic()
        wanted = wanted_outputs(request, manifest)
        inputs = read_inputs(request, manifest, reader)
        places = places_of(wanted, reader)
        read = time.monotonic()
        need = memory_need(manifest, inputs, places)
        shares = manifest.batching is not None and manifest.slabs is None
        with self._parts.admission.admitted(need, call, shared=shares):
            admitted = time.monotonic()
            outcome = model.runner.run(inputs, call, places)
            ran = time.monotonic()
            response = build_response(request.id, model.bundle, wanted, outcome.outputs, places)
        times = outcome.times
        stages = Stages(
            queue_s=admitted - read + times.queue_s,
            input_s=read - began,
            infer_s=times.compute_s,
            output_s=time.monotonic() - ran,
            batch_size=times.batch_size,
            executions=times.executions,
        )
        self._parts.statistics.record_success(manifest.identity.name, manifest.identity.version, stages)
        return response


def _log_answer(request: messages.ModelInferRequest, response: messages.ModelInferResponse, seconds: float) -> None:
    _log.info(
        "request_answered",
        model=f"{response.model_name}/{response.model_version}",
        request_id=request.id[:_ID_MOST],
        seconds=round(seconds, 3),
        bytes=sum(map(len, request.raw_input_contents)),
    )


def stream_refusal(request_id: str, error: ServiceError) -> messages.ModelStreamInferResponse:
    """Write a refusal as an answer of a stream."""
    response = messages.ModelInferResponse(id=request_id)
    return messages.ModelStreamInferResponse(error_message=sentence_of(error), infer_response=response)
