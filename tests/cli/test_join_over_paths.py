"""Joining over a path as a person does it: real processes, a fake hub, a small proxy in a network of the test's own."""

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.card.proxy import Proxy, beside
from tests.net.dial.fakes import SECRET, USER

from lab.fake_hub import FakeHub
from lab.own_network import own_network
from ukihashi.auth.link import Link
from ukihashi.card import account
from ukihashi.config import places
from ukihashi.net.dial.via import Kind
from ukihashi.pki import ca

pytestmark = pytest.mark.netns
TOKEN = "t" * 22
VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


def card(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES} | environment
    command = [sys.executable, "-m", "ukihashi.cli.main", "--lang=en", "card", *words]
    return subprocess.run(command, capture_output=True, text=True, env=kept, timeout=60, check=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    identity = ca.load_or_make(tmp_path / "hub", name="hub.example", now=dt.datetime.now(dt.UTC))
    for name in (places.STATE, places.CONFIG, places.RUNTIME):
        monkeypatch.setenv(name, str(tmp_path / name[9:10]))  # short: a socket's path has 107 bytes at most
    with own_network(), FakeHub(identity.certificate, identity.key) as made:
        made.invites[TOKEN] = b""
        try:
            yield made
        finally:
            card("leave", "--all")


def link_to(hub: FakeHub) -> str:
    return Link(hub.address, hub.port, "LAN", "alice", TOKEN, hub.pin, ("10.9.0.2/24",)).text()


def everything_written(folder: Path) -> str:
    """All logs, and the command lines of the card's processes."""
    row = json.loads(card("status", "lan", "--json").stdout)
    logs = [path.read_text() for path in folder.rglob("*.log")]
    return "\n".join([*logs, *(Path(f"/proc/{row[key]}/cmdline").read_text() for key in ("pid", "data_pid"))])


@pytest.mark.parametrize("kind", [Kind.HTTP, Kind.SOCKS5H])
def test_join_over_a_proxy_with_a_password(hub: FakeHub, tmp_path: Path, kind: Kind) -> None:
    proxy = Proxy(kind, scheme="basic" if kind is Kind.HTTP else "password")
    (tmp_path / "password").write_text(f"{SECRET}\n")
    with beside(proxy) as port:
        via = f"{kind.value}://{USER}@127.0.0.1:{port}"
        joined = card("join", link_to(hub), "--via", via, "--via-password-file", str(tmp_path / "password"))
        assert (joined.returncode, joined.stderr) == (0, "")
        assert proxy.asked == [("127.0.0.1", hub.port)]
        assert account.read("lan").path.via == via
        assert via in card("status", "lan").stdout
        assert SECRET not in everything_written(tmp_path)
        assert card("leave", "lan").returncode == 0
        assert card("up", "lan").returncode == 0
        assert len(proxy.asked) == 2


def test_the_environments_proxy_is_used_with_who_we_are_by_the_file(hub: FakeHub, tmp_path: Path) -> None:
    proxy = Proxy(Kind.HTTP, scheme="basic")
    folder = tmp_path / places.CONFIG[9:10]
    folder.mkdir()
    with beside(proxy) as port:
        (folder / "paths.secret").touch(0o600)
        (folder / "paths.secret").write_text(f"http://{USER}@127.0.0.1:{port} {SECRET}\n")
        link = link_to(hub)
        doctor = card("doctor", link, "--json", https_proxy=f"127.0.0.1:{port}")
        rows = [json.loads(line) for line in doctor.stdout.splitlines()]
        assert [(row["via"], row["works"]) for row in rows] == [
            ("direct:", True),
            (f"http://{USER}@127.0.0.1:{port}", True),
        ]
        assert SECRET not in doctor.stdout + doctor.stderr
        (folder / "paths.secret").chmod(0o640)
        refused = card("join", link, https_proxy=f"127.0.0.1:{port}")
        assert refused.returncode == 2
        assert "chmod 600" in refused.stderr
        (folder / "paths.secret").chmod(0o600)
        assert card("join", link, https_proxy=f"127.0.0.1:{port}").returncode == 0
        paths = json.loads(card("status", "lan", "--json").stdout)["paths"]
        assert [(row["via"], row["source"]) for row in paths] == [
            ("direct:", "direct"),
            (f"http://{USER}@127.0.0.1:{port}", "environment"),
        ]
        assert SECRET not in everything_written(tmp_path)
