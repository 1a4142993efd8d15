"""Client of an Open Inference Protocol server: ours, or a foreign one that serves the same models."""

import threading
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from functools import partial

import structlog

from node.domain.prediction import ModelIdentity, Prediction
from node.domain.volume import Volume
from node.errors import InferenceBroken, InferenceRejected, InferenceUnavailable
from node.inference_client.answers import Answer, check_version, read_outputs, verified_by
from node.inference_client.early_upload import EarlyUpload, EarlyUploadLost, SlotPlan
from node.inference_client.early_uploads import EarlyUploads, Model, UploadKey, note_drop
from node.inference_client.early_volume import key_of
from node.inference_client.endpoints import HEALTH_TIMEOUT_S, Endpoint, Rotation, ServiceHealth
from node.inference_client.lease import LeaseRefused
from node.inference_client.transport import Transport
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle

_log = structlog.get_logger(__name__)
_READY_POLL_S = 0.1


class InferenceClient:
    """A line to every endpoint of the settings; safe to share between threads."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Open the channels; nothing is sent before the first call. SettingsError: a TLS file cannot be read."""
        self._settings = settings
        self.endpoints = tuple(Endpoint(address, settings) for address in settings.addresses)
        self.early = EarlyUploads(settings.early_upload_series)
        """What was sent of volumes that are not whole yet."""
        self._transports = {
            endpoint: Transport(endpoint, settings, partial(self.early.give_way, endpoint))
            for endpoint in self.endpoints
        }
        self._rotation = Rotation(self.endpoints)
        self._early_rotation = Rotation(self.endpoints)

    def infer(self, bundle: ModelBundle, volume: Volume) -> Prediction:
        """Run the bundle's model on a volume that lies in the manifest's axes, within the deadline of the settings.

        Outputs may view a region of the service's memory: it is used again when nobody holds them any more.

        Raises:
            InferenceUnavailable: the service is away or busy; another attempt may succeed.
            InferenceBroken: it was there, and ended or gave no answer in time over this request.
            InferenceRejected: request, model or answer are wrong; it stays wrong.
        """
        request_id = str(uuid.uuid4())
        started = time.monotonic()
        key = key_of(bundle.manifest, volume)
        early = self.early.claim(key)
        try:
            answer = self._infer_anywhere(bundle, volume, request_id, early)
        finally:
            if early is not None and early.abandon():
                note_drop(key, early, "the volume went another way")
        seconds = time.monotonic() - started
        verified = verified_by(answer.response, bundle)
        check_version(answer.response, bundle)
        identity = bundle.manifest.identity
        _log.info("prediction_received", request_id=request_id, model=identity.name, seconds=round(seconds, 3))
        return Prediction(
            outputs=read_outputs(answer, bundle, volume.voxels.shape),
            model=ModelIdentity(
                name=identity.name,
                version=identity.version,
                title=identity.title,
                manufacturer=identity.manufacturer,
                digest=bundle.digest,
                verified=verified,
            ),
            request_id=request_id,
            seconds=seconds,
        )

    def room(self, byte_size: int) -> memoryview | None:
        """Give writable memory of the service for the voxels of a volume: what is built there is not copied again.

        None where an endpoint's regions cannot be mapped, or it has none free; the volume then lies elsewhere. The
        endpoint that gave the room is the first to be asked about the volume.
        """
        for endpoint in self._rotation.candidates():
            if endpoint.is_left_out:
                continue
            return self._transports[endpoint].room(byte_size)
        return None

    def begin_early(self, key: UploadKey, plan: SlotPlan, models: Collection[Model]) -> str:
        """Begin to send a volume whose slices still arrive to the next endpoint that has a region for it.

        Args:
            key: what it will be.
            plan: what its slices are.
            models: those that may ask for it.

        Returns:
            "" where it has begun, else why not; "mapped" where memory is shared and there is nothing to gain.
        """
        reason = "no endpoint offers regions now"
        for endpoint in self._early_rotation.candidates():
            if endpoint.is_left_out:
                continue
            try:
                upload = self._transports[endpoint].begin_early(plan)
            except (LeaseRefused, EarlyUploadLost) as error:
                reason = str(error)
            else:
                if upload is not None:
                    self.early.add(key, upload, models)
                    return ""
                reason = "mapped"
        return reason

    def wait_ready(self, model_name: str, version: str, timeout_s: float) -> None:
        """Return when the model answers; InferenceUnavailable after `timeout_s`, InferenceRejected if it is unknown."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        request = messages.ModelReadyRequest(name=model_name, version=version)
        reason = "not ready yet"
        while (remaining := deadline - time.monotonic()) > 0:
            try:
                if self._is_ready(request, min(remaining, HEALTH_TIMEOUT_S)):
                    return
            except InferenceUnavailable as error:
                reason = str(error)
            pause.wait(_READY_POLL_S)
        raise InferenceUnavailable(f"model {model_name}/{version} was not ready within {timeout_s:g} s: {reason}")

    def health(self) -> ServiceHealth:
        """Give the health of the first endpoint that serves, else of the first; never raises."""
        states = self.health_of_each()
        return next((item for item in states if item.is_serving), states[0])

    def health_of_each(self) -> tuple[ServiceHealth, ...]:
        """Give the health of every endpoint, in order; never raises."""
        return tuple(endpoint.health() for endpoint in self.endpoints)

    def close(self) -> None:
        """Close the channels; calls that run or come later count as unavailable."""
        for endpoint in self.endpoints:
            self._transports[endpoint].close()
            endpoint.close()

    def _is_ready(self, request: messages.ModelReadyRequest, timeout_s: float) -> bool:
        failures: list[InferenceUnavailable] = []
        for endpoint in self.endpoints:
            try:
                if endpoint.call(endpoint.stub.ModelReady, request, timeout_s=timeout_s).ready:
                    return True
            except InferenceUnavailable as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return False

    def _infer_anywhere(
        self, bundle: ModelBundle, volume: Volume, request_id: str, early: EarlyUpload | None
    ) -> Answer:
        """Ask the endpoints in turn until one takes the request; one that breaks over it ends the turn.

        The one that was sent the volume's slices early comes first.
        """
        failures: list[str] = []
        holder = early.endpoint if early is not None else None
        holders = (endpoint for endpoint in self.endpoints if self._transports[endpoint].holds(volume.voxels))
        for endpoint in self._rotation.candidates(holder or next(holders, None)):
            try:
                self._look_whether_it_is_there(endpoint)
                sent = early if endpoint is holder else None
                answer = self._transports[endpoint].ask(bundle, volume, request_id, sent)
            except InferenceBroken as error:
                endpoint.leave_out(str(error))
                raise
            except InferenceUnavailable as error:
                endpoint.leave_out(str(error))
                failures.append(str(error))
            else:
                endpoint.take_back()
                return answer
        raise InferenceUnavailable("; ".join(failures))

    def _look_whether_it_is_there(self, endpoint: Endpoint) -> None:
        # A server that refuses the question is there too.
        with suppress(InferenceRejected):
            if len(self.endpoints) > 1 and not endpoint.is_serving():
                raise InferenceUnavailable(f"inference service {endpoint.address}: not serving")
            if len(self.endpoints) == 1:
                endpoint.call(endpoint.stub.ServerLive, messages.ServerLiveRequest(), timeout_s=HEALTH_TIMEOUT_S)
