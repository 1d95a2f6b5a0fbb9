"""Where a path needs a translator between descriptor and network (an https:// proxy), a thread carries the bytes.

The caller gets one end of a `socketpair`, which is as good as a TCP socket to what is above: bytes both ways, an end in
each direction by itself. The thread ends, and closes everything, when both directions have ended, when the caller's end
is closed everywhere, or when the network is. It holds at most HELD bytes a direction; when one side stops reading, the
other is not read any more.
"""

import contextlib
import select
import socket
import threading
import time
from typing import Final

from ukihashi.errors import UkihashiError
from ukihashi.net import link
from ukihashi.net.tls import TlsChannel, TlsState

HELD: Final = 64 * 1024  # bytes read at once; no more is read before they are gone
PAIR_BUFFER: Final = 128 * 1024  # bytes the kernel keeps for a direction of the pair: more would only be delay
FLUSH_S: Final = 2.0  # seconds the last bytes have when the caller is gone

_IN, _OUT, _HUP = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR


def pair() -> tuple[socket.socket, socket.socket]:
    """The caller's end, and ours; both non-blocking."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BUFFER)
    return ends


def over_tls(network: socket.socket, channel: TlsChannel, early: bytes) -> socket.socket:
    """The caller's end of a tunnel inside `channel`; `early` came already. The network's socket is ours from now on."""
    near, ours = pair()
    relay = _TlsRelay(network, channel, ours, early)
    threading.Thread(target=relay.run, name="tls to the proxy", daemon=True).start()
    return near


class _TlsRelay:
    def __init__(self, network: socket.socket, channel: TlsChannel, ours: socket.socket, early: bytes) -> None:
        self._network, self._channel, self._ours = network, channel, ours
        self._inbound = memoryview(early)  # plaintext on its way to the caller
        self._caller_ended = self._told_caller = False

    def run(self) -> None:
        """Carry, then close everything."""
        with self._network, self._ours, contextlib.suppress(OSError, UkihashiError):
            link.tune(self._network)
            self._to_caller()
            while self._carry():
                pass
            self._flush()

    def _carry(self) -> bool:
        """Wait, and move what can be moved; False when nothing more can come from either side."""
        reads_network = not self._inbound and self._channel.state is TlsState.OPEN
        reads_caller = not self._caller_ended and not self._channel.backlog
        network_wants = (_IN if reads_network else 0) | (_OUT if self._channel.outgoing() else 0)
        poll = select.poll()
        poll.register(self._ours, (_IN if reads_caller else 0) | (_OUT if self._inbound else 0))
        if network_wants:
            poll.register(self._network, network_wants)
        events = dict(poll.poll())
        of_network, of_caller = events.get(self._network.fileno(), 0), events.get(self._ours.fileno(), 0)
        if of_caller & _HUP:
            return False
        if of_caller & _IN:
            self._from_caller()
        if of_network & (_IN | _HUP) and reads_network:
            self._from_network()
        self._to_caller()
        self._to_network()
        return not (self._caller_ended and self._told_caller and not self._channel.backlog)

    def _flush(self) -> None:
        """The caller's last bytes, and close_notify."""
        until = time.monotonic() + FLUSH_S
        poll = select.poll()
        poll.register(self._network, _OUT)
        while (self._channel.backlog or not self._caller_ended) and (left := until - time.monotonic()) > 0:
            if not self._channel.backlog:
                self._from_caller()
            self._to_network()
            if self._channel.backlog:
                poll.poll(left * 1000)

    def _from_network(self) -> None:
        try:
            data = self._network.recv(HELD)
        except BlockingIOError:
            return
        if data:
            self._inbound = memoryview(self._channel.receive(data))
        else:
            self._channel.receive_end()

    def _to_caller(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._inbound:
                self._inbound = self._inbound[self._ours.send(self._inbound) :]
        if self._channel.state is TlsState.PEER_CLOSED and not self._inbound and not self._told_caller:
            self._told_caller = True
            self._ours.shutdown(socket.SHUT_WR)

    def _from_caller(self) -> None:
        try:
            data = self._ours.recv(HELD)
        except BlockingIOError:
            return
        if data:
            self._channel.send(data)
        else:
            self._caller_ended = True
            self._channel.close()

    def _to_network(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while outgoing := self._channel.outgoing():
                self._channel.sent(self._network.send(outgoing))
