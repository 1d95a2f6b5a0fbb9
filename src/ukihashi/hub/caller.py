"""One connection at the front door: requests in, answers out, until it is a tunnel or gone (`front` keeps its time)."""

import os
import secrets
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from ukihashi import __version__
from ukihashi.errors import PeerViolation, VersionMismatch
from ukihashi.hub.connection import Connection
from ukihashi.hub.messages import AdminAsked, LoginAnswered, LoginAsked, LoginRefused, PasswordAsked
from ukihashi.hub.relay import Rest
from ukihashi.hub.resumable import ResumableSession
from ukihashi.hub.rpc_caller import RpcCaller
from ukihashi.hub.session import Session
from ukihashi.net.listen import site_of
from ukihashi.session.machine import CannotResume, Stale
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
    Direction,
)
from ukihashi.wire.elements import MessageViolation
from ukihashi.wire.extension import Numbers, Resume, agree
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
    Noop,
    read_request,
)
from ukihashi.wire.methods import AdminLogin, Done, EnumHub, HubNames, PasswordChange
from ukihashi.wire.pack import Pack

if TYPE_CHECKING:
    from ukihashi.hub.front import FrontDoor

PRODUCT: Final = f"ukihashi hub {__version__}"
VERSION: Final = 501  # what compatible peers number themselves by; nothing depends on it
BUILD: Final = 9999
HTML: Final = (("Content-Type", "text/html; charset=utf-8"),)
TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)
TAGGED_PAGE: Final = b"<!doctype html><!-- " + PROBE_TAG + b" --><title>ukihashi</title>"
LOGINS_TAKEN: Final = frozenset(AuthType) - {AuthType.TICKET}


class Caller:
    """The stage of a connection that is not a tunnel yet."""

    __slots__ = (
        "_busy",
        "_challenge",
        "_door",
        "_http",
        "_noops",
        "_owes_page",
        "_rest",
        "_then",
        "ask",
        "connection",
        "kind",
    )

    def __init__(self, door: "FrontDoor", connection: Connection) -> None:
        self._door = door
        # no-ops are requests too; the limit of 19 is kept for those before the hello
        self._http = ServerSide(max_body=MAX_REQUEST_PACK, max_requests=MAX_REQUESTS + MAX_NOOPS)
        self._challenge = b""  # of our hello; empty before the signature came
        self._then: Callable[[LoginAnswered], None] | None = None  # what to do with control's answer
        self._noops = 0
        self._owes_page = False  # what there is of a page is not wholly with the kernel yet
        self._rest: Rest | None = None  # of a page that is passed on in pieces
        self._busy = False  # a request is with somebody else, or this is a tunnel now: read no further request
        self.ask = 0  # number of the question to control
        self.kind = "opening"  # for listings: "login", "password", "admin" once it has asked for that
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
        """Our answer is with the kernel."""
        if self._owes_page:
            self._owes_page = False
            if self._rest is not None:
                self._go_on_with_page()
            else:
                self._next_request(now)

    def ended(self, reason: str) -> None:  # noqa: ARG002 - part of Stage
        """Gone."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
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
            self._ask_page(request)

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
        elif isinstance(asked, EnumHub):
            self._send_pack(HubNames(self._door.sessions.listed()).to_pack(_pencore()))
            self.connection.close("told the names of hubs")
        elif isinstance(asked, PasswordChange):
            self._ask_password(asked)
        elif isinstance(asked, AdminLogin):
            self._ask_admin(asked)
        else:
            self._refuse(Code.PROTOCOL_ERROR)

    # -- what control decides -------------------------------------------------------------------------------------

    def _ask_login(self, login: Login) -> None:
        if login.authtype not in LOGINS_TAKEN:  # first of all checks (section 8): 96 to 98 are never the network's
            self._refuse(Code.AUTHTYPE_NOT_SUPPORTED, login)
            return
        try:
            extension = agree(login.extension, login.extension_oldest, peer="card")
        except VersionMismatch as mismatch:
            self._refuse(Code.VERSION_INVALID, login, str(mismatch))
            return
        self.kind = "login"
        self._ask(
            lambda ask: LoginAsked(
                ask=ask,
                hub=login.hub,
                user=login.user,
                authtype=login.authtype,
                challenge=self._challenge,
                secure_password=login.secure_password,
                plain_password=login.plain_password,
                certificate=login.certificate,
                signature=login.signature,
                invite_token=login.invite_token,
                invite_hash=login.invite_hash,
                peer=self.connection.peer,
                client=login.client,
                client_version=login.client_version,
                client_build=login.client_build,
                extension=login.extension,
                unique_id=login.node.unique_id,
            ),
            lambda answer: self._let_in(login, extension, answer),
            login,
        )

    def _let_in(self, login: Login, extension: int, answer: LoginAnswered) -> None:
        if answer.error:
            self._refuse(answer.error, no_save_password=answer.no_save_password)  # control knows
            return
        opened = self._door.sessions.open(login, answer, extension, self.connection)
        if isinstance(opened, Code):
            self._refuse(opened, login, no_save_password=answer.policy.no_save_password)
            return
        session, welcome = opened
        self._send_pack(welcome.to_pack(_pencore()))
        self._door.left(self)
        session.attach(self.connection, self._http.take_over(), session.direction(first=True))

    def _ask_password(self, change: PasswordChange) -> None:
        self.kind = "password"
        self._ask(
            lambda ask: PasswordAsked(
                ask=ask,
                hub=change.hub,
                user=change.user,
                challenge=self._challenge,
                secure_old=change.secure_old,
                new_hash=change.new_hash,
                peer=self.connection.peer,
            ),
            self._password_changed,
        )

    def _password_changed(self, answer: LoginAnswered) -> None:
        if answer.error:
            self._refuse(answer.error)
            return
        self._send_pack(Done().to_pack(_pencore()))
        self.connection.close("the password was changed")

    def _ask_admin(self, admin: AdminLogin) -> None:
        self.kind = "admin"
        if not self._door.has_room_for_tool:
            self._refuse(Code.HUB_IS_BUSY)
            return
        self._ask(
            lambda ask: AdminAsked(
                ask=ask,
                hub=admin.hub,
                challenge=self._challenge,
                secure_password=admin.secure_password,
                peer=self.connection.peer,
                client=admin.client,
            ),
            lambda answer: self._let_tool_in(admin, answer),
        )

    def _let_tool_in(self, admin: AdminLogin, answer: LoginAnswered) -> None:
        if answer.error or not self._door.has_room_for_tool:
            self._refuse(answer.error or Code.HUB_IS_BUSY)
            return
        self._send_pack(Done().to_pack(_pencore()))
        self._door.left(self)
        if self.connection.is_open:
            tool = RpcCaller(self._door, self.connection, answer.hub or admin.hub, admin.client)
            self._door.tool_came(tool)
            tool.start(self._http.take_over())

    def _ask(
        self,
        question: Callable[[int], LoginAsked | PasswordAsked | AdminAsked],
        then: Callable[[LoginAnswered], None],
        login: Login | None = None,
    ) -> None:
        """Put a question to control; nothing more is read until it is answered."""
        if not self._door.may_ask(self):
            self._refuse(Code.HUB_IS_BUSY, login)
            return
        self._then = then
        self._busy = True
        self.connection.pause()
        ask = self._door.waits_for_login(self)
        if not self._door.control.ask(question(ask)):
            self._door.answered(LoginAnswered(ask=ask, error=Code.INTERNAL_ERROR))

    def answered(self, answer: LoginAnswered) -> None:
        """Control has decided about our question, or can't."""
        then, self._then = self._then, None
        if then is not None and self.connection.is_open:
            self.connection.resume()
            then(answer)

    # -- connections of a session that is there -------------------------------------------------------------------

    def _add_connection(self, asked: AdditionalConnect) -> None:
        session = self._door.sessions.find(asked.session_key)
        if session is None and self._door.seek is not None and self._door.may_ask(self):
            self._busy = True
            self.connection.pause()
            found = partial(self._sought, asked, self._door.waits_for_login(self))
            self._door.seek(asked.session_key, asked.resume, found)
        else:
            self._go_on(session, asked)

    def _sought(self, asked: AdditionalConnect, ask: int, code: int, numbers: Numbers | None) -> None:
        """The other workers were asked for the session: it is here now, or can't be gone on with."""
        if self.ask != ask or not self.connection.is_open:
            return
        self._door.moved(self)
        self._busy = False
        self.connection.resume()
        if code:
            self._refuse(code, numbers=numbers)
        else:
            self._go_on(self._door.sessions.find(asked.session_key), asked)

    def _go_on(self, session: Session | None, asked: AdditionalConnect) -> None:
        if session is None:
            self._refuse(Code.SESSION_TIMEOUT)
        elif isinstance(session, ResumableSession) and asked.resume is not None:
            self._resume(session, asked.resume)
        elif not session.has_room:
            self._refuse(Code.TOO_MANY_CONNECTION)
        else:
            self._answer_connection(session, AdditionalAnswer(session.direction()))

    def _resume(self, session: ResumableSession, resume: Resume) -> None:
        """This connection in the place of the one before. Each end's number is final before the other hears it."""
        try:
            have = session.resume(resume)
        except Stale:
            self._refuse(Code.INVALID_PROTOCOL, numbers=session.numbers())
        except CannotResume as impossible:
            self._refuse(Code.SESSION_TIMEOUT, numbers=impossible.numbers)
            session.close(f"can't be resumed: {impossible}")
        else:
            self._answer_connection(session, AdditionalAnswer(have=have))

    def _answer_connection(self, session: Session, answer: AdditionalAnswer) -> None:
        self._busy = True
        self._send_pack(answer.to_pack(_pencore()))
        self._door.left(self)
        session.attach(self.connection, self._http.take_over(), Direction(answer.direction))

    # -- answers --------------------------------------------------------------------------------------------------

    def _ask_page(self, request: Request) -> None:
        if not self._door.has_room_for_page(self):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, HTML, TAGGED_PAGE)
            return
        self._busy = True
        self.connection.pause()
        self._door.waits_for_page(self)
        self._door.pages.ask(request, self.connection.peer, self._page_came)

    def _page_came(self, status: int, headers: list[tuple[str, str]], body: bytes, rest: Rest | None) -> None:
        if not self.connection.is_open:
            if rest is not None:
                rest.cancel()
        elif rest is None:
            self._answer(status, headers, body)
            self._page_is_out()
        elif self._http.answers_head:
            rest.cancel()
            self.connection.send(self._http.begin(status, _dated(headers)) + self._http.finish())
            self._page_is_out()
        else:
            self._rest = rest
            self.connection.send(self._http.begin(status, _dated(headers)) + self._http.more(body))
            self._go_on_with_page()

    def _page_is_out(self) -> None:
        if self._http.must_close:
            self.connection.close("no further request")
        elif self.connection.backlog:  # it holds its place until the peer has read, so that pages can't pile up
            self._owes_page = True
        else:
            self._next_request(self._door.wiring.loop.now)

    def _go_on_with_page(self) -> None:
        """Ask for the next piece, once the kernel has the one before, and after others have had their turn."""
        if not self.connection.is_open:
            return
        self._door.waits_for_page(self)
        if self.connection.backlog:
            self._owes_page = True
        else:
            self._door.wiring.openings.put(self._next_piece, site_of(self.connection.peer))

    def _next_piece(self) -> None:
        if self._rest is not None:
            self._rest.next(self._piece_came)

    def _piece_came(self, piece: bytes | None, over: bool) -> None:
        if self._rest is None or not self.connection.is_open:
            return
        if piece is None:  # the peer must not take what it has for the whole
            self.connection.abort("the page broke off")
            return
        self.connection.send(self._http.more(piece) if piece else b"")
        if over:
            self._rest = None
            self.connection.send(self._http.finish())
            self._page_is_out()
        else:
            self._go_on_with_page()

    def _next_request(self, now: float) -> None:
        if self.connection.is_open:
            self._door.moved(self)
            self._busy = False
            self.connection.resume()
            self.received(b"", now)

    def _answer(self, status: int, headers: list[tuple[str, str]] | tuple[tuple[str, str], ...], body: bytes) -> None:
        self.connection.send(self._http.respond(status, _dated(headers), body))

    def _send_pack(self, pack: Pack) -> None:
        self.connection.send(pack_response(self._http, pack, formatdate(usegmt=True)))

    def _refuse(
        self,
        code: int,
        login: Login | None = None,
        reason: str = "",
        numbers: Numbers | None = None,
        *,
        no_save_password: bool = False,
    ) -> None:
        """An error PACK, then the end. With `login`, control is told too."""
        ours = code == Code.VERSION_INVALID and login is not None and login.extension
        refusal = ErrorAnswer(
            code,
            no_save_password=no_save_password,
            extension=EXTENSION_VERSION if ours else 0,
            extension_oldest=EXTENSION_OLDEST if ours else 0,
            numbers=numbers,
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


def _dated(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """With a date, as RFC 9110 wants it (6.6.1)."""
    if any(name.lower() == "date" for name, _ in headers):
        return headers
    return [*headers, ("Date", formatdate(usegmt=True))]


def _pencore() -> bytes:
    """Size camouflage: 0 to 999 random bytes (section 6)."""
    return os.urandom(secrets.randbelow(MAX_PENCORE + 1))
