"""hub.toml read again while the hub runs: by SIGHUP, by a command, and changed by one (D9, D11)."""

import os
import pty
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.hub.processes import DEADLINE, Supervised, is_alive

from ukihashi.pki import ca

pytestmark = pytest.mark.slow

Launch = Callable[..., Supervised]
Until = Callable[..., Any]


def wishes(hub: Supervised, what: str, **more: str) -> dict[str, tuple[Any, Any, str]]:
    """What changed: option -> old, new, when."""
    rows = hub.order(wish=what, **more)
    assert isinstance(rows, list), rows
    return {row["option"]: (row["old"], row["new"], row["effect"]) for row in rows}


def test_what_can_be_heeded_at_once_is_and_the_rest_is_named(launch: Launch, until: Until, member_types: Any) -> None:
    hub = launch()
    toml = hub.folder / "hub.toml"
    with member_types.member.join(hub, "a", extension=1, extension_oldest=1) as a:
        toml.write_text(
            'public_address = "hub.example.jp"\nmac_ageing_s = 11\nsession_timeout_s = 7\nlisten = ["444"]\n'
            "[times]\nkeepalive_s = 0.2\ndead_s = 0.7\n[limits]\nopening_s = 0.5\n"
        )
        assert wishes(hub, "reload") == {
            "listen": (["443"], ["444"], "next start"),
            "public_address": ("", "hub.example.jp", "now"),
            "session_timeout_s": (20.0, 7.0, "now"),
            "mac_ageing_s": (600.0, 11.0, "now"),
            "times.keepalive_s": (5.0, 0.2, "now"),
            "times.dead_s": (15.0, 0.7, "now"),
            "limits.opening_s": (15.0, 0.5, "now"),
        }
        until(lambda: hub.told("options"), "control's part")
        assert hub.told("options") == [["hub.example.jp", 7.0, 11.0]]
        a.callers[0].expect_end()  # silent for longer than the new times.dead_s
    with hub.socket() as stranger:
        stranger.settimeout(DEADLINE)
        while stranger.recv(4096):  # a hint, then the end
            pass
    assert wishes(hub, "reload") == {}
    rows = {row["option"]: row for row in hub.order(wish="options")}
    assert (rows["times.dead_s"]["value"], rows["times.dead_s"]["default"]) == (0.7, 15.0)
    # a worker that is started anew has them too
    first = hub.status()["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: (hub.status() or {}).get("hubs") == 1 and hub.status()["pid"] != first, "a new worker", DEADLINE)
    with hub.socket() as stranger:
        stranger.settimeout(DEADLINE)
        while stranger.recv(4096):
            pass


def test_a_signal_reloads_and_what_waits_for_a_start_is_said(launch: Launch, until: Until) -> None:
    hub = launch()
    (hub.folder / "hub.toml").write_text('page_dir = "/tmp"\nmac_ageing_s = 60\n')
    hub.process.send_signal(signal.SIGHUP)
    until(lambda: hub.told("options"), "the options", DEADLINE)
    assert hub.told("options") == [["", 20.0, 60.0]]
    until(lambda: hub.told("told"), "a sentence", DEADLINE)
    assert "at the next start or `ukihashi hub upgrade`: page_dir" in hub.told("told")[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mac_ageing_s = true\n", "hub.toml: mac_ageing_s must be float, not bool"),
        ("mac_ageing_s = 60\nnonsense = 1\n", "hub.toml: nonsense is not a setting"),
        ("mac_ageing_s = \n", "hub.toml, line 1"),
        ("mac_ageing_s = 60\n[times]\nkeepalive_s = 20\n", "times.keepalive_s must be below times.dead_s"),
    ],
)
def test_a_bad_file_keeps_the_old_state_and_says_why(launch: Launch, until: Until, text: str, told: str) -> None:
    hub = launch()
    (hub.folder / "hub.toml").write_text(text)
    assert told in hub.order(wish="reload")["no"]
    hub.process.send_signal(signal.SIGHUP)
    until(lambda: any(told in sentence for sentence in hub.told("told")), "the reason", DEADLINE)
    assert hub.told("options") == []
    assert {row["option"]: row["value"] for row in hub.order(wish="options")}["mac_ageing_s"] == 600.0
    assert hub.finish() == 0


def test_another_congestion_control_holds_for_connections_that_come_then(launch: Launch, member_types: Any) -> None:
    hub = launch()
    with member_types.member.join(hub, "a"):
        before = hub.order(what="sessions")[0]["congestion"]
        other = "reno" if before != "reno" else "cubic"
        assert wishes(hub, "set_option", key="congestion", value=other) == {"congestion": ("", other, "now")}
        with member_types.member.join(hub, "b"):
            used = {row["user"]: row["congestion"] for row in hub.order(what="sessions")}
            assert used == {"a": before, "b": other}
    for order in ({"wish": "set_option", "key": "congestion", "value": "nosuch"}, {"wish": "reload"}):
        (hub.folder / "hub.toml").write_text(f'congestion = "{"nosuch" if "key" not in order else other}"\n')
        assert "no TCP congestion control “nosuch” now" in hub.order(**order)["no"]
    with member_types.member.join(hub, "c"):  # what could not be had has changed nothing
        assert [row["congestion"] for row in hub.order(what="sessions") if row["user"] == "c"] == [other]


def test_a_congestion_control_that_this_machine_lacks_is_told_at_the_start_and_the_hub_serves(launch: Launch) -> None:
    hub = launch(congestion="nosuch")
    assert any("“nosuch” now; it has" in sentence for sentence in hub.told("told"))
    assert hub.status()["hubs"] == 1


def test_one_option_is_written_with_its_comments_kept(launch: Launch) -> None:
    hub = launch()
    toml = hub.folder / "hub.toml"
    toml.write_text("# mine\n[times] # of links\ndead_s = 20 # long\n")
    toml.chmod(0o640)
    assert wishes(hub, "reload") == {"times.dead_s": (15.0, 20.0, "now")}
    assert wishes(hub, "set_option", key="times.dead_s", value="30") == {"times.dead_s": (20.0, 30.0, "now")}
    assert toml.read_text() == "# mine\n[times] # of links\ndead_s = 30.0 # long\n"
    assert toml.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("times.dead_s", "soon", "takes a number from 0.3 to 600, not “soon”"),
        ("times.dead_s", "1", "times.keepalive_s must be below"),
        ("times.dead", "20", "did you mean times.dead_s?"),
        ("listen", "444", "listen can't be changed while the hub runs"),
        ("page_dir", "/etc", "page_dir can't be changed while the hub runs"),
        ("tls.key", "/etc/shadow", "tls.key can't be changed while the hub runs"),
        ("log_format", "json", "log_format can't be changed while the hub runs"),
    ],
)
def test_what_can_not_be_set_from_outside_is_refused(launch: Launch, key: str, value: str, told: str) -> None:
    hub = launch()
    assert told in hub.order(wish="set_option", key=key, value=value)["no"]
    assert not (hub.folder / "hub.toml").exists()


# -- key and certificate --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A hub's own certificate and key, which can be renewed."""
    made = ca.load_or_make(tmp_path / "pki", name="hub", now=datetime.now(UTC))
    return made.certificate, made.key


def shown(hub: Supervised) -> bytes:
    """SHA-256 of the certificate that a new connection is shown."""
    context = ssl._create_unverified_context()
    with hub.socket() as sock, context.wrap_socket(sock) as tls:
        certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return sha256(certificate).digest()


def test_a_renewed_certificate_is_shown_to_new_connections(
    launch: Launch, until: Until, own: tuple[Path, Path], member_types: Any
) -> None:
    hub = launch(certificate=str(own[0]), key=str(own[1]))
    old = shown(hub)
    with member_types.member.join(hub, "a") as a, member_types.member.join(hub, "b") as b:
        own[0].unlink()
        new = ca.load_or_make(own[0].parent, name="hub", now=datetime.now(UTC) + timedelta(seconds=5))
        changes = wishes(hub, "reload")
        assert changes["tls.certificate"] == (ca.pin_text(old), ca.pin_text(new.fingerprint), "next connection")
        until(lambda: shown(hub) == new.fingerprint, "the new certificate", DEADLINE)
        assert any("the certificate was renewed" in sentence for sentence in hub.told("told"))
        a.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5")
        assert len(b.receive(1)) == 1  # whoever is in stays in
    assert wishes(hub, "reload") == {}
    assert hub.finish() == 0


def test_another_key_is_refused_with_both_fingerprints(launch: Launch, own: tuple[Path, Path]) -> None:
    hub = launch(certificate=str(own[0]), key=str(own[1]))
    old = ca.load_given(*own).pin
    leaf = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("hub", key_type=trustme.KeyType.RSA)
    leaf.cert_chain_pems[0].write_to_path(own[0])
    leaf.private_key_pem.write_to_path(own[1])
    told = hub.order(wish="reload")["no"]
    assert ca.pin_text(old) in told
    assert ca.pin_text(ca.load_given(*own).pin) in told
    before = shown(hub)
    assert shown(hub) == before


# -- the terminal ---------------------------------------------------------------------------------------------------


def test_a_hub_in_a_terminal_ends_with_it(
    tmp_path: Path, certificate: tuple[Path, Path], repository: Path, until: Until
) -> None:
    """SIGHUP of the kernel means that nobody is there any more; the same signal of a person means reload."""
    pid, terminal = pty.fork()
    if pid == 0:
        hub = Supervised.command(tmp_path, certificate)
        os.chdir(repository)
        os.execv(sys.executable, hub)
    try:
        said = b""
        while b'"ready"' not in said:
            said += os.read(terminal, 65536)
        (tmp_path / "hub.toml").write_text("mac_ageing_s = 60\n")
        os.kill(pid, signal.SIGHUP)
        while b'"options"' not in said:
            said += os.read(terminal, 65536)
        assert is_alive(pid)
    finally:
        os.close(terminal)
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "the hub's end", DEADLINE)
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(FileNotFoundError):
        sock.connect(str(tmp_path / "run" / "hub.sock"))
