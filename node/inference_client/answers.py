"""ModelInferResponse -> outputs held to the manifest and to the grid that was sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.errors import InferenceRejected
from node.inference_client.regions import BYTE_SIZE, OFFSET, REGION
from protos.model_manifest import ModelBundle, Tensor
from protos.open_inference_pb2 import ModelInferResponse
from protos.tensors import TensorError, check_finite, check_tensor, from_raw

DIGEST_PARAMETER = "hilum.digest"
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an output was asked for, and the bytes that lie there now."""

    region: str
    offset: int
    content: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with the outputs that lie beside it; the arrays read from it keep those places."""

    response: ModelInferResponse
    placed: Mapping[str, Placed] = field(default_factory=dict)


def read_outputs(answer: Answer, bundle: ModelBundle, grid: Shape) -> dict[str, NDArray[Any]]:
    """View the outputs as read-only arrays; voxel maps must lie on `grid`, the shape of the volume sent.

    Raises:
        InferenceRejected: an output is missing, unknown, of another datatype, shape or byte count, or not finite.
    """
    manifest, response = bundle.manifest, answer.response
    declared = {tensor.name: tensor for tensor in manifest.outputs}
    names = [tensor.name for tensor in response.outputs]
    if sorted(names) != sorted(declared) or len(response.raw_output_contents) != len(names):
        raise InferenceRejected(
            f"model {manifest.identity.name}: expected the outputs {sorted(declared)} as raw contents, "
            f"got {sorted(names)} with {len(response.raw_output_contents)} raw contents"
        )
    outputs: dict[str, NDArray[Any]] = {}
    try:
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            check_tensor(_on_grid(declared[tensor.name], grid), tensor.datatype, tensor.shape)
            content = _content(tensor, raw, answer.placed.get(tensor.name))
            outputs[tensor.name] = from_raw(content, tensor.datatype, tensor.shape, name=tensor.name)
            check_finite(outputs[tensor.name], name=tensor.name)
    except TensorError as error:
        raise InferenceRejected(f"the answer of model {manifest.identity.name} is not usable: {error}") from error
    return outputs


def verified_by(response: ModelInferResponse, bundle: ModelBundle) -> Literal["digest", "unverified"]:
    """Tell how the answering model is known; InferenceRejected where the service states another digest than ours."""
    if DIGEST_PARAMETER not in response.parameters:
        return "unverified"
    stated = response.parameters[DIGEST_PARAMETER].string_param
    if stated != bundle.digest:
        identity = bundle.manifest.identity
        raise InferenceRejected(
            f"the service answers as {identity.name}/{identity.version} with digest {stated[:16]}..., "
            f"the node's bundle is {bundle.digest[:16]}... "
            f"Remedy: give both the same bundle and start the service again."
        )
    return "digest"


def check_version(response: ModelInferResponse, bundle: ModelBundle) -> None:
    """Raise InferenceRejected unless the model and version asked for answered (an empty version states nothing)."""
    identity = bundle.manifest.identity
    if response.model_name != identity.name or response.model_version not in ("", identity.version):
        raise InferenceRejected(
            f"asked for {identity.name}/{identity.version}, answered by {response.model_name}/{response.model_version}"
        )


def _content(tensor: ModelInferResponse.InferOutputTensor, raw: bytes, placed: Placed | None) -> bytes | memoryview:
    if REGION not in tensor.parameters:
        return raw
    stated = (tensor.parameters[REGION].string_param, tensor.parameters[OFFSET].int64_param)
    used = tensor.parameters[BYTE_SIZE].int64_param
    if placed is None or raw or stated != (placed.region, placed.offset) or not 0 <= used <= len(placed.content):
        raise InferenceRejected(f"output {tensor.name!r}: the answer names another place than was asked for")
    return placed.content[:used].data


def _on_grid(declared: Tensor, grid: Shape) -> Tensor:
    """Where the manifest leaves all three dimensions of a voxel map open, they are those of the volume."""
    return declared.model_copy(update={"shape": grid}) if declared.shape == (-1,) * len(grid) else declared
