"""`hilum models quarantine | pull | warm | bench` against real bundles and a real service."""

import re
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from inference.cli import models_commands
from protos.model_manifest import MANIFEST_FILE, open_bundle, read_manifest
from tests.bundles import threshold_bundle
from tests.inference_service import RunningService
from tests.odd_bundles import odd_bundles


def hilum(*arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    models_commands(app)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})


def test_pull_writes_the_manifest_that_the_service_states_once(service: RunningService, tmp_path: Path) -> None:
    bundle = open_bundle(service.models / "bright_regions" / "1")
    answer = hilum("models", "pull", service.tcp, "bright_regions", "--models", str(tmp_path))
    assert answer.exit_code == 0, answer.output
    assert f"identity: digest {bundle.digest}" in answer.output
    pulled = tmp_path / "bright_regions" / "1" / MANIFEST_FILE
    assert read_manifest(pulled) == bundle.manifest
    pulled.write_text("mine", encoding="utf-8")
    again = hilum("models", "pull", service.tcp, "bright_regions", "--models", str(tmp_path))
    assert again.exit_code == 2
    assert "is there already" in again.output
    assert pulled.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("command", ["pull", "warm", "bench"])
def test_an_unknown_model_and_a_service_that_is_away_are_said_in_one_sentence(
    command: str, service: RunningService, tmp_path: Path
) -> None:
    options = ("--models", str(tmp_path)) if command == "pull" else ()
    unknown = hilum("models", command, service.unix, "nobody", *options)
    assert unknown.exit_code == 2
    assert "NOT_FOUND" in unknown.output
    away = hilum("models", command, f"unix:{tmp_path}/none", "bright_regions", *options)
    assert away.exit_code == 2
    assert "UNAVAILABLE" in away.output
    assert not list(tmp_path.iterdir())


def test_warm_asks_twice(service: RunningService) -> None:
    answer = hilum("models", "warm", service.unix, "bright_regions")
    assert answer.exit_code == 0, answer.output
    assert re.fullmatch(r"first: \d+\.\d ms\nsecond: \d+\.\d ms\n", answer.output)


def test_bench_states_latencies_and_throughput_of_all_clients(service: RunningService) -> None:
    answer = hilum("models", "bench", service.tcp, "bright_regions", "--clients", "3", "--requests", "4")
    assert answer.exit_code == 0, answer.output
    assert "answered: 12 of 12 by 3 clients" in answer.output
    found = re.search(r"p50 ([\d.]+) ms, p95 ([\d.]+) ms, p99 ([\d.]+) ms", answer.output)
    assert found is not None
    p50, p95, p99 = map(float, found.groups())
    assert 0 < p50 <= p95 <= p99
    assert re.search(r"throughput: [\d.]+ requests/s", answer.output)


def test_quarantine_lists_what_the_service_would_refuse(tmp_path: Path) -> None:
    threshold_bundle(tmp_path)
    sound = hilum("models", "quarantine", "--models", str(tmp_path))
    assert sound.exit_code == 0, sound.output
    shutil.copytree(odd_bundles() / "bad" / "reads_file", tmp_path / "reads_file")
    refused = hilum("models", "quarantine", "--models", str(tmp_path))
    assert refused.exit_code == 1
    assert "reads_file" in refused.output
    assert "ReadFile" in refused.output
    assert "bright_regions" not in refused.output
