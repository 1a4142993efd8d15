from pathlib import Path

import numpy as np
import pytest

from inference.errors import BundleRefused
from inference.golden import golden_difference, read_golden, warming_inputs
from protos.model_manifest import Golden, ModelBundle
from tests.bundles import threshold_manifest


def test_equal_outputs_do_not_differ() -> None:
    output = {"map": np.arange(6, dtype=np.uint8)}
    assert golden_difference(output, {"map": output["map"].copy()}) == 0


def test_a_missing_finding_weighs_as_much_as_what_was_marked() -> None:
    expected = np.zeros((10, 100, 100), np.uint8)
    expected[5, 50, 50] = 255
    assert golden_difference({"map": expected}, {"map": np.zeros_like(expected)}) == 1.0


def test_unsigned_differences_do_not_wrap() -> None:
    expected, got = np.array([200, 200], np.uint8), np.array([201, 199], np.uint8)
    assert golden_difference({"map": expected}, {"map": got}) == pytest.approx(2 / 400)


def test_something_where_nothing_was_expected_is_far_over_any_tolerance() -> None:
    assert golden_difference({"map": np.zeros(4, np.uint8)}, {"map": np.ones(4, np.uint8)}) > 1e6


def test_another_shape_differs_without_end() -> None:
    assert golden_difference({"map": np.zeros((1, 2))}, {"map": np.zeros((2, 1))}) == np.inf


def test_the_worst_output_counts() -> None:
    ones = np.ones(4)
    assert golden_difference({"a": ones, "b": ones}, {"a": ones, "b": ones * 1.5}) == 0.5


def test_a_golden_file_that_is_none_is_refused(tmp_path: Path) -> None:
    manifest = threshold_manifest().model_copy(update={"golden": Golden(file="golden.npz", tolerance={"cpu": 1e-3})})
    bundle = ModelBundle(tmp_path, manifest, "0" * 64)
    with pytest.raises(BundleRefused, match=r"golden\.npz"):
        read_golden(bundle)
    (tmp_path / "golden.npz").write_bytes(b"PK")
    with pytest.raises(BundleRefused, match=r"golden\.npz"):
        read_golden(bundle)
    np.savez(tmp_path / "golden.npz", allow_pickle=False, **{"input/image": np.zeros((1, 1, 1), np.int16)})
    with pytest.raises(BundleRefused, match=r"golden\.npz: not a golden pair"):
        read_golden(bundle)


def test_warming_inputs_are_of_the_manifests_tensors() -> None:
    inputs = warming_inputs(threshold_manifest(), slices=3, size=8)
    assert {name: (array.dtype, array.shape) for name, array in inputs.items()} == {
        "image": (np.int16, (3, 8, 8)),
        "slope": (np.float32, (3,)),
        "intercept": (np.float32, (3,)),
        "spacing": (np.float32, (3,)),
    }
