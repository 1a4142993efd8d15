from pathlib import Path

import pytest

from inference.errors import SettingsRefused
from inference.settings import ServiceSettings


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
