"""Addresses and names, control's side: who gets which lease, what the DNS says, what an administrator sets.

Questions of workers are answered in batches: one transaction for all that wait, so that a lease is on the disk before
its station hears of it, and two hundred cards at once cost a few commits.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any, Final, NamedTuple, Unpack

import structlog

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, PeerViolation, UkihashiError, UsageError
from ukihashi.ether import dns
from ukihashi.hub import lan_settings
from ukihashi.hub.backstage import Facts, Live, pick_hub
from ukihashi.hub.guard_plan import trusted
from ukihashi.hub.lan_names import Zone
from ukihashi.hub.lan_plan import LanService, forwards, numbers, plan
from ukihashi.hub.lan_settings import AddressFields
from ukihashi.hub.lease_book import Book
from ukihashi.hub.messages import LeaseAnswered, LeaseAsked, LeasesPut, Message, Names
from ukihashi.hub.name_forward import Forwarder
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import hubs, leases, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.store.leases import Lease

WAITING_MOST: Final = 4096  # questions of workers; with more, stations have to ask again
BATCH: Final = 256
NAMING_MOST: Final = 256  # names looked up at once
ZONE_S: Final = 0.5  # how old what is known of names may be
COMPLAIN_S: Final = 60.0  # between two words about a hub without free addresses

_log = structlog.get_logger()


class _Held(NamedTuple):
    """The book of a hub, and what it was made by."""

    subnet4: str
    service: int
    book: Book


@dataclass(frozen=True, slots=True)
class _Place:
    """What is needed to know names."""

    plan: LanService
    zone: Zone
    forwards: bool
    until: float


class Leases:
    """See the module. Books are used by the store's thread only."""

    def __init__(
        self,
        facts: Facts,
        storage: Storage,
        live: Live,
        tell_hub: Callable[[Hub], Awaitable[None]],
        *,
        answer: Callable[[Message, int], Awaitable[None]],
        tell_all: Callable[[Message], Awaitable[None]],
        forwarder: Forwarder | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`tell_hub`: tells workers how a hub is set now; `answer`, `tell_all`: send a message to one, to all."""
        self._facts = facts
        self._storage = storage
        self._live = live
        self._tell_hub = tell_hub
        self._answer = answer
        self._tell_all = tell_all
        self._forwarder = forwarder or Forwarder()
        self._clock = clock
        self._books: dict[int, _Held] = {}  # by hub id
        self._waiting: list[tuple[int, LeaseAsked]] = []
        self._come = asyncio.Event()
        self._naming = 0
        self._zones: dict[str, _Place] = {}  # by hub, `name_key`
        self._complained: dict[str, float] = {}
        self._news: list[LeasesPut] = []  # what has been written and not told

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "addresses": self.addresses,
            "addresses_set": self.addresses_set,
            "leases": self.leases,
            "lease_release": self.lease_release,
            "lease_fix": self.lease_fix,
            "lease_unfix": self.lease_unfix,
        }

    # -- of workers -----------------------------------------------------------------------------------------------

    def put(self, worker: int, asked: LeaseAsked) -> None:
        """A station speaks DHCP at a worker."""
        if len(self._waiting) < WAITING_MOST:
            self._waiting.append((worker, asked))
            self._come.set()

    async def run(self) -> None:
        """Answer them, for ever."""
        while True:
            await self._come.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._come.clear()
            try:
                answers = await self._storage.change(self._decide, [asked for _worker, asked in batch], self._clock())
            except Exception:  # noqa: BLE001 - a fault of ours, or of the disk, must not end the hub; stations ask again
                self._books.clear()  # nothing of what was decided is true
                self._news.clear()
                await _log.aexception("internal_error")
                continue
            await self._tell_guards()
            for (worker, _asked), answer in zip(batch, answers, strict=True):
                if answer.kind:
                    await self._answer(answer, worker)

    def _decide(self, db: Database, batch: Sequence[LeaseAsked], now: float) -> list[LeaseAnswered]:
        answers: list[LeaseAnswered] = []
        found: dict[str, tuple[Hub, Book] | None] = {}
        for asked in batch:
            key = name_key(asked.hub)
            if key not in found:
                hub = hubs.find(db, asked.hub)
                found[key] = None if hub is None or hub.addresses.dhcp != "serve" else (hub, self._book(db, hub))
            here = found[key]
            if here is None:
                answers.append(LeaseAnswered(asked.ask))
                continue
            hub, book = here
            decision = book.decide(asked, now, hub.addresses.lease_s)
            answers.append(LeaseAnswered(asked.ask, *decision))
            if book.exhausted and now - self._complained.get(key, 0.0) > COMPLAIN_S:
                self._complained[key] = now
                _log.warning("addresses_exhausted", hub=hub.name, user=asked.user, session=asked.session)
        for here in found.values():
            if here is not None:
                self._write(db, *here)
        return answers

    def _book(self, db: Database, hub: Hub) -> Book:
        """The hub's, as everything stands now."""
        held = self._books.get(hub.id)
        if held is None or (held.subnet4, held.service) != (hub.subnet4, hub.service_number):
            book = Book(numbers(hub.subnet4), hub.service_number, leases.of_hub(db, hub))
            held = self._books[hub.id] = _Held(hub.subnet4, hub.service_number, book)
        held.book.set_kept(leases.fixed(db, hub), users.numbers(db, hub))
        return held.book

    def _write(self, db: Database, hub: Hub, book: Book) -> None:
        changed, book.changed = book.changed, set()
        held, gone, now = list[tuple[bytes, bytes, float]](), list[bytes](), self._clock()
        for number in changed:
            lease = book.lease(number)
            if lease is None:
                leases.remove(db, hub.id, [number])
            else:
                leases.put(db, hub.id, lease)
            if lease is not None and lease.kind == "leased":
                held.append(_held(hub, lease, now))
            else:
                gone.append(_packed(hub, number))
        if changed:
            self._news.append(LeasesPut(hub.name, held, gone))

    # -- for the guards of all workers ----------------------------------------------------------------------------

    async def tell_all(self) -> None:
        """Who has which address, to workers some of which may not know."""
        for home in await self._storage.read(hubs.all_hubs):
            await self._tell_whole(home)

    async def _tell_whole(self, hub: Hub) -> None:
        def held(db: Database) -> list[tuple[bytes, bytes, float]]:
            now = self._clock()
            serves = hub.addresses.dhcp == "serve"
            return [_held(hub, one, now) for one in self._book(db, hub).live(now) if serves and one.kind == "leased"]

        await self._tell_all(LeasesPut(hub.name, await self._storage.read(held), whole=True))

    async def _tell_guards(self) -> None:
        """What has been written."""
        news, self._news = self._news, []
        for message in news:
            await self._tell_all(message)

    async def session_ended(self, hub: str, session: str) -> None:
        """Its stations are gone."""

        def tell(db: Database) -> None:
            home = hubs.find(db, hub)
            if home is not None and home.id in self._books:
                self._books[home.id].book.session_ended(session)

        if self._books:
            with contextlib.suppress(UkihashiError):  # a damaged disk: what is known already goes on
                await self._storage.read(tell)

    # -- names ----------------------------------------------------------------------------------------------------

    async def name(self, worker: int, asked: Names) -> None:
        """Answer a question to the hub's DNS."""
        if self._naming >= NAMING_MOST:
            return
        self._naming += 1
        try:
            answer = await self._named(asked)
            if answer:
                await self._answer(Names(asked.ask, answer), worker)
        except PeerViolation:
            pass
        except Exception:  # noqa: BLE001 - a fault of ours in one question must not end the others
            await _log.aexception("internal_error", hub=asked.hub)
        finally:
            self._naming -= 1

    async def _named(self, asked: Names) -> bytes:
        query, place = dns.parse(asked.data), await self._place(asked.hub)
        if place is None or not place.plan.dns:
            return b""
        answer = place.zone.answer(query, asked.seen)
        if answer is not None:
            return answer
        if place.forwards:
            return await self._forwarder.ask(query, asked.data)
        return dns.answer(query, dns.REFUSED, authoritative=False)

    async def _place(self, hub: str) -> _Place | None:
        key, now = name_key(hub), time.monotonic()
        place = self._zones.get(key)
        if place is None or now >= place.until:
            made = await self._storage.read(self._make_place, hub, self._clock())
            if made is None:
                self._zones.pop(key, None)
                return None
            place = self._zones[key] = replace(made, until=now + ZONE_S)
        return place

    def _make_place(self, db: Database, name: str, now: float) -> _Place | None:
        hub = hubs.find(db, name)
        said = plan(hub, self._facts.uplinks) if hub is not None else None
        if hub is None or said is None:
            return None
        known = [(user.name, user.number) for user in users.all_users(db, hub)]
        zone = Zone(said, known, self._book(db, hub).live(now), host_port=bool(hub.host_port))
        return _Place(said, zone, forwards(hub, self._facts.uplinks), 0.0)

    # -- verbs ----------------------------------------------------------------------------------------------------

    async def addresses(self, hub: str = "") -> list[Row]:
        """How a hub gives addresses and names."""
        home = await pick_hub(self._storage, hub)
        return [await self._storage.read(self._row, home.name)]

    async def addresses_set(self, hub: str, **fields: Unpack[AddressFields]) -> list[Row]:
        """Change what is named; members feel it at once."""
        home = await pick_hub(self._storage, hub)
        more, fewer = fields.pop("trust", []), fields.pop("no_trust", [])

        def put(db: Database) -> Hub:
            now = hubs.get(db, home.name)
            if more or fewer:
                fields["trusted"] = list(trusted(db, now, more, fewer))
            hubs.put_addresses(db, replace(now, addresses=lan_settings.changed(now, fields)))
            return hubs.get(db, home.name)

        changed = await self._storage.change(put)
        self._zones.clear()
        _log.info("addresses_changed", hub=changed.name, changed=sorted(fields), by=asker.get())
        await self._tell_hub(changed)
        await self._tell_whole(changed)
        return await self.addresses(changed.name)

    def _row(self, db: Database, name: str) -> Row:
        hub, now = hubs.get(db, name), self._clock()
        said, book = plan(hub, self._facts.uplinks), self._book(db, hub)
        return lan_settings.row(hub, said, forwards=forwards(hub, self._facts.uplinks)) | {
            "leases": len(book.live(now)),
            "free": book.free(now),
        }

    async def leases(self, hub: str = "") -> list[Row]:
        """Leases of a hub, and addresses that are kept."""
        home = await pick_hub(self._storage, hub)
        return await self._storage.read(self._lease_rows, home.name)

    def _lease_rows(self, db: Database, name: str) -> list[Row]:
        hub, now = hubs.get(db, name), self._clock()
        book, known = self._book(db, hub), users.all_users(db, hub)
        names = {name_key(user.name): user.name for user in known}
        by_number: dict[int, Row] = {}
        for user in known:
            if user.number:
                by_number[user.number] = lan_settings.lease_row(hub, user.number, fixed="user", user=user.name)
        for mac, number in leases.fixed(db, hub).items():
            by_number[number] = lan_settings.lease_row(hub, number, fixed="station", mac=mac)
        for lease in book.leases:
            if lease.ends_at > now:
                kept = by_number.get(lease.number, {})
                by_number[lease.number] = lan_settings.lease_row(
                    hub,
                    lease.number,
                    lease=lease,
                    fixed=kept.get("fixed", ""),
                    user=names.get(lease.user_key, lease.user_key),
                    mac=lease.mac,
                    session=book.session(lease.number),
                )
        place = self._make_place(db, name, now)
        told = place.zone.names() if place is not None else {}
        return [by_number[number] | {"name": told.get(number, "")} for number in sorted(by_number)]

    async def lease_release(self, address: str, hub: str = "") -> list[Row]:
        """Take an address back; its station gets another when it asks for more time."""
        home = await pick_hub(self._storage, hub)

        def release(db: Database) -> bool:
            now = hubs.get(db, home.name)
            book = self._book(db, now)
            gone = book.revoke(lan_settings.number_of(now, address))
            self._write(db, now, book)
            return gone is not None

        if not await self._storage.change(release):
            raise UsageError(
                N_("hub {hub} has no lease of {address}; `ukihashi hub leases` lists them"),
                hub=home.name,
                address=address,
            )
        await self._tell_guards()
        self._zones.clear()
        _log.info("lease_released", hub=home.name, address=address, by=asker.get())
        return [{"hub": home.name, "address": address}]

    async def lease_fix(self, who: str, address: str, hub: str = "") -> list[Row]:
        """Keep an address for a station (by its MAC) or a user."""
        home = await pick_hub(self._storage, hub)
        mac = lan_settings.mac_of(who)

        def fix(db: Database) -> Row:
            now = hubs.get(db, home.name)
            number, book = lan_settings.number_of(now, address), self._book(db, now)
            if mac:
                leases.fix(db, now, mac, number)
                others = [one.number for one in book.live(self._clock()) if (one.mac == mac) != (one.number == number)]
                kept: dict[str, Any] = {"fixed": "station", "mac": mac}
            else:
                user = users.get(db, now, who)
                leases.fix_user(db, now, user.id, number)
                key = name_key(user.name)
                others = [
                    one.number
                    for one in book.live(self._clock())
                    if (one.number == number and one.user_key != key) or (one.number == user.number != number)
                ]
                kept = {"fixed": "user", "user": user.name}
            for other in others:
                book.revoke(other)
            self._write(db, now, book)
            return lan_settings.lease_row(now, number, **kept)

        row = await self._storage.change(fix)
        await self._tell_guards()
        self._zones.clear()
        _log.info("address_fixed", hub=home.name, whose=who, address=address, by=asker.get())
        return [row]

    async def lease_unfix(self, who: str, hub: str = "") -> list[Row]:
        """Keep none for a station any more."""
        home = await pick_hub(self._storage, hub)
        mac = lan_settings.mac_of(who)
        if not mac or not await self._storage.change(leases.unfix, home, mac):
            raise UsageError(N_("no address of hub {hub} is kept for station {mac}"), hub=home.name, mac=who)
        _log.info("address_unfixed", hub=home.name, whose=who, by=asker.get())
        return [{"hub": home.name, "mac": who}]


def _packed(hub: Hub, number: int) -> bytes:
    return (IPv4Network(hub.subnet4).network_address + number).packed


def _held(hub: Hub, lease: Lease, now: float) -> tuple[bytes, bytes, float]:
    """As the guards are told."""
    return _packed(hub, lease.number), lease.mac, lease.ends_at - now
