"""The front door: what a new connection may say before it is a tunnel, a page or gone (protocol sections 4 to 11).

    TLS -> signature -> hello -> login or additional_connect -> tunnel
    TLS -> any other request -> the page server's answer, on the same kept connection
    anything else -> a short answer where one helps, and the end

Every step has a deadline, and `half_open` connections may be under way at once; when one more comes, the one that has
stood still longest goes. So a thousand silent connections cost a thousand descriptors and keep nobody out.
"""

import os
import secrets
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from ukihashi import __version__
from ukihashi.errors import PeerViolation, VersionMismatch
from ukihashi.hub.connection import Connection, Wiring
from ukihashi.hub.loop import Deadlines
from ukihashi.hub.messages import LoginAnswered, LoginAsked, LoginRefused
from ukihashi.hub.sessions import Sessions
from ukihashi.net.listen import address_text
from ukihashi.wire.constants import (
    BLOB_LENGTH,
    BLOB_TRAILER_MAX,
    CHALLENGE_LENGTH,
    EXTENSION_OLDEST,
    EXTENSION_VERSION,
    MAX_NOOPS,
    MAX_PENCORE,
    MAX_REQUEST_PACK,
    MAX_REQUESTS,
    PROBE_TAG,
    SHORT_SIGNATURE,
    AuthType,
    Code,
)
from ukihashi.wire.http import (
    HttpViolation,
    Request,
    ServerSide,
    is_pack,
    is_signature,
    is_signature_target,
    pack_response,
)
from ukihashi.wire.messages import (
    AdditionalAnswer,
    AdditionalConnect,
    ErrorAnswer,
    Hello,
    Login,
    MessageViolation,
    Noop,
    agree,
    read_request,
)
from ukihashi.wire.pack import Pack

PRODUCT: Final = f"ukihashi hub {__version__}"
VERSION: Final = 501  # what compatible peers number themselves by; nothing depends on it
BUILD: Final = 9999
ACCEPTS_A_TURN: Final = 64  # connections; established sessions are served in between
HTML: Final = (("Content-Type", "text/html; charset=utf-8"),)
TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)
TAGGED_PAGE: Final = b"<!doctype html><!-- " + PROBE_TAG + b" --><title>ukihashi</title>"
LOGINS_TAKEN: Final = frozenset({AuthType.ANONYMOUS, AuthType.PASSWORD_HASH, AuthType.PLAIN_PASSWORD})


class Pages(Protocol):
    """Who answers what is not the protocol's."""

    def ask(self, request: Request, peer: str, answer: Callable[[int, list[tuple[str, str]], bytes], None]) -> object:
        """Call `answer(status, headers, body)` once, within `relay_s`."""


class Control(Protocol):
    """The way to the control process."""

    def ask_login(self, asked: LoginAsked) -> bool:
        """Send; the answer comes to `FrontDoor.answered`. False: there is no control process at the moment."""

    def refused(self, message: LoginRefused) -> None:
        """Tell of a login that never got to control."""


class FrontDoor:
    """Takes connections from the listeners and keeps time over those that are no tunnel yet."""

    def __init__(self, wiring: Wiring, sessions: Sessions, pages: Pages, control: Control) -> None:
        self.wiring = wiring
        self.sessions = sessions
        self.pages = pages
        self.control = control
        limits = wiring.limits
        self._opening: Deadlines[Caller] = Deadlines(limits.opening_s)
        # Those who wait for us. Pages keep time themselves; ours is only a net below.
        self._asking: Deadlines[Caller] = Deadlines(limits.login_s)
        self._paging: Deadlines[Caller] = Deadlines(2 * limits.relay_s)
        self._tick_s = min(0.25, limits.opening_s / 8, limits.linger_s / 2)
        self.evicted = 0  # connections closed to make room, so far
        self._last_ask = 0
        self._asks: dict[int, Caller] = {}
        self._tick()

    @property
    def half_open(self) -> int:
        """Connections that are no tunnel (yet, or any more)."""
        return len(self._opening) + len(self._asking) + len(self._paging) + len(self.wiring.lingering)

    def accept(self, listener: socket.socket) -> None:
        """Take what waits at a listener, at most ACCEPTS_A_TURN."""
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors, or the peer is gone already
                if not self._evict():
                    return
                continue
            sock.setblocking(False)
            while self.half_open >= self.wiring.limits.half_open and self._evict():
                pass
            self._opening.restart(Caller(self, Connection(self.wiring, sock, address_text(address))), self._now)

    def moved(self, caller: "Caller") -> None:
        """`caller` finished a step and may take its time for the next."""
        self.left(caller)
        self._opening.restart(caller, self._now)

    def waits_for_page(self, caller: "Caller") -> None:
        """`caller` waits for the page server: not its fault, and not its deadline."""
        self.left(caller)
        self._paging.restart(caller, self._now)

    def waits_for_login(self, caller: "Caller") -> int:
        """`caller` waits for control; the number of the question."""
        self.left(caller)
        self._asking.restart(caller, self._now)
        self._last_ask += 1
        self._asks[self._last_ask] = caller
        caller.ask = self._last_ask
        return self._last_ask

    def left(self, caller: "Caller") -> None:
        """`caller` is a tunnel now, or gone."""
        self._opening.drop(caller)
        self._asking.drop(caller)
        self._paging.drop(caller)
        self._asks.pop(caller.ask, None)

    def answered(self, answer: LoginAnswered) -> None:
        """Control has decided; for a caller who is gone by now, nothing."""
        caller = self._asks.pop(answer.ask, None)
        if caller is not None:
            caller.answered(answer)

    def control_lost(self) -> None:
        """No answer will come to what was asked so far."""
        for ask in list(self._asks):
            self.answered(LoginAnswered(ask=ask, error=Code.INTERNAL_ERROR))

    def close(self) -> None:
        """Nobody else gets in, and who is at the door is sent away."""
        for caller in self._opening.items() + self._asking.items() + self._paging.items():
            caller.connection.close("the hub stops")

    @property
    def _now(self) -> float:
        return self.wiring.loop.now

    def _evict(self) -> bool:
        ending = self.wiring.lingering.pop_oldest()
        if ending is not None:
            ending.abort("no room")
            return True
        caller = self._opening.pop_oldest()
        if caller is not None:
            self.evicted += 1
            caller.connection.abort("no room")
        return caller is not None

    def _tick(self) -> None:
        now = self._now
        for caller in self._opening.pop_expired(now):
            caller.connection.close("too slow")
        for caller in self._asking.pop_expired(now):
            self.answered(LoginAnswered(ask=caller.ask, error=Code.INTERNAL_ERROR))
        for caller in self._paging.pop_expired(now):
            caller.connection.close("no page came")
        for connection in self.wiring.lingering.pop_expired(now):
            connection.abort("closed")
        self.wiring.loop.at(now + self._tick_s, self._tick)


class Caller:
    """The stage of a connection that is not a tunnel yet."""

    __slots__ = ("_busy", "_challenge", "_door", "_http", "_login", "_noops", "ask", "connection")

    def __init__(self, door: FrontDoor, connection: Connection) -> None:
        self._door = door
        # no-ops are requests too; the limit of 19 is kept for those before the hello
        self._http = ServerSide(max_body=MAX_REQUEST_PACK, max_requests=MAX_REQUESTS + MAX_NOOPS)
        self._challenge = b""  # of our hello; empty before the signature came
        self._login: tuple[Login, int] | None = None  # asked of control, with the extension version agreed
        self._noops = 0
        self._busy = False  # a request is with somebody else, or this is a tunnel now: read no further request
        self.ask = 0  # number of the question to control
        self.connection = connection
        connection.set_stage(self)

    # -- the connection's side ------------------------------------------------------------------------------------

    def received(self, plain: bytes, now: float) -> None:  # noqa: ARG002 - part of Stage
        """Plaintext of the opening: any number of requests, each answered before the next is read."""
        try:
            requests = self._http.receive(plain)
            while requests:
                self._handle(requests[0])
                if self._busy or not self.connection.is_open:
                    return
                if self._http.must_close:
                    self.connection.close("no further request")
                    return
                requests = self._http.receive(b"")
        except HttpViolation as violation:
            self._unreadable(violation)

    def writable(self, now: float) -> None:
        """Nothing to do: answers are small."""

    def ended(self, reason: str) -> None:  # noqa: ARG002 - part of Stage
        """Gone."""
        self._door.left(self)

    # -- requests -------------------------------------------------------------------------------------------------

    def _handle(self, request: Request) -> None:
        self._door.moved(self)
        if self._challenge:
            self._handle_pack(request)
        elif is_signature_target(request):
            self._handle_signature(request)
        elif request.method in {"GET", "HEAD"} and request.header(b"x-vpn") is not None:
            self._answer(HTTPStatus.OK, HTML, TAGGED_PAGE)  # protocol section 4.1
        else:
            self._busy = True
            self.connection.pause()
            self._door.waits_for_page(self)
            self._door.pages.ask(request, self.connection.peer, self._page_came)

    def _handle_signature(self, request: Request) -> None:
        if is_signature(request):
            self._challenge = secrets.token_bytes(CHALLENGE_LENGTH)
            self._send_pack(Hello(PRODUCT, VERSION, BUILD, self._challenge).to_pack(_pencore()))
            return
        length = len(request.body)
        possible = length == len(SHORT_SIGNATURE) or BLOB_LENGTH <= length <= BLOB_LENGTH + BLOB_TRAILER_MAX
        self._answer(HTTPStatus.FORBIDDEN, HTML, TAGGED_PAGE)
        if not possible:  # 4.2: wrong bytes of a possible length may be tried again, a wrong length not
            self.connection.close("no signature")

    def _handle_pack(self, request: Request) -> None:
        if not is_pack(request):
            self._refuse(Code.DISCONNECTED)
            return
        try:
            asked = read_request(Pack.decode(request.body, max_bytes=MAX_REQUEST_PACK))
        except PeerViolation as violation:
            unreadable = not isinstance(violation, MessageViolation)
            self._refuse(Code.DISCONNECTED if unreadable else Code.PROTOCOL_ERROR)
            return
        if isinstance(asked, Noop):
            self._noops += 1
            if self._noops > MAX_NOOPS:
                self.connection.close("too many no-ops")
                return
            self._send_pack(Noop().answer_pack(_pencore()))
        elif isinstance(asked, Login):
            self._ask_login(asked)
        elif isinstance(asked, AdditionalConnect):
            self._add_connection(asked)
        else:
            self._refuse(Code.PROTOCOL_ERROR)

    def _ask_login(self, login: Login) -> None:
        if login.authtype not in LOGINS_TAKEN:  # first of all checks (section 8): 96 to 98 are never the network's
            self._refuse(Code.AUTHTYPE_NOT_SUPPORTED, login)
            return
        try:
            extension = agree(login.extension, login.extension_oldest, peer="card")
        except VersionMismatch as mismatch:
            self._refuse(Code.VERSION_INVALID, login, str(mismatch))
            return
        if login.monitor_mode:
            self._refuse(Code.MONITOR_MODE_DENIED, login)
            return
        asked = LoginAsked(
            ask=self._door.waits_for_login(self),
            hub=login.hub,
            user=login.user,
            authtype=login.authtype,
            challenge=self._challenge,
            secure_password=login.secure_password,
            plain_password=login.plain_password,
            invite_token=login.invite_token,
            invite_hash=login.invite_hash,
            peer=self.connection.peer,
            client=login.client,
            client_version=login.client_version,
            client_build=login.client_build,
            extension=login.extension,
        )
        self._login = (login, extension)
        self._busy = True
        self.connection.pause()
        if not self._door.control.ask_login(asked):
            self._door.answered(LoginAnswered(ask=asked.ask, error=Code.INTERNAL_ERROR))

    def answered(self, answer: LoginAnswered) -> None:
        """Control has decided about our login, or can't."""
        if self._login is None or not self.connection.is_open:
            return
        (login, extension), self._login = self._login, None
        self.connection.resume()
        if answer.error:
            self._refuse(answer.error)  # control knows
            return
        opened = self._door.sessions.open(login, answer, extension, self.connection.peer)
        if isinstance(opened, Code):
            self._refuse(opened, login)
            return
        session, welcome = opened
        self._send_pack(welcome.to_pack(_pencore()))
        self._door.left(self)
        session.attach(self.connection, self._http.take_over())

    def _add_connection(self, asked: AdditionalConnect) -> None:
        session = self._door.sessions.find(asked.session_key)
        if session is None:
            self._refuse(Code.SESSION_TIMEOUT)
        elif not session.has_room:
            self._refuse(Code.TOO_MANY_CONNECTION)
        else:
            self._busy = True
            self._send_pack(AdditionalAnswer().to_pack(_pencore()))
            self._door.left(self)
            session.attach(self.connection, self._http.take_over())

    # -- answers --------------------------------------------------------------------------------------------------

    def _page_came(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if not self.connection.is_open:
            return
        self._door.moved(self)
        self._busy = False
        self.connection.resume()
        self._answer(status, headers, body)
        if self._http.must_close:
            self.connection.close("no further request")
        elif self.connection.is_open:
            self.received(b"", self._door.wiring.loop.now)

    def _answer(self, status: int, headers: list[tuple[str, str]] | tuple[tuple[str, str], ...], body: bytes) -> None:
        self.connection.send(self._http.respond(status, headers, body))

    def _send_pack(self, pack: Pack) -> None:
        self.connection.send(pack_response(self._http, pack))

    def _refuse(self, code: int, login: Login | None = None, reason: str = "") -> None:
        """An error PACK, then the end. With `login`, control is told too."""
        ours = code == Code.VERSION_INVALID
        refusal = ErrorAnswer(
            code, extension=EXTENSION_VERSION if ours else 0, extension_oldest=EXTENSION_OLDEST if ours else 0
        )
        self._send_pack(refusal.to_pack(_pencore()))
        self.connection.close("refused")
        if login is not None:
            told = LoginRefused(login.hub, login.user, self.connection.peer, login.client, int(code), reason)
            self._door.control.refused(told)

    def _unreadable(self, violation: HttpViolation) -> None:
        if self._challenge:
            self._refuse(Code.DISCONNECTED)  # section 6
            return
        self._answer(violation.status, TEXT, f"{violation}\n".encode())
        self.connection.close(str(violation))


def _pencore() -> bytes:
    """Size camouflage: 0 to 999 random bytes (section 6)."""
    return os.urandom(secrets.randbelow(MAX_PENCORE + 1))
