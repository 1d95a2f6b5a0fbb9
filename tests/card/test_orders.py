"""From account and session to what the data process is told."""

import socket
from typing import Any

import msgspec
import pytest
from tests.card.keys import Keys

from ukihashi.card import orders
from ukihashi.card.messages import Opened, SentOn, Standard, Terms
from ukihashi.card.orders import Place
from ukihashi.config import card
from ukihashi.config.card import CardConfig, Hub, Interface, Login, Trust
from ukihashi.errors import PeerViolation

SO_MARK = 36
IDS = bytes(range(36))
PIN = bytes(range(32))


def config(**changes: Any) -> CardConfig:
    made = CardConfig(
        hub=Hub(host="hub.example", hub="LAN", user="alice"),
        trust=Trust(mode="pin", pin=PIN.hex()),
        login=Login(password="wonderland"),
        interface=Interface(name="uklan", mac="02:00:00:00:00:02"),
    )
    return msgspec.structs.replace(made, **changes)


def sent_on(*ports: int) -> SentOn:
    return SentOn(1, "192.0.2.7", list(ports), bytes(20), bytes(32), PIN)


def opened(**changes: Any) -> Opened:
    terms = Terms(8, compressed=True, certificate=b"c" * 32)
    made = Opened(1, False, "SID-1", b"k" * 20, 30_000, 0, "TLSv1.3", "X", b"p" * 32, terms=terms)
    return msgspec.structs.replace(made, **changes)


def test_each_login_carries_its_own_proof_and_no_other(keys: Keys) -> None:
    hashed = orders.login(config(), 1, IDS)
    assert (hashed.method, len(hashed.password_hash), hashed.password) == ("password", 20, "")
    plain = orders.login(config(login=Login(method="plain", password="x")), 1, IDS)
    assert (plain.method, plain.password_hash, plain.password) == ("plain", b"", "x")
    own = Login(method="certificate", certificate=str(keys.certificate_file), key=str(keys.key_file))
    certified = orders.login(config(login=own), 1, IDS)
    assert (certified.own_certificate, certified.password_hash) == (keys.certificate, b"")
    assert b"PRIVATE" not in msgspec.msgpack.encode(certified)
    assert (hashed.unique_id + hashed.node_id, hashed.pin) == (IDS, PIN)


def test_what_the_account_wants_of_a_standard_hub_is_asked_for() -> None:
    wanted = card.Standard(
        max_connections=8, half_duplex=True, compression=True, allow_plaintext=True, bridge=True, monitor=True
    )
    asked = orders.login(config(standard=wanted), 1, IDS).standard
    assert asked == Standard(8, half_duplex=True, compress=True, plaintext=True, bridge=True, monitor=True)


@pytest.mark.parametrize(("ports", "port"), [((5555, 443), 443), ((5555, 992), 5555)])
def test_a_members_port_is_the_one_in_use_or_the_first(ports: tuple[int, ...], port: int) -> None:
    assert orders.member_of(sent_on(*ports), 443) == Place("192.0.2.7", port)


@pytest.mark.parametrize("ports", [(), (0,), (443, 70_000)])
def test_ports_that_can_not_be(ports: tuple[int, ...]) -> None:
    with pytest.raises(PeerViolation):
        orders.member_of(sent_on(*ports), 443)


@pytest.mark.parametrize("address", ["", "evil.example", "::1", "192.0.2.7:443"])
def test_a_member_is_named_by_its_ipv4_address(address: str) -> None:
    with pytest.raises(PeerViolation):
        orders.member_of(msgspec.structs.replace(sent_on(443), address=address), 443)


def test_a_ticket_goes_where_the_certificate_is_shown_and_no_password_with_it() -> None:
    order = orders.with_ticket(config(), 2, IDS, sent_on(443), Place("192.0.2.7", 443))
    assert (order.method, order.certificate, order.location) == ("ticket", bytes(32), "192.0.2.7:443")
    assert (order.pin, order.password, order.password_hash) == (b"", "", b"")


def test_a_further_connection_knows_the_session_and_holds_to_its_key_and_certificate() -> None:
    order = orders.further(config(), 3, opened(), Place("hub.example", 443), at_member=False)
    assert (order.session_key, order.pin, order.timeout_ms) == (b"k" * 20, b"p" * 32, 30_000)
    assert (order.terms, order.certificate, order.exact) == (opened().terms, b"", False)
    at_member = orders.further(config(), 3, opened(), Place("192.0.2.7", 5555), at_member=True)
    assert (at_member.certificate, at_member.server_name) == (b"c" * 32, "192.0.2.7")
    assert orders.further(config(), 3, opened(grace_s=300), Place("hub.example", 443), at_member=False).exact


# -- UDP acceleration ---------------------------------------------------------------------------------------------

UDP = config(standard=card.Standard(udp_acceleration=True))


def offered(config: CardConfig, *, family: int = socket.AF_INET, mark: int = 0, **order: Any) -> socket.socket | None:
    """The UDP socket of a login over a connection of that family."""
    bare = orders.login(config, 1, bytes(36))
    with socket.socket(family) as beside:
        return orders.udp_socket(config, msgspec.structs.replace(bare, **order), beside, mark)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_login_offers_a_socket_of_the_connections_family(family: int) -> None:
    sock = offered(UDP, family=family)
    assert sock is not None
    with sock:
        assert sock.family == family
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname()[1] > 0
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0


@pytest.mark.usefixtures("needs_root")
def test_its_packets_have_the_mark_of_the_connections() -> None:
    sock = offered(UDP, mark=0x2B75)
    assert sock is not None
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0x2B75


def test_only_a_login_offers_and_only_where_the_account_says_so() -> None:
    assert offered(UDP, session_key=bytes(20)) is None
    assert offered(msgspec.structs.replace(UDP, standard=card.Standard())) is None
