"""Codec between numpy arrays and the raw contents of the Open Inference Protocol: row-major bytes, little endian."""

import math
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import DTypeLike, NDArray

from protos.model_manifest import Tensor

DTYPES = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "INT8": np.dtype(np.int8),
        "UINT16": np.dtype("<u2"),
        "INT16": np.dtype("<i2"),
        "UINT32": np.dtype("<u4"),
        "INT32": np.dtype("<i4"),
        "UINT64": np.dtype("<u8"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)
_SMALL = 4096
_DATATYPES = MappingProxyType({(dtype.kind, dtype.itemsize): name for name, dtype in DTYPES.items()})


class TensorError(ValueError):
    """A tensor is not what it must be; the message names the tensor, what was expected and what came."""

    def __init__(self, name: str, *, expected: str, got: str) -> None:
        """Build the sentence "tensor NAME: expected EXPECTED, got GOT"."""
        super().__init__(f"tensor {name!r}: expected {expected}, got {got}")


def datatype_of(dtype: DTypeLike, *, name: str = "tensor") -> str:
    """Name the protocol's datatype of a numpy dtype, of either byte order; raise TensorError where it has none."""
    found = np.dtype(dtype)
    try:
        return _DATATYPES[(found.kind, found.itemsize)]
    except KeyError:
        raise TensorError(name, expected=f"a dtype of {', '.join(DTYPES)}", got=str(found)) from None


def dtype_of(datatype: str, *, name: str = "tensor") -> np.dtype[np.generic]:
    """Give the little-endian numpy dtype of a protocol datatype; raise TensorError where it is unknown (BYTES too)."""
    try:
        return DTYPES[datatype]
    except KeyError:
        raise TensorError(name, expected=f"a datatype of {', '.join(DTYPES)}", got=repr(datatype)) from None


def to_raw(array: NDArray[np.generic], *, name: str = "tensor") -> memoryview:
    """View an array as row-major little-endian bytes; copied only where it is neither contiguous nor little endian."""
    dtype = dtype_of(datatype_of(array.dtype, name=name))
    laid_out = np.asarray(array, dtype=dtype, order="C")
    return laid_out.reshape(-1).view(np.uint8).data


def from_raw(
    raw: bytes | bytearray | memoryview, datatype: str, shape: Sequence[int], *, name: str = "tensor"
) -> NDArray[np.generic]:
    """View raw contents as a read-only array of `shape`, without a copy.

    Raises:
        TensorError: unknown datatype, a negative dimension, a byte count that does not fill the shape, or a BOOL
            byte other than 0 and 1.
    """
    dtype = dtype_of(datatype, name=name)
    if any(size < 0 for size in shape):
        raise TensorError(name, expected="dimensions of 0 or more", got=f"shape {list(shape)}")
    expected, got = math.prod(shape) * dtype.itemsize, memoryview(raw).nbytes
    if got != expected:
        raise TensorError(name, expected=f"{expected} bytes for {datatype} {list(shape)}", got=f"{got} bytes")
    flat = np.frombuffer(raw, np.uint8) if got else np.empty(0, np.uint8)
    if datatype == "BOOL" and got and flat.max() > 1:
        raise TensorError(name, expected="BOOL bytes of 0 or 1", got=f"a byte of {flat.max()}")
    array = flat.view(dtype).reshape(tuple(shape))
    array.flags.writeable = False
    return array


def check_tensor(declared: Tensor, datatype: str, shape: Sequence[int]) -> None:
    """Hold datatype and shape to what the manifest declares (-1 takes any size); raise TensorError else."""
    fits = len(shape) == len(declared.shape) and all(
        want in (-1, size) for want, size in zip(declared.shape, shape, strict=True)
    )
    if datatype != declared.datatype or not fits:
        raise TensorError(
            declared.name,
            expected=f"{declared.datatype} {list(declared.shape)}",
            got=f"{datatype} {list(shape)}",
        )


def check_finite(array: NDArray[np.generic], *, name: str = "tensor") -> None:
    """Refuse NaN and infinity in floating-point arrays, without a mask's memory where they are large."""
    if array.dtype.kind == "f" and not _is_finite(array):
        raise TensorError(name, expected="finite values", got="NaN or infinity")


def _is_finite(array: NDArray[np.generic]) -> bool:
    if array.size <= _SMALL:  # two passes over a few values cost twice one with a mask
        return bool(np.isfinite(array).all())
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))  # minimum and maximum carry both
