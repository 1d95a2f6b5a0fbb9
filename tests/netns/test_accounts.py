"""Limits of users on the wire: certificates of the official client, quotas and expiry of our own card."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.auth.certificates import certify, key

from lab import peers
from lab.net import Net
from lab.plain import Opening
from lab.ukihashi import Card, Hub, gateway
from lab.wait import until
from ukihashi.auth.password import hash_password, secure_password
from ukihashi.errors import Refused
from ukihashi.wire.constants import Code
from ukihashi.wire.messages import Login
from ukihashi.wire.methods import PasswordChange

pytestmark = pytest.mark.slow


def written(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that is valid today, by the CA, and its key."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    made = certify(name, serial=0x0102 if name != "CA" else 1, begins=now - day, ends=now + day)
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key(name).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return certificate, secret


@pytest.mark.peer("vpnclient", "vpncmd")
def test_the_official_client_with_a_certificate(net: Net, tmp_path: Path) -> None:
    machine, other = net.lan("hub", "b")
    hub, client = Hub(machine), peers.Client(other)
    hub.start()
    client.start()
    hub.run("hub", "authority", "add", written(tmp_path, "CA")[0])
    hub.run("hub", "user", "create", "taro", "--issued", "--common-name", "Taro")
    to = {"server": machine.ipv4, "port": 443, "hub": "LAN", "user": "taro"}
    client.create_account("c1", certificate=written(tmp_path, "Taro"), **to)  # type: ignore[arg-type]
    client.connect("c1")
    assert hub.sessions()[0]["user"] == "taro"
    client.disconnect("c1")

    def refused(reason: str) -> None:
        client.say("AccountConnect c1")
        until(lambda: reason in hub.log(), seconds=20, what=reason)
        client.say("AccountDisconnect c1")

    hub.run("hub", "revoke", "01:02")
    refused("the certificate was revoked")
    hub.run("hub", "revoke", "--undo", "1")
    hub.run("hub", "user", "set", "taro", "--common-name", "Jiro")
    refused("the certificate is for “Taro”")
    hub.run("hub", "user", "set", "taro", "--certificate", written(tmp_path, "CA")[0])
    refused("not the certificate that the user has")
    hub.run("hub", "user", "set", "taro", "--certificate", tmp_path / "Taro.pem")
    client.connect("c1")
    client.disconnect("c1")


def test_a_used_up_quota_puts_the_card_out_until_there_is_more(net: Net) -> None:
    machine, host = net.lan("hub", "a")
    hub, card = Hub(machine), Card(host)
    hub.start()
    card.join(hub.invite("a"))
    account = card.status()["account"]
    hub.run("hub", "user", "set", "a", "--quota", "500k")
    host.run(["ping", "-q", "-c400", "-i0.002", "-s1400", gateway(card.address(4))])
    until(lambda: not hub.sessions(), seconds=20, what="the session's end")
    (row,) = hub.rows("hub", "user", "show", "a")
    assert row["quota_used"] >= 500 << 10
    assert row["barred"] == "quota"
    assert "the user's quota is used up" in hub.log()
    until(lambda: "out of quota" in card.log() + str(card.status()), seconds=30, what="the card's sentence")
    card.leave(account)
    hub.run("hub", "user", "set", "a", "--quota", "1G")
    card.up(account)
    host.pings(gateway(card.address(4)), seconds=10)
    hub.run("hub", "user", "set", "a", "--expires", "2020-01-01")
    until(lambda: not hub.sessions(), seconds=5, what="the session's end")


def test_source_rules_and_a_members_own_new_password(net: Net) -> None:
    machine, host = net.lan("hub", "a")
    hub = Hub(machine)
    hub.start()
    (made,) = hub.rows("hub", "user", "create", "taro")

    def code(address: str, password: str) -> int:
        """What a login gets; 0 for a session."""
        with Opening(host, address, 443) as opening:
            opening.hello()
            answer = secure_password(hash_password("taro", password), opening.challenge)
            try:
                opening.login(Login("LAN", "taro", 1, answer, client="a client"))
            except Refused as refused:
                return refused.code
            return 0

    def change(old: str, new: str) -> int:
        with Opening(host, machine.ipv4, 443) as opening:
            opening.hello()
            answer = secure_password(hash_password("taro", old), opening.challenge)
            wanted = PasswordChange("LAN", "taro", answer, hash_password("taro", new))
            return opening.pack(wanted.to_pack(b"")).get_int("error")

    assert code(machine.ipv4, made["password"]) == code(machine.ipv6, made["password"]) == Code.NONE
    assert change("wrong", "newer") == Code.OLD_PASSWORD_WRONG
    assert change(made["password"], "newer") == Code.NONE
    assert code(machine.ipv4, made["password"]) == Code.AUTH_FAILED
    assert code(machine.ipv4, "newer") == Code.NONE
    hub.run("hub", "user", "set", "taro", "--policy", "fix_password=yes")
    assert change("newer", "newest") == Code.NOT_ENOUGH_RIGHT
    hub.run("hub", "source", "add", "deny", f"{host.ipv4}/32")
    assert code(machine.ipv4, "newer") == Code.IP_ADDRESS_DENIED
    assert code(machine.ipv6, "newer") == Code.NONE  # a rule about IPv4 says nothing about IPv6
    hub.run("hub", "source", "add", "deny", f"{host.ipv6}/128")
    assert code(machine.ipv6, "newer") == Code.IP_ADDRESS_DENIED
