"""Which port each IP address was last heard on, and whether it was leased to it by DHCP (protocol section 18.5)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ukihashi.switch.reasons import ADDRESS_TAKEN, ADDRESSES_FULL
from ukihashi.switch.shares import Shares
from ukihashi.units import PortId

EXPIRY_S: Final = 60.0
LEASED_EXPIRY_S: Final = 300.0
EXCLUSIVE_S: Final = 13.0  # an address heard that recently is not taken over where that is checked
TABLE_LIMIT: Final = 65536  # addresses
PURGE_S: Final = 1.0  # expired ones are looked for at most that often
REFRESH_S: Final = 0.25  # an address heard again within that time is not noted again

NOBODYS: Final = (bytes(4), b"\xff" * 4, bytes(16))  # no station's own


class AddressRules(NamedTuple):
    """What a port may use; 0 = any number."""

    most_v4: int = 0
    most_v6: int = 0
    check_v4: bool = False  # no address of another port
    check_v6: bool = False


class AddressRow(NamedTuple):
    """One address, for a listing or to be put back in another process."""

    key: int  # names the entry as long as it lives
    address: bytes  # 4 or 16
    port: PortId
    created: float  # `now` of its first frame on this port
    seen: float
    leased: bool


class IpTable:
    """Addresses, and the port of each.

    Invariant: `_seen` is in the order of last frames, oldest first.
    """

    def __init__(self, *, limit: int = TABLE_LIMIT) -> None:
        self._limit = limit
        self._seen: dict[bytes, AddressRow] = {}
        self._shares = Shares()
        self._counts: Counter[tuple[PortId, int]] = Counter()  # addresses of a port by their length
        self._last_key = 0
        self._purged = 0.0
        self.private_v4_only = True
        self.local_v6_only = True

    def __len__(self) -> int:
        return len(self._seen)

    def manages(self, address: bytes) -> bool:
        """An address that is noted and counted. Unique local ones (fc00::/7) are none, as at other servers."""
        if len(address) == 4:
            return address[0] & 0xF0 != 0xE0 and (not self.private_v4_only or _is_private(address))
        return address[0] != 0xFF and (not self.local_v6_only or (address[0] == 0xFE and address[1] & 0xC0 == 0x80))

    def note(self, address: bytes, port: PortId, now: float, rules: AddressRules) -> str:
        """A frame from `address` came in on `port`. Gives the reason if it may not, else "".

        Cost: O(1) over time.
        """
        known = self._seen.get(address)
        short = len(address) == 4
        if known is not None and now - known.seen >= (LEASED_EXPIRY_S if known.leased else EXPIRY_S):
            known = None
        if known is not None and known.port == port:
            if now - known.seen >= REFRESH_S:
                del self._seen[address]
                self._seen[address] = known._replace(seen=now)
            return ""
        if address in NOBODYS:
            return ""
        checked = rules.check_v4 if short else rules.check_v6
        if known is not None and checked and now - known.seen < EXCLUSIVE_S:
            return ADDRESS_TAKEN
        most = rules.most_v4 if short else rules.most_v6
        if most and self._counts[port, len(address)] >= most:  # then nothing new passes, not even what is not counted
            self._purge(now)
            if self._counts[port, len(address)] >= most:
                return ADDRESSES_FULL
        if not self.manages(address):
            return ""
        self._put(address, port, now, leased=False)
        return ""

    def lease(self, address: bytes, port: PortId, now: float) -> None:
        """A DHCP server gave `address` to a station on `port`; one in use on another port stays there."""
        known = self._seen.get(address)
        if known is None or now - known.seen >= EXCLUSIVE_S:
            self._put(address, port, now, leased=True)
        elif known.port == port:
            del self._seen[address]
            self._seen[address] = known._replace(seen=now, leased=True)

    def is_leased(self, address: bytes, port: PortId, now: float) -> bool:
        """A DHCP server gave `address` to a station on `port`, and it was heard since."""
        known = self._seen.get(address)
        return known is not None and known.leased and known.port == port and now - known.seen < LEASED_EXPIRY_S

    def used_by(self, address: bytes, now: float) -> PortId | None:
        """The port that used it a moment ago."""
        known = self._seen.get(address)
        return known.port if known is not None and now - known.seen < EXCLUSIVE_S else None

    def is_taken(self, address: bytes, port: PortId, now: float) -> bool:
        """Another port than `port` used it a moment ago."""
        return self.used_by(address, now) not in (None, port)

    def forget(self, key: int) -> bool:
        """Remove the entry with that key; False if there is none."""
        for address, row in self._seen.items():
            if row.key == key:
                self._remove(address)
                return True
        return False

    def forget_port(self, port: PortId) -> None:
        """Remove all addresses of `port`."""
        for address in self._shares.drop(port):
            del self._seen[address]
        for length in (4, 16):
            self._counts.pop((port, length), None)

    def addresses(self, port: PortId) -> list[AddressRow]:
        """What was learned on `port`."""
        return [self._seen[address] for address in self._shares.of(port)]

    def hear(self, port: PortId, rows: Iterable[AddressRow]) -> None:
        """Another table has heard these, on what is `port` to us; heard later here, they stay."""
        for row in rows:
            known = self._seen.get(row.address)
            if known is None or known.port == port or known.seen < row.seen:
                self._put(row.address, port, row.seen, leased=row.leased, created=row.created)

    def lose(self, port: PortId, addresses: Iterable[bytes]) -> None:
        """Forget those of these addresses that are on `port`."""
        for address in addresses:
            known = self._seen.get(address)
            if known is not None and known.port == port:
                self._remove(address)

    def recent(self, since: float) -> Iterator[AddressRow]:
        """Addresses heard after `since`."""
        for row in reversed(self._seen.values()):
            if row.seen <= since:
                return
            yield row

    def put_back(self, port: PortId, rows: Iterable[AddressRow]) -> None:
        """Addresses learned earlier are behind `port` again, as old as they are; one that moved since stays away."""
        for row in rows:
            if row.address not in self._seen and len(self._seen) < self._limit:
                self._put(row.address, port, row.seen, leased=row.leased, created=row.created)
        self._seen = dict(sorted(self._seen.items(), key=lambda item: item[1].seen))

    def rows(self, now: float) -> list[AddressRow]:
        """All addresses that have not expired, the one silent longest first."""
        return [row for row in self._seen.values() if now - row.seen < (LEASED_EXPIRY_S if row.leased else EXPIRY_S)]

    def _put(self, address: bytes, port: PortId, now: float, *, leased: bool, created: float | None = None) -> None:
        """A new entry, or another port's for an address that has one; nothing if the table is full of others'."""
        if address in self._seen:
            self._remove(address)
        elif len(self._seen) >= self._limit:
            self._purge(now)
            if len(self._seen) >= self._limit:
                victim = self._shares.victim(port, self._limit)
                if victim is None:
                    return
                self._remove(victim)
        self._last_key = self._last_key % 0xFFFFFFFF + 1
        self._seen[address] = AddressRow(
            self._last_key, address, port, now if created is None else created, now, leased
        )
        self._shares.add(port, address)
        self._counts[port, len(address)] += 1

    def _remove(self, address: bytes) -> None:
        port = self._seen.pop(address).port
        self._shares.discard(port, address)
        self._counts[port, len(address)] -= 1

    def _purge(self, now: float) -> None:
        if now - self._purged < PURGE_S:
            return
        self._purged = now
        expired = []
        for address, row in self._seen.items():
            if now - row.seen < EXPIRY_S:
                break
            if not row.leased or now - row.seen >= LEASED_EXPIRY_S:
                expired.append(address)
        for address in expired:
            self._remove(address)


def _is_private(address: bytes) -> bool:
    """RFC 1918, link-local, and shared between a provider and its customers (RFC 6598)."""
    first, second = address[0], address[1]
    return (
        first == 10
        or (first == 172 and second & 0xF0 == 16)
        or (first == 192 and second == 168)
        or (first == 169 and second == 254)
        or (first == 100 and second & 0xC0 == 64)
    )
