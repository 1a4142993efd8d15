"""Export, check and import of frozen graphs; the only unit tests here that load TensorFlow."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import BundleRefused, PredictionFailed
from protos.model_manifest import Golden, ModelManifest, open_bundle
from tests.bundles import threshold_manifest

tf = pytest.importorskip("tensorflow")

from inference.graph import frozen  # noqa: E402 - after the check that TensorFlow is there
from inference.runners.whole import load_predictor  # noqa: E402
from training.export import export_bundle  # noqa: E402

INPUT = {
    "image": np.arange(2 * 4 * 4, dtype=np.int16).reshape(2, 4, 4),
    "slope": np.ones(2, np.float32),
    "intercept": np.zeros(2, np.float32),
    "spacing": np.ones(3, np.float32),
}


def model(kernel: Any) -> Callable[..., dict[str, Any]]:
    def function(image: Any, slope: Any, intercept: Any, spacing: Any) -> dict[str, Any]:
        values = tf.cast(image, tf.float32) * slope[:, None, None] + intercept[:, None, None]
        smooth = tf.map_fn(lambda item: tf.nn.conv2d(item[None, :, :, None], kernel, 1, "SAME")[0, :, :, 0], values)
        return {"probability": tf.cast(smooth > spacing[0] * 100, tf.uint8)}

    return function


@pytest.fixture
def kernel() -> Any:
    return tf.Variable(np.ones((3, 3, 1, 1), np.float32))


def test_an_exported_function_gives_what_it_gave_before(kernel: Any, tmp_path: Path) -> None:
    bundle = export_bundle(model(kernel), threshold_manifest(), tmp_path, INPUT)
    expected = model(kernel)(**{name: tf.constant(array) for name, array in INPUT.items()})["probability"].numpy()
    kernel.assign_add(tf.ones_like(kernel))  # the weights in the bundle are constants
    predictor = load_predictor(bundle)
    np.testing.assert_array_equal(predictor.predict(INPUT)["probability"], expected)
    assert 0 < expected.sum() < expected.size
    assert bundle == open_bundle(tmp_path / "bright_regions" / "1")


def test_one_import_takes_any_size_and_repeats_itself(kernel: Any, tmp_path: Path) -> None:
    predictor = load_predictor(export_bundle(model(kernel), threshold_manifest(), tmp_path, INPUT))
    random = np.random.default_rng(3)
    for slices, rows, columns in ((1, 5, 7), (9, 64, 33), (3, 128, 128)):
        voxels = random.integers(-100, 100, (slices, rows, columns)).astype(np.int16)
        rescale = {"slope": np.ones(slices, np.float32), "intercept": np.zeros(slices, np.float32)}
        inputs = {**INPUT, "image": voxels, **rescale}
        first = predictor.predict(inputs)["probability"]
        assert first.shape == voxels.shape
        assert first.tobytes() == predictor.predict(inputs)["probability"].tobytes()


def test_voxels_at_an_odd_address_are_taken(kernel: Any, tmp_path: Path) -> None:
    predictor = load_predictor(export_bundle(model(kernel), threshold_manifest(), tmp_path, INPUT))
    raw = b"x" * 3 + INPUT["image"].tobytes()
    odd = np.frombuffer(raw, np.uint8)[3:].view(np.int16).reshape(2, 4, 4)
    assert odd.ctypes.data % 64
    np.testing.assert_array_equal(
        predictor.predict({**INPUT, "image": odd})["probability"], predictor.predict(INPUT)["probability"]
    )


def test_a_version_is_not_overwritten_unless_asked(kernel: Any, tmp_path: Path) -> None:
    export_bundle(model(kernel), threshold_manifest(), tmp_path, None)
    with pytest.raises(FileExistsError, match="raise the version"):
        export_bundle(model(kernel), threshold_manifest(), tmp_path, INPUT)
    assert export_bundle(model(kernel), threshold_manifest(), tmp_path, INPUT, replace=True).manifest.golden
    assert [path.name for path in (tmp_path / "bright_regions").iterdir()] == ["1"]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def reads_file(image: Any, **_: Any) -> dict[str, Any]:
        length = tf.strings.length(tf.io.read_file("/etc/hostname"))
        return {"probability": tf.cast(image + tf.cast(length, tf.int16), tf.uint8)}

    with pytest.raises(BundleRefused, match="'ReadFile'"):
        export_bundle(reads_file, threshold_manifest(), tmp_path, INPUT)
    assert list((tmp_path / "bright_regions").iterdir()) == []


def test_outputs_other_than_the_manifests_are_refused(kernel: Any, tmp_path: Path) -> None:
    def other(**tensors: Any) -> dict[str, Any]:
        return {"heat": model(kernel)(**tensors)["probability"]}

    with pytest.raises(BundleRefused, match=r"declares \['probability'\], the signature \['heat'\]"):
        export_bundle(other, threshold_manifest(), tmp_path, INPUT)


def test_a_golden_pair_beyond_its_tolerance_keeps_the_model_out(kernel: Any, tmp_path: Path) -> None:
    from protos.model_manifest import write_digest_list

    bundle = export_bundle(model(kernel), threshold_manifest(), tmp_path, INPUT)
    path = bundle.directory / "golden.npz"
    with np.load(path) as arrays:
        changed = {name: arrays[name] for name in arrays}
    changed["output/probability"] = 1 - changed["output/probability"]
    np.savez(path, allow_pickle=False, **changed)
    write_digest_list(bundle.directory)
    with pytest.raises(BundleRefused, match="golden pair differs by"):
        load_predictor(open_bundle(bundle.directory))


def test_a_manifest_with_a_golden_pair_needs_its_input(kernel: Any, tmp_path: Path) -> None:
    manifest: ModelManifest = threshold_manifest().model_copy(
        update={"golden": Golden(file="golden.npz", tolerance={"cpu": 1e-3})}
    )
    with pytest.raises(ValueError, match="no input is given"):
        export_bundle(model(kernel), manifest, tmp_path, None)


def test_nan_is_a_failure_not_a_result(tmp_path: Path) -> None:
    base = threshold_manifest().model_dump(mode="json", exclude_none=True)
    base["outputs"][0]["datatype"] = "FP32"

    def logarithm(image: Any, **_: Any) -> dict[str, Any]:
        return {"probability": tf.math.log(tf.cast(image, tf.float32))}

    predictor = load_predictor(export_bundle(logarithm, ModelManifest.model_validate(base), tmp_path, None))
    with pytest.raises(PredictionFailed, match="no result is given out: output tensor 'probability'"):
        predictor.predict(INPUT)


@pytest.mark.parametrize(
    "op",
    [
        "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2", "PrintV2", "SaveV2", "RestoreV2", "VarHandleOp",
        "ReadVariableOp", "AssignVariableOp", "PyFunc", "EagerPyFunc", "HashTableV2", "IteratorV2", "RandomUniform",
        "TensorArrayV3", "RemoteCall", "XlaLaunch", "NoSuchOp", "bad_function",
        "TFRecordReaderV2", "InitializeTableFromTextFileV2", "MergeV2Checkpoints", "PyFuncStateless", "VariableV2",
        "Restore", "RestoreSlice", "Print", "Timestamp", "WriteSummary", "MutableHashTableV2", "FIFOQueueV2",
        "QueueDequeueV2", "OneShotIterator", "IteratorGetNext", "GeneratorDataset", "RandomStandardNormal",
        "Multinomial", "CollectiveReduceV2", "CollectiveGather", "NcclAllReduce", "RpcCall", "_Send", "_Recv",
        "_HostRecv", "DecodeProtoV2", "StackV2", "SymbolicGradient",
    ],
)  # fmt: skip
@pytest.mark.parametrize("hidden", [False, True], ids=["graph", "library"])
def test_an_op_off_the_list_is_refused_by_name(op: str, hidden: bool) -> None:  # noqa: FBT001 - a parameter of the test
    graph_def = tf.compat.v1.GraphDef()
    nodes = graph_def.node
    if hidden:
        function = graph_def.library.function.add()
        function.signature.name = "body"
        nodes = function.node_def
    nodes.add(name="harmless", op="AddV2")
    nodes.add(name="odd", op=op)
    with pytest.raises(BundleRefused, match=f"'{op}'"):
        frozen.refuse_foreign_ops(graph_def, Path("saved_model.pb"))


def test_every_op_of_tensorflow_off_the_list_is_refused_by_name() -> None:
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    listed = op_def_pb2.OpList()
    listed.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    names = {op.name for op in listed.op} - frozen.ALLOWED_OPS
    assert len(names) > 1000
    for name in sorted(names):
        graph_def = tf.compat.v1.GraphDef()
        graph_def.node.add(name="odd", op=name)
        with pytest.raises(BundleRefused, match=re.escape(repr(name))):
            frozen.refuse_foreign_ops(graph_def, Path("saved_model.pb"))


def test_a_function_that_hides_an_allowed_op_is_refused() -> None:
    graph_def = tf.compat.v1.GraphDef()
    graph_def.node.add(name="innocent", op="AddV2")
    graph_def.library.function.add().signature.name = "AddV2"
    with pytest.raises(BundleRefused, match="hides the op 'AddV2'"):
        frozen.refuse_foreign_ops(graph_def, Path("saved_model.pb"))


def test_every_allowed_op_is_known_to_tensorflow_and_keeps_no_state() -> None:
    from tensorflow.python.framework import op_def_registry

    from inference.graph.allowed_ops import ALLOWED_OPS

    definitions = {name: op_def_registry.get(name) for name in ALLOWED_OPS}
    assert sorted(name for name, found in definitions.items() if found is None) == []
    stateful = {name for name, found in definitions.items() if found.is_stateful}
    # Control flow may call what is stateful (its bodies are checked too); two ops abort a run; one names a generator.
    control_flow = {"Case", "If", "StatefulPartitionedCall", "While"}
    assert stateful == control_flow | {"Assert", "CheckNumerics", "StatelessRandomGetAlg"}


@pytest.mark.parametrize("control", [False, True], ids=["by value", "by order"])
def test_a_signature_that_needs_an_input_it_does_not_name_is_refused(control: bool, tmp_path: Path) -> None:  # noqa: FBT001
    bundle = export_bundle(
        lambda image, **_: {"probability": tf.cast(image, tf.uint8)}, threshold_manifest(), tmp_path, None
    )
    meta_graph = frozen.read_meta_graph(bundle.directory / "saved_model.pb")
    meta_graph.graph_def.node.add(name="foreign", op="Placeholder").attr["dtype"].type = tf.uint8.as_datatype_enum
    last = next(node for node in meta_graph.graph_def.node if node.op == "Identity")
    if control:
        last.input.append("^foreign")
    else:
        last.input[0] = "foreign:0"
    graph = frozen.match_signature(meta_graph, bundle.manifest, Path("saved_model.pb"))
    with pytest.raises(BundleRefused, match="the signature 'serving_default' needs 'foreign', which is none of its"):
        frozen.import_graph(graph)


@pytest.mark.parametrize("content", [b"\xff" * 64, b""], ids=["noise", "empty"])
def test_what_is_no_saved_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(BundleRefused, match=r"saved_model\.pb"):
        frozen.read_frozen_graph(tmp_path / "saved_model.pb", threshold_manifest())


def test_a_saved_model_with_variables_and_a_restore_is_refused(kernel: Any, tmp_path: Path) -> None:
    class WithVariables(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = kernel

        @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.int16, name="image")])
        def serve(self, image: Any) -> dict[str, Any]:
            return {"probability": tf.cast(tf.cast(image, tf.float32) * self.kernel[0, 0, 0, 0], tf.uint8)}

    module = WithVariables()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(BundleRefused, match="Remedy: freeze it"):
        frozen.read_frozen_graph(tmp_path / "saved_model.pb", threshold_manifest())
