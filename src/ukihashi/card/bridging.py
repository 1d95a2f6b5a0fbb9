"""A card that is a bridge: an Ethernet of this machine is on the virtual LAN, this machine itself is not (A8).

The kernel's bridge joins the card's TAP to it (`tap.bridge`), from the first login until the card leaves; a cut leaves
it as it is. What a killed card could not take back is written down (`RUNTIME/card-NAME.bridge`).

The kernel is spoken to in threads; one lock keeps them apart.
"""

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from ukihashi.card.messages import Trouble
from ukihashi.config import places
from ukihashi.config.card import CardConfig
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.locale import say
from ukihashi.net.route_watch import QUIET_S, Notices
from ukihashi.tap import bridge, netlink
from ukihashi.tap.bridge import Joined

LOG_TEXTS: Final = {
    "bridge_joined": N_("an Ethernet is joined to the virtual LAN"),
    "bridge_apart": N_("an Ethernet is not joined to the virtual LAN"),
    "bridge_warning": N_("something about the bridge should be known"),
}

_START: Final = "card-"
_END: Final = ".bridge"

_log = structlog.get_logger()


def effective(config: CardConfig) -> CardConfig:
    """What is left of an account for this machine itself: of a bridge, nothing."""
    if not config.interface.bridge:
        return config
    interface = msgspec.structs.replace(
        config.interface, addresses=[], routes=[], mtu=bridge.MTU, dhcp="off", accept=[], dns_domains=[]
    )
    guard = msgspec.structs.replace(config.echo_guard, enabled=False)
    return msgspec.structs.replace(config, interface=interface, echo_guard=guard)


class CardBridge:
    """The bridge of one card; does nothing while the account names none."""

    def __init__(self, account: str, config: CardConfig) -> None:
        self._account: Final = account
        self._config = config
        self._tap = ""  # "": not up yet
        self._joined: Joined | None = None
        self._problem: UkihashiError | None = None
        self._few_stations = False
        self._lock = threading.Lock()

    # -- in threads -----------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Take back what an earlier card left behind, and look whether this one can be.

        Raises: UsageError, EnvironmentLacks: why it can't.
        """
        for what in clean(self._account):
            _log.info("left_over_removed", account=self._account, what=what)
        settings = self._config.interface
        if settings.bridge:
            bridge.plan(settings.bridge, settings.name, takes=settings.bridge_addresses)

    def set_up(self, tap: str) -> None:
        """Join the card's TAP to the Ethernet, if that is there. Raises: UsageError, EnvironmentLacks; call `undo`."""
        with self._lock:
            self._tap = tap
            if self._config.interface.bridge:
                self._join()

    def undo(self) -> list[UkihashiError]:
        """Part them; what could not be undone."""
        with self._lock:
            self._tap = ""
            return self._part()

    def _join(self) -> None:
        settings = self._config.interface
        if not netlink.exists(settings.bridge):
            self._is_apart(EnvironmentLacks(N_("there is no network interface {interface}"), interface=settings.bridge))
            return
        joined = bridge.plan(settings.bridge, self._tap, takes=settings.bridge_addresses)
        self._joined = joined
        bridge.join(joined, self._note)
        self._is_joined(joined)

    def _part(self) -> list[UkihashiError]:
        joined, self._joined, self._problem = self._joined, None, None
        if joined is None:
            return []
        try:
            bridge.part(joined, self._note)
            bridge.release(joined, self._config.mac)
        except UkihashiError as error:
            return [error]
        _write(self._account, None)
        return []

    def _look(self) -> None:
        """Something on this machine changed: is the Ethernet still where it belongs?"""
        with self._lock:
            name, joined = self._config.interface.bridge, self._joined
            if not name or not self._tap or not netlink.exists(self._tap):
                return
            try:
                if joined is None:
                    if netlink.exists(name):
                        self._join()
                elif bridge.is_member(joined):
                    if self._problem is not None:
                        self._is_joined(joined)
                elif not netlink.exists(name):
                    raise EnvironmentLacks(N_("there is no network interface {interface}"), interface=name)
                elif bridge.take_in(joined, self._note):
                    self._is_joined(joined)
                else:
                    raise EnvironmentLacks(
                        N_("{interface} was taken out of the bridge {bridge} by hand, and stays out"),
                        interface=name,
                        bridge=joined.bridge,
                    )
            except UkihashiError as error:
                self._is_apart(error)

    def _is_joined(self, joined: Joined) -> None:
        self._problem = None
        _log.info("bridge_joined", account=self._account, interface=joined.interface, bridge=joined.bridge)
        for warning in bridge.warnings(joined):
            _log.warning("bridge_warning", account=self._account, reason=say(warning))

    def _is_apart(self, error: UkihashiError) -> None:
        if str(error) != str(self._problem):
            interface = self._config.interface.bridge
            _log.warning("bridge_apart", account=self._account, interface=interface, reason=say(error))
        self._problem = error

    def _note(self, joined: Joined) -> None:
        _write(self._account, joined if joined.made else None)

    def _row(self) -> dict[str, Any] | None:
        with self._lock:
            settings, joined = self._config.interface, self._joined
            if not settings.bridge:
                return None
            row: dict[str, Any] = {"interface": settings.bridge, "bridge": "", "members": []}
            warnings: list[UkihashiError] = []
            if joined is not None:
                with contextlib.suppress(UkihashiError):
                    row |= bridge.row(joined)
                    warnings = bridge.warnings(joined)
            if self._few_stations:
                warnings.append(
                    EnvironmentLacks(
                        N_(
                            "the hub's policy for this user forbids bridging: it lets only a few hosts behind this card"
                            " through; ask the hub's admin (policy no_bridge)"
                        )
                    )
                )
            up = joined is not None and self._problem is None
            row["state"] = "joined" if up else "apart" if self._tap else "waiting"
            row["problem"] = _told(self._problem)
            row["warnings"] = [_told(warning) for warning in warnings]
            return row

    # -- in the event loop ----------------------------------------------------------------------------------------

    def granted(self, *, no_bridge: bool) -> None:
        """What the hub's policy says of a session that has just been opened."""
        few = no_bridge and bool(self._config.interface.bridge)
        if few and not self._few_stations:
            _log.warning("bridge_warning", account=self._account, reason="no_bridge")
        self._few_stations = few

    async def keep(self) -> None:
        """For the card's whole life: an Ethernet that comes (again) is joined. Ends by being cancelled."""
        with Notices() as notices:
            while True:
                begun = time.monotonic()
                await asyncio.to_thread(self._look)
                await notices.changed(max(QUIET_S, 9 * (time.monotonic() - begun)))

    async def let_go(self, config: CardConfig) -> bool:
        """New settings: part what they don't name any more; has anything about the bridge changed?"""
        old, new = self._config.interface, config.interface
        changed = (old.bridge, old.bridge_addresses) != (new.bridge, new.bridge_addresses)
        if changed:
            if new.bridge:
                await asyncio.to_thread(bridge.plan, new.bridge, new.name, takes=new.bridge_addresses)
            for error in await asyncio.to_thread(self._part_locked):
                raise error
        self._config = config
        return changed

    async def settle(self) -> None:
        """After `let_go`, when the rest is heeded: join what is named now."""
        if self._tap and self._joined is None and self._config.interface.bridge:
            await asyncio.to_thread(self.set_up, self._tap)

    def _part_locked(self) -> list[UkihashiError]:
        with self._lock:
            return self._part()

    async def row(self) -> dict[str, Any] | None:
        """For `card status`; None without a bridge."""
        return await asyncio.to_thread(self._row)


# -- what outlives a card ---------------------------------------------------------------------------------------------


def in_use(account: str) -> bool:
    """Does the card that wrote this still live?"""
    joined = _read(account)
    return joined is not None and netlink.exists(joined.tap)


def accounts() -> list[str]:
    """Accounts with something written down."""
    names = (path.name for path in places.runtime_dir().glob(f"{_START}*{_END}"))
    return sorted(name.removeprefix(_START).removesuffix(_END) for name in names)


def clean(account: str) -> list[str]:
    """Undo what a card of this account left behind when it was killed; what was done. Raises: EnvironmentLacks.

    Only while no card of the account lives, but the one that asks.
    """
    joined = _read(account)
    if joined is None:
        return []
    done = bridge.part(joined, lambda found: _write(account, found))
    _write(account, None)
    return done


def _write(account: str, joined: Joined | None) -> None:
    path = _path(account)
    try:
        if joined is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}-new")
        new.write_bytes(msgspec.json.encode(joined))
        new.replace(path)
    except OSError as error:
        raise EnvironmentLacks(
            N_("{path} can't be written: {reason}; run this as root (sudo)"), path=path, reason=error.strerror
        ) from error


def _read(account: str) -> Joined | None:
    try:
        return msgspec.json.decode(_path(account).read_bytes(), type=Joined)
    except (OSError, msgspec.MsgspecError):
        return None


def _path(account: str) -> Path:
    return places.runtime_dir() / f"{_START}{account}{_END}"


def _told(error: UkihashiError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    trouble = Trouble.of(error)
    return {"text": str(error), "template": trouble.template, "values": trouble.values}
