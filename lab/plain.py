"""A plain client of the common protocol, for raw frames at any hub that speaks it: a standard server's or ours.

    with Plain(host, server.ipv4, hub="LAB", user="a", password="...") as a, Plain(...) as b:
        a.send(frame)
        turn([a, b], 0.5)
        assert b.frames == [frame]

One connection, no thread: sockets are read and keep-alives sent while `turn` runs, so call it at least every few
seconds. Everything is ended with close_notify (protocol section 22, trap T1).
"""

import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self, TypeVar

from lab.net import Host, LabError
from ukihashi.auth.password import hash_password, secure_password
from ukihashi.net.link import tune
from ukihashi.net.tls import TlsChannel, TlsState, client_context
from ukihashi.wire.blocks import BlockDecoder, encode_frames, encode_keepalive
from ukihashi.wire.constants import AuthType
from ukihashi.wire.http import ClientSide, Response, pack_request, read_pack, signature_request
from ukihashi.wire.messages import ErrorAnswer, Hello, Login, Node, Welcome, read_answer, read_hello
from ukihashi.wire.pack import Pack

PATIENCE_S: Final = 20.0  # for one step of the opening
KEEPALIVE_S: Final = 3.0  # of our own silence; servers give up after 20 s
BUILD: Final = 9674  # of the client we say to be: some servers refuse old ones
READ: Final = 1 << 16  # bytes

CONTEXT: Final = client_context()

Found = TypeVar("Found")


class Opening:
    """One TLS connection from `host`, step by step; what a hub is told on it is the caller's."""

    def __init__(self, host: Host, address: str, port: int, *, tls: bool = True) -> None:
        with host.inside():
            self.sock = socket.create_connection((address, port), PATIENCE_S)
        tune(self.sock)  # no Nagle, does not block
        self.http = ClientSide(f"[{address}]" if ":" in address else address)
        self.plain = bytearray()  # read and not yet used
        self.ended = False  # the other side has ended the connection, in whatever way
        self.challenge = b""
        self._tls = TlsChannel(CONTEXT, server_side=False)
        if tls:
            self._tls.start()
            self.flush()
            self.until(lambda: self._tls.state is not TlsState.HANDSHAKING, "TLS")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye and hang up."""
        self._tls.close()
        self.flush()
        self.sock.close()
        self.ended = True

    def raw(self, data: bytes) -> None:
        """Bytes below TLS."""
        try:
            self.sock.sendall(data)
        except OSError:
            self.ended = True

    def write(self, plain: bytes) -> None:
        """Send inside TLS; what the socket does not take now goes with the next `flush`."""
        if not self.ended:
            self._tls.send(plain)
            self.flush()

    def flush(self) -> None:
        """Write as much as the socket takes."""
        try:
            while data := self._tls.outgoing():
                self._tls.sent(self.sock.send(data))
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True

    def read(self) -> None:
        """Whatever is there, into `plain`."""
        while not self.ended:
            try:
                data = self.sock.recv(READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            self.plain += self._tls.receive(data)
            self.flush()
            if self._tls.state is TlsState.PEER_CLOSED:
                self.ended = True

    @property
    def backlog(self) -> int:
        """Bytes of ciphertext that the socket has not taken."""
        return self._tls.backlog

    def until(self, look: Callable[[], Found | None], what: str, *, seconds: float = PATIENCE_S) -> Found:
        """Read until `look` gives something. Raises `LabError` when the time is over or the connection is."""
        end = time.monotonic() + seconds
        while not (found := look()):
            if self.ended or (left := end - time.monotonic()) <= 0:
                raise LabError(f"{what} did not come: " + ("the connection was ended" if self.ended else "too late"))
            select.select([self.sock], [self.sock] if self.backlog else [], [], left)
            self.flush()
            self.read()
        return found

    def exchange(self, request: bytes) -> Response:
        """An HTTP request, and its whole answer."""
        self.write(request)

        def answer() -> Response | None:
            self.read()
            data, self.plain = bytes(self.plain), bytearray()
            return self.http.receive(data) if data else None

        return self.until(answer, "an answer")

    def pack(self, pack: Pack) -> Pack:
        """A PACK, and the PACK it is answered with."""
        answer = read_pack(self.exchange(pack_request(self.http, pack)))
        if answer is None:
            raise LabError("the answer is no PACK")
        return answer

    def hello(self) -> Hello:
        """The signature, and what the hub says of itself."""
        pack = read_pack(self.exchange(signature_request(self.http)))
        hello = read_hello(pack) if pack is not None else None
        if not isinstance(hello, Hello):
            raise LabError(f"no hello: {hello}")
        self.challenge = hello.random
        return hello

    def login(self, login: Login) -> Welcome:
        """Raises `Refused` with the hub's code."""
        answer = read_answer(self.pack(login.to_pack(secrets.token_bytes(secrets.randbelow(1000)))))
        if isinstance(answer, ErrorAnswer):
            raise answer.refusal()
        if not isinstance(answer, Welcome):
            raise LabError(f"no welcome: {answer}")
        self.plain = bytearray(self.http.take_over()) + self.plain
        return answer


class Plain:
    """A session of one connection. Raises `Refused` with the hub's code if it is not let in.

    Args:
        password: None = anonymous.  bridge, monitor: modes that are asked for (protocol sections 18.6, 18.7).
        login: more fields of the login, or others.
    """

    def __init__(
        self,
        host: Host,
        address: str,
        *,
        hub: str,
        user: str,
        password: str | None = None,
        port: int = 443,
        bridge: bool = False,
        monitor: bool = False,
        **login: Any,
    ) -> None:
        self.name: Final = user
        self.frames: list[bytes] = []  # what came; whoever reads it may empty it
        self.arrived: list[float] = []  # when, monotonic
        self._decoder = BlockDecoder()
        self._link = Opening(host, address, port)
        try:
            self._link.hello()
            proof: dict[str, Any] = {"authtype": AuthType.ANONYMOUS}
            if password is not None:
                answer = secure_password(hash_password(user, password), self._link.challenge)
                proof = {"authtype": AuthType.PASSWORD_HASH, "secure_password": answer}
            asked: dict[str, Any] = {
                "client": "lab plain client",  # neither "server" nor "bridge" in it: trap T18
                "client_version": 501,
                "client_build": BUILD,
                "node": Node(host=host.name, system="Linux", unique_id=secrets.token_bytes(16)),
                **proof,
            }
            self.welcome: Final = self._link.login(
                Login(hub=hub, user=user, bridge_mode=bridge, monitor_mode=monitor, **asked | login)
            )
        except BaseException:
            self._link.close()
            raise
        self._said = 0.0  # when we last sent something

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Of the socket, for `select`."""
        return self._link.sock.fileno()

    @property
    def ended(self) -> bool:
        """The hub has ended the connection."""
        return self._link.ended

    def close(self) -> None:
        """Leave, with close_notify."""
        self._link.close()

    def send(self, *frames: bytes) -> None:
        """One batch."""
        self._link.write(encode_frames(frames))
        self._said = time.monotonic()

    def say(self, data: bytes) -> None:
        """Bytes of the block stream, whatever they are."""
        self._link.write(data)

    def pump(self) -> None:
        """Take what is there, and keep the session alive."""
        link = self._link
        link.flush()
        link.read()
        if link.plain:
            data, link.plain = bytes(link.plain), bytearray()
            new = self._decoder.feed(data)
            self.frames += new
            self.arrived += [time.monotonic()] * len(new)
        if time.monotonic() - self._said >= KEEPALIVE_S and not link.ended:
            link.write(encode_keepalive(secrets.token_bytes(secrets.randbelow(100))))
            self._said = time.monotonic()


class Seat:
    """A member that stays: a thread keeps its session alive until `close`."""

    def __init__(self, member: Plain) -> None:
        self._member = member
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._stay, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave."""
        self._end.set()
        self._thread.join(5.0)
        self._member.close()

    def _stay(self) -> None:
        while not self._end.wait(0.5):
            self._member.pump()


def turn(clients: Iterable[Plain], seconds: float) -> None:
    """Let all of them send and receive for a while."""
    living = list(clients)
    end = time.monotonic() + seconds
    while True:
        for one in living:
            one.pump()
        living = [one for one in living if not one.ended]
        left = end - time.monotonic()
        if left <= 0:
            return
        select.select(living, [], [], min(left, 0.2))


def turn_until(clients: Sequence[Plain], look: Callable[[], bool], *, seconds: float, what: str) -> None:
    """The same, until `look` is true. Raises `LabError`."""
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() >= end:
            raise LabError(f"{seconds:g} s passed without {what}")
        turn(clients, 0.02)
