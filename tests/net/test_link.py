import contextlib
import socket

from lab.wait import until
from ukihashi.net.link import UNSENT, is_stalled, tune


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


def test_a_peer_that_stands_still_is_told_from_one_that_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            tune(ours)

            def fill() -> None:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        ours.send(bytes(65536))

            fill()
            until(lambda: is_stalled(ours), seconds=10.0, what="a closed window that is probed")
            theirs.settimeout(0.2)

            def reads() -> bool:
                for _ in range(50):
                    with contextlib.suppress(TimeoutError):
                        theirs.recv(1 << 20)
                    fill()
                return not is_stalled(ours)

            until(reads, seconds=20.0, what="acknowledgements")


def test_what_is_no_tcp_socket_is_never_stalled() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not is_stalled(one)
