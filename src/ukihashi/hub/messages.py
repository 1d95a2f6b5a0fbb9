"""What the hub's processes tell each other (docs/architecture.md, "Hub"). Values only; sockets are in `pipes.py`.

    supervisor (root)  <-- SEQPACKET + passed descriptors -->  worker, control
    worker             <-- length-prefixed stream         -->  control

A worker parses hostile bytes, so control trusts nothing in its messages beyond their shape, and the supervisor does for
control only what `HostPortWanted` and `Wish` allow. Bytes travel as MessagePack.
"""

from typing import Any, Final

import msgspec

from ukihashi.hub.lan_plan import LanService
from ukihashi.switch.access import Rule
from ukihashi.switch.rules import GuardRules, HubRules
from ukihashi.wire.policy import DEFAULT, Policy

MAX_MESSAGE: Final = 16 * 1024 * 1024  # bytes of one encoded message; a larger one ends the process that sent it


class Message(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    """Base: the class name travels as the tag."""


# -- worker to control --------------------------------------------------------------------------------------------


class LoginAsked(Message, frozen=True):
    """A peer wants in. Exactly one `LoginAnswered` with the same `ask` follows within `LOGIN_DEADLINE`."""

    ask: int
    hub: str
    user: str
    authtype: int  # protocol section 8; 96..98 never get here, the worker refuses them
    challenge: bytes  # the 20 random bytes of this connection's hello
    secure_password: bytes = b""
    plain_password: str = ""
    certificate: bytes = b""  # DER
    signature: bytes = b""  # RSA over the challenge
    invite_token: str = ""  # one-use secret of a join link (docs/protocol.md, "Joining by a link")
    invite_hash: bytes = b""  # SHA0 form of the password that the card made for itself
    peer: str = ""  # "address:port" as text, for the log
    client: str = ""  # product string
    client_version: int = 0
    client_build: int = 0
    extension: int = 0  # highest ukihashi version offered; 0 = a standard peer
    unique_id: bytes = b""  # of the client's machine


class PasswordAsked(Message, frozen=True):
    """A member changes the password (method `password`, section 17). Answered by `LoginAnswered`."""

    ask: int
    hub: str
    user: str
    challenge: bytes
    secure_old: bytes  # the old password's answer to the challenge
    new_hash: bytes  # SHA0 form
    peer: str = ""


class AdminAsked(Message, frozen=True):
    """A tool of others wants to administrate (section 19.1). Answered by `LoginAnswered`."""

    ask: int
    hub: str  # "" = the whole
    challenge: bytes
    secure_password: bytes
    peer: str = ""
    client: str = ""


class RpcAsked(Message, frozen=True):
    """One call of a tool that was let in. Answered by `RpcAnswered`; one at a time for each connection."""

    ask: int
    hub: str  # that it was let in for; "" = the whole
    request: bytes  # a PACK
    peer: str = ""


class Traffic(Message, frozen=True):
    """What a session moved since the last such message, every few seconds and at its end."""

    session: str
    hub: str
    user: str
    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int


class LeaseAsked(Message, frozen=True):
    """A station speaks DHCP. Answered by `LeaseAnswered`, or not at all."""

    ask: int
    hub: str
    session: str
    user: str  # whose port it is; "" = the hub machine's own
    kind: int  # of the message (`ether.dhcp`)
    mac: bytes
    identity: bytes
    wanted: int = 0  # number of the address that it has or wants; 0 = none, -1 = of another subnet
    chosen: bool = False  # a REQUEST that answers our offer
    host: str = ""  # what it calls itself
    bridge: bool = False  # others may be behind the port
    busy: tuple[int, ...] = ()  # numbers heard of lately behind other ports


class Caught(Message, frozen=True):
    """What the guards have dropped of one port since the last such message, at most once a minute."""

    hub: str
    session: str  # or what else the port is called
    user: str
    dropped: dict[str, int]  # frames by reason
    detail: str  # about the last one: an address or a MAC, or ""
    at: float  # seconds since 1970


class LoginRefused(Message, frozen=True):
    """A login that the worker refused by itself: control never saw it, or had let it in. For the log."""

    hub: str
    user: str
    peer: str
    client: str
    code: int  # of protocol section 11
    reason: str = ""  # a sentence, where there is more to say than the code's


class SessionOpened(Message, frozen=True):
    """A login became a session."""

    session: str  # SID-USER-n
    hub: str
    user: str
    peer: str
    client: str
    extension: int
    at: float  # seconds since 1970
    unique_id: bytes = b""  # of the client's machine


class SessionsHere(Message, frozen=True):
    """Of several workers, this one has these sessions: to a new control, or because they have come from another."""

    sessions: list[tuple[str, str, str, bytes]]  # hub, session, user, unique_id
    numbers: dict[str, int] = {}  # by virtual hub: the highest that it has given to a session


class SessionClosed(Message, frozen=True):
    """A session ended and freed its port."""

    session: str
    hub: str
    user: str
    reason: str
    frames_in: int  # from the member into the hub
    bytes_in: int
    frames_out: int
    bytes_out: int
    dropped: int
    at: float
    lost: int = 0  # records sent to the member that it never acknowledged


class SessionCut(Message, frozen=True):
    """A session with exact resume has no link any more and waits for its card."""

    session: str
    hub: str
    user: str
    reason: str
    at: float


class SessionResumed(Message, frozen=True):
    """Its card is back."""

    session: str
    hub: str
    user: str
    peer: str
    cut_s: float
    again: int  # records that it gets, once more or at last
    at: float


class Answered(Message, frozen=True):
    """The answer to an `Asked`; rows are plain values that can become JSON."""

    ask: int
    rows: list[dict[str, Any]] = []
    error: str = ""


# -- control to worker --------------------------------------------------------------------------------------------


class LoginAnswered(Message, frozen=True):
    """Let in (`error` 0) or refuse (a code of protocol section 11)."""

    ask: int
    error: int = 0
    hub: str = ""  # as the hub is spelled
    user: str = ""
    group: str = ""
    policy: Policy = DEFAULT
    max_sessions: int = 0  # of the hub; 0 = no limit
    no_save_password: bool = False  # said with a refusal
    number: int = 0  # of the session, where several workers count together; 0 = the worker counts


class RpcAnswered(Message, frozen=True):
    """The answer to `RpcAsked`."""

    ask: int
    answer: bytes  # a PACK; b"" = end the connection


class LeaseAnswered(Message, frozen=True):
    """What the station is to be told; nothing if `kind` is 0."""

    ask: int
    kind: int = 0  # OFFER, ACK or NAK
    number: int = 0  # of the address
    lease_s: int = 0


class Names(Message, frozen=True):
    """A question to the hub's DNS, and from control its answer, if there is one."""

    ask: int
    data: bytes  # the DNS message
    hub: str = ""
    seen: tuple[bytes, ...] = ()  # IPv6 addresses in use


class LeasesPut(Message, frozen=True):
    """For the guards of all workers: who has which addresses by lease."""

    hub: str
    held: list[tuple[bytes, bytes, float]] = []  # address, MAC, seconds left
    gone: list[bytes] = []  # addresses
    whole: bool = False  # and nobody else has one


class HubPut(Message, frozen=True):
    """A virtual hub exists with these settings (sent for each at start, then at each change)."""

    hub: str
    online: bool = True
    ageing_s: float = 600.0
    session_timeout_s: float = 20.0
    listed: bool = True  # told to who asks for the names of hubs (section 17)
    banner: str = ""  # for the users of clients that show one
    rules: HubRules = HubRules()
    access: tuple[Rule, ...] = ()  # by priority
    service: LanService | None = None  # addresses and names
    guard: GuardRules = GuardRules()


class HubRemoved(Message, frozen=True):
    """End its sessions and forget it."""

    hub: str


class Asked(Message, frozen=True):
    """A question about live state, or an order: answered by `Answered`."""

    ask: int
    what: str  # "sessions", "mac_table", "status", "disconnect"
    hub: str = ""
    name: str = ""
    reason: str = ""  # of "disconnect": a sentence for the log


# -- control to supervisor, supervisor to both --------------------------------------------------------------------


class Ready(Message, frozen=True):
    """This process serves."""

    who: str  # "worker", "control", "heir": a worker that waits for `TakeOver`
    notes: dict[str, float] = {}  # of a worker that took over: "sessions", "pause_s"


class HostPortWanted(Message, frozen=True):
    """Make (or keep) a TAP for a virtual hub with the hub machine's own addresses on it."""

    hub: str
    interface: str  # at most 15 characters, must begin with "uk"
    addresses: list[str]  # "10.181.7.1/24", "fd3c:...::1/64"


class HostPortGone(Message, frozen=True):
    """Remove that TAP."""

    hub: str


class HostPort(Message, frozen=True):
    """Supervisor to worker, with one descriptor attached: the TAP of a hub's host port."""

    hub: str
    interface: str


class BridgePut(Message, frozen=True):
    """Supervisor to worker, with one descriptor attached: the TAP that joins an Ethernet of this machine to a hub."""

    hub: str  # which need not exist (yet)
    interface: str  # of the Ethernet; there is one bridge of it at most
    tap: str


class BridgeGone(Message, frozen=True):
    """Supervisor to worker: let go of that TAP."""

    interface: str


class CascadeWanted(Message, frozen=True):
    """Join another hub as a client. Supervisor to worker, with one descriptor: the cable of that port."""

    cascade: int  # its number in the database; the larger, the younger
    hub: str  # the virtual hub that it is a port of
    name: str
    policy: Policy = DEFAULT  # of what comes from there


class CascadeGone(Message, frozen=True):
    """Control to supervisor to worker: end it, pull the plug."""

    cascade: int


class CascadeLink(Message, frozen=True):
    """Supervisor to control, with one descriptor: the link to a newly started process (`config.cascade`)."""

    cascade: int


class CascadeUp(Message, frozen=True):
    """Control to worker: a session carries its frames, or none does."""

    cascade: int
    up: bool


class PeerLink(Message, frozen=True):
    """Supervisor to worker or control, with one descriptor attached: the stream to a restarted `who`.

    The old stream is dead. Control then sends every `HubPut` again, without being asked.
    """

    who: str  # "worker", "control"
    number: int = 0  # of the worker


class MeshLink(Message, frozen=True):
    """Supervisor to worker, with one descriptor attached: the stream to another worker, in place of any before."""

    worker: int


class Stop(Message, frozen=True):
    """End in good order: close_notify to every peer, then exit. The receiver has `STOP_DEADLINE` seconds."""

    worker_stays: bool = False  # only control is replaced: it need not wait for the worker's last words


class Ping(Message, frozen=True):
    """Supervisor to worker or control: do you turn? Answered by `Pong`."""


class Pong(Message, frozen=True):
    """The answer."""


class Failed(Message, frozen=True):
    """This process can't go on; the sentence says why. The supervisor prints it and stops the hub."""

    who: str
    sentence: str


class Wish(Message, frozen=True):
    """Control to supervisor: what an admin asked for. Answered by `Granted` with the same `ask`."""

    ask: int
    what: str  # "options", "set_option", "reload", "uplinks", "upgrade"
    key: str = ""  # of set_option
    value: str = ""  # as one types it


class Granted(Message, frozen=True):
    """The answer to a `Wish`: rows, or a no as template and values."""

    ask: int
    rows: list[dict[str, Any]] = []
    template: str = ""  # not empty: no
    values: dict[str, Any] = {}
    exit_status: int = 0


class OptionsPut(Message, frozen=True):
    """Supervisor to control: hub.toml was read again, and what control heeds is this now."""

    public_address: str
    session_timeout_s: float
    mac_ageing_s: float
    changes: list[dict[str, Any]]  # all of them, for the log
    certificate: bytes = b""  # DER
    uplinks: list[str] = []  # virtual hubs whose members get out through this machine, by `name_key`
    bridges: bool = False  # Ethernets of this machine are joined to virtual hubs


class LimitsPut(Message, frozen=True):
    """Supervisor to worker: bounds and times from now on, by their names in `limits.Limits`."""

    values: dict[str, Any]


class CertificatePut(Message, frozen=True):
    """Supervisor to worker, with two descriptors attached, certificate and key: for new connections from now on."""


# -- hub upgrade: supervisor and both workers, supervisor to control ----------------------------------------------


class HandOver(Message, frozen=True):
    """To the old worker: let nobody else in, let go of every link, save all sessions."""


class HandedOver(Message, frozen=True):
    """From the old worker, with the sealed state attached; without a descriptor there is none, for that reason."""

    problem: str = ""


class TakeOver(Message, frozen=True):
    """To the new worker, with the state attached if there is one: restore it, then serve."""

    more: bool = False  # another one follows: don't serve yet


class Upgraded(Message, frozen=True):
    """To the new control: what became of the upgrade that brought it."""

    number: int  # upgrades since the hub's first start
    old_version: str
    sessions: int | None  # taken over; None: the state did not come, cards log in afresh
    pause_s: float  # from the moment at which the old worker let go until the new one took the first caller


LOGIN_DEADLINE: Final = 10.0  # seconds
STOP_DEADLINE: Final = 5.0  # seconds

AnyMessage = (
    LoginAsked | PasswordAsked | AdminAsked | RpcAsked | RpcAnswered | Traffic | LeaseAsked | LeaseAnswered
    | Names | LeasesPut | Caught | LoginRefused | SessionOpened | SessionsHere | SessionClosed | SessionCut
    | SessionResumed | Answered | LoginAnswered | HubPut | HubRemoved | Asked | Ready | HostPortWanted
    | HostPortGone | HostPort | BridgePut | BridgeGone | CascadeWanted | CascadeGone | CascadeLink | CascadeUp
    | PeerLink | MeshLink | Stop | Ping | Pong | Failed | Wish | Granted | OptionsPut | LimitsPut
    | CertificatePut | HandOver | HandedOver | TakeOver | Upgraded
)  # fmt: skip

encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(AnyMessage)


def decode(data: bytes) -> AnyMessage:
    """One message; raises `msgspec.DecodeError` or `msgspec.ValidationError` for anything else."""
    message: AnyMessage = _decoder.decode(data)
    return message
