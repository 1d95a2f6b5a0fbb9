"""Which station gets which IPv4 address of a virtual hub. Plain values in and out; time is an argument.

An address belongs, in this order: to the station it is fixed for; to the user whose own it is (D18), for one station
that is no bridge; to whom it is leased; to whoever asks. A station is known by its user and by what DHCP knows it by,
so that nobody gets at another user's lease by forging. What one port and one user may hold is bounded, offers too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ukihashi.auth.names import name_key
from ukihashi.ether import dhcp
from ukihashi.ether.frame import NO_MAC
from ukihashi.hub.messages import LeaseAsked
from ukihashi.store.leases import Lease

OFFER_S: Final = 30.0  # an offered address is kept so long
DECLINED_S: Final = 600.0  # and one that somebody unknown has is not offered so long
OF_PORT: Final = 4  # addresses held behind a port that is no bridge
REVOKED_MOST: Final = 1024

Station = tuple[str, bytes]  # user key, identity


class Decision(NamedTuple):
    """What to tell the station; kind 0: nothing."""

    kind: int = 0
    number: int = 0
    lease_s: int = 0


SILENCE: Final = Decision()
_NO: Final = Decision(dhcp.NAK)


@dataclass(frozen=True, slots=True)
class _Offer:
    station: Station
    session: str
    until: float


class Book:
    """The leases of one virtual hub."""

    def __init__(self, numbers: range, service: int, leases: Iterable[Lease]) -> None:
        """`numbers`: that stations may have; `service`: the one that none of them gets."""
        self._numbers: Final = [number for number in numbers if number != service]
        self._usable: Final = frozenset(self._numbers)
        self._leases: dict[int, Lease] = {lease.number: lease for lease in leases if lease.number in self._usable}
        self._of: dict[Station, int] = {}  # the number that a station had last
        for lease in sorted(self._leases.values(), key=lambda one: one.ends_at):
            if lease.kind != "declined":
                self._of[lease.user_key, lease.identity] = lease.number
        self._offers: dict[int, _Offer] = {}
        self._sessions: dict[int, str] = {}  # behind which a lease's station was heard last
        self._revoked: dict[Station, None] = {}  # who must ask for another address
        self._fixed: Mapping[bytes, int] = {}
        self._own: Mapping[str, int] = {}
        self._kept: frozenset[int] = frozenset()
        self.changed: set[int] = set()  # numbers whose lease is to be written
        self.exhausted = False  # the last station that got nothing got it because there was nothing left

    def set_kept(self, fixed: Mapping[bytes, int], own: Mapping[str, int]) -> None:
        """Numbers that are kept: for stations by MAC, and users' own by their key."""
        self._fixed, self._own = fixed, own
        self._kept = frozenset(fixed.values()) | frozenset(own.values())

    @property
    def leases(self) -> list[Lease]:
        """All that are known, old ones too, by address."""
        return [self._leases[number] for number in sorted(self._leases)]

    def live(self, now: float) -> list[Lease]:
        """Those that hold."""
        return [lease for lease in self.leases if lease.ends_at > now and lease.kind != "declined"]

    def lease(self, number: int) -> Lease | None:
        """That of an address, old or not."""
        return self._leases.get(number)

    def session(self, number: int) -> str:
        """Behind which a lease's station was heard last; "" = not since control began, or it has ended."""
        return self._sessions.get(number, "")

    def free(self, now: float) -> int:
        """How many addresses could be leased to somebody new."""
        return sum(number not in self._kept and not self._is_held(number, now) for number in self._numbers)

    # -- messages -------------------------------------------------------------------------------------------------

    def decide(self, asked: LeaseAsked, now: float, lease_s: int) -> Decision:
        """Heed one message of a station."""
        self._forget_offers(now)
        station = (name_key(asked.user) if asked.user else "", asked.identity)
        match asked.kind:
            case dhcp.DISCOVER:
                return self._discover(asked, station, now, lease_s)
            case dhcp.REQUEST:
                return self._request(asked, station, now, lease_s)
            case dhcp.INFORM:
                self._inform(asked, station, now, lease_s)
                return Decision(dhcp.ACK)
            case dhcp.RELEASE:
                if self._holds(station, asked.wanted, now):
                    self._put(replace(self._leases[asked.wanted], ends_at=now))
            case dhcp.DECLINE:
                self._decline(asked, station, now)
        return SILENCE

    def _discover(self, asked: LeaseAsked, station: Station, now: float, lease_s: int) -> Decision:
        self._revoked.pop(station, None)
        number = self._choose(asked, station, now)
        if not number:
            return SILENCE
        for old in [old for old, offer in self._offers.items() if offer.station == station]:
            del self._offers[old]
        self._offers[number] = _Offer(station, asked.session, now + OFFER_S)
        return Decision(dhcp.OFFER, number, lease_s)

    def _choose(self, asked: LeaseAsked, station: Station, now: float) -> int:
        """The number to offer; 0 = none."""
        self.exhausted = False
        mac, user = asked.mac, station[0]
        had, busy = self._of.get(station, 0), set(asked.busy)
        fixed = self._fixed.get(mac, 0)
        if fixed and self._is_free_for(fixed, station, mac, now):
            return fixed
        if not self._has_room(asked, station, now):
            return 0
        own = 0 if asked.bridge else self._own.get(user, 0)
        if own and own not in busy and (self._is_free_for(own, station, mac, now) or self._is_left(own, station, now)):
            return own
        if had and self._is_free_for(had, station, mac, now) and (had not in busy or self._holds(station, had, now)):
            return had
        is_kept = asked.wanted in self._kept or asked.wanted in busy
        if not is_kept and self._is_free_for(asked.wanted, station, mac, now):
            return asked.wanted
        free = [number for number in self._numbers if number not in self._kept and number not in busy]
        free = [number for number in free if self._is_free_for(number, station, mac, now)]
        self.exhausted = not free
        # what nobody had, then what was given up longest ago
        return min(free, key=self._ended, default=0)

    def _ended(self, number: int) -> float:
        lease = self._leases.get(number)
        return lease.ends_at if lease is not None else 0.0

    def _request(self, asked: LeaseAsked, station: Station, now: float, lease_s: int) -> Decision:
        number, fixed = asked.wanted, self._fixed.get(asked.mac, 0)
        if station in self._revoked:
            del self._revoked[station]
            return _NO
        if not self._is_free_for(number, station, asked.mac, now):
            return _NO
        if fixed and fixed != number and self._is_free_for(fixed, station, asked.mac, now):
            return _NO
        offer = self._offers.get(number)
        is_known = offer is not None or self._holds(station, number, now)
        if not is_known and (number in asked.busy or not self._has_room(asked, station, now)):
            return _NO
        if number == self._own.get(station[0]) and asked.bridge and not is_known:
            return _NO
        self._grant(asked, station, now, lease_s, "leased")
        return Decision(dhcp.ACK, number, lease_s)

    def _inform(self, asked: LeaseAsked, station: Station, now: float, lease_s: int) -> None:
        number = asked.wanted
        if self._is_free_for(number, station, asked.mac, now) and self._has_room(asked, station, now):
            self._grant(asked, station, now, lease_s, "told")

    def _grant(self, asked: LeaseAsked, station: Station, now: float, lease_s: int, kind: str) -> None:
        number, before = asked.wanted, self._leases.get(asked.wanted)
        self._offers.pop(number, None)
        other = self._of.get(station)
        if other is not None and other != number and self._holds(station, other, now):
            self._put(replace(self._leases[other], ends_at=now))
        goes_on = before is not None and (before.user_key, before.identity) == station and before.ends_at > now
        began = before.began_at if before is not None and goes_on else now
        host = asked.host or (before.host if before is not None and goes_on else "")
        made = Lease(number, *station, asked.mac, host, "told" if kind == "told" else "leased", began, now + lease_s)
        self._put(made)
        self._of[station] = number
        self._sessions[number] = asked.session

    def _decline(self, asked: LeaseAsked, station: Station, now: float) -> None:
        number = asked.wanted
        offer = self._offers.get(number)
        is_offered = offer is not None and offer.station == station
        if not is_offered and not self._holds(station, number, now):
            return
        self._offers.pop(number, None)
        bad = [one for one in self._leases.values() if one.kind == "declined" and one.ends_at > now]
        mine = sum(self._sessions.get(one.number) == asked.session for one in bad)
        self._of.pop(station, None)
        if mine >= OF_PORT or 8 * len(bad) >= len(self._numbers):  # who declines all may have them
            self._leases.pop(number, None)
            self.changed.add(number)
            return
        self._put(Lease(number, "", b"", NO_MAC, "", "declined", now, now + DECLINED_S))
        self._sessions[number] = asked.session

    # -- orders ---------------------------------------------------------------------------------------------------

    def revoke(self, number: int) -> Lease | None:
        """The address is nobody's from now on; its station hears no when it asks for more time."""
        lease = self._leases.pop(number, None)
        self._offers.pop(number, None)
        self._sessions.pop(number, None)
        if lease is not None:
            self.changed.add(number)
            if lease.kind != "declined":
                self._of.pop((lease.user_key, lease.identity), None)
                while len(self._revoked) >= REVOKED_MOST:
                    del self._revoked[next(iter(self._revoked))]
                self._revoked[lease.user_key, lease.identity] = None
        return lease

    def session_ended(self, session: str) -> None:
        """Its stations are gone, though their leases hold."""
        for number in [number for number, one in self._sessions.items() if one == session]:
            del self._sessions[number]
        for number in [number for number, offer in self._offers.items() if offer.session == session]:
            del self._offers[number]

    # -- who may have what ----------------------------------------------------------------------------------------

    def _is_held(self, number: int, now: float) -> bool:
        lease = self._leases.get(number)
        return lease is not None and lease.ends_at > now

    def _holds(self, station: Station, number: int, now: float) -> bool:
        """It is leased to this station."""
        lease = self._leases.get(number)
        return lease is not None and lease.ends_at > now and (lease.user_key, lease.identity) == station

    def _is_free_for(self, number: int, station: Station, mac: bytes, now: float) -> bool:
        """Nothing keeps it from this station."""
        if number not in self._usable:
            return False
        if number in self._kept and self._fixed.get(mac) != number and self._own.get(station[0]) != number:
            return False
        offer = self._offers.get(number)
        if offer is not None and offer.station != station:
            return False
        lease = self._leases.get(number)
        return lease is None or lease.ends_at <= now or (lease.user_key, lease.identity) == station

    def _is_left(self, number: int, station: Station, now: float) -> bool:
        """It is leased to another station of the same user, whose session has ended."""
        lease, offer = self._leases.get(number), self._offers.get(number)
        if lease is None or (offer is not None and offer.station != station) or number in self._sessions:
            return False
        if lease.user_key == station[0] and lease.kind == "leased":
            self._put(replace(lease, ends_at=now))
            return True
        return False

    def _has_room(self, asked: LeaseAsked, station: Station, now: float) -> bool:
        """Port and user may hold one more, or this station has one already."""
        had = self._of.get(station)
        if had is not None and self._holds(station, had, now):
            return True
        count, size = 0, len(self._numbers)
        of_user = 0
        held: dict[int, tuple[str, str]] = {  # number -> user, session
            lease.number: (lease.user_key, self._sessions.get(lease.number, ""))
            for lease in self._leases.values()
            if lease.ends_at > now and lease.kind != "declined"
        }
        for number, offer in self._offers.items():
            if offer.station != station:
                held[number] = offer.station[0], offer.session
        for user, session in held.values():
            count += session == asked.session
            of_user += user == station[0]
        return count < (size // 2 if asked.bridge else OF_PORT) and of_user < size - size // 8

    def _put(self, lease: Lease) -> None:
        self._leases[lease.number] = lease
        self.changed.add(lease.number)

    def _forget_offers(self, now: float) -> None:
        for number in [number for number, offer in self._offers.items() if offer.until <= now]:
            del self._offers[number]
