"""ModelInferRequest -> arrays held to the manifest, and the places where the answer shall lie."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.call import Call
from inference.errors import RequestRefused
from inference.parameters import RegionSlice, region_slice
from inference.ports import Arrays, Regions
from protos.contents import from_contents
from protos.model_manifest import ModelManifest, Tensor
from protos.open_inference_pb2 import ModelInferRequest
from protos.tensors import check_finite, check_tensor, dtype_of, from_raw

ALIGNMENT = 64
"""TensorFlow ends the process over a view that begins elsewhere; such an input is copied."""
InputTensor = ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for, and the region where it shall lie, if any."""

    tensor: Tensor
    place: RegionSlice | None = None


@dataclass(frozen=True, slots=True)
class RegionReader:
    """Views of regions for one request, held until `held` is closed."""

    regions: Regions
    call: Call
    held: ExitStack

    def view(self, place: RegionSlice, *, writable: bool) -> memoryview:
        """View bytes of a region; raise RequestRefused as `inference.ports.Regions.view` says."""
        return self.held.enter_context(
            self.regions.view(place.region, place.offset, place.byte_size, self.call, writable=writable)
        )


def read_inputs(request: ModelInferRequest, manifest: ModelManifest, reader: RegionReader) -> Arrays:
    """View raw contents and regions as arrays in manifest order, without a copy; typed contents are converted.

    Raises:
        RequestRefused: inputs missing, unknown or twice, forms mixed, another number of raw contents, or a region
            that is not there for this client.
        TensorError: datatype, shape, byte count or values are not what the manifest declares.
    """
    declared = {tensor.name: tensor for tensor in manifest.inputs}
    names = [tensor.name for tensor in request.inputs]
    if sorted(names) != sorted(declared):
        raise RequestRefused(f"inputs: expected {sorted(declared)}, got {sorted(names)}")
    places = {tensor.name: region_slice(tensor.name, tensor.parameters) for tensor in request.inputs}
    raw = _raw_contents(request, places)
    arrays: Arrays = {}
    for tensor in request.inputs:
        check_tensor(declared[tensor.name], tensor.datatype, tensor.shape)
        arrays[tensor.name] = _array(tensor, places[tensor.name], raw, reader)
        check_finite(arrays[tensor.name], name=tensor.name)
    _hold_slices_together(arrays)
    return {name: arrays[name] for name in declared}


def _raw_contents(request: ModelInferRequest, places: Mapping[str, RegionSlice | None]) -> Iterator[bytes]:
    """Give the raw contents, one for each input that lies in no region; none where contents are typed."""
    typed = [tensor.name for tensor in request.inputs if tensor.HasField("contents")]
    for name in typed:
        if places[name] is not None:
            raise RequestRefused(f"tensor {name!r}: expected either contents or a region, got both")
    outside = sum(place is None for place in places.values())
    got = len(request.raw_input_contents)
    if typed and (got or len(typed) != outside):
        other = "raw_input_contents too" if got else f"{outside - len(typed)} input(s) without any"
        raise RequestRefused(f"tensor {typed[0]!r}: expected typed contents for every input or for none, got {other}")
    if not typed and got != outside:
        raise RequestRefused(
            f"raw_input_contents: expected {outside} entries, one for each input outside regions, got {got}"
        )
    return iter(request.raw_input_contents)


def _array(tensor: InputTensor, place: RegionSlice | None, raw: Iterator[bytes], reader: RegionReader) -> NDArray[Any]:
    if tensor.HasField("contents"):
        return from_contents(tensor.contents, tensor.datatype, tensor.shape, name=tensor.name)
    if place is None:
        return from_raw(next(raw), tensor.datatype, tensor.shape, name=tensor.name)
    needed = math.prod(tensor.shape) * dtype_of(tensor.datatype, name=tensor.name).itemsize
    if place.byte_size != needed:
        raise RequestRefused(
            f"tensor {tensor.name!r}: expected shared_memory_byte_size {needed} for {tensor.datatype} "
            f"{list(tensor.shape)}, got {place.byte_size}"
        )
    view = reader.view(place, writable=False)
    return _aligned(from_raw(view, tensor.datatype, tensor.shape, name=tensor.name))


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    if array.ctypes.data % ALIGNMENT == 0 or not array.size:
        return array
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    copy.flags.writeable = False
    return copy


def _hold_slices_together(arrays: Arrays) -> None:
    """The rescale of a volume is one value a slice: `slope` and `intercept` [slice] go with `image` [slice, ...]."""
    if "image" not in arrays or not arrays["image"].ndim:
        return
    slices = arrays["image"].shape[0]
    for name in ("slope", "intercept"):
        if name in arrays and arrays[name].shape[0] != slices:
            raise RequestRefused(f"tensor {name!r}: expected {slices} values, one a slice, got {arrays[name].shape[0]}")


def wanted_outputs(request: ModelInferRequest, manifest: ModelManifest) -> tuple[Wanted, ...]:
    """Give the outputs that are asked for, in the order asked; all where none is named.

    Raises:
        RequestRefused: unknown or twice, or a place that shares bytes with an input or another output.
    """
    if not request.outputs:
        return tuple(Wanted(tensor) for tensor in manifest.outputs)
    known = {tensor.name: tensor for tensor in manifest.outputs}
    names = [output.name for output in request.outputs]
    for name in names:
        if name not in known:
            raise RequestRefused(f"tensor {name!r}: expected an output of {sorted(known)}, got this name")
        if names.count(name) > 1:
            raise RequestRefused(f"tensor {name!r}: expected each output once, got it {names.count(name)} times")
    wanted = tuple(Wanted(known[item.name], region_slice(item.name, item.parameters)) for item in request.outputs)
    _refuse_overlap(request, wanted)
    return wanted


def _refuse_overlap(request: ModelInferRequest, wanted: tuple[Wanted, ...]) -> None:
    inputs = ((tensor.name, region_slice(tensor.name, tensor.parameters)) for tensor in request.inputs)
    taken = [(name, place) for name, place in inputs if place is not None]
    for item in wanted:
        if item.place is None:
            continue
        for name, place in taken:
            if item.place.overlaps(place):
                raise RequestRefused(
                    f"tensor {item.tensor.name!r}: expected bytes of a region for itself, got some of tensor {name!r}"
                )
        taken.append((item.tensor.name, item.place))
