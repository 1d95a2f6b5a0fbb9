"""Everything a card sets on its machine for one account: MTU, addresses, routes, routing rules, names, the echo guard.

Addresses and routes are the account's own, or leased and offered by the hub (`addressing.py`, `offers.py`): those are
set as far as the account says (`interface.accept`) and nothing is taken away by it.

What it set it keeps: a route that vanishes is put back (`routes.Restores`). What it set it takes away again, all of it
and nothing else; `journal.py` holds what a killed card could not take away.

The kernel is spoken to in threads (`set_up`, `undo`, and what `keep` and `apply` start); one lock keeps them apart.
"""

import asyncio
import contextlib
import ipaddress
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import structlog

from ukihashi.card import addressing, echo_guard, journal, kill_switch, local_names, offered, routes
from ukihashi.card.addressing import Addressing, wish_of
from ukihashi.card.dhcp_client import Lease
from ukihashi.card.kill_switch import GROUP, KillSwitch
from ukihashi.card.local_names import LocalNames
from ukihashi.card.offered import Offered
from ukihashi.card.offers import Offer
from ukihashi.config.card import CardConfig
from ukihashi.config.card import Route as Setting
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.ether.offload import MAX_SEGMENTS
from ukihashi.locale import say
from ukihashi.net.route_watch import QUIET_S, Notices
from ukihashi.tap import adverts, netlink, reverse_path
from ukihashi.tap.netlink import Route, Rule

LOG_TEXTS: Final = {
    "address_not_set": N_("an address could not be set"),
    "route_not_set": N_("a route could not be set"),
    "route_restored": N_("a route had vanished and was put back"),
    "route_gone": N_("a route has vanished and stays away"),
    "left_over_removed": N_("something that a killed card had left behind was removed"),
    "reverse_path_loosened": N_("the check of senders is loose now (rp_filter=2), so that the hub's answers pass"),
    "reverse_path_strict": N_("the kernel may drop the hub's answers"),
    "offer_not_set": N_("what the hub offers could not be set"),
    **addressing.LOG_TEXTS,
    **echo_guard.LOG_TEXTS,
    **kill_switch.LOG_TEXTS,
    **local_names.LOG_TEXTS,
    **offered.LOG_TEXTS,
}

_log = structlog.get_logger()


LEASE_S: Final = 8.0
OFFER_S: Final = 3.0
SWITCH: Final = ("kill_switch", "kill_switch_allow")
WATCHED: Final = ("mtu", "queue", "addresses", "routes", "dhcp", "accept", "dns_domains", *SWITCH)


class Applied(NamedTuple):
    """What new settings changed."""

    changed: list[str]  # of `WATCHED`, and "echo_guard"
    redial: bool  # the packets that carry the tunnel need another mark: a new connection, at once


class _Kept:
    """One route or rule that is to be there."""

    def __init__(self) -> None:
        self.restores = routes.Restores()
        self.gone: UkihashiError | None = None  # why it is not there
        self.given_up = False  # put back often enough


class Lan:
    """The card's side of this machine, from the first login until it leaves."""

    def __init__(
        self,
        account: str,
        config: CardConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        outer: Callable[[], list[str]] = list,
    ) -> None:
        """`outer`: addresses that the way to the hub begins with, now."""
        self._account: Final = account
        self._clock: Final = clock
        self._config = config
        self._interface = ""  # "": nothing is set
        self._addresses: list[str] = []  # that we set
        self._kept: dict[Route | Rule, _Kept] = {}  # in the order they were set
        self._journal = journal.Journal()
        self._slot = -1  # number of our table and rules; -1: none
        self._warnings: dict[str, UkihashiError] = {}  # by what they are about
        self._seen: list[str] = []  # addresses of the interface, whoever set them
        self._guard = echo_guard.EchoGuard()
        self._lock = threading.Lock()
        self._outer: Final = outer
        self._offered = Offered(account)
        self._names = LocalNames(account, lambda: self._journal)
        self.changed = asyncio.Event()  # addresses or offers
        self.kill_switch: Final = KillSwitch(account)
        self.addressing: Final = Addressing(account, self._heard, clock=clock, random=random.random)

    @property
    def mark(self) -> int:
        """The firewall mark that the packets which carry the tunnel must have; 0: none."""
        return routes.mark_of(self._config.interface)

    # -- in threads -----------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Take back what an earlier card of this account left behind; nothing happens if it left in order."""
        for what in journal.clean(self._account, self._left):
            _log.info("left_over_removed", account=self._account, what=what)

    def set_up(self, interface: str) -> None:
        """Bring the interface up with all its settings. Raises: UsageError, EnvironmentLacks; then call `undo`."""
        with self._lock:
            self.clean()
            self._interface = self._journal.interface = interface
            self._set_link()
            self.kill_switch.put(self._config.interface)  # before anything leads through the card
            self._judge()
            self._set_addresses()
            self._set_routes()

    def undo(self, *, holds: bool = False) -> list[UkihashiError]:
        """Take everything back, the newest first; what could not be undone is given back, the rest is done anyway.

        `holds`: but the kill switch, for nobody wants this end.
        """
        failures: list[UkihashiError] = []
        with self._lock:
            _try(failures, self._names.undo, self._left)
            for item in reversed(self._kept):
                _try(failures, _remove, item)
            for cidr in reversed(self._addresses):
                _try(failures, netlink.remove_address, self._interface, cidr)
            if not failures:  # else `card clean` needs what is written there
                _try(failures, self._close_journal)
            _try(failures, lambda: self.kill_switch.end(self._config.interface, holds=holds))
            self._interface, self._addresses, self._kept, self._offered = "", [], {}, Offered(self._account)
        return failures

    def _left(self, error: UkihashiError) -> None:
        _log.warning("names_left", account=self._account, reason=say(error))

    def _set_link(self) -> None:
        settings = self._config.interface
        self._heed_adverts()
        netlink.set_up(self._interface, settings.mtu, settings.queue, MAX_SEGMENTS, GROUP)

    def _heed_adverts(self) -> None:
        settings = self._config.interface
        own = any(":" in address for address in settings.addresses)
        anything = settings.dhcp == "on" or wish_of(self._config).mode != "off"
        around = any(":" in address for address in self._outer())  # such a route could lead over the way to the hub
        heed = adverts.Heed(
            anything and not own, "default" in settings.accept, "routes" in settings.accept and not around, anything
        )
        adverts.heed(self._interface, heed)
        if not heed.default:
            adverts.router(self._interface, forget=True)
        self._offered.router6 = adverts.router(self._interface)

    def _judge(self) -> bool:
        return self._offered.judge(self._interface, self._config, self._outer())

    def _all_addresses(self) -> list[str]:
        own = [str(ipaddress.ip_interface(address)) for address in self._config.interface.addresses]
        leased = self._offered.leased
        return [*own, leased] if leased and leased not in own else own

    def _all_routes(self) -> list[Setting]:
        return [*self._config.interface.routes, *self._offered.routes]

    def _set_addresses(self) -> None:
        for cidr in self._all_addresses():
            try:
                if netlink.add_address(self._interface, cidr) and cidr not in self._addresses:
                    self._addresses.append(cidr)
            except EnvironmentLacks as error:
                if ":" not in cidr and cidr != self._offered.leased:
                    raise
                self._warn("address_not_set", cidr, error, address=cidr)  # a machine without IPv6

    def _set_routes(self) -> None:
        """What is wanted and not there is set, first the routes, then the rules that make them hold."""
        by_rules = bool(routes.wide_versions(self._all_routes()))
        with journal.alone() if by_rules else contextlib.nullcontext():
            if by_rules and self._slot < 0:
                self._slot = routes.free_slot(netlink.tables_with_routes(), netlink.all_rules())
            wanted, present = self._wanted(), _present(self._interface)
            foreign = {routes.kernel_route(one, self._interface, self._slot) for one in self._offered.routes}
            self._journal.rules = [item for item in wanted if isinstance(item, Rule)]
            if by_rules:
                journal.write(self._account, self._journal)
            for item in wanted:
                if item in self._kept and _normal(item) in present:
                    continue
                try:
                    if _add(item):
                        self._kept[item] = _Kept()
                except EnvironmentLacks as error:
                    if not _is_ipv6(item) and item not in foreign:  # a machine without IPv6; a stranger's word
                        raise
                    self._warn("route_not_set", str(item), error, route=str(item))
        self._loosen()

    def _wanted(self) -> list[Route | Rule]:
        settings = self._all_routes()
        return [
            *(routes.kernel_route(setting, self._interface, self._slot) for setting in settings),
            *(rule for version in routes.wide_versions(settings) for rule in routes.rules(version, self._slot)),
        ]

    def _loosen(self) -> None:
        """The hub's answers must not be dropped for coming in where unmarked packets would not go out."""
        if 4 not in routes.wide_versions(self._all_routes()):
            return
        for interface in netlink.default_interfaces(4) - {self._interface}:
            if not reverse_path.is_strict(interface):
                continue
            try:
                self._journal.loosened.setdefault(interface, reverse_path.read(interface))
                journal.write(self._account, self._journal)
                reverse_path.write(interface, reverse_path.LOOSE)
                _log.info("reverse_path_loosened", interface=interface)
            except (OSError, EnvironmentLacks):
                problem = EnvironmentLacks(
                    N_(
                        "with net.ipv4.conf.{interface}.rp_filter=1 the kernel drops what comes from the hub while the "
                        "default route leads through the card, and it can't be changed from here; set it to 2"
                    ),
                    interface=interface,
                )
                self._warn("reverse_path_strict", f"rp_filter {interface}", problem, interface=interface)

    def _set_names(self) -> None:
        """After the routes: the servers can be asked then."""
        wide = any(map(routes.wide_version, self._all_routes()))
        self._names.set(self._interface, self._config.interface, self._offered.offer, everything=wide, left=self._left)

    def _close_journal(self) -> None:
        """What the routing rules needed."""
        journal.take_back(journal.Journal(loosened=self._journal.loosened))
        self._journal.rules, self._journal.loosened, self._slot = [], {}, -1
        journal.write(self._account, self._journal)

    def _warn(self, event: str, about: str, error: UkihashiError, **fields: str) -> None:
        if about not in self._warnings:
            _log.warning(event, account=self._account, **fields, reason=say(error))
        self._warnings[about] = error

    def _look(self) -> None:
        """Something on this machine changed: is all of ours still there?"""
        with self._lock:
            if not self._interface or not netlink.exists(self._interface):
                return
            with contextlib.suppress(EnvironmentLacks, OSError):  # the interface goes just now; the dialler hears of it
                self._seen = netlink.addresses(self._interface)
                self._look_at_offers()
                present = _present(self._interface)
                for item, kept in self._kept.items():
                    if _normal(item) in present:
                        kept.gone, kept.given_up = None, False
                    elif not kept.given_up:
                        self._restore(item, kept)
                self._loosen()

    def _look_at_offers(self) -> None:
        """A router has come or gone; another network of this machine's may stand against what was applied."""
        self._offered.router6 = adverts.router(self._interface)
        with _warned(self._account):
            if self._judge():
                self._set_all()
            elif self._names.waits:
                self._set_names()

    def _restore(self, item: Route | Rule, kept: _Kept) -> None:
        first, now = kept.gone is None, self._clock()
        if not kept.restores.allowed(now):
            kept.given_up = True
            kept.gone = EnvironmentLacks(
                N_("it was put back {count} times within {minutes:g} minutes and removed again"),
                count=routes.Restores.MOST,
                minutes=routes.Restores.WITHIN_S / 60,
            )
        else:
            try:
                if _add(item):
                    kept.gone = None
                    kept.restores.done(now)
                    _log.warning("route_restored", account=self._account, route=str(item), times=kept.restores.total)
                    return
                kept.gone = EnvironmentLacks(N_("somebody else's stands in its place"))
            except EnvironmentLacks as error:
                kept.gone = error
        if first or kept.given_up:
            _log.warning("route_gone", account=self._account, route=str(item), reason=say(kept.gone))

    def _apply(self, changed: list[str]) -> None:
        with self._lock:
            if not self._interface:
                return
            if {"mtu", "queue", "dhcp", "accept", "addresses"} & set(changed):
                self._set_link()
            if set(SWITCH) & set(changed):
                self.kill_switch.put(self._config.interface)
            if set(changed) - {"mtu", "queue", *SWITCH}:
                self._judge()
                self._set_all()

    def _set_all(self) -> None:
        """Addresses, routes and names as they are to be now; what is no longer to be goes first."""
        wanted = set(self._wanted())
        for item in [item for item in reversed(self._kept) if item not in wanted]:
            _remove(item)
            del self._kept[item]
        addresses = self._all_addresses()
        for cidr in [cidr for cidr in self._addresses if cidr not in addresses]:
            netlink.remove_address(self._interface, cidr)
            self._addresses.remove(cidr)
        self._warnings.clear()
        self._set_addresses()  # all of them: with the first of a subnet the kernel may have removed others
        self._set_routes()
        if not self._journal.rules:
            self._close_journal()
        self._set_names()

    # -- in the event loop ----------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """For the card's whole life: watch routes, run the echo guard, ask for addresses. Ends by being cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._guard.run())
            group.create_task(self._watch())
            group.create_task(self.addressing.run())
            group.create_task(self.kill_switch.keep())

    @property
    def patience(self) -> float:
        """How long whoever brings the card up may be kept waiting for `addressing.settled`, in seconds."""
        mode = wish_of(self._config).mode
        return LEASE_S if mode == "ask" else OFFER_S if mode == "inform" and self._config.interface.accept else 0.0

    async def come_up(self, interface: str) -> None:
        """`set_up`, then ask the hub for what the account wants of it. Raises: UsageError, EnvironmentLacks."""
        await asyncio.to_thread(self.set_up, interface)
        self.addressing.begin(interface, self._config.mac, wish_of(self._config))

    async def _heard(self, lease: Lease | None) -> None:
        self._offered.told(lease)
        with _warned(self._account):
            await asyncio.to_thread(self._apply, ["leased"])
        self._aim()
        self.changed.set()

    async def apply(self, config: CardConfig) -> Applied:
        """New settings, while connected or before; only what differs is touched.

        Raises: UsageError (nothing was touched), EnvironmentLacks (the kernel refused a part; the rest may be set).
        """
        for route in config.interface.routes:
            netlink.check_route(route.to, route.via)
        before, self._config = self._config, config
        old, new = before.interface, config.interface
        changed = [name for name in WATCHED if getattr(old, name) != getattr(new, name)]
        if changed:
            await asyncio.to_thread(self._apply, changed)
        self.addressing.want(wish_of(config))
        if before.echo_guard != config.echo_guard:
            changed.append("echo_guard")
        self._aim()
        self.changed.set()
        return Applied(changed, routes.mark_of(before.interface) != self.mark)

    def status(self) -> dict[str, Any]:
        """For `card status`: the routes and how they do, the echo guard, the mark, warnings."""
        accept = self._config.interface.accept
        return {
            "mark": self.mark,
            "routes": [self._route_row(setting) for setting in self._config.interface.routes],
            "echo_guard": self._guard.status(),
            "kill_switch": self.kill_switch.row(),
            "warnings": [_told(error) for error in list(self._warnings.values())],
            "dhcp": self.addressing.status(),
            "offers": self._offered.rows(accept, self._offer_state, self._names.state(accepted="dns" in accept)),
        }

    @property
    def addresses(self) -> list[str]:
        """The account's, the leased one, and what the kernel made of router advertisements."""
        known = self._all_addresses()
        return [*known, *(one for one in self._seen if one not in known)] if self._interface else known

    @property
    def offer(self) -> Offer:
        """What the hub offers now."""
        return self._offered.offer

    def _offer_state(self, setting: Setting) -> dict[str, Any]:
        row = self._route_row(setting)
        return {"state": {"set": "applied"}.get(row["state"], row["state"]), "reason": row["reason"]}

    def _route_row(self, setting: Any) -> dict[str, Any]:
        version = routes.wide_version(setting)
        items: list[Route | Rule] = [routes.kernel_route(setting, self._interface, self._slot)]
        if version:
            items += routes.rules(version, self._slot)
        kept = [self._kept.get(item) for item in items]
        gone = next((one.gone for one in kept if one and one.gone), None)
        missing = not self._interface or None in kept
        return {
            "to": setting.to,
            "via": setting.via,
            "metric": setting.metric,
            "state": "gone" if gone else "not set" if missing else "set",
            "restored": sum(one.restores.total for one in kept if one),
            "reason": None if gone is None else _told(gone),
        }

    async def _watch(self) -> None:
        with Notices() as notices:
            while True:
                begun = time.monotonic()
                await asyncio.to_thread(self._look)
                self._aim()
                # where routes come and go all the time, and there are many, looking takes at most a tenth of a core
                await notices.changed(max(QUIET_S, 9 * (time.monotonic() - begun)))

    def _aim(self) -> None:
        """Tell the echo guard what holds now."""
        config = self._config
        targets = echo_guard.auto_targets(self._seen, routes.gateways(self._all_routes()))
        self._guard.change(self._interface, config.echo_guard, targets)


@contextlib.contextmanager
def _warned(account: str) -> Iterator[None]:
    """What a stranger's word leads to must not end the card."""
    try:
        yield
    except (UkihashiError, OSError) as error:
        reason = say(error) if isinstance(error, UkihashiError) else str(error)
        _log.warning("offer_not_set", account=account, reason=reason)


def _present(interface: str) -> set[Route | Rule]:
    return {*netlink.own_routes(interface), *netlink.own_rules()}


def _normal(item: Route | Rule) -> Route | Rule:
    return item if isinstance(item, Rule) else netlink.normal(item)


def _add(item: Route | Rule) -> bool:
    return netlink.add_rule(item) if isinstance(item, Rule) else netlink.add_route(item)


def _remove(item: Route | Rule) -> bool:
    return netlink.remove_rule(item) if isinstance(item, Rule) else netlink.remove_route(item)


def _is_ipv6(item: Route | Rule) -> bool:
    version = item.version if isinstance(item, Rule) else netlink.check_route(item.destination, item.via)[0]
    return version == 6


def _try(failures: list[UkihashiError], act: Callable[..., object], *arguments: object) -> None:
    try:
        act(*arguments)
    except UkihashiError as error:
        failures.append(error)


def _told(error: UkihashiError) -> dict[str, Any]:
    values = {name: value if isinstance(value, int | float) else str(value) for name, value in error.values.items()}
    return {"text": str(error), "template": error.template, "values": values}
