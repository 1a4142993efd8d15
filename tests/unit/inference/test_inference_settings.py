import re
from pathlib import Path

import pytest

from inference.errors import SettingsRefused
from inference.options import read_settings
from inference.regions.limits import RegionLimits
from inference.settings import ServiceSettings
from tests.bundles import ROOT


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:8500", "localhost:65535", "unix:/run/hilum/s"])
def test_addresses_of_both_kinds_are_taken(address: str, tmp_path: Path) -> None:
    assert ServiceSettings(tmp_path, listen=(address,)).listen == (address,)


@pytest.mark.parametrize("address", ["", "8500", ":8500", "host:", "host:http", "host:65536", "unix:", "unix:s"])
def test_an_address_that_cannot_be_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="--listen"):
        ServiceSettings(tmp_path, listen=(address,))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"listen": ()}, "at least one address"),
        ({"max_message_mb": 3}, "must be 4 to 2047"),
        ({"max_message_mb": 2048}, "must be 4 to 2047"),
        ({"models_directory": Path("/nowhere")}, "no such folder"),
    ],
)
def test_what_cannot_be_right_is_refused(values: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match=sentence):
        ServiceSettings(**{"models_directory": tmp_path, **values})


def test_region_limits_come_from_the_command_line(tmp_path: Path) -> None:
    given = ["--region-mb", "3", "--client-region-mb", "7", "--client-regions", "5", "--leases", "2"]
    settings = read_settings(["--models", str(tmp_path), *given, "--region-expiry-s", "9"])
    assert settings.region_limits == RegionLimits(3 << 20, 7 << 20, 5, 2, 9.0)
    assert read_settings(["--models", str(tmp_path)]).region_limits == RegionLimits()


@pytest.mark.parametrize(
    "option", ["--region-mb", "--client-region-mb", "--client-regions", "--leases", "--region-expiry-s"]
)
def test_a_region_limit_that_leaves_nothing_is_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match=f"{option} 0: must be at least 1"):
        read_settings(["--models", str(tmp_path), option, "0"])


def test_the_page_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs" / "howto" / "run-the-service.md").read_text(encoding="utf-8")
    listed = {name for row in page.splitlines() if row.startswith("| `--") for name in re.findall(r"`(--[a-z-]+)", row)}
    assert listed == options
    assert len(options) > 20
