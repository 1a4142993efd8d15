"""Volume -> ModelInferRequest: voxels, spacing, rescale and a random id; nothing else crosses the wire."""

from dataclasses import dataclass
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
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True)
class StoredValues:
    """Voxels in the model's datatype, with the rescale and the padding that go with them."""

    voxels: NDArray[Any]
    intercept: NDArray[np.float32]
    padding: int | None


def build_request(
    manifest: ModelManifest, volume: Volume, request_id: str, region: Region | None = None
) -> ModelInferRequest:
    """Write the request for a volume that already lies in the manifest's axes.

    Raises:
        InferenceRejected: the volume's values do not fit the model's datatype, or the model wants an input that a
            volume does not have.
    """
    request = ModelInferRequest(
        model_name=manifest.identity.name, model_version=manifest.identity.version, id=request_id
    )
    stored = _stored_values(volume, _declared(manifest, "image").datatype)
    for tensor in manifest.inputs:
        array = _input(tensor, volume, stored)
        try:
            check_tensor(tensor, datatype_of(array.dtype, name=tensor.name), array.shape)
            check_finite(array, name=tensor.name)
        except TensorError as error:
            raise InferenceRejected(f"the volume does not fit model {manifest.identity.name}: {error}") from error
        stated = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        if region is not None and tensor.name == "image":
            stated.parameters["shared_memory_region"].string_param = region.name
            stated.parameters["shared_memory_offset"].int64_param = region.offset
            stated.parameters["shared_memory_byte_size"].int64_param = region.byte_size
        else:
            request.raw_input_contents.append(bytes(to_raw(array, name=tensor.name)))
    return request


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
    same = StoredValues(voxels, volume.intercept, volume.padding)
    if kind == datatype:
        return same
    if kind == "UINT16" and datatype == "INT16":
        return _as_int16(volume)
    if np.can_cast(voxels.dtype, dtype_of(datatype, name="image"), "safe"):
        return StoredValues(voxels.astype(dtype_of(datatype)), volume.intercept, volume.padding)
    raise InferenceRejected(f"tensor 'image': expected values that fit {datatype}, got {kind}")


def _as_int16(volume: Volume) -> StoredValues:
    """Up to 32767 the bytes are the same; above, 32768 is taken from every voxel and the intercept moved by it."""
    voxels = volume.voxels
    if voxels.size == 0 or voxels.max() <= _INT16.max:
        return StoredValues(voxels.view(np.int16), volume.intercept, volume.padding)
    shifted = np.bitwise_xor(voxels.view(np.uint16), np.uint16(UINT16_SHIFT)).view(np.int16)
    moved = volume.intercept.astype(np.float64) + UINT16_SHIFT * volume.slope.astype(np.float64)
    padding = None if volume.padding is None else volume.padding - UINT16_SHIFT
    return StoredValues(shifted, moved.astype(np.float32), padding)


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
