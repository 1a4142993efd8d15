import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from inference import cli
from inference.card import card_lines
from inference.settings import BUNDLED_MODELS
from protos.model_manifest import read_manifest, write_digest_list, write_manifest
from tests.bundles import ROOT, threshold_bundle, threshold_manifest


def hilum(*arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    cli.commands(app)
    cli.models_commands(app)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    threshold_bundle(directory)
    return directory


def test_the_commands_load_no_tensorflow_until_they_run() -> None:
    program = "import sys, inference.cli, inference.__main__; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_tensorflow_the_service_names_the_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "sys.argv = ['inference', '--models', sys.argv[1]]\n"
        "from inference.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "tensorflow is not installed. Remedy: pip install 'hilum[inference]'" in done.stderr


def test_list_shows_sound_bundles(models: Path) -> None:
    answer = hilum("models", "list", "--models", str(models))
    assert answer.exit_code == 0
    assert "Bright regions" in answer.output
    assert "bright_regions 1: Not for use on patients." in answer.output


def test_the_card_stands_with_the_model_that_ships() -> None:
    card = read_manifest(BUNDLED_MODELS / "lung_nodule" / "1" / "model.toml")
    answer = hilum("models", "list")
    assert answer.exit_code == 0
    for said in (card.use.research_use, f"Dice, mean {card.figures[0].value:g} (n {card.figures[0].n})"):
        assert said in answer.output
    lines = "\n".join(card_lines(card))
    for said in (card.use.intended_use, *card.use.limits, card.datasets[0].name, card.datasets[0].licence):
        assert said in lines
    assert "(0.712 to 0.807), n 317" in lines


def test_list_says_why_a_bundle_is_broken(tmp_path: Path) -> None:
    (threshold_bundle(tmp_path).directory / "saved_model.pb").write_bytes(b"")
    answer = hilum("models", "list", "--models", str(tmp_path))
    assert answer.exit_code == 1
    assert "broken" in answer.output
    assert "Remedy: copy the bundle again" in answer.output.replace("\n", " ")


def test_check_proves_a_sound_bundle_line_by_line(models: Path) -> None:
    answer = hilum("models", "check", "bright_regions", "--models", str(models))
    assert answer.exit_code == 0, answer.output
    for line in card_lines(threshold_manifest()):
        assert line in answer.output
    for name in ("schema", "digest", "runtime", "ops", "signature", "golden pair", "time and memory"):
        assert f"ok   {name}: " in answer.output


def test_check_takes_a_folder_and_names_the_failure_with_its_remedy(tmp_path: Path) -> None:
    directory = threshold_bundle(tmp_path).directory
    manifest = threshold_manifest().model_dump(mode="json", exclude_none=True)
    manifest["inputs"][0]["datatype"] = "FP32"
    write_manifest(type(threshold_manifest()).model_validate(manifest), directory / "model.toml")
    write_digest_list(directory)
    answer = hilum("models", "check", str(directory))
    assert answer.exit_code == 1
    assert "FAIL signature:" in answer.output
    assert "'image': expected FP32 [-1, -1, -1], got INT16 [-1, -1, -1]" in answer.output
    assert "Remedy: make [[inputs]] and [[outputs]] what the graph has" in answer.output
    assert "golden pair" not in answer.output


def test_a_bundle_of_a_newer_tensorflow_is_refused_by_check_and_by_the_service(tmp_path: Path) -> None:
    directory = threshold_bundle(tmp_path).directory
    manifest = threshold_manifest()
    identity = manifest.identity.model_copy(update={"runtime_minimum": "99.1"})
    write_manifest(manifest.model_copy(update={"identity": identity}), directory / "model.toml")
    write_digest_list(directory)
    answer = hilum("models", "check", str(directory))
    assert answer.exit_code == 1
    assert "FAIL runtime: model bright_regions version 1 needs TensorFlow 99.1 or newer" in answer.output
    from inference.repository import ModelRepository  # loads TensorFlow, as the check has

    repository = ModelRepository(tmp_path)
    repository.load_all()
    assert "needs TensorFlow 99.1 or newer" in repository.refused()["bright_regions/1"]


def test_check_of_an_unknown_model_says_where_it_looked(models: Path) -> None:
    answer = hilum("models", "check", "nobody", "--models", str(models))
    assert answer.exit_code == 2


def test_a_wrong_option_ends_with_its_sentence(tmp_path: Path) -> None:
    answer = hilum("inference", "--models", str(tmp_path), "--listen", "nonsense")
    assert answer.exit_code == 2
    assert "must be host:port" in answer.output
