"""TLS 1.3 suites by the library's configuration: in our contexts, in no others, and beside what the machine says."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from ukihashi.errors import EnvironmentLacks
from ukihashi.net import openssl
from ukihashi.net.openssl import known_suites, make_context, tls13_of, usual_suites
from ukihashi.net.suites import check_pick
from ukihashi.net.tls import Context, client_context

CLIENT = ssl.PROTOCOL_TLS_CLIENT
CHACHA = "TLS_CHACHA20_POLY1305_SHA256"


@pytest.mark.parametrize("suite", openssl.KNOWN)
def test_a_context_has_the_suites_it_was_made_with_and_the_next_one_has_the_usual(suite: str) -> None:
    assert suite in known_suites()
    assert tls13_of(make_context(Context, CLIENT, [suite])) == (suite,)
    assert tls13_of(ssl.SSLContext(CLIENT)) == usual_suites()


def test_the_order_is_kept() -> None:
    for order in (known_suites(), known_suites()[::-1]):
        assert tls13_of(make_context(Context, CLIENT, order)) == order


def test_a_suite_that_the_library_lacks_is_an_error_and_changes_nothing() -> None:
    with pytest.raises(EnvironmentLacks, match="TLS_NO_SUCH_SUITE"):
        make_context(Context, CLIENT, ["TLS_NO_SUCH_SUITE", CHACHA])
    assert tls13_of(ssl.SSLContext(CLIENT)) == usual_suites()


def test_where_the_library_is_hidden_the_default_works_and_a_pick_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = check_pick([CHACHA])
    monkeypatch.setattr(openssl, "_library", lambda: None)
    assert tls13_of(client_context()) == usual_suites()
    with pytest.raises(EnvironmentLacks, match=CHACHA):
        client_context(pick=pick)
    assert client_context(pick=check_pick(["AES128-SHA"])).maximum_version is ssl.TLSVersion.TLSv1_2


def test_a_python_that_has_the_call_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 3.15: the call alone decides; the library's configuration is left in peace."""
    told: list[str] = []

    class Newer(ssl.SSLContext):
        def set_ciphersuites(self, names: str, /) -> None:
            told.append(names)

    monkeypatch.setattr(openssl, "_library", lambda: pytest.fail("not needed"))
    usual = usual_suites()
    assert tls13_of(make_context(Newer, CLIENT, usual)) == usual
    with pytest.raises(EnvironmentLacks):  # this one only listens
        make_context(Newer, CLIENT, [CHACHA])
    assert told == [":".join(usual), CHACHA]


SCRIPT = """
import json, ssl
from ukihashi.net.openssl import known_suites, tls13_of, usual_suites
from ukihashi.net.suites import check_pick
from ukihashi.net.tls import TlsChannel, client_context

def hello(context):
    channel = TlsChannel(context, server_side=False, server_name="hub.example")
    channel.start()
    return bytes(channel.outgoing()).hex()

default, picked = client_context(), client_context(pick=check_pick(["TLS_AES_128_CCM_SHA256"]))
print(json.dumps({
    "usual": usual_suites(), "known": known_suites(), "default": tls13_of(default), "picked": tls13_of(picked),
    "hellos": [hello(default), hello(picked), hello(ssl._create_unverified_context())],
}))
"""


@pytest.mark.parametrize("strict", [False, True])
def test_what_the_machines_administrator_configured_stays_in_force(tmp_path: Path, strict: bool) -> None:
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        f"openssl_conf = a\nconfig_diagnostics = {int(strict)}\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n"
        "[c]\nGroups = P-384\nCiphersuites = TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256\n"
    )
    env = {**os.environ, "OPENSSL_CONF": str(configuration)}
    out = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True).stdout
    found = json.loads(out)
    assert found["usual"] == [CHACHA, "TLS_AES_128_GCM_SHA256"]
    assert found["default"] == ["TLS_AES_128_GCM_SHA256", CHACHA]  # none that the machine leaves out, ours first
    assert found["picked"] == ["TLS_AES_128_CCM_SHA256"]
    assert set(found["known"]) == set(openssl.KNOWN)
    groups = "000a000400020018"  # supported_groups (RFC 8446, 4.2.7) with secp384r1 alone
    assert [groups in hello for hello in found["hellos"]] == [True, True, True]


def test_a_missing_configuration_is_no_obstacle(tmp_path: Path) -> None:
    env = {**os.environ, "OPENSSL_CONF": str(tmp_path / "nothing.cnf")}
    out = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["picked"] == ["TLS_AES_128_CCM_SHA256"]
