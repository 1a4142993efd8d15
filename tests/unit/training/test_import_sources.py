"""Keras files and folders that are not what they seem are refused before Keras or TensorFlow opens them."""

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from training.importing.errors import SourceRefused  # noqa: E402
from training.importing.keras_files import check_keras_h5, check_keras_zip  # noqa: E402
from training.importing.source import take_source  # noqa: E402

CONVOLUTION = {
    "module": "keras.layers",
    "class_name": "Conv3D",
    "config": {
        "name": "first",
        "filters": 2,
        "kernel_initializer": {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {}},
    },
    "registered_name": None,
}
CONFIG: dict[str, Any] = {
    "module": "keras.src.models.functional",
    "class_name": "Functional",
    "config": {"name": "net", "layers": [CONVOLUTION]},
    "registered_name": "Functional",
    "compile_config": {"loss": {"module": "somewhere", "class_name": "MyLoss", "config": {}}},
}


def with_layer(**changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["config"]["layers"].append({**copy.deepcopy(CONVOLUTION), **changes})
    return config


def plain_weights(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/first/vars/0", data=np.ones((3, 3, 3, 1, 2), np.float32))


def keras_file(
    folder: Path, config: Any = CONFIG, write: Callable[[Path], None] = plain_weights, **entries: bytes
) -> Path:
    weights = folder / "weights.h5"
    write(weights)
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config if isinstance(config, bytes) else json.dumps(config))
        archive.write(weights, "model.weights.h5")
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def check(path: Path) -> None:
    work = path.parent / "work"
    work.mkdir()
    check_keras_zip(path, work)
    assert not list(work.iterdir())


def test_a_plain_file_passes_and_how_it_was_compiled_is_not_looked_at(tmp_path: Path) -> None:
    check(keras_file(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_name": "Lambda"}, "layer 'first' is a Lambda, which runs Python code"),
        ({"class_name": "TFSMLayer"}, "TFSMLayer, which loads another SavedModel unseen"),
        ({"class_name": "TorchModuleWrapper"}, "runs a pickle"),
        ({"class_name": "StringLookup"}, "class 'StringLookup', which is none that is taken"),
        ({"module": "os", "class_name": "Identity"}, "class 'os.Identity'"),
        ({"module": "keras_evil", "class_name": "Identity"}, "class 'keras_evil.Identity'"),
        ({"registered_name": "mine>Conv3D"}, "class 'mine>Conv3D'"),
        ({"config": {"name": "first", "activation": {"class_name": "__lambda__", "config": {}}}}, "__lambda__"),
        (
            {"config": {"name": "a", "activation": {"module": "builtins", "class_name": "function", "config": "eval"}}},
            "class 'builtins.function'",
        ),
    ],
)
def test_a_layer_that_is_not_taken_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match=said):
        check(keras_file(tmp_path, with_layer(**changes)))


def test_a_model_class_of_ones_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="configuration is of a 'MyNet'"):
        check(keras_file(tmp_path, {**CONFIG, "class_name": "MyNet"}))


@pytest.mark.parametrize("config", [b"{", b"[" * 100_000, b'"text"', b"\xff\xfe"])
def test_a_configuration_that_is_none_is_refused(config: bytes, tmp_path: Path) -> None:
    with pytest.raises(SourceRefused):
        check(keras_file(tmp_path, config))


def external_link(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.SoftLink("/nowhere")


def external_storage(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/0", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(path: Path) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("layers/0", layout)


def claims_petabytes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/0", (1 << 50,), "f4", chunks=(1024,))


def grows(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/0", data=np.zeros(64 << 20, np.uint8), compression="gzip", compression_opts=9)


def objects(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/0", data=["text"], dtype=h5py.string_dtype())


def is_none(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (external_link, r"'/layers' is a link \(ExternalLink\)"),
        (soft_link, r"is a link \(SoftLink\)"),
        (external_storage, "array '/layers/0' is stored in another file"),
        (virtual, "array '/layers/0' is stored in another file"),
        (claims_petabytes, "claims shape"),
        (grows, "claims shape"),
        (objects, "expected numbers"),
        (is_none, "cannot be read as HDF5"),
    ],
)
def test_weights_that_lead_elsewhere_or_lie_about_their_size_are_refused(
    write: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceRefused, match=said):
        check(keras_file(tmp_path, write=write))


def test_a_loop_of_groups_ends(tmp_path: Path) -> None:
    def loops(path: Path) -> None:
        plain_weights(path)
        with h5py.File(path, "a") as file:
            file["layers/first/again"] = file["layers"]

    check(keras_file(tmp_path, write=loops))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"../outside": b""}, "leads outside"),
        ({"/etc/cron": b""}, "leads outside"),
        ({"code.py": b"print()"}, "is none of a Keras file"),
        ({"assets/zeros": bytes(100 << 20)}, "was not unpacked"),
    ],
)
def test_a_zip_that_holds_more_is_refused(entries: dict[str, bytes], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match=said):
        check(keras_file(tmp_path, **entries))


def test_a_zip_without_weights_or_with_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(CONFIG))
    with pytest.raises(SourceRefused, match=r"has no entry 'model\.weights\.h5'"):
        check(path)
    whole = keras_file(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceRefused, match="cannot be read as a Keras file"):
        check_keras_zip(path, tmp_path)


def test_an_h5_file_of_weights_alone_and_one_with_a_lambda_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    plain_weights(path)
    with pytest.raises(SourceRefused, match="no attribute model_config"):
        check_keras_h5(path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(with_layer(class_name="Lambda"))
    with pytest.raises(SourceRefused, match="is a Lambda"):
        check_keras_h5(path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
    check_keras_h5(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", b"\x08\x07", "an ONNX file"),
        ("model.pt", b"\x80\x02", "a PyTorch file"),
        ("saved_model.pb", b"\x08\x01", "name its folder"),
        ("notes.txt", b"hello", "begins with b'hell'"),
        ("empty", b"", "begins with b''"),
    ],
)
def test_other_files_are_named_for_what_they_are(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceRefused, match=said):
        take_source(tmp_path / name)


def test_nothing_a_folder_without_a_graph_and_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="no such file or folder"):
        take_source(tmp_path / "none")
    folder = tmp_path / "saved"
    folder.mkdir()
    with pytest.raises(SourceRefused, match=r"without saved_model\.pb"):
        take_source(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    (folder / "variables").symlink_to("/etc")
    with pytest.raises(SourceRefused, match="is a link"):
        take_source(folder)


def test_a_source_is_copied_as_it_was_hashed(tmp_path: Path) -> None:
    path = keras_file(tmp_path)
    copied = tmp_path / "copied"
    taken = take_source(path, copied)
    assert (taken.kind, taken.name) == ("keras", "model.keras")
    assert (copied / "model.keras").read_bytes() == path.read_bytes()
    assert take_source(path).sha256 == taken.sha256
