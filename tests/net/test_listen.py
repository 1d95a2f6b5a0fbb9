"""Listeners: both families, options for the accepted socket, and sentences when a place is taken."""

import os
import socket
from pathlib import Path

import pytest

from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.net.link import UNSENT
from ukihashi.net.listen import address_text, listen_tcp, listen_unix


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_accepted_sockets_inherit_the_options(host: str) -> None:
    with listen_tcp(host, 0) as listener, socket.socket(listener.family) as client:
        client.connect(listener.getsockname())
        listener.setblocking(True)
        peer, _address = listener.accept()
        with peer:
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15000


def test_both_families_share_a_port() -> None:
    with listen_tcp("0.0.0.0", 0) as four, listen_tcp("::", four.getsockname()[1]) as six:
        assert six.getsockname()[1] == four.getsockname()[1]


def test_a_taken_port_names_the_place_and_the_holder() -> None:
    with listen_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(EnvironmentLacks, match=rf"127\.0\.0\.1:{port} is taken by .*pid {os.getpid()}"):
            listen_tcp("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    with pytest.raises(EnvironmentLacks, match=f"{host} is not an address"):
        listen_tcp(host, 0)


def test_a_name_is_no_address() -> None:
    with pytest.raises(UsageError, match="no address"):
        listen_tcp("no such host", 0)


def test_a_unix_socket_gets_its_rights_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"
    listen_unix(path, mode=0o660).close()
    assert path.exists()
    with listen_unix(path, mode=0o600):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(EnvironmentLacks, match="already serves"):
            listen_unix(path, mode=0o600)


def test_a_unix_socket_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="No such file"):
        listen_unix(tmp_path / "none" / "hub.sock", mode=0o600)


def test_addresses_as_text() -> None:
    assert address_text(("192.0.2.7", 443)) == "192.0.2.7:443"
    assert address_text(("2001:db8::7", 443, 0, 0)) == "[2001:db8::7]:443"
    assert address_text(("::ffff:192.0.2.7", 443, 0, 0)) == "192.0.2.7:443"
