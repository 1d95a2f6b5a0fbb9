"""A DHCP client for the card's end of the virtual LAN (RFC 2131, section 4.4; the check before use: RFC 5227).

Frames and the time come in, frames and changes go out; whoever holds the interface carries them out.

    asking:     SELECTING -> REQUESTING -> CHECKING -> BOUND -> RENEWING -> REBINDING -> SELECTING
    again:      REBOOTING ------------------^            with the lease that was remembered; the hub was joined afresh
    informing:  INFORMING -> INFORMED                    the address is the account's, the rest is asked for

Whatever waits for an answer asks again, at growing and shaken intervals. A lease goes on while the tunnel is cut; when
it has run out the address is gone.
"""

import enum
import math
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

import msgspec

from ukihashi.errors import PeerViolation
from ukihashi.ether import arp, datagram, dhcp
from ukihashi.ether.dhcp import Message

FIRST_S: Final = 1.0  # until the first question is asked again; a tunnel loses none, but what is behind it may wake
LONGEST_S: Final = 64.0  # between two questions (RFC 2131, 4.1)
SHAKEN: Final = 0.25  # part of an interval by which it may differ
TRIES: Final = 4  # of a REQUEST, of an INFORM, and of DISCOVERs before a remembered lease is used unconfirmed
REBOOT_TRIES: Final = 2
CHECKS: Final = 3  # ARP probes
CHECK_S: Final = 0.2  # from one to the next
CHECKED_S: Final = 0.8  # after the first, with no objection: the address is ours
DECLINED_S: Final = 10.0  # pause after an address was found to be in use (RFC 2131, 3.1, 5), doubled each time
DECLINED_MOST_S: Final = 300.0
REFUSED_S: Final = 2.0  # pause after a NAK that came at once, doubled each time, up to LONGEST_S
LEAST_S: Final = 60.0  # between two questions for the same lease (RFC 2131, 4.4.5)
INFORM_AGAIN_S: Final = 1800.0
ENDLESS: Final = 0xFFFFFFFF  # what a server writes for a lease that never ends
FOR_EVER_S: Final = 1e12  # what we make of it
SHORTEST_LEASE_S: Final = 10.0  # what less is granted counts as this
WIDEST: Final = 8  # bits of the shortest prefix that an address may come with

ASKED: Final = bytes(
    (dhcp.MASK, dhcp.ROUTES, dhcp.ROUTER, dhcp.DNS, dhcp.DOMAIN, dhcp.SEARCH, dhcp.LEASE_TIME, dhcp.RENEWAL_TIME,
     dhcp.REBINDING_TIME)
)  # fmt: skip

Random = Callable[[], float]  # from 0 to 1


class State(enum.StrEnum):
    """What `card status` shows."""

    OFF = "off"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    CHECKING = "checking"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"
    REBOOTING = "rebooting"
    PAUSING = "pausing"  # an address was in use, or refused
    INFORMING = "informing"
    INFORMED = "informed"
    UNANSWERED = "unanswered"  # nobody told us what there is besides; asked again later


class Lease(msgspec.Struct, frozen=True):
    """What a server granted, or told."""

    server: str = ""  # its identifier
    server_mac: bytes = b""  # of the station that its answer came from
    address: str = ""  # "10.1.2.3/24"; "" = nothing was granted, only told
    begins: float = 0.0  # by the clock of whoever asks
    renew_s: float = 0.0  # after `begins`
    rebind_s: float = 0.0
    lasts_s: float = 0.0
    options: dict[int, bytes] = {}

    @property
    def ends(self) -> float:
        """When it runs out."""
        return self.begins + self.lasts_s

    @property
    def ip(self) -> IPv4Address:
        """The address."""
        return IPv4Interface(self.address).ip


_WAITS: Final = frozenset(
    {State.SELECTING, State.REQUESTING, State.CHECKING, State.REBOOTING, State.PAUSING, State.INFORMING}
)


class Client:
    """One interface's. Every call that takes `now` gives the frames to send; afterwards `lease` and `deadline` hold.

    `lease` is what is to be in force now (None: nothing). It is a new object whenever anything about it has changed.
    """

    def __init__(self, mac: bytes, random: Random, *, host_name: str = "") -> None:
        self._mac: Final = mac
        self._random: Final = random
        self._host_name: Final = host_name.partition(".")[0].encode("ascii", "ignore")[:63]
        self.state = State.OFF
        self.lease: Lease | None = None
        self.deadline = math.inf  # call `tick` then
        self.declined: str = ""  # the last address that somebody else had
        self._told: Lease | None = None  # remembered, unconfirmed
        self._own: IPv4Address | None = None  # informing: the account's address
        self._pending: Lease | None = None  # acknowledged, being checked; or offered, being requested
        self._xid = 0
        self._began = 0.0  # this exchange
        self._tries = 0
        self._declines = 0
        self._refusals = 0
        self._checked_at = 0.0

    # -- what whoever holds it says ---------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Nothing is awaited: there is an address, or what there is besides was told, or nobody tells."""
        return self.state not in _WAITS

    def ask(self, now: float, remembered: Lease | None = None) -> list[bytes]:
        """Get an address, the remembered one if it may be had."""
        self._own, self._pending, self._refusals = None, None, 0
        if self.lease is not None and not self.lease.address:
            self.lease = None
        self._told = remembered if remembered and remembered.address and now < remembered.ends else None
        return self._reboot(now) if self._told else self._select(now)

    def inform(self, now: float, own: IPv4Address) -> list[bytes]:
        """Keep `own`, ask what the server offers besides."""
        if self.lease is not None and self.lease.address:
            self.lease = None
        self._own = own
        return self._begin(now, State.INFORMING)

    def rejoined(self, now: float) -> list[bytes]:
        """The virtual LAN was joined afresh: it may be another one. What is in force stays until somebody objects."""
        if self._own is not None:
            return self._begin(now, State.INFORMING)
        if self.lease is not None:
            self._told = self.lease
            return self._reboot(now)
        return self._select(now) if self.state is not State.OFF else []

    def stop(self) -> None:
        """Ask no more; nothing is in force. The server is told nothing: the lease can be taken up again."""
        self.state, self.lease, self.deadline = State.OFF, None, math.inf

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """A frame from the interface; what isn't meant for us, or is no sound answer, changes nothing."""
        heard = arp.parse(frame) if len(frame) >= 14 else None
        if heard is not None:
            return self._heard(heard, now)
        try:
            got = datagram.parse(frame)
            if got is None or got.destination_port != dhcp.CLIENT_PORT or got.source_port != dhcp.SERVER_PORT:
                return []
            message = dhcp.parse(got.payload)
        except PeerViolation:
            return []
        if message.op != dhcp.BOOT_REPLY or message.xid != self._xid or message.mac != self._mac:
            return []
        match message.kind:
            case dhcp.OFFER if self.state is State.SELECTING:
                return self._offered(message, now)
            case dhcp.ACK:
                return self._acknowledged(message, got.source_mac, now)
            case dhcp.NAK:
                return self._refused(message, now)
        return []

    def tick(self, now: float) -> list[bytes]:
        """Time has passed."""
        lease = self.lease
        if lease is not None and lease.address and now >= lease.ends:
            self.lease = None
            return self._select(now)
        if now < self.deadline:
            return []
        match self.state:
            case State.CHECKING:
                return self._check(now)
            case State.PAUSING:
                return self._select(now)
            case State.BOUND:
                self._new(now)
                return self._renew(now)
            case State.RENEWING | State.REBINDING:
                return self._renew(now)
            case State.INFORMED | State.UNANSWERED:
                return self._begin(now, State.INFORMING)
            case State.OFF:
                return []
        return self._once_more(now)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _select(self, now: float) -> list[bytes]:
        self._pending = None
        return self._begin(now, State.SELECTING)

    def _reboot(self, now: float) -> list[bytes]:
        return self._begin(now, State.REBOOTING)

    def _begin(self, now: float, state: State) -> list[bytes]:
        self._new(now)
        self.state, self._tries = state, 0
        return self._question(now)

    def _new(self, now: float) -> None:
        self._xid = int(self._random() * 0xFFFFFFFF)
        self._began = now

    def _once_more(self, now: float) -> list[bytes]:
        """Nobody has answered the question in time."""
        lease = self.lease
        if self.state is State.REBOOTING and self._tries >= REBOOT_TRIES:
            if lease is not None:  # in force, and nobody objects: it stays for as long as it was granted
                self._bound(lease, now)
                return []
            return self._select(now)
        if self.state is State.REQUESTING and self._tries >= TRIES:
            return self._select(now)
        if self.state is State.SELECTING and self._tries >= TRIES and self._told is not None:
            told, self._told = self._told, None
            return self._begin_check(told, now) if now < told.ends else self._question(now)
        if self.state is State.INFORMING and self._tries >= TRIES:
            self.state = State.UNANSWERED if self.lease is None else State.INFORMED
            self.deadline = now + INFORM_AGAIN_S
            return []
        return self._question(now)

    def _question(self, now: float) -> list[bytes]:
        interval = min(FIRST_S * 2.0**self._tries, LONGEST_S)
        self.deadline = now + interval * (1.0 + SHAKEN * (2.0 * self._random() - 1.0))
        self._tries += 1
        match self.state:
            case State.SELECTING:
                wanted = self._told.ip if self._told else None
                return [self._broadcast(now, dhcp.DISCOVER, requested=wanted)]
            case State.REBOOTING:
                assert self._told is not None
                return [self._broadcast(now, dhcp.REQUEST, requested=self._told.ip)]
            case State.REQUESTING:
                assert self._pending is not None
                server = IPv4Address(self._pending.server)
                return [self._broadcast(now, dhcp.REQUEST, requested=self._pending.ip, server=server)]
            case _:
                assert self._own is not None
                return [self._broadcast(now, dhcp.INFORM, client=self._own)]

    def _renew(self, now: float) -> list[bytes]:
        """The lease is half over: its server is asked, later all of them (RFC 2131, 4.4.5)."""
        lease = self.lease
        assert lease is not None
        rebind_at = lease.begins + lease.rebind_s
        self.state = State.RENEWING if now < rebind_at else State.REBINDING
        until = rebind_at if self.state is State.RENEWING else lease.ends
        self.deadline = min(until, now + max((until - now) / 2, LEAST_S * (1.0 + SHAKEN * self._random())))
        if self.state is State.RENEWING and len(lease.server_mac) == 6 and lease.server:
            message = self._message(now, dhcp.REQUEST, client=lease.ip)
            return [
                dhcp.client_frame(
                    message, source=lease.ip, destination=IPv4Address(lease.server), destination_mac=lease.server_mac
                )
            ]
        return [self._broadcast(now, dhcp.REQUEST, client=lease.ip)]

    def _broadcast(
        self,
        now: float,
        kind: int,
        *,
        client: IPv4Address = dhcp.NOWHERE,
        requested: IPv4Address | None = None,
        server: IPv4Address | None = None,
    ) -> bytes:
        message = self._message(now, kind, client=client, requested=requested, server=server)
        return dhcp.client_frame(message, source=client)

    def _message(
        self,
        now: float,
        kind: int,
        *,
        client: IPv4Address = dhcp.NOWHERE,
        requested: IPv4Address | None = None,
        server: IPv4Address | None = None,
    ) -> Message:
        options = {dhcp.MESSAGE_TYPE: bytes([kind]), dhcp.CLIENT_ID: b"\1" + self._mac}
        if kind != dhcp.DECLINE:
            options |= {dhcp.WANTED: ASKED, dhcp.MAX_SIZE: (1472).to_bytes(2, "big")}
            if self._host_name:
                options[dhcp.HOST_NAME] = self._host_name
        if requested is not None:
            options[dhcp.REQUESTED] = requested.packed
        if server is not None:
            options[dhcp.SERVER_ID] = server.packed
        seconds = min(max(0, int(now - self._began)), 0xFFFF)
        return Message(dhcp.BOOT_REQUEST, self._xid, self._mac, seconds, 0, client, options=options)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _offered(self, message: Message, now: float) -> list[bytes]:
        lease = self._read(message, b"", now)
        if lease is None or not lease.server:
            return []
        self._pending = lease
        self.state, self._tries = State.REQUESTING, 0
        return self._question(now)

    def _acknowledged(self, message: Message, server_mac: bytes, now: float) -> list[bytes]:
        if self.state is State.INFORMING:
            self.lease = _told_by(message, server_mac, now)
            self.state, self.deadline = State.INFORMED, now + INFORM_AGAIN_S
            return []
        if self.state not in {State.REQUESTING, State.REBOOTING, State.RENEWING, State.REBINDING}:
            return []
        lease, asked = self._read(message, server_mac, now), self._pending
        if lease is None:
            return []
        if self.state is State.REQUESTING and (asked is None or lease.ip != asked.ip):
            return []
        if self.lease is not None and lease.ip == self.lease.ip:
            self._bound(lease, now)
            return []
        return self._begin_check(lease, now)

    def _refused(self, message: Message, now: float) -> list[bytes]:
        """NAK: the address is not ours (any more)."""
        if self.state not in {State.REQUESTING, State.REBOOTING, State.RENEWING, State.REBINDING}:
            return []
        by = message.address(dhcp.SERVER_ID)
        if self.state is State.REQUESTING and self._pending is not None and str(by) != self._pending.server:
            return []
        self.lease = self._told = None
        if self.state is not State.REQUESTING:
            return self._select(now)
        pause = min(REFUSED_S * 2.0**self._refusals, LONGEST_S)
        self._refusals += 1
        return self._pause(now, pause)

    def _read(self, message: Message, server_mac: bytes, now: float) -> Lease | None:
        """The lease in an OFFER or ACK; None if it can't be one."""
        ip, mask = message.your, message.address(dhcp.MASK) or IPv4Address("255.255.255.0")
        try:
            address = IPv4Interface(f"{ip}/{mask}")
        except ValueError:  # a mask with holes
            return None
        length = address.network.prefixlen
        if ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_reserved or length < WIDEST:
            return None
        if length < 31 and ip in (address.network.network_address, address.network.broadcast_address):
            return None
        granted = message.number(dhcp.LEASE_TIME)
        if not granted:
            return None
        lasts = FOR_EVER_S if granted == ENDLESS else max(float(granted), SHORTEST_LEASE_S)
        renew, rebind = message.number(dhcp.RENEWAL_TIME), message.number(dhcp.REBINDING_TIME)
        renew_s, rebind_s = float(renew or 0.5 * lasts), float(rebind or 0.875 * lasts)
        if not 0 < renew_s < rebind_s < lasts:
            renew_s, rebind_s = 0.5 * lasts, 0.875 * lasts
        renew_s *= 1.0 - 0.1 * self._random()  # so that cards which began together don't ask together
        server = message.address(dhcp.SERVER_ID)
        options = {code: value for code, value in message.options.items() if code in ASKED}
        return Lease(str(server or ""), server_mac, str(address), now, renew_s, rebind_s, lasts, options)

    # -- the check before use ---------------------------------------------------------------------------------------

    def _begin_check(self, lease: Lease, now: float) -> list[bytes]:
        self.lease, self._pending = None, lease
        self.state, self._tries, self._checked_at = State.CHECKING, 0, now + CHECKED_S
        return self._check(now)

    def _check(self, now: float) -> list[bytes]:
        lease = self._pending
        assert lease is not None
        if now >= self._checked_at:
            self._declines = self._refusals = 0
            self._bound(lease, now)
            return [arp.announcement(self._mac, lease.ip)]
        if self._tries < CHECKS:
            self._tries += 1
            self.deadline = now + CHECK_S if self._tries < CHECKS else self._checked_at
            return [arp.request(self._mac, dhcp.NOWHERE, lease.ip)]
        self.deadline = self._checked_at
        return []

    def _heard(self, heard: arp.Arp, now: float) -> list[bytes]:
        lease = self._pending
        if self.state is not State.CHECKING or lease is None or heard.sender_mac == self._mac:
            return []
        probes = heard.sender == dhcp.NOWHERE and heard.target == lease.ip  # somebody else is about to take it, too
        if heard.sender != lease.ip and not probes:
            return []
        self.declined, self._told = str(lease.ip), None
        pause = min(DECLINED_S * 2.0**self._declines, DECLINED_MOST_S)
        self._declines += 1
        server = IPv4Address(lease.server) if lease.server else None
        decline = self._broadcast(now, dhcp.DECLINE, requested=lease.ip, server=server)
        return [decline, *self._pause(now, pause)]

    def _pause(self, now: float, seconds: float) -> list[bytes]:
        self._pending = None
        self.state, self.deadline = State.PAUSING, now + seconds
        return []

    def _bound(self, lease: Lease, now: float) -> None:
        self.lease, self._told, self._pending = lease, None, None
        self.state = State.BOUND
        self.deadline = max(now, lease.begins + lease.renew_s)


def _told_by(message: Message, server_mac: bytes, now: float) -> Lease:
    """The answer to INFORM."""
    server = message.address(dhcp.SERVER_ID)
    options = {code: value for code, value in message.options.items() if code in ASKED}
    return Lease(str(server or ""), server_mac, "", now, lasts_s=FOR_EVER_S, options=options)
