"""ModelInferRequest -> arrays held to the manifest, and arrays -> ModelInferResponse."""

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from inference.errors import RequestRefused
from protos.model_manifest import ModelBundle, ModelManifest, Tensor
from protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from protos.tensors import check_finite, check_tensor, datatype_of, dtype_of, from_raw, to_raw

DIGEST_PARAMETER = "hilum.digest"
_REGION_PARAMETER = "shared_memory_region"
_COPIES = 3
"""Copies of an output that exist at once: TensorFlow's, the raw contents, the serialised message."""

Arrays = dict[str, NDArray[Any]]


def read_inputs(request: ModelInferRequest, manifest: ModelManifest) -> Arrays:
    """View the raw contents as arrays in manifest order, without a copy.

    Raises:
        RequestRefused: inputs missing, unknown or twice, typed contents, regions, or another number of raw contents.
        TensorError: datatype, shape, byte count or values are not what the manifest declares.
    """
    _refuse_other_forms(request)
    declared = {tensor.name: tensor for tensor in manifest.inputs}
    names = [tensor.name for tensor in request.inputs]
    if sorted(names) != sorted(declared):
        raise RequestRefused(f"inputs: expected {sorted(declared)}, got {sorted(names)}")
    arrays: Arrays = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        check_tensor(declared[tensor.name], tensor.datatype, tensor.shape)
        arrays[tensor.name] = from_raw(raw, tensor.datatype, tensor.shape, name=tensor.name)
        check_finite(arrays[tensor.name], name=tensor.name)
    _hold_slices_together(arrays)
    return {name: arrays[name] for name in declared}


def _refuse_other_forms(request: ModelInferRequest) -> None:
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise RequestRefused(f"tensor {tensor.name!r}: expected raw_input_contents, got typed contents")
    in_regions = [item.name for item in request.inputs if _REGION_PARAMETER in item.parameters]
    in_regions += [item.name for item in request.outputs if _REGION_PARAMETER in item.parameters]
    if in_regions:
        raise RequestRefused(f"tensor {in_regions[0]!r}: expected raw contents, got {_REGION_PARAMETER}")
    if len(request.inputs) != len(request.raw_input_contents):
        raise RequestRefused(
            f"raw_input_contents: expected {len(request.inputs)} entries, one for each input, "
            f"got {len(request.raw_input_contents)}"
        )


def _hold_slices_together(arrays: Arrays) -> None:
    """The rescale of a volume is one value a slice: `slope` and `intercept` [slice] go with `image` [slice, ...]."""
    if "image" not in arrays:
        return
    slices = arrays["image"].shape[0]
    for name in ("slope", "intercept"):
        if name in arrays and arrays[name].shape[0] != slices:
            raise RequestRefused(f"tensor {name!r}: expected {slices} values, one a slice, got {arrays[name].shape[0]}")


def wanted_outputs(request: ModelInferRequest, manifest: ModelManifest) -> tuple[Tensor, ...]:
    """Give the outputs that are asked for, in the order asked; all where none is named."""
    if not request.outputs:
        return manifest.outputs
    known = {tensor.name: tensor for tensor in manifest.outputs}
    for output in request.outputs:
        if output.name not in known:
            raise RequestRefused(f"tensor {output.name!r}: expected an output of {sorted(known)}, got this name")
    return tuple(known[output.name] for output in request.outputs)


def memory_need(manifest: ModelManifest, inputs: Mapping[str, NDArray[Any]]) -> int:
    """Estimate the bytes that a request takes: the manifest's figures, TensorFlow's input copy and the outputs."""
    largest = max((array.size for array in inputs.values()), default=0)
    outputs = sum(
        dtype_of(tensor.datatype).itemsize * (largest if -1 in tensor.shape else math.prod(tensor.shape))
        for tensor in manifest.outputs
    )
    own = manifest.memory.base_mb * 1e6 + manifest.memory.bytes_per_voxel * largest
    return int(own) + sum(array.nbytes for array in inputs.values()) + _COPIES * outputs


def build_response(
    request: ModelInferRequest, bundle: ModelBundle, wanted: tuple[Tensor, ...], outputs: Arrays
) -> ModelInferResponse:
    """Write the wanted outputs as raw contents, with the digest of the bundle that answered."""
    response = ModelInferResponse(
        model_name=bundle.manifest.identity.name, model_version=bundle.manifest.identity.version, id=request.id
    )
    response.parameters[DIGEST_PARAMETER].string_param = bundle.digest
    for tensor in wanted:
        array = outputs[tensor.name]
        response.outputs.add(name=tensor.name, datatype=datatype_of(array.dtype), shape=array.shape)
        response.raw_output_contents.append(bytes(to_raw(array)))
    return response
