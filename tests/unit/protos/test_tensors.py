import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protos.model_manifest import Tensor
from protos.tensors import (
    DTYPES,
    TensorError,
    check_finite,
    check_tensor,
    datatype_of,
    dtype_of,
    from_raw,
    to_raw,
)

ANY_DTYPE = st.sampled_from(sorted(DTYPES)).map(dtype_of)
ANY_SHAPE = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ANY_ARRAY = ANY_DTYPE.flatmap(lambda dtype: arrays.arrays(dtype, ANY_SHAPE))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(ANY_ARRAY)
def test_an_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    raw = bytes(to_raw(array))
    assert same(from_raw(raw, datatype_of(array.dtype), array.shape), array)


@given(ANY_ARRAY)
def test_raw_contents_are_row_major_and_little_endian_whatever_the_layout(array: np.ndarray) -> None:
    wanted = array.tobytes(order="C")
    assert bytes(to_raw(np.asfortranarray(array))) == wanted
    assert bytes(to_raw(array.astype(array.dtype.newbyteorder(">")))) == wanted
    if array.ndim:
        assert bytes(to_raw(array[::-1][::-1])) == wanted
        assert bytes(to_raw(array[::-1])) == array[::-1].tobytes(order="C")


@given(ANY_ARRAY, st.integers(-9, 9).filter(bool))
def test_another_byte_count_is_refused_with_both_counts(array: np.ndarray, surplus: int) -> None:
    raw = bytes(to_raw(array))
    wrong = raw + b"\0" * surplus if surplus > 0 else raw[:surplus]
    if len(wrong) == len(raw):
        return
    with pytest.raises(TensorError, match=rf"'image': expected {len(raw)} bytes .*got {len(wrong)} bytes"):
        from_raw(wrong, datatype_of(array.dtype), array.shape, name="image")


def test_contiguous_arrays_are_viewed_both_ways_not_copied() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    raw = to_raw(array)
    assert np.shares_memory(np.frombuffer(raw, np.int16), array)
    assert np.shares_memory(from_raw(raw, "INT16", (2, 3, 4)), array)


def test_decoded_arrays_are_read_only() -> None:
    array = from_raw(bytearray(4), "INT16", (2,))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "int16", ""])
def test_a_datatype_without_a_dtype_is_refused_by_name(datatype: str) -> None:
    with pytest.raises(TensorError, match=rf"'image': expected a datatype of BOOL.*got '{datatype}'"):
        from_raw(b"", datatype, (0,), name="image")


@pytest.mark.parametrize("dtype", ["complex64", "S4", "datetime64[s]", "object"])
def test_a_dtype_without_a_datatype_is_refused_by_name(dtype: str) -> None:
    with pytest.raises(TensorError, match=r"'image': expected a dtype of BOOL"):
        to_raw(np.zeros(1, dtype), name="image")


def test_negative_dimensions_are_refused() -> None:
    with pytest.raises(TensorError, match=r"got shape \[-1, 2\]"):
        from_raw(b"", "INT16", (-1, 2))


def test_a_shape_that_overflows_64_bits_is_refused_by_its_byte_count() -> None:
    with pytest.raises(TensorError, match="expected 2658455991569831745807614120560689152 bytes"):
        from_raw(b"", "UINT8", (1 << 40, 1 << 40, 1 << 41))


def test_a_boolean_byte_other_than_0_and_1_is_refused() -> None:
    with pytest.raises(TensorError, match="expected BOOL bytes of 0 or 1, got a byte of 7"):
        from_raw(b"\0\1\7", "BOOL", (3,))


@pytest.mark.parametrize(
    ("datatype", "shape"), [("FP32", (3, 4, 5)), ("INT16", (3, 4)), ("INT16", (3, 4, 6)), ("INT16", ())]
)
def test_a_tensor_that_is_not_as_declared_is_refused_with_both_forms(datatype: str, shape: tuple[int, ...]) -> None:
    declared = Tensor(name="image", datatype="INT16", shape=(-1, -1, 5))
    with pytest.raises(TensorError) as refusal:
        check_tensor(declared, datatype, shape)
    assert "'image': expected INT16 [-1, -1, 5]" in str(refusal.value)
    assert f"got {datatype} {list(shape)}" in str(refusal.value)


def test_open_dimensions_take_any_size() -> None:
    check_tensor(Tensor(name="image", datatype="INT16", shape=(-1, -1, 5)), "INT16", (3, 4, 5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_value_that_is_not_finite_is_found(value: float, dtype: type) -> None:
    array = np.zeros((3, 4, 5), dtype)
    check_finite(array, name="map")
    array[1, 2, 3] = value
    with pytest.raises(TensorError, match="'map': expected finite values"):
        check_finite(array, name="map")
