"""What the card's two processes tell each other (docs/architecture.md, "Card"). Values only.

    dialler (CAP_NET_ADMIN)  <-- SEQPACKET socket pair + passed descriptors -->  data (no rights)

The data process parses what strangers send, so the dialler trusts its messages for their shape only: the worst a broken
one can do is to end its own session. Bytes travel as MessagePack, one message a packet.
"""

from typing import Any, Final, Literal

import msgspec

from ukihashi import errors
from ukihashi.errors import UkihashiError
from ukihashi.session.timers import DEAD_S, KEEPALIVE_S, SUSPECT_S
from ukihashi.wire.constants import Code

FORGOTTEN: Final = frozenset({Code.SESSION_TIMEOUT, Code.INVALID_PROTOCOL})  # a hub does not know the session any more
MAX_MESSAGE: Final = 128 * 1024  # bytes of one message; a socket pair's packet may be that long


class Message(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    """Base: the class name travels as the tag."""


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on its way to another process."""

    kind: str  # class name in `ukihashi.errors`
    template: str
    values: dict[str, Any] = {}
    code: int = 0  # of the wire, for `Refused`

    @classmethod
    def of(cls, error: UkihashiError) -> "Trouble":
        """Pack an error; a subclass that only its module knows travels as its nearest public class."""
        kind = next(base.__name__ for base in type(error).__mro__ if vars(errors).get(base.__name__) is base)
        values = {
            name: value if isinstance(value, int | float | str) else str(value)
            for name, value in error.values.items()
            if name != "code" or not isinstance(error, errors.Refused)
        }
        return cls(kind, error.template, values, int(getattr(error, "code", 0)))

    def error(self) -> UkihashiError:
        """The error again."""
        kind = vars(errors).get(self.kind)
        if kind is errors.Refused:
            return errors.Refused(self.template, code=self.code, **self.values)
        if not (isinstance(kind, type) and issubclass(kind, UkihashiError)):
            kind = UkihashiError
        return kind(self.template, **self.values)


# -- dialler to data ----------------------------------------------------------------------------------------------


class Settings(msgspec.Struct, frozen=True):
    """What rules between two ukihashi ends, and may change while a session is up. Seconds."""

    keepalive: float = KEEPALIVE_S  # of our own silence, then a keep-alive
    suspect: float = SUSPECT_S  # of the hub's silence, then `Suspect`
    dead: float = DEAD_S  # of the hub's silence, then `Lost`
    buffer: int = 8 << 20  # bytes kept toward the hub


class Standard(msgspec.Struct, frozen=True):
    """What to ask a standard hub for; one that grants exact resume is not held to it."""

    connections: int = 1  # wanted
    half_duplex: bool = False
    compress: bool = False
    plaintext: bool = False  # ask for a tunnel outside TLS, and take it
    bridge: bool = False
    monitor: bool = False


class Terms(msgspec.Struct, frozen=True):
    """What holds for every connection of a session without exact resume, since its welcome."""

    connections: int = 1  # as many as there may be
    half_duplex: bool = False
    compressed: bool = False
    encrypted: bool = True
    certificate: bytes = b""  # SHA-256 of the one the first connection showed; all others must show the same


class Connect(Message, frozen=True):
    """Open a session, resume one, or add a connection to one, over the attached descriptor.

    A second descriptor is a UDP socket that the login shall offer to a standard hub.

    `Opened` or `Failed` follows within `deadline`; before it may come `Greeted` and `Sign`, or `SentOn` instead. What
    there was before is given up (if it `waits`: when it goes on), unless `session_key` is that of the session there is.
    """

    attempt: int  # named in every answer, so that one for an attempt given up is told apart
    location: str  # "host:port" as dialled, for sentences and the Host header
    server_name: str  # for SNI and, with a CA, to be found in the certificate
    hub: str
    user: str
    trust: Literal["pin", "ca", "first-use"]
    pin: bytes = b""  # 32 bytes; first-use without one: the key is accepted and told; a resume: the session's, always
    authorities: str = ""  # PEM; mode "ca" without it: the system's
    certificate: bytes = b""  # SHA-256 of the one that must be shown; `trust` is not asked then (a cluster's member)
    method: Literal["password", "plain", "anonymous", "certificate", "ticket"] = "password"
    password_hash: bytes = b""  # method "password": SHA-0 form, 20 bytes
    password: str = ""  # method "plain"
    own_certificate: bytes = b""  # method "certificate": DER
    ticket: bytes = b""  # method "ticket": 20 bytes
    standard: Standard = Standard()
    invite: str = ""
    session_key: bytes = b""  # resume this session, or add a connection to it, instead of logging in
    timeout_ms: int = 20_000  # resume: what its welcome said
    extension: int = 0  # resume: what its welcome said
    terms: Terms = Terms()  # resume: what its welcome said
    exact: bool = False  # resume: go on from the very record, beside the link that carries the session now
    waits: bool = False  # not exact: say `Greeted` when the hub with the right key has, and go on when told
    unique_id: bytes = b""  # 20 bytes
    node_id: bytes = b""  # 16 bytes
    product: str = ""  # what we call ourselves; "" = a card
    host_name: str = ""
    system: str = ""
    deadline: float = 15.0  # seconds for TLS and login together
    ciphers: list[str] = []  # picked by hand; [] = modern ones
    super_frames: int = 0  # login: kinds (`ether.offload.Kind`) that the interface takes
    settings: Settings = Settings()


class GoOn(Message, frozen=True):
    """The answer to `Greeted`: this attempt it is, all others are given up."""

    attempt: int


class Signed(Message, frozen=True):
    """The answer to `Sign`."""

    attempt: int
    signature: bytes


class End(Message, frozen=True):
    """End the session in good order; `Lost` follows with the same trouble."""

    trouble: Trouble


class GiveUp(Message, frozen=True):
    """Close a link in good order; `Lost` or `Failed` follows with the same trouble."""

    attempt: int
    trouble: Trouble


class Apply(Message, frozen=True):
    """From now on these settings."""

    settings: Settings


class Ask(Message, frozen=True):
    """Tell the counters: answered by `Counters`."""


class Stop(Message, frozen=True):
    """End the session in good order and exit."""


# -- data to dialler ----------------------------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """The data process has given up its rights and waits."""


class Opened(Message, frozen=True):
    """Frames flow."""

    attempt: int
    resumed: bool
    session: str  # SID-USER-n
    session_key: bytes
    timeout_ms: int
    extension: int  # ukihashi version in use, 0 = a standard peer
    tls: str  # "TLSv1.3"
    cipher: str
    pin: bytes  # 32 bytes, of the key that the hub showed
    congestion: str = ""  # TCP congestion control towards the hub
    product: str = ""  # the hub's own words
    banner: str = ""  # for the user
    grace_s: int = 0  # how long the hub keeps the session when it is cut; 0 = it can't be resumed exactly
    terms: Terms = Terms()
    direction: int = 0  # of this connection: `wire.constants.Direction`
    auto_disconnect_s: int = 0  # the session is to end so long after its login; 0 = never
    lost: int = 0  # frames of the session before this one that may or may not have arrived
    carried: int = 0  # frames kept in the session before, sent in this one
    super_frames: int = 0  # kinds that go both ways
    no_bridge: bool = False  # by the hub's policy: a few stations at most behind this card


class Failed(Message, frozen=True):
    """The attempt came to nothing."""

    attempt: int
    trouble: Trouble
    over: bool = False  # and the session that it was to resume is over


class Lost(Message, frozen=True):
    """A link of an open session is gone."""

    attempt: int
    trouble: Trouble
    over: bool = False  # and so is the session
    left: int = 0  # links that still carry it


class Greeted(Message, frozen=True):
    """The hub has shown the right key and has said who it is; `GoOn` is waited for."""

    attempt: int


class Sign(Message, frozen=True):
    """The hub wants proof that the login's key is ours: `Signed` is waited for."""

    attempt: int
    challenge: bytes  # 20 bytes


class SentOn(Message, frozen=True):
    """The hub, a cluster's controller, sends this card on to a member; the attempt is over."""

    attempt: int
    address: str  # IPv4
    ports: list[int]
    ticket: bytes  # 20 bytes, for one login within 60 s
    certificate: bytes  # SHA-256 of the member's
    pin: bytes  # 32 bytes, of the controller's key


class Suspect(Message, frozen=True):
    """The link that carries the session has been silent for long."""

    attempt: int


class Recovered(Message, frozen=True):
    """It spoke after all; what was opened beside it is closed."""

    attempt: int


class Asked(Message, frozen=True):
    """The hub was asked to go on over this link; the one before is given up."""

    attempt: int


class LoopFound(Message, frozen=True):
    """The hub lets no frame of this card pass, because of a loop, or it does again."""

    because: str | None  # the hub's port by which frames would come back; None: they pass


class Counters(Message, frozen=True):
    """Since the data process started. Frames and bytes are of Ethernet frames, seen from this machine."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    tls_writes: int = 0  # that carried frames
    frames_written: int = 0  # inside them
    keepalives_in: int = 0
    keepalives_out: int = 0
    refused: int = 0  # frames from the hub that the kernel would not take
    oversized: int = 0  # frames from this machine, or from the hub, longer than the protocol carries
    backlog: int = 0  # bytes that wait for the network now
    ledger: dict[str, Any] = {}  # of exactly resumed sessions: `session.machine.Ledger`
    waiting_bytes: int = 0  # kept until the hub acknowledges them
    crowded: int = 0  # frames from this machine that neither a path beside the links nor a link could take
    garbled: int = 0  # blocks from the hub that can't be decompressed
    super_frames_in: int = 0  # of the frames: longer ones, to be split where their way ends
    super_frames_out: int = 0
    offload_header: int = 0  # super-frames from the hub that were not fit to be handed on
    directions: list[int] = []  # of the links that carry a session without exact resume, the oldest first
    udp: bool = False  # frames go by UDP now
    udp_frames_in: int = 0  # by the present session's UDP path
    udp_frames_out: int = 0
    udp_dropped: dict[str, int] = {}  # datagrams and frames, by reason


AnyMessage = (
    Connect | GoOn | Signed | End | GiveUp | Apply | Ask | Stop
    | Ready | Opened | Failed | Lost | Greeted | Sign | SentOn | Suspect | Recovered | Asked | LoopFound
    | Counters
)  # fmt: skip

encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(AnyMessage)


def decode(data: bytes) -> AnyMessage:
    """One message; raises `msgspec.DecodeError` or `msgspec.ValidationError` for anything else."""
    message: AnyMessage = _decoder.decode(data)
    return message
