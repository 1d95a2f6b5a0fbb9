import socket

from ukihashi.net.link import UNSENT, tune


def test_a_tunnels_socket_is_set_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        tune(sock, dead_after=7.0)
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, 25) == UNSENT  # TCP_NOTSENT_LOWAT
        assert sock.getsockopt(socket.IPPROTO_TCP, 18) == 7000  # TCP_USER_TIMEOUT, ms


def test_what_is_no_tcp_socket_is_only_made_non_blocking() -> None:
    one, other = socket.socketpair()
    with one, other:
        tune(one)
        assert not one.getblocking()
