"""Triton's own client asks our service, and a real Triton that serves the same model; our client asks that Triton."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import threshold_bundle
from tests.inference_service import RunningService, bright_volume, client_of, running_service
from tests.interop.descriptors import described
from tests.interop.triton import IS_SET_UP, ask_referee, running_triton, write_triton_model

pytestmark = pytest.mark.skipif(not IS_SET_UP, reason="no .venv-referee: run scripts/referee-setup")

TENSORS = {
    "inputs": {"image": [-1, -1, -1], "slope": [-1], "intercept": [-1], "spacing": [3]},
    "outputs": {"probability": [-1, -1, -1]},
}
IN_MESSAGES = {"image": "INT16", "slope": "FP32", "intercept": "FP32", "spacing": "FP32", "probability": "UINT8"}
# What both servers answer alike.
ALIKE: dict[str, Any] = {
    "live_and_ready": [True, True, True, True],
    "model_metadata": {
        "name": "bright_regions",
        "versions": ["1"],
        **{part: {name: [IN_MESSAGES[name], shape] for name, shape in of.items()} for part, of in TENSORS.items()},
    },
    "repository_index": [["bright_regions", "1", "READY"]],
    "statistics_count": [1, 1, 0, 1],
    "infer_raw": {"right": True, "id": "seven", "model": "bright_regions", "version": "1"},
    "infer_typed": True,
    "compressed": True,
    "priority_and_timeout": True,
    "unknown_parameter": True,
    "stream_with_an_error": ["refused", "right", "right"],
    "shared_memory_unregister_all": [2, 0],
    "unknown_model": "NOT_FOUND",
    "unknown_version": "NOT_FOUND",
    "wrong_rank": "INVALID_ARGUMENT",
    "wrong_fixed_size": "INVALID_ARGUMENT",
    "wrong_datatype": "INVALID_ARGUMENT",
    "missing_input": "INVALID_ARGUMENT",
    "unknown_output": "INVALID_ARGUMENT",
    "shared_memory_registered_twice": "ALREADY_EXISTS",
    "shared_memory_nobody_registered": "NOT_FOUND",
    "shared_memory_status_of_an_unknown_name": "NOT_FOUND",
}
# What they answer in their own way: (ours, Triton's). docs/howto/protocol.md states each.
APART: dict[str, tuple[Any, Any]] = {
    "statistics_of_an_unknown_model": ("NOT_FOUND", "INVALID_ARGUMENT"),
    "sequence": ("INVALID_ARGUMENT", True),
    "classification": ("INVALID_ARGUMENT", [2]),
    "not_finite": ("INVALID_ARGUMENT", False),
    "shared_memory_too_small_for_the_output": ("INVALID_ARGUMENT", "INTERNAL"),
    "shared_memory_of_a_missing_key": ("INVALID_ARGUMENT", "INTERNAL"),
    "cuda_shared_memory_status": ("UNIMPLEMENTED", 0),
    "trace_setting": ("UNIMPLEMENTED", True),
    "log_settings": ("UNIMPLEMENTED", True),
    "load_a_model": ("UNIMPLEMENTED", "UNAVAILABLE"),
    "load_a_model_by_the_wire": ("INVALID_ARGUMENT", "UNAVAILABLE"),
}
LOOKED_AT_CLOSER = {"server_metadata", "model_config", "shared_memory"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return threshold_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def ours(bundle: ModelBundle) -> Iterator[RunningService]:
    with running_service(bundle.directory.parents[1]) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(ours: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Triton under the configuration that our service states for the model."""
    models, scratch = tmp_path_factory.mktemp("triton-models"), tmp_path_factory.mktemp("triton")
    with grpc.insecure_channel(ours.tcp) as channel:
        request = messages.ModelConfigRequest(name="bright_regions")
        write_triton_model(models, GRPCInferenceServiceStub(channel).ModelConfig(request).config)
    with running_triton(models, scratch) as address:
        yield address


@pytest.fixture(scope="module")
def seen(ours: RunningService, theirs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Triton's client saw of our service, and of Triton."""
    return ask_referee("observe", ours.tcp), ask_referee("observe", theirs)


def test_the_protocol_is_tritons_field_by_field(tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(described([messages.DESCRIPTOR])), encoding="utf-8")
    found = ask_referee("descriptors", str(file))
    assert found["different"] == {}
    assert found["only_ours"] == []
    assert found["compared"] > 250


def test_every_rpc_of_triton_is_in_the_protocol(tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(described([messages.DESCRIPTOR])), encoding="utf-8")
    missing = [name for name in ask_referee("descriptors", str(file))["only_theirs"] if "GRPCInferenceService." in name]
    assert missing == []


def test_every_case_is_judged(seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert set(seen[0]) == set(seen[1]) == set(ALIKE) | set(APART) | LOOKED_AT_CLOSER


@pytest.mark.parametrize("name", sorted(ALIKE))
def test_both_servers_answer_alike(seen: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    assert [_judged(answers[name]) for answers in seen] == [ALIKE[name]] * 2


@pytest.mark.parametrize("name", sorted(APART))
def test_the_servers_differ_as_documented(seen: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    assert tuple(_judged(answers[name]) for answers in seen) == APART[name]


def test_the_configuration_carries_the_manifest(
    seen: tuple[dict[str, Any], dict[str, Any]], bundle: ModelBundle
) -> None:
    first, second = (answers["model_config"] for answers in seen)
    assert first == second
    assert first["max_batch_size"] == 0
    assert first["manifest"] == (bundle.directory / "model.toml").read_text(encoding="utf-8")
    wanted = {item.name: list(item.shape) for item in bundle.manifest.inputs}
    assert {name: shape for name, (_, shape) in first["inputs"].items()} == wanted


def test_extensions_are_stated(seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (set(answers["server_metadata"]["extensions"]) for answers in seen)
    assert [answers["server_metadata"]["name"] for answers in seen] == ["hilum", "triton"]
    assert first - second == {"hilum_tensor_regions"}
    assert second - first == {
        "binary_tensor_data", "classification", "cuda_shared_memory", "logging",
        "model_repository(unload_dependents)", "sequence", "trace",
    }  # fmt: skip


def test_tensors_travel_in_system_shared_memory(seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    place = {"shared_memory_byte_size": 4096, "shared_memory_offset": 100, "shared_memory_region": "out"}
    for answers, stated in zip(seen, (place, {}), strict=True):
        assert answers["shared_memory"] == {
            "right": True,
            "before": 0,
            "raw": [0],
            "stated": stated,
            "status": {"in": [0, 8256], "out": [0, 4196]},
        }


def test_our_client_predicts_with_triton_as_with_our_service(
    ours: RunningService, theirs: str, bundle: ModelBundle
) -> None:
    with client_of(ours.tcp) as near, client_of(theirs) as far:
        far.wait_ready("bright_regions", "1", 30)
        assert (far.health().status, far.health().detail.split()[0]) == ("serving", "triton")
        expected, found = near.infer(bundle, bright_volume()), far.infer(bundle, bright_volume())
    assert expected.outputs["probability"].max() == 255
    np.testing.assert_array_equal(found.outputs["probability"], expected.outputs["probability"])
    assert (expected.model.verified, found.model.verified) == ("digest", "unverified")


def _judged(answer: Any) -> Any:
    """Leave a refusal's wording out; that of our service is held elsewhere."""
    return answer["status"] if isinstance(answer, dict) and set(answer) == {"status", "message"} else answer
