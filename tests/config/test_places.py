from pathlib import Path

import pytest

from ukihashi.config import places


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (places.STATE, places.RUNTIME, places.CONFIG):
        monkeypatch.setenv(name, "")  # set, so that monkeypatch restores it whatever `override` does


def test_a_system_service_uses_the_places_of_the_standard() -> None:
    assert places.state_dir() == Path("/var/lib/ukihashi")
    assert places.hub_socket() == Path("/run/ukihashi/hub.sock")
    assert places.hub_config() == Path("/etc/ukihashi/hub.toml")
    assert places.card_config("lan") == Path("/etc/ukihashi/card.d/lan.toml")


def test_the_environment_moves_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UKIHASHI_RUNTIME_DIR", str(tmp_path))
    assert places.card_socket("lan") == tmp_path / "card-lan.sock"


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UKIHASHI_STATE_DIR", "/elsewhere")
    places.override(state=tmp_path)
    assert places.state_dir() == tmp_path


def test_a_relative_place_is_fixed_where_it_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UKIHASHI_STATE_DIR", "state")
    assert places.state_dir() == tmp_path / "state"
