"""Typed contents of the Open Inference Protocol (`InferTensorContents`) as arrays."""

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.open_inference_pb2 import InferTensorContents
from protos.tensors import TensorError, dtype_of

FIELDS = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
    }
)
"""Datatype -> the field that holds its values. FP16 and BF16 have none; BYTES (`bytes_contents`) is no input."""


def from_contents(
    contents: InferTensorContents, datatype: str, shape: Sequence[int], *, name: str = "tensor"
) -> NDArray[np.generic]:
    """Read typed contents as a read-only array of `shape`.

    Raises:
        TensorError: a datatype that has no typed contents, another field than the datatype's, another number of
            values than the shape holds, or a value that the datatype cannot hold.
    """
    dtype = dtype_of(datatype, name=name)
    if datatype not in FIELDS:
        raise TensorError(name, expected=f"raw_input_contents for {datatype}", got="typed contents")
    field = FIELDS[datatype]
    others = [stated.name for stated, _ in contents.ListFields() if stated.name != field]
    if others:
        raise TensorError(name, expected=f"{field} for {datatype}", got=others[0])
    values = getattr(contents, field)
    if any(size < 0 for size in shape):
        raise TensorError(name, expected="dimensions of 0 or more", got=f"shape {list(shape)}")
    if len(values) != math.prod(shape):
        expected = f"{math.prod(shape)} values for {datatype} {list(shape)}"
        raise TensorError(name, expected=expected, got=f"{len(values)} values")
    array = _narrowed(np.array(values, _wire_dtype(field)), dtype, name, datatype).reshape(tuple(shape))
    array.flags.writeable = False
    return array


def _wire_dtype(field: str) -> np.dtype[np.generic]:
    return dtype_of({"int_contents": "INT32", "uint_contents": "UINT32"}.get(field) or _only_datatype(field))


def _only_datatype(field: str) -> str:
    return next(datatype for datatype, stated in FIELDS.items() if stated == field)


def _narrowed(
    values: NDArray[np.generic], dtype: np.dtype[np.generic], name: str, datatype: str
) -> NDArray[np.generic]:
    narrow = values.astype(dtype)
    if dtype != values.dtype and not np.array_equal(narrow.astype(values.dtype), values):
        limits: np.iinfo[Any] = np.iinfo(dtype.name)  # only integers travel wider than they are
        raise TensorError(name, expected=f"{datatype} values of {limits.min} to {limits.max}", got="one outside")
    return narrow
