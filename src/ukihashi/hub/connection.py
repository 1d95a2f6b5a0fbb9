"""One accepted TCP connection: socket and TLS on one side, a `Stage` that gives the bytes a meaning on the other.

The stage changes once, from the front door to a tunnel; no byte is lost between (trap T13), because the new stage is
given what the old one had not used. Nothing here blocks. What began as TLS stays TLS, unless the stage leaves it in so
many words (`leave_tls`). From a load balancer, and from nobody else, a PROXY protocol header comes before all that.
"""

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from ukihashi.errors import NotTrusted, PeerViolation
from ukihashi.hub.balancers import Balancers
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import GONE, READ, WRITE, Deadlines, Lane, Loop
from ukihashi.net.clear import ClearChannel, cut_records
from ukihashi.net.congestion import congestion_of
from ukihashi.net.link import is_stalled
from ukihashi.net.listen import address_text, site_of
from ukihashi.net.proxy_protocol import MAX_HEADER, read_header
from ukihashi.net.tls import TlsChannel, TlsState, channel
from ukihashi.session.udp_path import Where

READ_SIZE: Final = 256 * 1024  # bytes of one read; the buffer is shared, for a thousand of them would cost 256 MB
OPENINGS_A_TURN: Final = 1  # reads of connections that carry no session: a TLS handshake, a request, a page
TLS_HANDSHAKE: Final = 0x16  # RFC 8446, 5.1: first byte of a ClientHello's record
PEER_WATCH_S: Final = (60, 15, 4)  # silence before the kernel asks whether the peer is there, again after, how often
PLAIN_HINT: Final = b"This port speaks HTTPS. Use https:// in the address.\n"


class Stage(Protocol):
    """What a connection is used for at the moment. Its methods may call any method of the connection."""

    def received(self, plain: bytes, now: float) -> None:
        """Plaintext came, at least one byte. Raises PeerViolation: the connection is then closed for that reason."""

    def writable(self, now: float) -> None:
        """Everything sent so far is with the kernel; more may be sent."""

    def ended(self, reason: str) -> None:
        """No more bytes will come or can be sent. Called once; the connection sees to its own end."""


@dataclass
class Wiring:
    """What all connections of a worker share."""

    loop: Loop
    context: ssl.SSLContext
    limits: Limits
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_SIZE)))
    lingering: Deadlines["Connection"] = field(init=False)
    openings: Lane = field(init=False)  # connections with something to read that carry no session
    balancers: Balancers = field(init=False)

    def __post_init__(self) -> None:
        self.openings = self.loop.lane(OPENINGS_A_TURN)
        self.lingering = Deadlines(self.limits.linger_s)
        self.balancers = Balancers(self.loop, self.limits.proxies)


class Connection:
    """See the module. Owns the socket; `close` is the orderly end, `abort` the hard one."""

    __slots__ = (
        "_carries", "_closing", "_events", "_fd", "_head", "_reading", "_records", "_relayed", "_shut", "_socket",
        "_stage", "_tls", "_waits", "_wiring", "name", "peer", "read_most", "since",
    )  # fmt: skip

    def __init__(self, wiring: Wiring, sock: socket.socket, peer: str, name: str = "") -> None:
        self._wiring = wiring
        self._socket = sock
        self._fd = sock.fileno()
        # made at the first byte: silent connections cost next to nothing
        self._tls: TlsChannel | ClearChannel | None = None
        # Where a tunnel may leave TLS: what has come and TLS has not seen, a record or the start of one.
        self._records: bytearray | None = bytearray() if wiring.limits.allow_plaintext else None
        self._stage: Stage | None = None
        self._events = READ
        self._reading = True
        self._closing = False
        self._shut = False  # our FIN is out
        self._carries = False  # a session
        self._waits = False  # in the lane of openings
        self.name = name  # CID-n, of all connections of the worker
        self.peer = peer  # "address:port"; behind a load balancer the client's, as soon as it is known
        # By a load balancer: what has come of the header that it must begin with; None: it is through, or none is due.
        self._relayed = wiring.balancers.has(peer)
        self._head: bytearray | None = bytearray() if self._relayed else None
        self.since = time.time()
        self.read_most = READ_SIZE  # bytes of one read
        wiring.loop.watch(self._fd, READ, self._on_events)

    def set_stage(self, stage: Stage | None, *, carries: bool = False) -> None:
        """From now on the bytes are `stage`'s. `carries`: they are a session's, which waits for nobody's opening."""
        self._stage = stage
        self._carries = carries

    @property
    def tls(self) -> TlsChannel | ClearChannel | None:
        """For its version and cipher."""
        return self._tls

    @property
    def backlog(self) -> int:
        """Bytes of ciphertext that the kernel has not taken yet."""
        return self._tls.backlog if self._tls is not None else 0

    @property
    def is_open(self) -> bool:
        """Can still be sent on."""
        return not self._closing and self._fd >= 0

    @property
    def is_writable(self) -> bool:
        """Can be sent on, and nothing waits for the kernel."""
        return not self._closing and self._fd >= 0 and (self._tls is None or not self._tls.backlog)

    @property
    def ends(self) -> tuple[Where, Where] | None:
        """Our address and the peer's, as sockets name them; None if it broke meanwhile or the peer is elsewhere."""
        if self._relayed:
            return None
        try:
            return self._socket.getsockname(), self._socket.getpeername()
        except OSError:
            return None

    @property
    def congestion(self) -> str:
        """The TCP congestion control that decides how fast we send."""
        return congestion_of(self._socket)

    def set_socket_option(self, option: int, value: int) -> None:
        """A TCP option; one that this kernel doesn't know is left."""
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def watch_peer(self) -> None:
        """End it when the peer's machine is gone, though nothing is to be said for hours."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in zip(
            (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), PEER_WATCH_S, strict=True
        ):
            self.set_socket_option(option, value)

    def leave_tls(self) -> bytes:
        """Plain bytes in both directions from now on, behind what waits; gives what has come and is no TLS (2.1)."""
        rest, unsent = bytes(self._records or b""), bytearray()
        self._records = None
        if self._tls is not None:
            while data := self._tls.outgoing():
                unsent += data
                self._tls.sent(len(data))
            self._tls = ClearChannel(bytes(unsent))
        return rest

    @property
    def is_stalled(self) -> bool:
        """The kernel could not get rid of anything lately; ask while there is a backlog."""
        return self._fd >= 0 and is_stalled(self._socket)

    def send(self, plain: bytes) -> None:
        """Encrypt and write what the kernel takes; the rest goes out by itself, then `Stage.writable` is called."""
        if self._tls is None or not self.is_open:
            return
        try:
            self._tls.send(plain)
        except PeerViolation:
            self.abort("TLS failed")
            return
        self._flush()

    def say_plainly(self, line: bytes) -> None:
        """For a peer that has not said one byte; nothing to any other: what began as TLS stays TLS."""
        if self._tls is None and self.is_open:
            with suppress(OSError):
                self._socket.send(line, socket.MSG_NOSIGNAL)

    def pause(self) -> None:
        """Read nothing more until `resume` (the front door waits for somebody's answer)."""
        self._reading = False
        self._arm()

    def resume(self) -> None:
        """Read again."""
        self._reading = True
        self._arm()
        if self._records:
            self._wiring.loop.at(self._wiring.loop.now, self._take_records)

    def close(self, reason: str) -> None:
        """Say close_notify (trap T1) behind what waits, then FIN, and give the peer `linger_s` to do the same.

        Without the wait, unread bytes of the peer would make the kernel send a reset that overtakes our last words.
        """
        if not self.is_open:
            return
        self._leave_stage(reason)
        self._closing = True
        self._reading = True
        self._wiring.lingering.restart(self, self._wiring.loop.now)
        if self._tls is not None:
            self._tls.close()
        self._flush()

    def abort(self, reason: str) -> None:
        """End now: close_notify if the kernel takes it at once, and the descriptor is free."""
        if self._fd < 0:
            return
        self._leave_stage(reason)
        if self._tls is not None and not self._closing:
            self._tls.close()
            with suppress(OSError):
                self._socket.send(self._tls.outgoing(), socket.MSG_NOSIGNAL)
        self._wiring.lingering.drop(self)
        self._wiring.loop.forget(self._fd)
        self._fd = -1
        self._socket.close()

    def _leave_stage(self, reason: str) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.ended(reason)

    def _on_events(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
            if events & (READ | GONE) and self._fd >= 0:
                if self._closing or (self._reading and self._carries):
                    self._read()
                elif self._head is not None:
                    self._read_head(self._head)
                elif self._reading:
                    self._wait()
                elif events & GONE:
                    self.abort("connection lost")
        except Exception:
            self.abort("internal error")  # a fault of ours costs the one who triggers it; the loop logs it
            raise

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._arm()
            self._wiring.openings.put(self._take_turn, site_of(self.peer))

    def _take_turn(self) -> None:
        """The lane of openings has come to us; meanwhile anything may have happened."""
        self._waits = False
        try:
            if self._reading and self._fd >= 0:
                self._read()
        except Exception:
            self.abort("internal error")
            raise
        self._arm()

    def _read_head(self, head: bytearray) -> None:
        """Whom a load balancer brings. Not one byte more is taken, so that what follows waits in that client's name."""
        try:
            seen = self._socket.recv(MAX_HEADER, socket.MSG_PEEK)
            if not seen and not head:  # it looked whether we are there
                self.close("closed by the load balancer")
                return
            header = read_header(bytes(head) + seen) if seen else None
            self._socket.recv(len(seen) if header is None else header.length - len(head))
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(f"connection lost ({error.strerror})")
            return
        except PeerViolation as violation:
            self._wiring.balancers.complain(self.peer, violation)
            self.close(str(violation))
            return
        if header is None:
            head += seen
            if not seen:
                self.close("closed by the load balancer")
            return
        self._head = None
        if header.source is not None:
            self.peer = address_text(header.source)

    def _read(self) -> None:
        wiring = self._wiring
        try:
            count = self._socket.recv_into(wiring.buffer, self.read_most)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(f"connection lost ({error.strerror})")
            return
        if self._closing:
            if not count:
                self.abort("closed")
            return  # what comes now is nobody's
        if not count:
            self._peer_ended("closed by the peer without TLS close")
            return
        if self._tls is None and not self._begin(wiring.buffer[0]):
            return
        if self._records is None:
            self._take(wiring.buffer[:count])
        else:
            self._records += wiring.buffer[:count]
            self._take_records()

    def _begin(self, first: int) -> bool:
        """Look at the first byte of all: TLS, or somebody who forgot the s of https, or nothing we know."""
        if first == TLS_HANDSHAKE:
            self._tls = channel(self._wiring.context, server_side=True)
            return True
        if chr(first).isalpha() and chr(first).isupper():  # a method of plain HTTP
            head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
            with suppress(OSError):
                self._socket.send(head + b"Content-Length: %d\r\n\r\n" % len(PLAIN_HINT) + PLAIN_HINT)
        self.close("not TLS")
        return False

    def _take_records(self) -> None:
        """One TLS record after the other, while somebody reads: the one that ends TLS may be among them."""
        records = self._records
        if records is None or not self._reads_records:
            return
        for record in cut_records(records):
            self._take(record)
            if not self._reads_records:
                return

    @property
    def _reads_records(self) -> bool:
        return self._records is not None and self._reading and self.is_open

    def _take(self, data: bytes | memoryview) -> None:
        tls, stage, now = self._tls, self._stage, self._wiring.loop.now
        assert tls is not None
        try:
            plain = tls.receive(data)
            if plain and stage is not None:
                stage.received(plain, now)
        except (PeerViolation, NotTrusted) as violation:
            self.close(str(violation))
            return
        if tls.state is TlsState.PEER_CLOSED:
            self._peer_ended("closed by the peer")
        elif tls.backlog and self._fd >= 0:
            self._flush()

    def _peer_ended(self, reason: str) -> None:
        if self._tls is not None:
            self._tls.receive_end()
        self.close(reason)

    def _flush(self) -> None:
        """Write ciphertext until none is left or the kernel takes no more."""
        tls = self._tls
        if tls is not None:
            try:
                while pieces := tls.pieces():
                    tls.sent(self._socket.sendmsg(pieces, (), socket.MSG_NOSIGNAL))
            except BlockingIOError:
                self._arm()
                return
            except OSError as error:
                self._closing = True  # nothing can be said any more
                self.abort(f"connection lost ({error.strerror})")
                return
        if self._closing:
            if not self._shut:
                self._shut = True
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
        elif self._events & WRITE and self._stage is not None:
            self._arm()
            self._stage.writable(self._wiring.loop.now)
            return
        elif self._events == READ and self._reading and not self._waits:
            return
        self._arm()

    def _arm(self) -> None:
        if self._fd < 0:
            return
        reads = self._reading and (not self._waits or self._closing)
        events = (READ if reads else 0) | (WRITE if self.backlog and not self._shut else 0)
        if events != self._events:
            self._events = events
            self._wiring.loop.change(self._fd, events)
