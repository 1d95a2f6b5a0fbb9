"""A hub in a few threads, for tests of a card: real TLS, HTTP and PACK, no switch, and it misbehaves on request.

What it does with frames is the test's business: `frames` has those that came, `send` gives some to the card. With
`grace_s` its sessions can be resumed exactly.
"""

import contextlib
import os
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from ukihashi.auth.password import check_secure_password, hash_password
from ukihashi.errors import PeerViolation
from ukihashi.net.tls import TlsChannel, TlsState, server_context, spki_pin
from ukihashi.session.machine import HUB_MOVES, CannotResume, Machine, Stale, State
from ukihashi.wire.blocks import BlockDecoder, encode_frames, encode_keepalive
from ukihashi.wire.constants import AuthType, Code
from ukihashi.wire.extension import (
    Bye,
    Have,
    PeerOptions,
    Reason,
    encode_bye,
    encode_have,
    encode_have_keepalive,
    encode_options,
)
from ukihashi.wire.http import Request, ServerSide, is_pack, is_signature, pack_response
from ukihashi.wire.messages import (
    AdditionalAnswer,
    AdditionalConnect,
    ErrorAnswer,
    Hello,
    Login,
    Noop,
    Redirect,
    UnknownMethod,
    Welcome,
    read_request,
)
from ukihashi.wire.pack import Pack

WAIT_S = 10.0


class Conversation:
    """A TLS connection that one thread reads and others may write."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.is_cut = False
        self._is_over = False  # close_notify is said
        self._channel = TlsChannel(context, server_side=True)
        self._lock = threading.Lock()
        self._clear = False  # TLS is left

    def read(self) -> bytes:
        """Some plaintext; b"" at the end. Raises OSError, PeerViolation."""
        if self._clear:
            return self.sock.recv(65536)
        while self._channel.state is not TlsState.PEER_CLOSED:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionAbortedError
            with self._lock:
                try:
                    plain = self._channel.receive(data)
                finally:
                    self._flush()
            if plain:
                return plain
        return b""

    def write(self, data: bytes) -> None:
        with self._lock:
            if not self._is_over:
                if self._clear:
                    self.sock.sendall(data)
                else:
                    self._channel.send(data)
                    self._flush()

    def leave_tls(self) -> None:
        """From now on everything is in the clear."""
        self._clear = True

    def goodbye(self) -> None:
        """Say close_notify."""
        with self._lock, contextlib.suppress(OSError):
            self._is_over = True
            if not self._clear:
                self._channel.close()
                self._flush()
            self.sock.shutdown(socket.SHUT_WR)

    def _flush(self) -> None:
        while data := self._channel.outgoing():
            self.sock.sendall(data)
            self._channel.sent(len(data))


class _Session:
    """One that can be resumed exactly. Its machine is touched with the lock held, and written out at once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.machine: Machine | None = None
        self.talk: Conversation | None = None
        self.number = 0  # of the link

    def next_link(self, talk: Conversation) -> int:
        self.number += 1
        self.talk = talk
        return self.number

    def flush(self) -> None:
        """Write what waits."""
        assert self.machine is not None
        if self.talk is not None:
            while data := self.machine.take(1 << 16):
                self.talk.write(data)


class FakeHub:
    """One virtual hub on a loopback port. Use as a context manager."""

    def __init__(self, certificate: Path, key: Path, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self._context = server_context(certificate, key)
        self.certificate = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        self.pin = spki_pin(self.certificate)
        self.hub = "LAN"
        self.passwords: dict[str, str] = {"alice": "wonderland"}
        self.hashes: dict[str, bytes] = {}  # set through invitations
        self.invites: dict[str, bytes] = {}  # token -> the hash it was spent for, b"" = unspent
        self.extension = 1
        self.timeout_ms = 20_000
        self.use_encrypt = True
        self.error: ErrorAnswer | None = None  # answer every login with it
        self.noops = 0  # answers that only say "wait", before each welcome
        self.page: tuple[int, bytes] | None = None  # be an ordinary web server that answers so
        self.deaf = False  # take connections and say nothing at all
        self.forgetful = False  # know no session
        self.grace_s = 0  # grant exact resume; 0: don't
        self.super_frames = 0  # kinds of super-frames that a session with exact resume is granted, of those asked for
        self.resumes_to_cut = 0  # resets instead of answers to so many exact resumes
        self.answers = True  # exact resumes; False: say nothing to them
        self.keepalive_ms = 0  # what it tells of its keep-alives; 0: nothing, so the usual 5 s
        self.heeded = threading.Event()  # cleared: reads and says nothing over any tunnel, and answers nobody
        self.heeded.set()
        self.byes: list[Bye] = []
        self.peer_options: list[PeerOptions] = []
        self.logins: list[Login] = []
        self.resumes: list[bytes] = []
        self.thanks = 0
        self.frames: queue.Queue[bytes] = queue.Queue()
        self.keepalives = 0
        self.goodbyes = 0  # links that ended with close_notify
        self.keys: set[bytes] = set()
        self.sessions: dict[bytes, _Session] = {}
        self._link: Conversation | None = None
        self._linked = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((address, port))
        self.port: int = self._listener.getsockname()[1]
        self.address = address

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything; a second call does nothing."""
        self.heeded.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_S)

    def send(self, frames: Sequence[bytes]) -> None:
        """Give frames to the card, in one batch; a cut session keeps them."""
        if not self.sessions:
            self.link().write(encode_frames(frames))
            return
        session = self.session()
        with session.lock:
            assert session.machine is not None
            session.machine.send(encode_frames(frames), len(frames))
            with contextlib.suppress(OSError):  # cut under our hands
                session.flush()

    def session(self) -> _Session:
        """The newest that can be resumed exactly; waits for one."""
        with self._linked:
            assert self._linked.wait_for(lambda: self.sessions, WAIT_S), "no session came"
            return list(self.sessions.values())[-1]

    def machine(self) -> Machine:
        """Of the newest session."""
        machine = self.session().machine
        assert machine is not None
        return machine

    def take_over(self, other: "FakeHub") -> None:
        """Know the sessions and people of a hub that has been closed."""
        self.hashes, self.invites, self.grace_s = other.hashes, other.invites, other.grace_s
        self.keys |= other.keys
        self.sessions |= other.sessions

    def speak(self) -> None:
        """Send a keep-alive over the newest link."""
        session = self.session()
        with session.lock:
            if session.talk is not None:
                session.talk.write(encode_have_keepalive(self.machine().acknowledge(), b""))

    def say_bye(self, reason: Reason) -> None:
        """End the newest session on purpose."""
        self.link().write(encode_bye(Bye(reason)))
        self.machine().bye()
        self.cut()

    def send_raw(self, data: bytes) -> None:
        """Give any bytes of the block stream to the card."""
        self.link().write(data)

    def link(self) -> Conversation:
        """The newest link that is in tunnelling; waits for one."""
        with self._linked:
            assert self._linked.wait_for(lambda: self._link is not None, WAIT_S), "no link came"
            assert self._link is not None
            return self._link

    def cut(self, *, reset: bool = False) -> None:
        """End the newest link: with close_notify, or with a reset."""
        talk = self.link()
        if reset:
            talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        talk.is_cut = True
        with self._linked:
            self._link = None
        if reset:
            with contextlib.suppress(OSError):  # it has woken by itself
                talk.sock.shutdown(socket.SHUT_RD)  # wakes the thread, whose close is the reset
        else:
            talk.goodbye()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        self._open.add(sock)
        with sock:
            try:
                if self.deaf:
                    while sock.recv(4096):
                        pass
                else:
                    self._talk(Conversation(sock, self._context))
            except (OSError, PeerViolation):  # the card went away, or we cut it
                pass
            finally:
                self._open.discard(sock)

    def _talk(self, talk: Conversation) -> None:
        http = ServerSide()
        challenge = os.urandom(20)
        while data := talk.read():
            self._heed(talk)
            for request in http.receive(data):
                if self._answer(talk, http, request, challenge):
                    session = next((one for one in self.sessions.values() if one.talk is talk), None)
                    if session is None:
                        self._tunnel(talk, http.take_over())
                    else:
                        self._exact_tunnel(session, talk, http.take_over())
                    return

    def _answer(self, talk: Conversation, http: ServerSide, request: Request, challenge: bytes) -> bool:
        """Answer one request; True when the tunnel begins."""
        pencore = os.urandom(os.urandom(1)[0])
        if self.page is not None:
            talk.write(http.respond(self.page[0], [("Content-Type", "text/html")], self.page[1]))
            return False
        if is_signature(request):
            talk.write(pack_response(http, Hello("fake hub", 501, 9999, challenge).to_pack(pencore)))
            return False
        if not is_pack(request):
            talk.write(http.respond(404))
            return False
        message = read_request(Pack.decode(request.body))
        if isinstance(message, AdditionalConnect) and message.resume is not None and not self.answers:
            self.resumes.append(message.session_key)
            return False
        answer: Welcome | AdditionalAnswer | Redirect | ErrorAnswer
        if isinstance(message, Login):
            self.logins.append(message)
            answer = self._judge(talk, message, challenge)
        elif isinstance(message, AdditionalConnect):
            self.resumes.append(message.session_key)
            answer = self._resume(talk, message)
        elif message == UnknownMethod(""):  # thanks for a redirect
            self.thanks += 1
            return False
        else:
            answer = ErrorAnswer(Code.PROTOCOL_ERROR)
        data = pack_response(http, answer.to_pack(pencore))
        for _ in range(self.noops):  # answers to a request that was not yet answered for good
            waiting = ServerSide()
            waiting.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = pack_response(waiting, Noop(2).answer_pack(pencore)) + data
        talk.write(data)
        return isinstance(answer, Welcome | AdditionalAnswer)

    def _resume(self, talk: Conversation, message: AdditionalConnect) -> AdditionalAnswer | ErrorAnswer:
        if message.session_key not in self.keys or self.forgetful:
            return ErrorAnswer(Code.SESSION_TIMEOUT)
        session = self.sessions.get(message.session_key)
        if message.resume is None or session is None or session.machine is None:
            return AdditionalAnswer()
        if self.resumes_to_cut > 0:
            self.resumes_to_cut -= 1
            talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionAbortedError
        with session.lock:
            try:
                session.machine.check(message.resume)
            except Stale:
                return ErrorAnswer(Code.INVALID_PROTOCOL)
            except CannotResume as error:
                session.machine.bye()
                return ErrorAnswer(Code.SESSION_TIMEOUT, numbers=error.numbers)
            number = session.next_link(talk)  # the old one is heard no more
            return AdditionalAnswer(have=session.machine.asked(number, message.resume))

    def _judge(self, talk: Conversation, login: Login, challenge: bytes) -> Welcome | Redirect | ErrorAnswer:
        if self.error is not None:
            return self.error
        if login.hub.lower() != self.hub.lower():
            return ErrorAnswer(Code.HUB_NOT_FOUND)
        if not self._lets_in(login, challenge):
            return ErrorAnswer(Code.AUTH_FAILED)
        key = os.urandom(20)
        self.keys.add(key)
        grace_s = self.grace_s if login.resume else 0
        if grace_s:
            session = _Session()
            session.machine = Machine(HUB_MOVES, session.next_link(talk))
            self.sessions[key] = session
        return Welcome(
            session_name=f"SID-{login.user.upper()}-{len(self.keys)}",
            connection_name="CID-1",
            session_key=key,
            use_encrypt=self.use_encrypt,
            timeout_ms=self.timeout_ms,
            extension=self.extension if login.extension else 0,
            grace_s=grace_s,
            super_frames=self.super_frames & login.super_frames if grace_s else 0,
        )

    def _lets_in(self, login: Login, challenge: bytes) -> bool:
        token = login.invite_token
        if token:
            if self.invites.get(token) not in (b"", login.invite_hash):
                return False
            self.invites[token] = self.hashes[login.user] = login.invite_hash
        password = self.passwords.get(login.user, "")
        if login.authtype == AuthType.PLAIN_PASSWORD:
            return bool(password) and login.plain_password == password
        if login.authtype == AuthType.ANONYMOUS:
            return login.user in self.passwords and not password
        hashed = self.hashes.get(login.user) or hash_password(login.user, password)
        return check_secure_password(hashed, challenge, login.secure_password)

    def _tunnel(self, talk: Conversation, data: bytes) -> None:
        decoder = BlockDecoder()
        talk.write(encode_keepalive(b""))
        with self._linked:
            self._link = talk
            self._linked.notify_all()
        while True:
            for frame in decoder.feed(data):
                self.frames.put(frame)
            self.keepalives = decoder.keepalives
            data = talk.read()
            if not data:
                self.goodbyes += 1
                return

    def _exact_tunnel(self, session: _Session, talk: Conversation, data: bytes) -> None:
        decoder = BlockDecoder(extended=True, super_frames=bool(self.super_frames))
        number, machine = session.number, session.machine
        assert machine is not None
        with session.lock:
            talk.write(encode_have_keepalive(machine.acknowledge(), b""))
            if self.keepalive_ms:
                talk.write(encode_options(PeerOptions(self.keepalive_ms)))
            session.flush()
        with self._linked:
            self._link = talk
            self._linked.notify_all()
        try:
            while True:
                self._heed(talk)
                with session.lock:
                    if not machine.carries(number):
                        return
                    self._take(session, decoder, data)
                data = talk.read()
                if not data:
                    self.goodbyes += 1
                    return
        finally:
            with session.lock:
                machine.lost(number)

    def _heed(self, talk: Conversation) -> None:
        """Stand still while nothing is to be heeded; what was read before a cut is lost then."""
        while not self.heeded.wait(0.02):
            if talk.is_cut:
                raise ConnectionAbortedError

    def _take(self, session: _Session, decoder: BlockDecoder, data: bytes) -> None:
        machine = session.machine
        assert machine is not None
        frames = decoder.feed(data)
        machine.received(len(frames), len(data), time.monotonic())
        for frame in frames:
            self.frames.put(frame)
        self.keepalives = decoder.keepalives
        controls, decoder.controls = decoder.controls, []
        for control in controls:
            match control:
                case Have(have):
                    machine.acknowledged(have)
                case Bye():
                    self.byes.append(control)
                    machine.bye()
                    return
                case PeerOptions():
                    self.peer_options.append(control)
        if machine.state is State.ONLINE:
            if frames and session.talk is not None:  # at once: tests wait for it
                session.talk.write(encode_have(machine.acknowledge()))
            session.flush()
