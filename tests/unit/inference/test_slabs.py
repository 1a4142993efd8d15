"""Slabs are the whole, whatever the sizes; they stop between two, and write where the answer shall lie."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inference.call import Call
from inference.errors import BundleRefused, PredictionFailed, RequestCancelled, RequestRefused
from protos.model_manifest import ModelBundle, ModelManifest, Slabs, Tensor
from tests.odd_bundles import manifest_of

tf = pytest.importorskip("tensorflow")

from inference.graph.frozen import SAVED_MODEL_FILE, read_frozen_graph  # noqa: E402
from inference.runners import slabs  # noqa: E402
from inference.runners.loading import load_runner  # noqa: E402
from inference.runners.slabs import SlabRunner, load_slab_runner  # noqa: E402
from inference.runners.whole import Predictor, load_predictor  # noqa: E402
from training.export import export_bundle  # noqa: E402
from training.parts import SlabParts  # noqa: E402

STATE = (
    Tensor(name="state/sum", datatype="INT64", shape=()),
    Tensor(name="state/voxels", datatype="INT64", shape=()),
)
TERMS = Slabs(slices=4, halo=1, state=STATE)
DESCRIBED = manifest_of("in_slabs", {"probability": "UINT8", "values": "FP32"}).model_copy(update={"slabs": TERMS})


def volume(slices: int, rows: int = 3, columns: int = 5, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(-500, 500, (slices, rows, columns)).astype(np.int16),
        "slope": random.uniform(0.5, 2, slices).astype(np.float32),
        "intercept": random.uniform(-9, 9, slices).astype(np.float32),
        "spacing": np.ones(3, np.float32),
    }


def survey(image: Any, **known: Any) -> dict[str, Any]:
    return {
        "state/sum": known["state/sum"] + tf.reduce_sum(tf.cast(image, tf.int64)),
        "state/voxels": known["state/voxels"] + tf.size(image, tf.int64),
    }


def slab(image: Any, slope: Any, intercept: Any, **known: Any) -> dict[str, Any]:
    """Mark what with its neighbours is above the mean of the volume."""
    wide = tf.pad(tf.cast(image, tf.int64), [[1, 1], [0, 0], [0, 0]])
    near = wide[:-2] + wide[1:-1] + wide[2:]
    above = near * known["state/voxels"] > 3 * known["state/sum"]
    values = tf.cast(near, tf.float32) * slope[:, None, None] + intercept[:, None, None]
    kept = {tensor.name: tf.identity(known[tensor.name]) for tensor in STATE}
    return {"probability": tf.cast(above, tf.uint8), "values": values, **kept}


PARTS = SlabParts(slab, STATE, survey)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return export_bundle(PARTS, DESCRIBED, tmp_path_factory.mktemp("models"), volume(3))


@pytest.fixture(scope="module")
def runner(bundle: ModelBundle) -> SlabRunner:
    loaded = load_runner(bundle)
    assert isinstance(loaded, SlabRunner)
    return loaded


@pytest.fixture(scope="module")
def whole(bundle: ModelBundle) -> Predictor:
    return load_predictor(bundle)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 23), st.integers(1, 9), st.integers(1, 7), st.integers(0, 9)),
    st.integers(1, 7),
    st.integers(1, 3),
)
def test_slabs_are_the_whole(
    runner: SlabRunner, whole: Predictor, sizes: tuple[int, int, int, int], size: int, halo: int
) -> None:
    inputs = volume(*sizes)
    terms = TERMS.model_copy(update={"slices": size, "halo": halo})
    got, expected = replace(runner, terms=terms).predict(inputs), whole.predict(inputs)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_without_its_halo_this_model_would_differ(runner: SlabRunner, whole: Predictor) -> None:
    inputs = volume(9)
    got = replace(runner, terms=TERMS.model_copy(update={"halo": 0})).predict(inputs)
    assert not np.array_equal(got["values"], whole.predict(inputs)["values"])


def test_outputs_are_written_in_their_places(runner: SlabRunner, whole: Predictor) -> None:
    inputs = volume(9)
    expected = whole.predict(inputs)
    room = bytearray(b"\xee" * (expected["values"].nbytes + 64))
    small = bytearray(b"\xee" * (expected["probability"].nbytes - 1))
    places = {"values": memoryview(room)[32:], "probability": memoryview(small)}
    outcome = runner.run(inputs, Call(), places)
    assert np.shares_memory(outcome.outputs["values"], np.frombuffer(room, np.uint8))
    assert bytes(room[32:-32]) == expected["values"].tobytes()
    assert room[:32] == room[-32:] == b"\xee" * 32
    np.testing.assert_array_equal(outcome.outputs["probability"], expected["probability"])
    assert set(small) == {0xEE}


def test_the_graph_never_gets_more_than_a_slab(runner: SlabRunner) -> None:
    seen: list[tuple[int, int]] = []

    def counted(arrays: Mapping[str, NDArray[Any]], call: Call | None = None) -> Any:
        assert np.shares_memory(arrays["image"], inputs["image"])
        seen.append((len(arrays["image"]), len(arrays["slope"])))
        return runner.slab(arrays, call)

    inputs = volume(10)
    replace(runner, slab=counted).predict(inputs)  # type: ignore[arg-type]
    assert seen == [(5, 5), (6, 6), (3, 3)]


@pytest.mark.parametrize("part", ["slab", "survey"])
def test_a_client_that_goes_stops_the_run_between_slabs(runner: SlabRunner, part: str) -> None:
    call, ran = Call(), list[int]()

    def gone_in_the_second(arrays: Mapping[str, NDArray[Any]], call_: Call | None = None) -> Any:
        ran.append(len(arrays["image"]))
        answers = getattr(runner, part)(arrays, call_)
        if len(ran) == 2:
            call.ended.set()
        return answers

    with pytest.raises(RequestCancelled):
        replace(runner, **{part: gone_in_the_second}).run(volume(40), call, {})  # type: ignore[arg-type]
    assert len(ran) == 2


def doubled(image: Any, slope: Any, intercept: Any, **_: Any) -> dict[str, Any]:
    values = tf.cast(image, tf.float32) * slope[:, None, None] + intercept[:, None, None]
    return {"probability": tf.cast(image > 0, tf.uint8), "values": values}


@pytest.fixture(scope="module")
def stateless(tmp_path_factory: pytest.TempPathFactory) -> SlabRunner:
    described = DESCRIBED.model_copy(update={"slabs": Slabs(slices=2, along=("image", "slope", "intercept"))})
    loaded = load_runner(export_bundle(SlabParts(doubled), described, tmp_path_factory.mktemp("models"), volume(3)))
    assert isinstance(loaded, SlabRunner)
    return loaded


def test_slabs_without_a_state_run_side_by_side_and_are_the_whole(stateless: SlabRunner) -> None:
    both = threading.Barrier(2, timeout=20)

    def met(arrays: Mapping[str, NDArray[Any]], call: Call | None = None) -> Any:
        if arrays["image"][0, 0, 0] in (11, 12):
            both.wait()
        return stateless.slab(arrays, call)

    inputs = volume(23)
    inputs["image"][:, 0, 0] = 0
    inputs["image"][[2, 4], 0, 0] = 11, 12
    room = bytearray(23 * 15 * 4)
    got = replace(stateless, slab=met).predict(inputs, Call(), {"values": memoryview(room)})  # type: ignore[arg-type]
    for name, array in doubled(inputs["image"], inputs["slope"], inputs["intercept"]).items():
        np.testing.assert_array_equal(got[name], array.numpy())
    assert bytes(room) == got["values"].tobytes()


def test_of_slabs_side_by_side_the_first_that_fails_ends_the_run(
    stateless: SlabRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, ran, failed = volume(6000), list[int](), threading.Event()
    hold = slabs._hold_finite

    def told(tensor: Tensor, array: NDArray[Any]) -> None:
        try:
            hold(tensor, array)
        except PredictionFailed:
            failed.set()
            raise

    def counted(arrays: Mapping[str, NDArray[Any]], call: Call | None = None) -> Any:
        ran.append(1)
        if len(ran) > 10:
            failed.wait(20)
        return stateless.slab(arrays, call)

    monkeypatch.setattr(slabs, "_hold_finite", told)
    inputs["slope"][9] = np.finfo(np.float32).max
    inputs["image"][9] = 400
    with pytest.raises(PredictionFailed, match=r"output tensor 'values': expected finite values"):
        replace(stateless, slab=counted).predict(inputs)  # type: ignore[arg-type]
    assert len(ran) < 3000


def test_inputs_of_other_lengths_are_refused(runner: SlabRunner) -> None:
    with pytest.raises(RequestRefused, match="'slope': expected 9 slices as 'image' has, got 8"):
        runner.predict({**volume(9), "slope": np.ones(8, np.float32)})


def test_a_value_that_is_not_finite_in_any_slab_is_no_result(runner: SlabRunner) -> None:
    inputs = volume(9)
    inputs["slope"][8] = np.finfo(np.float32).max
    with pytest.raises(PredictionFailed, match=r"output tensor 'values': expected finite values"):
        runner.predict(inputs)


def refusal(parts: Any, manifest: ModelManifest, directory: Path, golden: Any = None) -> str:
    bundle = export_bundle(parts, manifest, directory, golden)
    graph = read_frozen_graph(bundle.directory / SAVED_MODEL_FILE, bundle.manifest)
    with pytest.raises(BundleRefused) as caught:
        load_slab_runner(bundle, graph)
    return str(caught.value)


def test_a_golden_pair_that_slabs_answer_otherwise_is_refused(tmp_path: Path) -> None:
    without_halo = DESCRIBED.model_copy(update={"slabs": TERMS.model_copy(update={"halo": 0})})
    said = refusal(PARTS, without_halo, tmp_path, volume(4))
    assert "the golden pair differs by" in said
    assert "slab by slab" in said


def other(**changes: Any) -> ModelManifest:
    return DESCRIBED.model_copy(update={"slabs": TERMS.model_copy(update=changes)})


def test_parts_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    def whole_only(**inputs: Any) -> Mapping[str, Any]:
        return PARTS(**inputs)

    assert "the signature 'slab' is missing" in refusal(whole_only, DESCRIBED, tmp_path / "missing")
    assert "along: expected one or more of" in refusal(PARTS, other(along=("picture",)), tmp_path / "along")
    assert "'spacing': expected a first dimension of any size" in refusal(
        PARTS, other(along=("image", "spacing")), tmp_path / "fixed"
    )
    forgetful = SlabParts(lambda **known: {key: value for key, value in slab(**known).items() if key in OUTPUTS}, STATE)
    assert "outputs: expected ['probability', 'state/sum'" in refusal(forgetful, DESCRIBED, tmp_path / "forgetful")


OUTPUTS = {"probability", "values"}


def test_a_state_of_another_kind_is_refused(tmp_path: Path) -> None:
    def changing(**known: Any) -> dict[str, Any]:
        made = slab(**known)
        return {**made, "state/sum": tf.cast(made["state/sum"], tf.float32)}

    said = refusal(SlabParts(changing, STATE, survey), DESCRIBED, tmp_path)
    assert "'state/sum': expected INT64 [], got FP32 []" in said
