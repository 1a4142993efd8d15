import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from node.errors import InferenceRejected
from node.inference_client.regions import Region
from node.inference_client.requests import build_request
from protos.model_manifest import ModelManifest
from protos.open_inference_pb2 import ModelInferRequest
from protos.tensors import from_raw
from tests.bundles import threshold_manifest
from tests.inference_service import volume_of

ID = "11111111-2222-3333-4444-555555555555"


def manifest_with(extra: dict[str, object] | None = None, image: str = "INT16") -> ModelManifest:
    base = threshold_manifest().model_dump(mode="json", exclude_none=True)
    base["inputs"][0]["datatype"] = image
    base["inputs"] += [extra] if extra else []
    base["value_rules"] = {"padding": "send" if extra and extra["name"] == "padding" else "ignore"}
    return ModelManifest.model_validate(base)


PADDED = manifest_with({"name": "padding", "datatype": "INT16", "shape": []})


def tensors(request: ModelInferRequest) -> dict[str, np.ndarray]:
    return {
        stated.name: from_raw(raw, stated.datatype, stated.shape)
        for stated, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


@given(arrays.arrays(np.uint16, (2, 3, 4)), st.integers(-32768, 32768), st.sampled_from([0.25, 1.0, 2.0]))
def test_uint16_values_stay_what_they_were(voxels: np.ndarray, intercept: int, slope: float) -> None:
    sent = tensors(build_request(threshold_manifest(), volume_of(voxels, slope=slope, intercept=intercept), ID))
    rescaled = sent["image"].astype(np.float64) * sent["slope"][0] + sent["intercept"][0]
    np.testing.assert_array_equal(rescaled, voxels.astype(np.float64) * slope + intercept)


def test_uint16_up_to_32767_keeps_bytes_and_intercept() -> None:
    voxels = np.full((2, 3, 4), 32767, np.uint16)
    sent = tensors(build_request(threshold_manifest(), volume_of(voxels, intercept=-1024), ID))
    assert sent["image"].tobytes() == voxels.tobytes()
    assert sent["intercept"].tolist() == [-1024, -1024]


@given(arrays.arrays(np.int16, (2, 3, 4), elements=st.sampled_from([-32768, -32767, 0, 1, 32766, 32767])))
def test_where_a_series_states_no_padding_the_value_sent_is_that_of_no_voxel(voxels: np.ndarray) -> None:
    sent = tensors(build_request(PADDED, volume_of(voxels), ID))
    assert sent["padding"].shape == ()
    assert not np.any(voxels == sent["padding"])


def test_a_volume_of_every_stored_value_leaves_no_padding_value() -> None:
    voxels = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16).reshape(1, 256, 256)
    with pytest.raises(InferenceRejected, match="every stored value"):
        build_request(PADDED, volume_of(voxels), ID)


def test_stated_padding_moves_with_shifted_voxels() -> None:
    voxels = np.full((1, 2, 2), 65535, np.uint16)
    assert tensors(build_request(PADDED, volume_of(voxels, padding=65535), ID))["padding"] == 32767


def test_padding_that_the_tensor_cannot_hold_is_sent_as_a_value_of_no_voxel() -> None:
    voxels = np.full((1, 2, 2), 32767, np.uint16)
    sent = tensors(build_request(PADDED, volume_of(voxels, padding=63536), ID))
    assert sent["padding"] == -32768


def test_an_unsigned_image_without_padding_has_an_absent_value_of_its_own_type() -> None:
    unsigned = manifest_with({"name": "padding", "datatype": "UINT16", "shape": []}, image="UINT16")
    voxels = np.array([[[0, 7]]], np.uint16)
    assert tensors(build_request(unsigned, volume_of(voxels), ID))["padding"] == 65535
    floating = manifest_with({"name": "padding", "datatype": "FP32", "shape": []}, image="UINT16")
    assert tensors(build_request(floating, volume_of(voxels, padding=7), ID))["padding"] == 7.0


def test_an_input_that_no_volume_has_is_refused_by_name() -> None:
    manifest = manifest_with({"name": "age", "datatype": "FP32", "shape": [1]})
    with pytest.raises(InferenceRejected, match="'age'"):
        build_request(manifest, volume_of(np.zeros((1, 2, 2), np.int16)), ID)


@pytest.mark.parametrize(("image", "dtype"), [("INT16", np.float32), ("UINT8", np.int16), ("UINT16", np.int16)])
def test_values_that_would_not_fit_are_refused(image: str, dtype: type) -> None:
    with pytest.raises(InferenceRejected, match=f"'image': expected values that fit {image}"):
        build_request(manifest_with(image=image), volume_of(np.zeros((1, 2, 2), dtype)), ID)


def test_voxels_that_are_not_finite_are_never_sent() -> None:
    voxels = np.full((1, 2, 2), np.nan, np.float32)
    with pytest.raises(InferenceRejected, match="'image': expected finite values"):
        build_request(manifest_with(image="FP32"), volume_of(voxels), ID)


def test_voxels_that_lie_in_a_region_are_named_not_sent() -> None:
    request = build_request(
        threshold_manifest(), volume_of(np.zeros((1, 2, 2), np.int16)), ID, Region("r1", offset=64, byte_size=8)
    )
    image = request.inputs[0]
    assert image.parameters["shared_memory_region"].string_param == "r1"
    assert image.parameters["shared_memory_offset"].int64_param == 64
    assert image.parameters["shared_memory_byte_size"].int64_param == 8
    assert len(request.raw_input_contents) == len(request.inputs) - 1
