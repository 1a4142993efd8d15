import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protos.contents import FIELDS, from_contents
from protos.open_inference_pb2 import InferTensorContents
from protos.tensors import DTYPES, TensorError, datatype_of, dtype_of

ANY_SHAPE = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NARROW = {"UINT8": 255, "UINT16": 65535, "INT8": 127, "INT16": 32767}


def contents_of(array: np.ndarray) -> InferTensorContents:
    contents = InferTensorContents()
    getattr(contents, FIELDS[datatype_of(array.dtype)]).extend(array.ravel().tolist())
    return contents


@pytest.mark.parametrize("datatype", sorted(FIELDS))
@given(drawn=st.data())
def test_typed_contents_come_back_bit_for_bit(datatype: str, drawn: st.DataObject) -> None:
    no_nan = {"allow_nan": False} if datatype.startswith("FP") else {}
    elements = arrays.from_dtype(dtype_of(datatype), **no_nan)
    array = drawn.draw(arrays.arrays(dtype_of(datatype), ANY_SHAPE, elements=elements))
    found = from_contents(contents_of(array), datatype, array.shape)
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not found.flags.writeable


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_nan_and_infinity_are_read_for_the_servers_check(datatype: str) -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0], dtype_of(datatype))
    np.testing.assert_array_equal(from_contents(contents_of(array), datatype, [4]), array)


@pytest.mark.parametrize("datatype", sorted(NARROW))
@pytest.mark.parametrize("surplus", [1, 1 << 16])
def test_a_value_that_the_datatype_cannot_hold_is_refused(datatype: str, surplus: int) -> None:
    contents = InferTensorContents()
    getattr(contents, FIELDS[datatype]).append(NARROW[datatype] + surplus)
    with pytest.raises(TensorError, match=f"'image': expected {datatype} values of .* to {NARROW[datatype]}"):
        from_contents(contents, datatype, [1], name="image")


@pytest.mark.parametrize("datatype", ["INT8", "INT16"])
def test_a_value_below_the_least_is_refused(datatype: str) -> None:
    contents = InferTensorContents(int_contents=[-NARROW[datatype] - 2])
    with pytest.raises(TensorError, match="one outside"):
        from_contents(contents, datatype, [1])


@pytest.mark.parametrize("datatype", sorted(FIELDS))
@pytest.mark.parametrize("shape", [[3], [5], [2, 3], [0]])
def test_another_number_of_values_is_refused(datatype: str, shape: list[int]) -> None:
    contents = contents_of(np.zeros(4, dtype_of(datatype)))
    with pytest.raises(TensorError, match=f"expected {np.prod(shape)} values .* got 4 values"):
        from_contents(contents, datatype, shape)


ALL_FIELDS = sorted({*FIELDS.values(), "bytes_contents"})
OTHER_FIELDS = [(own, field) for own in sorted(FIELDS) for field in ALL_FIELDS if field != FIELDS[own]]


@pytest.mark.parametrize(("datatype", "other"), OTHER_FIELDS)
def test_another_field_than_the_datatypes_is_refused(datatype: str, other: str) -> None:
    contents = contents_of(np.zeros(1, dtype_of(datatype)))
    getattr(contents, other).append(b"x" if other == "bytes_contents" else 1)
    with pytest.raises(TensorError, match=f"expected {FIELDS[datatype]} for {datatype}, got {other}"):
        from_contents(contents, datatype, [1])


@pytest.mark.parametrize("datatype", sorted({*DTYPES, "BF16", "BYTES"} - set(FIELDS)))
def test_a_datatype_without_typed_contents_is_refused(datatype: str) -> None:
    with pytest.raises(TensorError, match=f"raw_input_contents for {datatype}|a datatype of"):
        from_contents(InferTensorContents(fp32_contents=[1.0]), datatype, [1])


def test_a_negative_dimension_is_refused() -> None:
    with pytest.raises(TensorError, match=r"shape \[-1, -1\]"):
        from_contents(InferTensorContents(fp32_contents=[1.0]), "FP32", [-1, -1])
