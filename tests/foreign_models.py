"""Networks as somebody else would hand them in, recipes for them, and what they must answer by numpy and scipy.

`python -m tests.foreign_models DIR` writes the files; it needs TensorFlow and Keras, its caller does not.
"""

import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray
from scipy import ndimage

from tests.bundles import ROOT

LABELS = ("Liver", "Spleen")
CODES = {"Liver": "10200004", "Spleen": "78961009", "Kidney": "64033007"}
SIZE, SPACING = (20, 24, 22), (1.5, 1.0, 1.2)
FLAT_SIZE, FLAT_SPACING = (32, 48), (1.0, 1.3)
CENTER, WIDTH = 400.0, 900.0
REACH = 3
FILES = {"keras": "net.keras", "h5": "net.h5", "keras2": "keras2.h5", "saved_model": "net_saved", "flat": "flat.keras"}

Floats = NDArray[np.float64]


def weights(*shape: int, seed: int, scale: float) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


FIRST, FIRST_BIAS = weights(3, 3, 3, 1, 4, seed=1, scale=0.4), weights(4, seed=2, scale=0.2)
SECOND, SECOND_BIAS = weights(3, 3, 3, 4, 3, seed=3, scale=0.4), weights(3, seed=4, scale=0.2)
FLAT, FLAT_BIAS = weights(5, 3, 1, 1, seed=5, scale=0.6), weights(1, seed=6, scale=0.2)


@functools.cache
def foreign_models() -> Path:
    """Build the files once a test session and give their folder."""
    directory = Path(tempfile.mkdtemp(prefix="hilum-foreign-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = [sys.executable, "-m", "tests.foreign_models", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def recipe_of(name: str = "foreign", **changes: Any) -> dict[str, Any]:
    """A recipe for the network of three dimensions; changes replace whole tables, None takes one away."""
    recipe: dict[str, Any] = {
        "schema_version": 1,
        "identity": {"name": name, "title": "Foreign network", "manufacturer": "Somebody"},
        "use": {"intended_use": "Tests.", "research_use": "Not for use on patients."},
        "origin": {"licence": "MIT", "credit": "Somebody else", "source": "tests"},
        "accepts": {
            "modalities": ["MR"],
            "body_part_missing": "accept",
            "axes": "SPL",
            "max_oblique_deg": 45.0,
            "slice_spacing_mm": {"most": 4.0},
            "pixel_spacing_mm": {"most": 2.0},
        },
        "grid": {"spacing_mm": list(SPACING), "size": list(SIZE)},
        "normalisation": {"kind": "zscore", "counted": "image"},
        "network": {"run": "whole"},
        "labels": [_label(index, label) for index, label in enumerate(LABELS, start=1)],
    }
    recipe |= changes
    return {key: value for key, value in recipe.items() if value is not None}


def flat_recipe(name: str = "flat") -> dict[str, Any]:
    """A recipe for the network of two dimensions."""
    return recipe_of(
        name,
        grid={"spacing_mm": list(FLAT_SPACING), "size": list(FLAT_SIZE), "fill": 25.0},
        normalisation={"kind": "window", "center": CENTER, "width": WIDTH},
        network={"dimensions": 2, "activation": "sigmoid", "slices": 3},
        labels=[_label(1, "Kidney")],
    )


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    return path


def _label(index: int, label: str) -> dict[str, Any]:
    return {"index": index, "label": label, "type": {"value": CODES[label], "scheme": "SCT", "meaning": label}}


def expected(values: Floats, spacing: tuple[float, ...]) -> tuple[NDArray[np.uint8], Floats]:
    """What the network of three dimensions answers on the input grid: labels, and how far the best leads."""
    fitted, inside, back = _conformed(values, spacing, SPACING, SIZE, 0.0)
    kept = fitted[inside]
    scaled = np.where(inside, (fitted - kept.mean()) / kept.std(), 0.0)
    inner = _elu(_convolved(scaled[..., None], FIRST, FIRST_BIAS, 1))
    return _labelled(_softmax(_convolved(inner, SECOND, SECOND_BIAS, 2)), back)


def expected_flat(values: Floats, spacing: tuple[float, ...]) -> tuple[NDArray[np.uint8], Floats]:
    """What the network of two dimensions answers, slice by slice."""
    size = (len(values), *FLAT_SIZE)
    fitted, _, back = _conformed(values, spacing, (spacing[0], *FLAT_SPACING), size, 25.0)
    scaled = np.clip((fitted - CENTER) / WIDTH + 0.5, 0, 1)
    kernel = FLAT[None]
    probability = 1 / (1 + np.exp(-_convolved(scaled[..., None], kernel, FLAT_BIAS, 1)[..., 0] * 8))
    return _labelled(np.stack((1 - probability, probability), -1), back)


def _conformed(
    values: Floats, spacing: tuple[float, ...], target: tuple[float, ...], size: tuple[int, ...], fill: float
) -> tuple[Floats, NDArray[np.bool_], list[Floats]]:
    """Resample, pad and crop; give the canvas, where the image lies in it, and the matrices back to the input."""
    middle = [
        max(1, round(length * mm / wanted)) for length, mm, wanted in zip(values.shape, spacing, target, strict=True)
    ]
    grown = values
    for axis, count in enumerate(middle):
        grown = np.moveaxis(np.tensordot(_tents(values.shape[axis], count), grown, (1, axis)), 0, axis)
    canvas, inside = np.full(size, fill), np.zeros(size, bool)
    taken, placed, back = [], [], []
    for axis, (count, wanted) in enumerate(zip(middle, size, strict=True)):
        kept = min(count, wanted)
        first, place = (count - kept) // 2, (wanted - kept) // 2
        taken.append(slice(first, first + kept))
        placed.append(slice(place, place + kept))
        matrix = np.zeros((values.shape[axis], wanted))
        matrix[:, placed[-1]] = _tents(count, values.shape[axis])[:, taken[-1]]
        back.append(matrix)
    canvas[tuple(placed)] = grown[tuple(taken)]
    inside[tuple(placed)] = True
    return canvas, inside, back


def _tents(count: int, wanted: int) -> Floats:
    ratio = count / wanted
    centers = np.clip((np.arange(wanted) + 0.5) * ratio - 0.5, 0, count - 1)
    tents = np.maximum(1 - np.abs(centers[:, None] - np.arange(count)) / max(ratio, 1), 0)
    return tents / tents.sum(axis=1, keepdims=True)


def _convolved(values: Floats, kernel: NDArray[np.float32], bias: NDArray[np.float32], step: int) -> Floats:
    spread = np.zeros((*(step * (size - 1) + 1 for size in kernel.shape[:3]), *kernel.shape[3:]))
    spread[::step, ::step, ::step] = kernel
    sums = [
        sum(
            ndimage.correlate(values[..., taken], spread[..., taken, given], mode="constant")
            for taken in range(kernel.shape[3])
        )
        for given in range(kernel.shape[4] if kernel.ndim == 5 else 1)
    ]
    return np.stack(sums, -1) + bias


def _elu(values: Floats) -> Floats:
    return np.where(values > 0, values, np.expm1(np.minimum(values, 0)))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _labelled(probabilities: Floats, back: list[Floats]) -> tuple[NDArray[np.uint8], Floats]:
    on_input = np.einsum("zyxc,az,by,dx->abdc", probabilities, *back, optimize=True)
    on_input[..., 0] += 1 - on_input.sum(-1)
    ranked = np.sort(on_input, axis=-1)
    return on_input.argmax(-1).astype(np.uint8), ranked[..., -1] - ranked[..., -2]


def _build(directory: Path) -> None:
    import keras
    import tensorflow as tf

    given = keras.Input((None, None, None, 1))
    inner = keras.layers.Conv3D(4, 3, padding="same", activation="elu", name="first")(given)
    logits = keras.layers.Conv3D(3, 3, padding="same", dilation_rate=2, name="second")(inner)
    model = keras.Model(given, logits)
    model.get_layer("first").set_weights([FIRST, FIRST_BIAS])
    model.get_layer("second").set_weights([SECOND, SECOND_BIAS])
    model.save(directory / FILES["keras"])
    model.save(directory / FILES["h5"])
    model.export(directory / FILES["saved_model"], verbose=False)
    flat = keras.Sequential(
        [keras.Input((*FLAT_SIZE, 1)), keras.layers.Conv2D(1, (5, 3), padding="same"), keras.layers.Rescaling(8.0)]
    )
    flat.layers[0].set_weights([FLAT, FLAT_BIAS])
    flat.save(directory / FILES["flat"])
    keras.Model(given, keras.layers.GlobalAveragePooling3D()(logits)).save(directory / "scores.keras")
    spread = keras.layers.Lambda(lambda values: values * 2)(given)
    keras.Model(given, spread).save(directory / "lambda.keras")
    _write_keras2(directory / FILES["keras2"])
    _save_reader(tf, directory / "reads_file")


def _write_keras2(path: Path) -> None:
    """The network of three dimensions as Keras 2 wrote it, with a normalisation that changes nothing."""
    import h5py

    zeros, ones = {"class_name": "Zeros", "config": {}}, {"class_name": "Ones", "config": {}}
    neutral = [np.full(4, value, np.float32) for value in (1, 0, 0, 1)]
    layers = [
        _keras2("InputLayer", "input_1", batch_input_shape=[None] * 4 + [1], sparse=False, ragged=False),
        _keras2_convolution("first", "input_1", 4, 1),
        _keras2(
            "BatchNormalization", "norm", "first", axis=[4], momentum=0.99, epsilon=0.0, center=True, scale=True,
            beta_initializer=zeros, gamma_initializer=ones, moving_mean_initializer=zeros,
            moving_variance_initializer=ones,
        ),
        _keras2("Activation", "act", "norm", activation="elu"),
        _keras2("Dropout", "drop", "act", rate=0.2, noise_shape=None, seed=None),
        _keras2_convolution("second", "drop", 3, 2),
    ]  # fmt: skip
    held = {
        "first": {"kernel": FIRST, "bias": FIRST_BIAS},
        "norm": dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), neutral, strict=True)),
        "second": {"kernel": SECOND, "bias": SECOND_BIAS},
    }
    config = {"name": "m", "layers": layers, "input_layers": [["input_1", 0, 0]], "output_layers": [["second", 0, 0]]}
    with h5py.File(path, "w") as file:
        file.attrs.update({"keras_version": "2.4.0", "backend": "tensorflow"})
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        group = file.create_group("model_weights")
        group.attrs.update({"keras_version": "2.4.0", "backend": "tensorflow"})
        group.attrs["layer_names"] = [layer["name"].encode() for layer in layers]
        for layer in layers:
            name, arrays = layer["name"], held.get(layer["name"], {})
            inside = group.create_group(name)
            inside.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in arrays]
            for key, array in arrays.items():
                inside.create_dataset(f"{name}/{key}:0", data=array)


def _keras2(kind: str, name: str, before: str = "", **config: Any) -> dict[str, Any]:
    nodes = [[[before, 0, 0, {}]]] if before else []
    return {
        "class_name": kind, "name": name, "inbound_nodes": nodes, "config": {"name": name, "dtype": "float32", **config}
    }  # fmt: skip


def _keras2_convolution(name: str, before: str, filters: int, step: int) -> dict[str, Any]:
    return _keras2(
        "Conv3D", name, before, filters=filters, kernel_size=[3] * 3, strides=[1] * 3, padding="same",
        data_format="channels_last", dilation_rate=[step] * 3, groups=1, activation="linear", use_bias=True,
        kernel_initializer={"class_name": "GlorotUniform", "config": {"seed": None}},
        bias_initializer={"class_name": "Zeros", "config": {}},
    )  # fmt: skip


def _save_reader(tf: Any, folder: Path) -> None:
    """A SavedModel whose answer depends on a file of the machine that runs it."""

    class Reader(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, None, 1))])
        def serve(self, image: Any) -> Any:
            size = tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
            return {"logits": tf.concat((image, image, image + size), -1)}

    reader = Reader()
    tf.saved_model.save(reader, str(folder), signatures=reader.serve)


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
