"""Volume -> ModelInferRequest: voxels, spacing, rescale and a random id; nothing else crosses the wire."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.volume import Volume
from node.errors import InferenceRejected
from node.inference_client.regions import Region
from protos.model_manifest import ModelManifest, Tensor
from protos.open_inference_pb2 import ModelInferRequest
from protos.tensors import TensorError, check_finite, check_tensor, datatype_of, dtype_of, to_raw

UINT16_SHIFT = 32768
_TWO_THREADS_FROM_BYTES = 16 << 20
_INT16 = np.iinfo(np.int16)


_NO_PLACES: Mapping[str, Region] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class StoredValues:
    """Voxels that fit the model's datatype, with the rescale and the padding that go with them."""

    source: NDArray[Any]
    dtype: np.dtype[Any]
    intercept: NDArray[np.float32]
    padding: int | None
    is_shifted: bool = False
    """32768 is still to be taken from every voxel of `source`."""

    @property
    def voxels(self) -> NDArray[Any]:
        """The voxels in the model's datatype, copied where they have to change."""
        if self.is_shifted:
            return np.bitwise_xor(self.source.view(np.uint16), np.uint16(UINT16_SHIFT)).view(np.int16)
        return self.source.astype(self.dtype, copy=False)

    def written(self, room: NDArray[np.uint8]) -> "StoredValues":
        """Write the voxels to the beginning of `room` and go on with them there: one copy, whatever changes."""
        target = room[: self.source.size * self.dtype.itemsize].view(self.dtype).reshape(self.source.shape)
        if self.is_shifted:
            np.bitwise_xor(self.source.view(np.uint16), np.uint16(UINT16_SHIFT), out=target.view(np.uint16))
        else:
            copy_slices(target, self.source)
        return StoredValues(target, self.dtype, self.intercept, self.padding)


def build_request(
    manifest: ModelManifest,
    volume: Volume,
    request_id: str,
    region: Region | None = None,
    outputs: Mapping[str, Region] = _NO_PLACES,
) -> ModelInferRequest:
    """Write the request for a volume that already lies in the manifest's axes.

    With `region`, the voxels are written to its room, or lie there already where it has none, and only the reference
    is sent. Outputs named in `outputs` are asked for in those places.

    Raises:
        InferenceRejected: the volume's values do not fit the model's datatype, or the model wants an input that a
            volume does not have.
    """
    request = ModelInferRequest(
        model_name=manifest.identity.name, model_version=manifest.identity.version, id=request_id
    )
    stored = _stored_values(volume, image_of(manifest).datatype)
    if region is not None and region.room is not None:
        stored = stored.written(region.room)
    for tensor in manifest.inputs:
        array = _checked_input(manifest, tensor, volume, stored)
        stated = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        if region is not None and tensor.name == "image":
            region.state_in(stated)
        else:
            request.raw_input_contents.append(bytes(to_raw(array, name=tensor.name)))
    if outputs:
        for tensor in manifest.outputs:
            wanted = request.outputs.add(name=tensor.name)
            if tensor.name in outputs:
                outputs[tensor.name].state_in(wanted)
    return request


def image_of(manifest: ModelManifest) -> Tensor:
    """Give the declared tensor that takes the voxels; InferenceRejected where there is none."""
    return _declared(manifest, "image")


def stored_voxels(manifest: ModelManifest, volume: Volume) -> NDArray[Any]:
    """Give the voxels in the model's datatype; InferenceRejected where they do not fit it."""
    return _stored_values(volume, image_of(manifest).datatype).voxels


def lie_as_sent(manifest: ModelManifest, volume: Volume) -> bool:
    """Tell whether the voxels lie in memory as the model takes them; InferenceRejected as `stored_voxels`."""
    stored = _stored_values(volume, image_of(manifest).datatype)
    return not stored.is_shifted and stored.source.dtype == stored.dtype and stored.source.flags.c_contiguous


def _checked_input(manifest: ModelManifest, tensor: Tensor, volume: Volume, stored: StoredValues) -> NDArray[Any]:
    array = _input(tensor, volume, stored)
    try:
        check_tensor(tensor, datatype_of(array.dtype, name=tensor.name), array.shape)
        check_finite(array, name=tensor.name)
    except TensorError as error:
        raise InferenceRejected(f"the volume does not fit model {manifest.identity.name}: {error}") from error
    return array


def copy_slices(target: NDArray[Any], source: NDArray[Any]) -> None:
    """Copy slices [slice, ...]; large ones on two threads, since one does not fill the memory's bandwidth."""
    if target.nbytes < _TWO_THREADS_FROM_BYTES:
        np.copyto(target, source)
        return
    half = len(target) // 2
    with ThreadPoolExecutor(1) as other:
        later = other.submit(np.copyto, target[half:], source[half:])
        np.copyto(target[:half], source[:half])
        later.result()


def _declared(manifest: ModelManifest, name: str) -> Tensor:
    for tensor in manifest.inputs:
        if tensor.name == name:
            return tensor
    raise InferenceRejected(
        f"model {manifest.identity.name} declares no input {name!r}, only {[item.name for item in manifest.inputs]}"
    )


def _input(tensor: Tensor, volume: Volume, stored: StoredValues) -> NDArray[Any]:
    dtype = dtype_of(tensor.datatype, name=tensor.name)
    match tensor.name:
        case "image":
            return stored.voxels
        case "slope":
            return volume.slope.astype(dtype)
        case "intercept":
            return stored.intercept.astype(dtype)
        case "spacing":
            return np.asarray(volume.geometry.spacing, dtype)
        case "padding":
            return np.asarray(_padding(stored, np.iinfo(dtype if dtype.kind in "iu" else np.int32)), dtype)
    raise InferenceRejected(
        f"the model wants an input {tensor.name!r}; a volume gives image, slope, intercept, spacing and padding"
    )


def _stored_values(volume: Volume, datatype: str) -> StoredValues:
    voxels = volume.voxels
    kind = datatype_of(voxels.dtype, name="image")
    dtype = dtype_of(datatype, name="image")
    if kind == "UINT16" and datatype == "INT16":
        return _as_int16(volume)
    if kind == datatype or np.can_cast(voxels.dtype, dtype, "safe"):
        return StoredValues(voxels, dtype, volume.intercept, volume.padding)
    raise InferenceRejected(f"tensor 'image': expected values that fit {datatype}, got {kind}")


def _as_int16(volume: Volume) -> StoredValues:
    """Up to 32767 the bytes are the same; above, 32768 is taken from every voxel and the intercept moved by it."""
    voxels, dtype = volume.voxels, dtype_of("INT16")
    if voxels.size == 0 or voxels.max() <= _INT16.max:
        return StoredValues(voxels.view(np.int16), dtype, volume.intercept, volume.padding)
    moved = volume.intercept.astype(np.float64) + UINT16_SHIFT * volume.slope.astype(np.float64)
    padding = None if volume.padding is None else volume.padding - UINT16_SHIFT
    return StoredValues(voxels, dtype, moved.astype(np.float32), padding, is_shifted=True)


def _padding(stored: StoredValues, limits: "np.iinfo[Any]") -> int:
    """Give the padding, or where there is none that the tensor can hold (then no voxel has it) an absent value."""
    if stored.padding is not None and limits.min <= stored.padding <= limits.max:
        return stored.padding
    return _absent_value(stored.voxels, limits)


def _absent_value(voxels: NDArray[Any], limits: "np.iinfo[Any]") -> int:
    """Give a value that no voxel has: a graph that asks for padding then finds none."""
    if voxels.size == 0 or voxels.min() > limits.min:
        return int(limits.min)
    if voxels.max() < limits.max:
        return int(limits.max)
    present = np.unique(voxels).astype(np.int64)
    gaps = np.flatnonzero(np.diff(present) > 1)
    if not gaps.size:
        raise InferenceRejected("the model asks for a padding value, and the volume takes every stored value there is")
    return int(present[gaps[0]]) + 1
