"""How one request reaches one endpoint: big tensors in regions where it has them, everything in the message else."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray

from node.domain.volume import Volume
from node.errors import InferenceError, InferenceRejected, InferenceUnavailable
from node.inference_client.answer_rooms import AnswerRooms
from node.inference_client.answers import Answer, Placed
from node.inference_client.channel import MIB
from node.inference_client.early_upload import EarlyUpload, SlotPlan, open_upload
from node.inference_client.early_volume import completed
from node.inference_client.endpoints import HEALTH_TIMEOUT_S, Endpoint
from node.inference_client.lease import LeaseRefused
from node.inference_client.region_pool import LeasedRegion, RegionPool
from node.inference_client.regions import Region
from node.inference_client.remote_region import download, upload
from node.inference_client.requests import build_request, image_of, lie_as_sent, stored_voxels
from node.settings import InferenceSettings
from protos.model_manifest import ModelBundle, ModelManifest
from protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelReadyRequest
from protos.tensors import dtype_of

_log = structlog.get_logger(__name__)
UPLOAD_FROM_BYTES = 4 * MIB
"""With regions = "auto", smaller images travel in the message to a service whose regions cannot be mapped."""
_ALIGNMENT = 4096
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})
_ATTEMPTS = 2


class Transport:
    """The way to one endpoint; safe to share between threads."""

    def __init__(
        self, endpoint: Endpoint, settings: InferenceSettings, give_way: Callable[[], bool] = lambda: False
    ) -> None:
        """Lease nothing yet. `give_way` frees a region that is held ahead of its request; False where there is none."""
        self._endpoint, self._settings, self._give_way = endpoint, settings, give_way
        self._pool = RegionPool(endpoint.regions, endpoint.address, maps=settings.regions == "auto")
        self._rooms = AnswerRooms()

    def ask(self, bundle: ModelBundle, volume: Volume, request_id: str, early: EarlyUpload | None = None) -> Answer:
        """Ask the model about a volume that lies in the manifest's axes; `early` may hold slices of it already.

        Raises:
            InferenceError: as `InferenceClient.infer`.
        """
        refusal = None
        if self._is_for_region(bundle.manifest, volume):
            try:
                if early is not None:
                    answer = self._by_early_region(early, bundle.manifest, volume, request_id)
                    if answer is not None:
                        return answer
                return self._by_region(bundle.manifest, volume, request_id)
            except LeaseRefused as error:
                refusal = error
                self._note(refusal)
        return self._by_message(bundle.manifest, volume, request_id, refusal)

    def room(self, byte_size: int) -> memoryview | None:
        """Give `byte_size` bytes of a mapped region, taken back when nothing views them; None where that cannot be."""
        if self._settings.regions != "auto" or not self._pool.maps or not self._pool.is_offered or byte_size < 1:
            return None
        try:
            region = self._pool.take(byte_size)
        except LeaseRefused:
            return None  # the request that follows says why
        if region.room is None:
            self._pool.discard(region)
            return None
        return self._pool.view(region)[:byte_size].data

    def holds(self, voxels: NDArray[Any]) -> bool:
        """Tell whether the voxels lie at the beginning of a mapped region of this endpoint."""
        return self._pool.region_under(voxels) is not None

    def begin_early(self, plan: SlotPlan) -> EarlyUpload | None:
        """Begin to upload a volume whose slices still arrive; None where this endpoint's regions are mapped, or none.

        Raises:
            LeaseRefused: the service has no region for it now, or is away.
            EarlyUploadLost: this client is closed.
        """
        return open_upload(self._endpoint, self._pool, plan) if self._pool.is_offered else None

    def close(self) -> None:
        """End the lease; arrays of earlier answers stay valid."""
        self._pool.close()

    def _is_for_region(self, manifest: ModelManifest, volume: Volume) -> bool:
        if self._settings.regions == "off" or not volume.voxels.size or not self._pool.is_offered:
            return False
        return self._settings.regions == "upload" or self._pool.maps or _is_large(manifest, volume)

    def _by_message(
        self, manifest: ModelManifest, volume: Volume, request_id: str, refusal: LeaseRefused | None
    ) -> Answer:
        request = build_request(manifest, volume, request_id)
        self._refuse_too_large(request, refusal)
        return Answer(self._infer(request))

    def _by_region(self, manifest: ModelManifest, volume: Volume, request_id: str) -> Answer:
        for attempt in range(1, _ATTEMPTS + 1):
            region, room = self._image_region(manifest, volume)
            try:
                if region.room is not None:
                    return self._mapped(region, room, manifest, volume, request_id)
                if self._settings.regions == "upload" or _is_large(manifest, volume):
                    return self._uploaded(region, manifest, volume, request_id)
                self._pool.discard(region)
                break
            except InferenceRejected as error:
                # A service that was started again knows nothing of the region; or it is the model that is not there.
                if attempt == _ATTEMPTS or not _is_not_found(error) or not self._has_model(manifest):
                    raise
                region.lease.close()
        return self._by_message(manifest, volume, request_id, None)

    def _image_region(self, manifest: ModelManifest, volume: Volume) -> tuple[LeasedRegion, NDArray[np.uint8] | None]:
        """Give the region where the voxels lie already, or another one and its room to write them to."""
        region = self._pool.region_under(volume.voxels)
        if region is not None and lie_as_sent(manifest, volume):
            return region, None
        region = self._taken(_image_bytes(manifest, volume))
        return region, region.room

    def _by_early_region(
        self, early: EarlyUpload, manifest: ModelManifest, volume: Volume, request_id: str
    ) -> Answer | None:
        """Ask about what was sent while the series arrived; None where that does not prove to be the volume."""
        region = completed(early, manifest, volume, timeout_s=self._settings.deadline_s)
        if region is None:
            return None
        try:
            return self._uploaded(region, manifest, volume, request_id, is_filled=True)
        except InferenceRejected as error:
            if not _is_not_found(error) or not self._has_model(manifest):
                raise
            region.lease.close()
            return None

    def _taken(self, byte_size: int) -> LeasedRegion:
        """Take a region; what is held ahead of its request gives way where there is no room."""
        while True:
            try:
                return self._pool.take(byte_size)
            except LeaseRefused as refusal:
                if refusal.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or not self._give_way():
                    raise

    def _mapped(
        self,
        region: LeasedRegion,
        room: NDArray[np.uint8] | None,
        manifest: ModelManifest,
        volume: Volume,
        request_id: str,
    ) -> Answer:
        sizes = _output_bytes(manifest, volume)

        def ask(result: LeasedRegion | None) -> Answer:
            places = _places(result, sizes)
            image = Region(region.name, 0, _image_bytes(manifest, volume), room)
            response = self._infer(build_request(manifest, volume, request_id, image, places))
            if result is None:
                return Answer(response)
            view = self._pool.view(result)
            placed = {
                name: Placed(place.name, place.offset, view[place.offset : place.offset + place.byte_size])
                for name, place in places.items()
            }
            return Answer(response, placed)

        answer = self._with_result(region, sizes, ask)
        if room is not None:  # else it comes back when the volume goes
            self._pool.give_back(region)
        return answer

    def _uploaded(
        self, region: LeasedRegion, manifest: ModelManifest, volume: Volume, request_id: str, *, is_filled: bool = False
    ) -> Answer:
        sizes = _output_bytes(manifest, volume)
        deadline_s = self._settings.deadline_s

        def ask(result: LeasedRegion | None) -> Answer:
            places = _places(result, sizes)
            voxels = stored_voxels(manifest, volume)
            if not is_filled:
                upload(
                    self._endpoint,
                    self._endpoint.regions,
                    region.name,
                    voxels,
                    timeout_s=deadline_s,
                    chunk_byte_size=region.chunk_byte_size,
                )
            image = Region(region.name, 0, voxels.nbytes)
            response = self._infer(build_request(manifest, volume, request_id, image, places))
            if result is None:
                return Answer(response)
            end = max(place.offset + place.byte_size for place in places.values())
            content = self._rooms.take(end)
            download(self._endpoint, self._endpoint.regions, result.name, content, timeout_s=deadline_s)
            self._pool.give_back(result)
            placed = {
                name: Placed(place.name, place.offset, content[place.offset : place.offset + place.byte_size])
                for name, place in places.items()
            }
            return Answer(response, placed)

        answer = self._with_result(region, sizes, ask)
        self._pool.give_back(region)
        return answer

    def _with_result(
        self, region: LeasedRegion, sizes: dict[str, int], ask: Callable[[LeasedRegion | None], Answer]
    ) -> Answer:
        """Ask with a region for the outputs; both are given up where that fails: the service may still use them."""
        with ExitStack() as given_up:
            given_up.callback(self._pool.discard, region)
            result = self._taken(_reserved(sizes)) if sizes else None
            if result is not None:
                given_up.callback(self._pool.discard, result)
            answer = ask(result)
            given_up.pop_all()
        return answer

    def _has_model(self, manifest: ModelManifest) -> bool:
        request = ModelReadyRequest(name=manifest.identity.name, version=manifest.identity.version)
        try:
            answer = self._endpoint.call(self._endpoint.stub.ModelReady, request, timeout_s=HEALTH_TIMEOUT_S)
        except InferenceRejected:
            return False
        return bool(answer.ready)

    def _infer(self, request: ModelInferRequest) -> ModelInferResponse:
        try:
            response: ModelInferResponse = self._endpoint.call(
                self._endpoint.stub.ModelInfer, request, timeout_s=self._settings.deadline_s, at_work=True
            )
        except InferenceUnavailable as error:
            if _status(error) is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._give_way()  # it may be memory that is missing; the request comes again
            raise
        return response

    def _note(self, refusal: LeaseRefused) -> None:
        if refusal.code in _AWAY:
            raise InferenceUnavailable(f"inference service {self._endpoint.address}: {refusal}") from refusal
        if self._pool.is_offered:
            _log.warning("region_refused", endpoint=self._endpoint.address, reason=str(refusal))

    def _refuse_too_large(self, request: ModelInferRequest, refusal: LeaseRefused | None) -> None:
        size, limit = request.ByteSize(), self._settings.max_message_mb * MIB
        if size <= limit:
            return
        sentence = (
            f"the request takes {size / MIB:.0f} MiB, inference.max_message_mb allows "
            f"{self._settings.max_message_mb}. Remedy: raise it on the node and the service."
        )
        if refusal is not None and refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise InferenceUnavailable(f"{sentence} The service has no region free for it now: {refusal}")
        raise InferenceRejected(sentence)


def _image_bytes(manifest: ModelManifest, volume: Volume) -> int:
    return int(volume.voxels.size) * dtype_of(image_of(manifest).datatype, name="image").itemsize


def _is_large(manifest: ModelManifest, volume: Volume) -> bool:
    return _image_bytes(manifest, volume) > UPLOAD_FROM_BYTES


def _output_bytes(manifest: ModelManifest, volume: Volume) -> dict[str, int]:
    """Bytes of every output that lies on the volume's grid; others are small and stay in the message."""
    voxels, grid = math.prod(volume.voxels.shape), (-1,) * volume.voxels.ndim
    return {
        tensor.name: voxels * dtype_of(tensor.datatype).itemsize for tensor in manifest.outputs if tensor.shape == grid
    }


def _reserved(sizes: dict[str, int]) -> int:
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes.values())


def _places(result: LeasedRegion | None, sizes: dict[str, int]) -> dict[str, Region]:
    """Lay the outputs one after the other into the region, each at the beginning of a page."""
    places: dict[str, Region] = {}
    if result is None:
        return places
    offset = 0
    for name, size in sizes.items():
        places[name] = Region(result.name, offset, size)
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    return places


def _is_not_found(error: InferenceRejected) -> bool:
    return _status(error) is grpc.StatusCode.NOT_FOUND


def _status(error: InferenceError) -> grpc.StatusCode | None:
    cause = error.__cause__
    return cause.code() if isinstance(cause, grpc.RpcError) else None
