"""What the command line and the scaling file of `hilum inference-scale` may say, and how each slip is answered."""

import shutil
import socket
from pathlib import Path

import pytest

from inference.errors import ListenError, SettingsRefused
from inference.repository_policy import VersionPolicy
from inference.scale.__main__ import read_settings
from inference.scale.addresses import port_of, remove_sockets, settled
from inference.scale.needs import refuse_missing
from inference.scale.offer import look_at
from inference.scale.settings import TEMP_DIRECTORY_MOST
from inference.scale.terms import ModelTerms, read_scaling
from protos.model_manifest import Batching
from tests.bundles import threshold_bundle


def test_options_become_the_terms_of_every_model(tmp_path: Path) -> None:
    arguments = ["--models", str(tmp_path), "--min-replicas", "2", "--max-replicas", "4", "--num-gpus", "0.25"]
    terms = read_settings(arguments).terms
    assert (terms.min_replicas, terms.replicas_most, terms.num_gpus, terms.num_cpus) == (2, 4, 0.25, 1.0)


def test_without_a_maximum_the_number_of_replicas_is_fixed() -> None:
    assert ModelTerms.read({"min_replicas": 3}, "here").replicas_most == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--min-replicas", "0"], "min_replicas: Input should be greater than or equal to 1 (got 0)"),
        (["--min-replicas", "3", "--max-replicas", "2"], "max_replicas 2: must be at least min_replicas, 3"),
        (["--num-cpus", "0"], "num_cpus: Input should be greater than 0"),
        (["--num-gpus", "1.5"], "num_gpus 1.5: must be a part of one GPU, or whole GPUs"),
        (["--num-gpus", "nan"], "num_gpus"),
        (["--queue", "-1"], "queue"),
        (["--listen", "8500"], "--listen 8500: must be host:port"),
        (["--listen", "unix:relative"], "the path must be absolute"),
        (["--address", "somewhere"], "--address somewhere: must be host:port"),
        (["--address", "auto", "--gpus", "1"], "--address: a running cluster has its own --temp-dir and --gpus"),
        (["--gpus", "-1"], "--gpus -1: must be 0 to 64"),
        (["--object-store-mb", "10"], "--object-store-mb 10: must be at least 80"),
        (["--temp-dir", f"/{'a' * 60}"], f"must be at most {TEMP_DIRECTORY_MOST} bytes long"),
        (["--max-message-mb", "4000"], "--max-message-mb 4000: must be 4 to 2047"),
        (["--ingress-replicas", "0"], "--ingress-replicas 0: must be 1 to 64"),
        (["--grace-s", "-1"], "--grace-s -1: must be 0 or more"),
        (["--tls-cert", "x.pem"], "--tls-key: is missing"),
        (["--models", "/nowhere"], "--models /nowhere: no such folder"),
    ],
)
def test_what_cannot_be_right_is_refused_by_its_name(options: list[str], sentence: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        read_settings(options)
    assert sentence in str(refused.value)


def test_a_table_of_the_scaling_file_overrides_the_options(tmp_path: Path) -> None:
    file = tmp_path / "scaling.toml"
    file.write_text("[small]\nmax_replicas = 8\nnum_gpus = 0.1\n", encoding="utf-8")
    common = ModelTerms.read({"num_cpus": 0.5}, "here")
    found = read_scaling(file, common, {"small", "large"})
    assert set(found) == {"small"}
    assert (found["small"].replicas_most, found["small"].num_gpus, found["small"].num_cpus) == (8, 0.1, 0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[nobody]\nnum_cpus = 1\n", "[nobody] is none of the models served: ['large', 'small']"),
        ("[small]\nreplicas = 1\n", "[small]: replicas: Extra inputs are not permitted"),
        ("[small]\nnum_cpus = 'many'\n", "[small]: num_cpus"),
        ("small = 3\n", "small: must be a table [small], got 3"),
        ("[small\n", "cannot be read as TOML"),
    ],
)
def test_a_slip_in_the_scaling_file_is_refused_by_its_name(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "scaling.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsRefused) as refused:
        read_scaling(file, ModelTerms(), {"small", "large"})
    assert str(refused.value).startswith(f"--scaling {file}: ")
    assert sentence in str(refused.value)


def test_a_model_in_tiles_takes_as_many_requests_as_fill_two_runs() -> None:
    terms = ModelTerms.read({"concurrency": 2}, "here")
    assert (terms.ongoing_most(None), terms.target_of(None)) == (3, 2.0)
    assert (terms.ongoing_most(Batching(max_batch=16)), terms.target_of(Batching(max_batch=16))) == (32, 16.0)
    assert terms.ongoing_most(Batching(max_batch=500)) == 64
    assert ModelTerms.read({"target_requests": 5}, "here").target_of(None) == 5.0


def test_replicas_that_the_cluster_can_never_hold_are_refused() -> None:
    terms = {"a": ModelTerms.read({"min_replicas": 2, "num_cpus": 0.75}, "here"), "b": ModelTerms()}
    refuse_missing(terms, {"CPU": 2.5})
    with pytest.raises(SettingsRefused, match=r"take 2.5 CPU \(a 1.5, b 1\), the cluster has 2\. Remedy: a smaller"):
        refuse_missing(terms, {"CPU": 2.0})
    with pytest.raises(SettingsRefused, match=r"--num-gpus: .* take 0.5 GPU \(a 0.5\), the cluster has 0"):
        refuse_missing({"a": ModelTerms.read({"num_gpus": 0.5}, "here")}, {"CPU": 8.0})


def test_the_offer_names_what_is_sound_and_why_the_rest_is_not(tmp_path: Path) -> None:
    threshold_bundle(tmp_path, name="sound")
    threshold_bundle(tmp_path, name="sound", version="2")
    (threshold_bundle(tmp_path, name="half", version="1").directory / "saved_model.pb").write_bytes(b"x")
    shutil.copytree(tmp_path / "sound" / "1", tmp_path / "half" / "2")
    (threshold_bundle(tmp_path, name="broken").directory / "saved_model.pb").write_bytes(b"x")
    offer = look_at(tmp_path, (), VersionPolicy.parse("all"))
    assert dict(offer.models) == {"sound": None}
    assert offer.versions == (("sound", "1"), ("sound", "2"))
    assert set(offer.refused) == {("broken", "1"), ("half", "1"), ("half", "2")}
    assert "bundle.sha256" in offer.refused["broken", "1"]
    assert "half" in offer.refused["half", "2"]
    assert look_at(tmp_path, ("sound",), VersionPolicy.parse("latest:1")).versions == (("sound", "2"),)
    for directory, names in ((tmp_path, ("nobody",)), (tmp_path / "sound" / "1", ())):
        with pytest.raises(SettingsRefused, match="no bundle"):
            look_at(directory, names, VersionPolicy())


def test_a_port_is_found_and_one_that_is_taken_is_refused() -> None:
    found = settled("127.0.0.1:0")
    assert port_of(found)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"--listen {address}: cannot be listened on"):
            settled(address)
    assert settled(address) == address


def test_a_socket_that_somebody_serves_is_refused_and_one_left_behind_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    address = f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        with pytest.raises(ListenError, match="is another service there"):
            settled(address)
    assert settled(address) == address
    assert port_of(address) is None
    remove_sockets([address, "127.0.0.1:1"])
    assert not path.exists()
    with pytest.raises(ListenError, match="there is no folder"):
        settled(f"unix:{tmp_path}/nowhere/s")
