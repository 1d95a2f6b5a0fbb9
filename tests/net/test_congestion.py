"""TCP congestion control: set, read, and named when this machine lacks it. Reno is in every kernel."""

import os
import socket

import pytest

from ukihashi.errors import EnvironmentLacks
from ukihashi.net import congestion
from ukihashi.net.congestion import check_congestion, congestion_of, set_congestion

OWN = (congestion.SETTINGS / "tcp_congestion_control").read_text().strip()


def test_what_is_set_is_used_and_inherited_by_what_a_listener_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert congestion_of(server) == OWN
        set_congestion(server, "reno")
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
            assert (congestion_of(server), congestion_of(accepted)) == ("reno", "reno")
            assert congestion_of(client) == OWN
        set_congestion(server, "")  # back to the machine's own
        assert congestion_of(server) == OWN


def test_what_the_machine_lacks_is_named_with_what_it_has_and_what_to_do() -> None:
    with socket.socket() as sock:
        before = congestion_of(sock)
        with pytest.raises(EnvironmentLacks, match=r"“nosuch” now; it has .*reno.*`modprobe tcp_nosuch`"):
            set_congestion(sock, "nosuch")
        assert congestion_of(sock) == before
    with pytest.raises(EnvironmentLacks, match="nosuch"):
        check_congestion("nosuch")
    check_congestion("reno")
    check_congestion("")


def test_what_only_root_may_use_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(socket.socket):
        def setsockopt(self, *_: object) -> None:
            raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(congestion, "congestion_of", lambda _sock: "")
    allowed = r"only root use.*tcp_allowed_congestion_control=\".*reno.* reno\""
    with Forbidden() as sock, pytest.raises(EnvironmentLacks, match=allowed):
        set_congestion(sock, "reno")


def test_any_other_refusal_is_told_as_it_is() -> None:
    with socket.socket() as sock:
        pass
    assert congestion_of(sock) == ""
    with pytest.raises(EnvironmentLacks, match="“reno” can't be used: Bad file descriptor"):
        set_congestion(sock, "reno")


def test_what_is_no_tcp_socket_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        set_congestion(one, "reno")
        assert congestion_of(one) == ""
