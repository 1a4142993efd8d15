"""What Triton's own Python client sees of a server, as JSON; runs inside .venv-referee, which has nothing of Hilum.

python -m tests.interop.triton_referee descriptors OURS.json    our protocol against tritonclient's
python -m tests.interop.triton_referee observe ADDRESS          what each case of CASES gave
"""

import json
import queue
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from tests.interop.descriptors import described

MODEL = "bright_regions"
WAIT_S = 60
IMAGE = np.zeros((4, 32, 32), np.int16)
IMAGE[1:3, 10:14, 10:14] = 1000
SLOPE, INTERCEPT = np.ones(4, np.float32), np.full(4, -1024, np.float32)
SPACING = np.array([2, 1, 1], np.float32)
INPUTS = {
    "image": (IMAGE, "INT16"),
    "slope": (SLOPE, "FP32"),
    "intercept": (INTERCEPT, "FP32"),
    "spacing": (SPACING, "FP32"),
}
EXPECTED = np.where(IMAGE > 0, 255, 0).astype(np.uint8)


def differences(ours: dict[str, Any]) -> dict[str, Any]:
    """Give every name whose meaning differs, and those that only one side has."""
    theirs = described([service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR])
    both = ours.keys() & theirs.keys()
    return {
        "compared": len(both),
        "different": {name: [ours[name], theirs[name]] for name in sorted(both) if ours[name] != theirs[name]},
        "only_ours": sorted(ours.keys() - both),
        "only_theirs": sorted(theirs.keys() - both),
    }


Case = Callable[[triton.InferenceServerClient], Any]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Enter the case under its name."""
    CASES[function.__name__] = function
    return function


def observe(address: str) -> dict[str, Any]:
    """Ask every case; an error of the client is an answer too."""
    with triton.InferenceServerClient(address) as client:
        return {name: _answer(ask, client) for name, ask in CASES.items()}


def _answer(ask: Case, client: triton.InferenceServerClient) -> Any:
    try:
        return ask(client)
    except InferenceServerException as error:
        return _refusal(error)


def _refusal(error: InferenceServerException) -> dict[str, str]:
    return {"status": str(error.status()).removeprefix("StatusCode."), "message": error.message()[:300]}


def _inputs(**other: tuple[np.ndarray, str]) -> list[triton.InferInput]:
    made = []
    for name, (array, datatype) in {**INPUTS, **other}.items():
        made.append(triton.InferInput(name, list(array.shape), datatype))
        made[-1].set_data_from_numpy(array)
    return made


def _infer(client: triton.InferenceServerClient, **arguments: Any) -> triton.InferResult:
    return client.infer(MODEL, arguments.pop("inputs", None) or _inputs(), client_timeout=WAIT_S, **arguments)


def _is_right(result: triton.InferResult) -> bool:
    return bool(np.array_equal(result.as_numpy("probability"), EXPECTED))


@case
def live_and_ready(client: triton.InferenceServerClient) -> Any:
    return [
        client.is_server_live(),
        client.is_server_ready(),
        client.is_model_ready(MODEL),
        client.is_model_ready(MODEL, "1"),
    ]


@case
def server_metadata(client: triton.InferenceServerClient) -> Any:
    found = client.get_server_metadata()
    return {"name": found.name, "has_version": bool(found.version), "extensions": sorted(found.extensions)}


@case
def model_metadata(client: triton.InferenceServerClient) -> Any:
    found = client.get_model_metadata(MODEL)
    return {
        "name": found.name,
        "versions": list(found.versions),
        "inputs": {item.name: [item.datatype, list(item.shape)] for item in found.inputs},
        "outputs": {item.name: [item.datatype, list(item.shape)] for item in found.outputs},
    }


@case
def model_config(client: triton.InferenceServerClient) -> Any:
    config = client.get_model_config(MODEL).config
    return {
        "name": config.name,
        "max_batch_size": config.max_batch_size,
        "inputs": {item.name: [item.data_type, list(item.dims)] for item in config.input},
        "outputs": {item.name: [item.data_type, list(item.dims)] for item in config.output},
        "manifest": config.parameters["hilum.manifest"].string_value,
    }


@case
def statistics_count(client: triton.InferenceServerClient) -> Any:
    def figures() -> list[int]:
        (found,) = client.get_inference_statistics(MODEL).model_stats
        spent = found.inference_stats
        return [found.inference_count, spent.success.count, spent.fail.count, spent.compute_infer.count]

    before = figures()
    _infer(client)
    return [after - earlier for after, earlier in zip(figures(), before, strict=True)]


@case
def statistics_of_an_unknown_model(client: triton.InferenceServerClient) -> Any:
    return len(client.get_inference_statistics("nobody").model_stats)


@case
def repository_index(client: triton.InferenceServerClient) -> Any:
    return [
        [item.name, item.version, item.state]
        for item in client.get_model_repository_index().models
        if item.name == MODEL
    ]


@case
def infer_raw(client: triton.InferenceServerClient) -> Any:
    result = _infer(client, request_id="seven", outputs=[triton.InferRequestedOutput("probability")])
    answer = result.get_response()
    return {"right": _is_right(result), "id": answer.id, "model": answer.model_name, "version": answer.model_version}


@case
def infer_typed(client: triton.InferenceServerClient) -> Any:
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    for name, (array, datatype) in INPUTS.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        field = tensor.contents.int_contents if datatype == "INT16" else tensor.contents.fp32_contents
        field.extend(array.ravel().tolist())
    return _is_right(triton.InferResult(_stub_infer(client, request)))


def _stub_infer(client: triton.InferenceServerClient, request: Any) -> Any:
    return client._client_stub.ModelInfer(request, timeout=WAIT_S)


@case
def compressed(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, compression_algorithm="gzip"))


@case
def priority_and_timeout(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, priority=1, timeout=30_000_000))


@case
def unknown_parameter(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, parameters={"colour": "blue"}))


@case
def sequence(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, sequence_id=3, sequence_start=True))


@case
def classification(client: triton.InferenceServerClient) -> Any:
    outputs = [triton.InferRequestedOutput("probability", class_count=2)]
    return list(_infer(client, outputs=outputs).get_response().outputs[0].shape)


@case
def unknown_model(client: triton.InferenceServerClient) -> Any:
    return _is_right(client.infer("nobody", _inputs()))


@case
def unknown_version(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, model_version="7"))


@case
def wrong_rank(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, inputs=_inputs(image=(IMAGE.reshape(4, 1024), "INT16"))))


@case
def wrong_fixed_size(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, inputs=_inputs(spacing=(np.ones(4, np.float32), "FP32"))))


@case
def wrong_datatype(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, inputs=_inputs(image=(IMAGE.astype(np.float32), "FP32"))))


@case
def missing_input(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, inputs=_inputs()[:3]))


@case
def unknown_output(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, outputs=[triton.InferRequestedOutput("heat")]))


@case
def not_finite(client: triton.InferenceServerClient) -> Any:
    return _is_right(_infer(client, inputs=_inputs(slope=(np.full(4, np.nan, np.float32), "FP32"))))


@case
def stream_with_an_error(client: triton.InferenceServerClient) -> Any:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for version in ("1", "7", "1"):
        client.async_stream_infer(MODEL, _inputs(), model_version=version, request_id=version)
    got = [answers.get(timeout=WAIT_S) for _ in range(3)]
    client.stop_stream()
    return sorted("right" if error is None and _is_right(result) else "refused" for result, error in got)


@contextmanager
def _made(size: int) -> Iterator[tuple[Any, str]]:
    key = f"/hilum-referee-{uuid.uuid4().hex}"
    region = shm.create_shared_memory_region("region", key, size)
    try:
        yield region, key
    finally:
        shm.destroy_shared_memory_region(region)


@contextmanager
def _region(client: triton.InferenceServerClient, name: str, size: int) -> Iterator[Any]:
    with _made(size) as (region, key):
        client.register_system_shared_memory(name, key, size)
        try:
            yield region
        finally:
            client.unregister_system_shared_memory(name)


@case
def shared_memory(client: triton.InferenceServerClient) -> Any:
    with _region(client, "in", IMAGE.nbytes + 64) as given, _region(client, "out", EXPECTED.nbytes + 100) as taken:
        shm.set_shared_memory_region(given, [IMAGE], offset=64)
        inputs, output = _inputs(), triton.InferRequestedOutput("probability")
        inputs[0].set_shared_memory("in", IMAGE.nbytes, offset=64)
        output.set_shared_memory("out", EXPECTED.nbytes, offset=100)
        answer = _infer(client, inputs=inputs, outputs=[output]).get_response()
        found = shm.get_contents_as_numpy(taken, np.uint8, [EXPECTED.nbytes + 100]).copy()  # a view would hold it open
        status = client.get_system_shared_memory_status().regions
        stated = answer.outputs[0].parameters
        return {
            "right": bool(np.array_equal(found[100:].reshape(EXPECTED.shape), EXPECTED)),
            "before": int(found[:100].max()),
            "raw": [len(entry) for entry in answer.raw_output_contents],
            "stated": {name: stated[name].string_param or stated[name].int64_param for name in sorted(stated)},
            "status": {name: [status[name].offset, status[name].byte_size] for name in sorted(status)},
        }


@case
def shared_memory_registered_twice(client: triton.InferenceServerClient) -> Any:
    with _region(client, "twice", 64):
        client.register_system_shared_memory("twice", "/hilum-referee-other", 64)


@case
def shared_memory_too_small_for_the_output(client: triton.InferenceServerClient) -> Any:
    with _region(client, "small", 64):
        output = triton.InferRequestedOutput("probability")
        output.set_shared_memory("small", 64)
        return list(_infer(client, outputs=[output]).get_response().outputs[0].shape)


@case
def shared_memory_nobody_registered(client: triton.InferenceServerClient) -> Any:
    inputs = _inputs()
    inputs[0].set_shared_memory("nobodys", IMAGE.nbytes)
    return _is_right(_infer(client, inputs=inputs))


@case
def shared_memory_status_of_an_unknown_name(client: triton.InferenceServerClient) -> Any:
    return len(client.get_system_shared_memory_status("nobodys").regions)


@case
def shared_memory_of_a_missing_key(client: triton.InferenceServerClient) -> Any:
    return client.register_system_shared_memory("missing", "/hilum-referee-missing", 64)


@case
def shared_memory_unregister_all(client: triton.InferenceServerClient) -> Any:
    with _made(64) as (_, first), _made(64) as (_, second):
        client.register_system_shared_memory("a", first, 64)
        client.register_system_shared_memory("b", second, 64)
        before = len(client.get_system_shared_memory_status().regions)
        client.unregister_system_shared_memory()
        return [before, len(client.get_system_shared_memory_status().regions)]


@case
def cuda_shared_memory_status(client: triton.InferenceServerClient) -> Any:
    return len(client.get_cuda_shared_memory_status().regions)


@case
def trace_setting(client: triton.InferenceServerClient) -> Any:
    return bool(client.get_trace_settings().settings)


@case
def log_settings(client: triton.InferenceServerClient) -> Any:
    return bool(client.get_log_settings().settings)


@case
def load_a_model(client: triton.InferenceServerClient) -> Any:
    return client.load_model(MODEL)


@case
def load_a_model_by_the_wire(client: triton.InferenceServerClient) -> Any:
    return client.load_model(MODEL, config="{}", files={"file:1/model.py": b"x"})


def main(command: str, argument: str) -> None:
    """Print the answer as one line of JSON."""
    if command == "descriptors":
        answer: Any = differences(json.loads(Path(argument).read_text(encoding="utf-8")))
    else:
        answer = observe(argument)
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
