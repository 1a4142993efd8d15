"""Settings are refused at start with file, key, value and what would be right."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from node.errors import SettingsError
from node.settings import Settings, load_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "hilum.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[listener]\nprot = 5\n", ["listener.prot", "unknown key", "5", "did you mean 'port'"]),
        ('[listener]\nport = "abc"\n', ["listener.port", "valid integer", "abc"]),
        ("[listener]\nport = 70000\n", ["listener.port", "65535", "70000"]),
        ("[foo]\n", ["foo", "unknown key", "listener"]),
        ("[completion]\nsettle_s = 100\n", ["completion", "hanging_s = 60", "settle_s = 100"]),
        ('[listener]\nae_title = "A TITLE THAT IS TOO LONG"\n', ["listener.ae_title", "16"]),
        ('[[destinations]]\nname = "pacs"\n', ["destinations.0.ae_title", "required"]),
        (
            '[[destinations]]\nname="p"\nae_title="A"\nhost="h"\nport=1\nprofile="standard"\n',
            ["destinations.0.profile", "unknown key"],
        ),
        (
            '[[destinations]]\nname="p"\nae_title="A"\nhost="h"\nport=1\n' * 2,
            ["destinations", "names must differ", "'p', 'p'"],
        ),
        (
            "[processing]\nmax_volume_mb = 2000\n[inference]\nmax_message_mb = 1024\nregions = 'off'\n",
            ["processing.max_volume_mb = 2000", "inference.max_message_mb = 1024", "one message"],
        ),
        (
            '[[destinations]]\nname="p"\nae_title="A"\nhost="h"\nport=1\nretry_first_s = 1000\n',
            ["destinations.0", "retry_first_s = 1000", "retry_most_s = 900"],
        ),
        ('[inference]\nendpoint = "localhost"\n', ["inference.endpoint", "localhost", "pattern"]),
        ('[destinations]\nname = "pacs"\n', ["destinations", "write [[destinations]]"]),
        ("[listener\n", ["cannot be read as TOML"]),
    ],
)
def test_a_wrong_file_is_refused_with_key_value_and_remedy(tmp_path: Path, text: str, said: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as refusal:
        load_settings(path)
    for words in (str(path), *said):
        assert words in str(refusal.value)


def test_a_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_LISTENER__PORT", "4242")
    settings = load_settings(written(tmp_path, '[listener]\nport = 1\nae_title = "NODE7"\n'))
    assert (settings.listener.port, settings.listener.ae_title) == (4242, "NODE7")


def test_a_wrong_variable_is_named_as_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_LISTENER__PORT", "abc")
    with pytest.raises(SettingsError, match=r"^HILUM_LISTENER__PORT: listener.port: .*'abc'"):
        load_settings(written(tmp_path, ""))


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_LISTENER__PROT", "4242")
    with pytest.raises(SettingsError, match="HILUM_LISTENER__PROT is not a setting; meant HILUM_LISTENER__PORT"):
        load_settings()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: no such file\. Remedy: `hilum init`"):
        load_settings(tmp_path / "absent.toml")


def test_settings_that_change_results_change_their_digest(tmp_path: Path) -> None:
    plain = load_settings(written(tmp_path, ""))
    named = load_settings(written(tmp_path, '[processing]\ninstitution_name = "General"\n'))
    moved = load_settings(written(tmp_path, "[listener]\nport = 5\n"))
    assert plain.result_digest != named.result_digest
    assert plain.result_digest == moved.result_digest


def test_tls_to_a_service_that_the_node_starts_is_refused(tmp_path: Path) -> None:
    tls = {"ca": tmp_path / "ca.pem"}
    with pytest.raises(ValidationError, match=r"has no certificate\. Remedy"):
        Settings(inference={"tls": tls})
    Settings(inference={"tls": tls, "start_service": False})
    Settings(inference={"tls": tls, "endpoint": f"unix:{tmp_path}/s"})


def test_a_volume_may_be_larger_than_a_message_where_regions_carry_it() -> None:
    large = {"processing": {"max_volume_mb": 3000}}
    Settings(**large)
    with pytest.raises(ValidationError, match="must be less than"):
        Settings(**large, inference={"regions": "off"})
