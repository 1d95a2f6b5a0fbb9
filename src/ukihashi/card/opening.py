"""The talk that opens a session or resumes one: signature, hello, login, welcome (protocol sections 4 to 13).

Plaintext in, plaintext out; TLS and sockets are the caller's. The hub's key has been checked before this begins.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ukihashi import __version__
from ukihashi.auth.password import secure_password
from ukihashi.card.messages import Connect, Standard, Terms
from ukihashi.errors import N_, DialError, PeerViolation, Refused, UkihashiError
from ukihashi.ether.offload import NONE, Kind, common
from ukihashi.wire.constants import (
    EXTENSION_OLDEST,
    EXTENSION_VERSION,
    MAX_NOOPS,
    MAX_PENCORE,
    PACK_TARGET,
    AuthType,
    Code,
    Direction,
)
from ukihashi.wire.extension import Resume, agree
from ukihashi.wire.http import ClientSide, HttpViolation, Response, pack_request, read_pack, signature_request
from ukihashi.wire.messages import (
    AdditionalConnect,
    ErrorAnswer,
    Hello,
    Login,
    Node,
    Noop,
    Redirect,
    Welcome,
    read_additional_answer,
    read_answer,
    read_hello,
)
from ukihashi.wire.pack import Pack
from ukihashi.wire.udp import UdpGrant, UdpOffer

PRODUCT: Final = f"ukihashi card {__version__}"  # unless ordered otherwise; never with "server" or "bridge" (T18)
VERSION: Final = 501  # what standard hubs compare with their least version
BUILD: Final = 9999
MAX_ANSWER: Final = 256 * 1024  # bytes of a hub's PACK

_METHODS: Final = {
    "password": AuthType.PASSWORD_HASH,
    "plain": AuthType.PLAIN_PASSWORD,
    "anonymous": AuthType.ANONYMOUS,
    "certificate": AuthType.CERTIFICATE,
    "ticket": AuthType.TICKET,
}

# What a hub means by AUTH_FAILED when asked in this way.
_FAILED: Final = {
    "password": N_("the hub refused user “{user}”: the name or the password is wrong"),
    "plain": N_("the hub refused user “{user}”: the name or the password is wrong"),
    "anonymous": N_("the hub refused user “{user}”: there is no such user, or it needs a password"),
    "certificate": N_("the hub refused user “{user}”: the name is wrong, or the certificate is not that user's"),
    "ticket": N_("a member of the hub's cluster did not take the ticket that its controller gave to user “{user}”"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The session is open. `rest` are the tunnel's first bytes, come with the last answer (trap T13)."""

    session: str  # "" on a resume: the caller knows it
    session_key: bytes
    timeout_ms: int
    extension: int
    product: str
    banner: str
    rest: bytes
    grace_s: int = 0  # seconds that the hub keeps a cut session for an exact resume; 0 = never
    have: int = 0  # exact resume: every record of ours before this number has reached the hub
    terms: Terms = field(default_factory=Terms)
    direction: int = Direction.BOTH  # of this connection
    auto_disconnect_s: int = 0
    no_bridge: bool = False
    udp: UdpGrant | None = None
    kinds: Kind = NONE  # of super-frames that may go either way


class Opening:
    """One talk. Call `start`, then `receive` for everything that comes, until `outcome` is there.

    For an exact resume it stops when `greeted`: the caller lets go of the old link and calls `ask`. An order that
    `waits` stops there, too, until the caller calls `go_on`. For a login by certificate it stops with a `challenge`:
    the caller has it signed and calls `sign`. It ends without an outcome when
    the hub has `sent_on` the card.
    """

    def __init__(self, order: Connect, *, random: Callable[[int], bytes], udp: UdpOffer | None = None) -> None:
        """`random(n)` gives n random bytes. `udp`: what a login offers."""
        self._order = order
        self._udp = udp
        self._random = random
        self._http = ClientSide(order.location, max_body=MAX_ANSWER)
        self._hello: Hello | None = None
        self._noops = 0
        self._asked = False  # or told to go on
        self.challenge = b""  # 20 bytes that wait for a signature
        self.sent_on: Redirect | None = None
        self.outcome: Outcome | None = None

    def start(self) -> bytes:
        """The first bytes to send."""
        return signature_request(self._http)

    def receive(self, data: bytes) -> bytes:
        """Take what came, give what to send next (b"": wait).

        Raises:
            DialError: no hub answers there. VersionMismatch: a hub of ours, too far apart.
            Refused: the hub said no, or asks for what this card does not do.
            PeerViolation: a hub that breaks the protocol.
        """
        if self.challenge or self.sent_on is not None:
            raise PeerViolation(N_("the hub says something before it is asked"))
        try:
            response = self._http.receive(data)
        except HttpViolation as violation:
            raise self._no_hub(violation) from violation
        return self._answer(response) if response is not None else b""

    @property
    def greeted(self) -> bool:
        """The hub has said who it is, and waits to be asked for an exact resume or for what comes of `go_on`."""
        return self._hello is not None and (self._order.exact or self._order.waits) and not self._asked

    def go_on(self) -> bytes:
        """What to send next; call once, when `greeted`, unless the order is an exact resume."""
        assert self._hello is not None
        self._asked = True
        return self._ask_for_session(self._hello)

    def ask(self, resume: Resume) -> bytes:
        """Ask the hub to go on with the session from there; call once, when `greeted`."""
        self._asked = True
        return self._send(AdditionalConnect(self._order.session_key, PRODUCT, VERSION, BUILD, resume))

    def sign(self, signature: bytes) -> bytes:
        """Log in by certificate; call once, when there is a `challenge`."""
        self.challenge = b""
        return self._send(self._login(signature=signature))

    def end(self) -> DialError:
        """The hub closed the connection in the middle: the error to tell."""
        if self._hello is None:
            return DialError(
                N_("{address} closed the connection when asked for a hub; it is an HTTPS server of another kind"),
                address=self._order.location,
            )
        return DialError(
            N_("the hub at {address} closed the connection during login; its log may say why"),
            address=self._order.location,
        )

    def late(self, seconds: float) -> DialError:
        """No answer in time: the error to tell."""
        if self._hello is None:
            return DialError(
                N_("{address} speaks TLS but did not answer within {seconds:g} s; it may be a server of another kind"),
                address=self._order.location,
                seconds=seconds,
            )
        return DialError(
            N_("the hub at {address} did not answer the login within {seconds:g} s; it may be overloaded"),
            address=self._order.location,
            seconds=seconds,
        )

    def _answer(self, response: Response) -> bytes:
        pack = read_pack(response, MAX_ANSWER)
        if pack is None:
            if self._hello is None:
                raise DialError(
                    N_("{address} is an HTTPS server but not a hub (it answered {status}); check address and port"),
                    address=self._order.location,
                    status=response.status,
                )
            raise PeerViolation(
                N_("the hub answered the login with HTTP status {status}, which no hub does"), status=response.status
            )
        if self._hello is None:
            return self._greet(pack)
        if self._order.session_key:
            return self._take_resumed(pack)
        return self._take_login(pack)

    def _greet(self, pack: Pack) -> bytes:
        hello = read_hello(pack)
        if isinstance(hello, Noop):
            return self._skip()
        if isinstance(hello, ErrorAnswer):
            raise self._refused(hello)
        self._hello = hello
        return b"" if self._order.exact or self._order.waits else self._ask_for_session(hello)

    def _ask_for_session(self, hello: Hello) -> bytes:
        if self._order.session_key:
            return self._send(AdditionalConnect(self._order.session_key, PRODUCT, VERSION, BUILD))
        if self._order.method == "certificate":
            self.challenge = hello.random
            return b""
        return self._send(self._login(hello.random))

    def _login(self, challenge: bytes = b"", signature: bytes = b"") -> Login:
        order, standard = self._order, self._order.standard
        password = order.method == "password"
        return Login(
            hub=order.hub,
            user=order.user,
            authtype=_METHODS[order.method],
            secure_password=secure_password(order.password_hash, challenge) if password else b"",
            plain_password=order.password if order.method == "plain" else "",
            certificate=order.own_certificate if signature else b"",
            signature=signature,
            ticket=order.ticket,
            client=order.product or PRODUCT,
            client_version=VERSION,
            client_build=BUILD,
            max_connection=wanted_connections(standard),
            use_encrypt=not standard.plaintext,
            use_compress=standard.compress,
            half_connection=standard.half_duplex,
            bridge_mode=standard.bridge,
            monitor_mode=standard.monitor,
            unique_id=order.unique_id,
            node=Node(order.host_name, order.system, order.server_name, order.node_id),
            extension=EXTENSION_VERSION,
            extension_oldest=EXTENSION_OLDEST,
            resume=True,
            super_frames=order.super_frames,
            invite_token=order.invite,
            invite_hash=order.password_hash if order.invite else b"",
            udp=self._udp,
        )

    def _take_login(self, pack: Pack) -> bytes:
        answer = read_answer(pack)
        if isinstance(answer, Noop):
            return self._skip()
        if isinstance(answer, ErrorAnswer):
            raise self._refused(answer)
        if isinstance(answer, Redirect):
            return self._follow(answer)
        self._check(answer)
        assert self._hello is not None
        grace_s = answer.grace_s if answer.extension else 0
        self.outcome = Outcome(
            session=answer.session_name,
            session_key=answer.session_key,
            timeout_ms=answer.timeout_ms,
            extension=answer.extension,
            product=self._hello.product,
            banner=answer.message,
            rest=self._http.take_over(),
            grace_s=grace_s,
            terms=self._terms(answer),
            direction=Direction.TO_SERVER if answer.half_connection else Direction.BOTH,
            auto_disconnect_s=_policy_value(answer, "AutoDisconnect"),
            no_bridge=bool(_policy_value(answer, "NoBridge")),
            udp=answer.udp if self._udp is not None and not answer.extension else None,
            kinds=common(self._order.super_frames, answer.super_frames) if grace_s else NONE,
        )
        return b""

    def _follow(self, sent_on: Redirect) -> bytes:
        """To a member of a cluster (section 16): the controller has proved who it is, so its word names the member.

        What it says must pin the member down to the very certificate; else the trust of the account would end here.
        """
        if self._order.method == "ticket":
            raise Refused(N_("a member of the hub's cluster sends this card on once more; ask the hub's admin"))
        if not sent_on.certificate:
            raise Refused(
                N_(
                    "the hub sends this card on to {address} without saying by which certificate to know that machine;"
                    " this card doesn't go there. Ask the hub's admin"
                ),
                address=str(sent_on.ip),
            )
        self.sent_on = sent_on
        if self._http.must_close:
            return b""
        thanks = Pack()
        thanks.add_data("pencore", self._pencore())
        return pack_request(self._http, thanks)

    def _terms(self, welcome: Welcome) -> Terms:
        """The welcome has the last word, but for more connections than we want."""
        least = 2 if welcome.half_connection else 1
        granted = min(welcome.max_connection, wanted_connections(self._order.standard))
        return Terms(
            connections=max(least, granted),
            half_duplex=welcome.half_connection,
            compressed=welcome.use_compress,
            encrypted=welcome.use_encrypt,
        )

    def _check(self, welcome: Welcome) -> None:
        """Obey the welcome, or say what in it this card can't obey."""
        agree(welcome.extension, welcome.extension, peer="hub")
        exact = welcome.extension and welcome.grace_s
        if not welcome.use_encrypt and (exact or not self._order.standard.plaintext):
            raise Refused(
                N_(
                    "the hub wants to send frames without encryption, which this account does not allow"
                    " (standard.allow_plaintext). Ask the hub's admin"
                )
            )
        if exact and (welcome.use_compress or welcome.half_connection):
            raise PeerViolation(N_("the hub wants compression or half duplex in a session that it can resume exactly"))

    def _take_resumed(self, pack: Pack) -> bytes:
        answer = read_additional_answer(pack)
        if isinstance(answer, Noop):
            return self._skip()
        if isinstance(answer, ErrorAnswer):
            raise self._not_resumed(answer)
        order = self._order
        if answer.direction and order.exact:
            raise PeerViolation(N_("the hub wants compression or half duplex in a session that it can resume exactly"))
        if order.exact and answer.have is None:
            raise PeerViolation(N_("the hub resumes the session without saying how far it got"))
        assert self._hello is not None
        self.outcome = Outcome(
            session="",
            session_key=order.session_key,
            timeout_ms=order.timeout_ms,
            extension=order.extension,
            product=self._hello.product,
            banner="",
            rest=self._http.take_over(),
            have=answer.have or 0,
            terms=order.terms,
            direction=answer.direction,
        )
        return b""

    def _not_resumed(self, answer: ErrorAnswer) -> Refused:
        numbers = answer.numbers
        if numbers is None:
            return answer.refusal()
        return Refused(
            N_(
                "the hub can't go on with the session: it has our frames up to {have} and its own from {first} to {end}"
            ),
            code=answer.code,
            have=numbers.have,
            first=numbers.first,
            end=numbers.end,
        )

    def _refused(self, answer: ErrorAnswer) -> UkihashiError:
        """What the hub said no with, in words that fit what we asked."""
        if answer.code == Code.VERSION_INVALID and answer.extension:
            agree(answer.extension, answer.extension_oldest, peer="hub")
        if answer.code == Code.AUTH_FAILED and self._order.invite:
            return Refused(
                N_("the join link was used already or has expired; ask the hub's admin for a new one"), code=answer.code
            )
        if answer.code == Code.HUB_NOT_FOUND:
            return Refused(
                N_("there is no virtual hub “{hub}” at {address}; check the name"),
                code=answer.code,
                hub=self._order.hub,
                address=self._order.location,
            )
        if answer.code == Code.AUTH_FAILED:
            return Refused(_FAILED[self._order.method], code=answer.code, user=self._order.user)
        return answer.refusal()

    def _skip(self) -> bytes:
        """An answer that only says "wait": a second one to the same request will follow (section 6)."""
        self._noops += 1
        if self._noops > MAX_NOOPS:
            raise PeerViolation(N_("the hub keeps this card waiting without end"))
        rest = self._http.take_over()
        self._http = ClientSide(self._order.location, max_body=MAX_ANSWER)
        self._http.request("POST", PACK_TARGET)  # not sent: it stands for the request whose answer is still owed
        return self.receive(rest)

    def _send(self, message: Login | AdditionalConnect) -> bytes:
        if self._http.must_close:
            raise PeerViolation(N_("the hub ends the connection after its first answer; something between may do that"))
        return pack_request(self._http, message.to_pack(self._pencore()))

    def _pencore(self) -> bytes:
        """0 to 999 random bytes, so that a message's size says little."""
        return self._random(int.from_bytes(self._random(2), "big") % (MAX_PENCORE + 1))

    def _no_hub(self, violation: HttpViolation) -> UkihashiError:
        if self._hello is not None:
            return violation
        return DialError(
            N_("{address} speaks TLS but not HTTP behind it, so it is no hub; check address and port"),
            address=self._order.location,
        )


def wanted_connections(standard: Standard) -> int:
    """How many to ask for: half duplex needs one each way."""
    return max(2, standard.connections) if standard.half_duplex else standard.connections


def _policy_value(welcome: Welcome, name: str) -> int:
    return next((value for key, value in welcome.policy.items() if key.casefold() == name.casefold()), 0)
