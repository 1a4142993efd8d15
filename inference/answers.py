"""Arrays -> ModelInferResponse: raw contents, or bytes in the regions that the client named."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from inference.errors import RequestRefused
from inference.parameters import REGION, REGION_BYTES, REGION_OFFSET, RegionSlice
from inference.ports import Arrays, Places
from inference.requests import RegionReader, Wanted
from protos.model_manifest import ModelBundle
from protos.open_inference_pb2 import ModelInferResponse
from protos.tensors import datatype_of, dtype_of, to_raw

DIGEST_PARAMETER = "hilum.digest"


def places_of(wanted: Iterable[Wanted], reader: RegionReader) -> dict[str, memoryview]:
    """View the regions where outputs shall lie.

    Raises:
        RequestRefused: one is not there for this client, or too small for an output whose size is declared.
    """
    places = {}
    for item in wanted:
        if item.place is None:
            continue
        if -1 not in item.tensor.shape:
            itemsize = dtype_of(item.tensor.datatype).itemsize
            _refuse_too_small(item.tensor.name, math.prod(item.tensor.shape) * itemsize, item.place.byte_size)
        places[item.tensor.name] = reader.view(item.place, writable=True)
    return places


def build_response(
    request_id: str, bundle: ModelBundle, wanted: Iterable[Wanted], outputs: Arrays, places: Places
) -> ModelInferResponse:
    """Write the wanted outputs, with the digest of the bundle that answered.

    An output with a place lies there, and its raw content is empty.

    Raises:
        RequestRefused: a place is too small.
    """
    identity = bundle.manifest.identity
    response = ModelInferResponse(model_name=identity.name, model_version=identity.version, id=request_id)
    response.parameters[DIGEST_PARAMETER].string_param = bundle.digest
    for item in wanted:
        array = outputs[item.tensor.name]
        stated = response.outputs.add(name=item.tensor.name, datatype=datatype_of(array.dtype), shape=array.shape)
        if item.place is None:
            response.raw_output_contents.append(bytes(to_raw(array)))
            continue
        _put(array, places[item.tensor.name], item.tensor.name)
        _state_place(stated, item.place, array.nbytes)
        response.raw_output_contents.append(b"")
    return response


def _put(array: NDArray[np.generic], place: memoryview, name: str) -> None:
    _refuse_too_small(name, array.nbytes, place.nbytes)
    target, source = np.frombuffer(place, np.uint8), np.frombuffer(to_raw(array), np.uint8)
    if source.size and source.ctypes.data != target.ctypes.data:
        target[: source.size] = source


def _refuse_too_small(name: str, needed: int, given: int) -> None:
    if given < needed:
        raise RequestRefused(f"tensor {name!r}: expected a region of {needed} bytes or more, got {given} bytes")


def _state_place(stated: ModelInferResponse.InferOutputTensor, place: RegionSlice, used: int) -> None:
    stated.parameters[REGION].string_param = place.region
    stated.parameters[REGION_BYTES].int64_param = used
    stated.parameters[REGION_OFFSET].int64_param = place.offset
