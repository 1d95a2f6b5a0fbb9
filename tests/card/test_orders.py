"""What a login brings along beside its connection."""

import socket
from typing import Any

import msgspec
import pytest

from ukihashi.card import orders
from ukihashi.config.card import CardConfig, Hub, Interface, Standard

SO_MARK = 36
ACCOUNT = CardConfig(
    hub=Hub(host="192.0.2.1", hub="LAN", user="alice"),
    interface=Interface(name="uklan", mac="02:00:00:00:00:01"),
    standard=Standard(udp_acceleration=True),
)


def offered(config: CardConfig, *, family: int = socket.AF_INET, mark: int = 0, **order: Any) -> socket.socket | None:
    """The UDP socket of a login over a connection of that family."""
    bare = orders.login(config, 1, bytes(36))
    with socket.socket(family) as beside:
        return orders.udp_socket(config, msgspec.structs.replace(bare, **order), beside, mark)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_login_offers_a_socket_of_the_connections_family(family: int) -> None:
    sock = offered(ACCOUNT, family=family)
    assert sock is not None
    with sock:
        assert sock.family == family
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname()[1] > 0
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0


@pytest.mark.usefixtures("needs_root")
def test_its_packets_have_the_mark_of_the_connections() -> None:
    sock = offered(ACCOUNT, mark=0x2B75)
    assert sock is not None
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0x2B75


def test_only_a_login_offers_and_only_where_the_account_says_so() -> None:
    assert offered(ACCOUNT, session_key=bytes(20)) is None
    assert offered(msgspec.structs.replace(ACCOUNT, standard=Standard())) is None
