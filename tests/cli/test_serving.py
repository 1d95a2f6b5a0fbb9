import datetime as dt
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ukihashi.cli import serving
from ukihashi.config.hub import Endpoint
from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.hub.backstage import Facts
from ukihashi.hub.control import Birth
from ukihashi.locale import set_language
from ukihashi.pki import ca

KEY = ca.Identity(Path("c"), Path("k"), b"p" * 32, b"f" * 32, dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "RSA")


def facts(*endpoints: Endpoint) -> Facts:
    return Facts("9.9", endpoints, b"p" * 32)


@pytest.fixture
def shut() -> Iterator[Path]:
    """A folder that only its owner passes."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def test_a_page_address_names_the_port_only_where_it_is_unusual() -> None:
    endpoints = (Endpoint("192.0.2.1", 443), Endpoint("2001:db8::1", 8443))
    assert serving.page_urls(facts(*endpoints), set()) == ["https://192.0.2.1/", "https://[2001:db8::1]:8443/"]


def test_listening_everywhere_names_an_address_that_can_be_opened() -> None:
    urls = serving.page_urls(facts(Endpoint("0.0.0.0", 443), Endpoint("::", 443)), set())
    assert len(urls) == 2
    assert not any("0.0.0.0" in url or "[::]" in url for url in urls)


def test_the_secret_and_the_link_are_told_at_the_first_start(capsys: pytest.CaptureFixture[str]) -> None:
    set_language("en")
    row = {"user": "guest", "hub": "LAN", "expires_at": 0.0, "link": "ukihashi://h:1/x", "command": "join"}
    serving._announce(Birth("s3cr3t", [row], "uklan"), facts(Endpoint("192.0.2.1", 443)), KEY)
    told = capsys.readouterr()
    assert "admin secret: s3cr3t\n" in told.out
    assert "\nukihashi://h:1/x\n" in told.out
    assert "https://192.0.2.1/admin" in told.err
    serving._announce(Birth("", [], ""), facts(Endpoint("192.0.2.1", 443)), KEY)
    assert "secret" not in capsys.readouterr().out


@pytest.mark.usefixtures("needs_root")
def test_a_state_folder_that_the_hub_can_not_reach_is_told_before_the_start(shut: Path) -> None:
    with pytest.raises(EnvironmentLacks, match=f"{shut} is closed .* chmod o\\+x"):
        serving._prepare_state(shut / "state")
    shut.chmod(0o711)
    serving._prepare_state(shut / "state")


def test_a_state_folder_that_can_not_be_made_is_told(shut: Path) -> None:
    (shut / "file").touch()
    with pytest.raises(EnvironmentLacks, match="can't be made"):
        serving._prepare_state(shut / "file" / "state")


def test_a_wrong_address_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UKIHASHI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("UKIHASHI_CONFIG_DIR", str(tmp_path))
    try:
        with pytest.raises(UsageError):
            serving.serve_hub(listen=["x"], first=False, log_format="")
    finally:
        structlog.reset_defaults()
    assert not (tmp_path / "state").exists()


def test_everything_needed_later_is_read_before_rights_are_given_up() -> None:
    serving._warm_up()
    assert set(serving.LATE_MODULES) <= set(sys.modules)
