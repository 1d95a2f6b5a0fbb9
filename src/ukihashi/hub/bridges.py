"""Bridges, the supervisor's side: Ethernets of this machine that are ports of virtual hubs (`tap.bridge`).

Which ones is said by hub.toml, which root alone writes; control has no say in it. What would outlive us is written
down before it is done (`bridges.undo`), and undone at the end, or at the next start. `hub upgrade` leaves all of it as
it is: the next program inherits the TAPs.

An Ethernet may come later, go and come again: the kernel's notices are heard, and whatever was refused is tried anew.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ukihashi.config.hub import HubConfig
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import BridgeGone, BridgePut, Message
from ukihashi.net.privileges import is_root
from ukihashi.tap import bridge, netlink
from ukihashi.tap.bridge import Joined
from ukihashi.tap.device import Tap, adopt_tap, open_tap

JOURNAL: Final = "bridges.undo"
RING: Final = 500  # frames that wait in the kernel for us
RETRY_S: Final = 2.0  # between two tries of what was refused
QUIET_S: Final = 0.1  # a change of the network comes as a burst of notices
LINKS: Final = 0x1  # linux/rtnetlink.h, RTMGRP_LINK


class Wanted(NamedTuple):
    """One Ethernet."""

    hub: str
    takes: bool  # its addresses and routes may move to the bridge


class House(Protocol):
    """What bridges need of the supervisor."""

    limits: Limits

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""


class InheritedBridge(msgspec.Struct, frozen=True):
    """What is left to the program that takes our place."""

    hub: str
    takes: bool
    joined: Joined
    fd: int  # its TAP


@dataclass
class _Entry:
    interface: str
    wanted: Wanted
    tap: Tap | None = None  # with it there is `joined`, too
    joined: Joined | None = None
    problem: UkihashiError | None = None
    due: float = 0.0  # when it is tried again

    @property
    def put(self) -> BridgePut:
        """For the worker."""
        assert self.tap is not None
        return BridgePut(self.wanted.hub, self.interface, self.tap.name)


def wanted_bridges(config: HubConfig) -> dict[str, Wanted]:
    """By interface, what hub.toml says."""
    return {interface: Wanted(hub, interface in config.bridge_addresses) for interface, hub in config.bridged().items()}


class Bridges:
    """All of this hub."""

    def __init__(
        self, house: House, folder: Path, poll: select.poll, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`folder`: where is written down what must be undone."""
        self._house = house
        self._journal = folder / JOURNAL
        self._poll = poll
        self._clock = clock
        self._entries: dict[str, _Entry] = {}  # by interface
        self._left: list[Joined] = []  # that could not be undone
        self._notices: socket.socket | None = None
        self._due: float | None = None

    # -- from start to end ----------------------------------------------------------------------------------------

    def open(self, wanted: Mapping[str, Wanted]) -> None:
        """Undo what a hub left behind that was killed, and begin."""
        for joined in self._written():
            try:
                for what in bridge.part(joined, lambda _joined: None):
                    self._house.tell(UkihashiError(N_("left over by a hub that was killed, undone: {what}"), what=what))
            except UkihashiError as error:
                self._house.tell(error)
                self._left.append(joined)
        self._write_down()
        self.want(wanted)

    def adopt(self, left: Sequence[InheritedBridge], wanted: Mapping[str, Wanted]) -> None:
        """Go on as the program that was here before."""
        for one in left:
            interface = one.joined.interface
            tap = adopt_tap(one.fd, one.joined.tap)
            self._entries[interface] = _Entry(interface, Wanted(one.hub, one.takes), tap, one.joined)
        self.want(wanted)

    def want(self, wanted: Mapping[str, Wanted]) -> None:
        """From now on these, and no others."""
        if wanted and not is_root():
            self._house.tell(EnvironmentLacks(N_("bridges of hub.toml need root; start the hub with sudo")))
            wanted = {}
        for interface, entry in list(self._entries.items()):
            if wanted.get(interface) != entry.wanted:
                self._remove(entry)
                del self._entries[interface]
        for interface, one in wanted.items():
            if interface not in self._entries:
                self._entries[interface] = _Entry(interface, one)
        self._watch(bool(wanted))
        self._settle()

    def give(self) -> None:
        """To a new worker."""
        for entry in self._entries.values():
            self._give(entry)

    def leave(self) -> list[InheritedBridge]:
        """For the program that takes our place."""
        return [
            InheritedBridge(entry.wanted.hub, entry.wanted.takes, entry.joined, entry.tap.fileno())
            for entry in self._entries.values()
            if entry.tap is not None and entry.joined is not None
        ]

    def close(self) -> None:
        """Undo everything."""
        for entry in self._entries.values():
            self._remove(entry)
        self._entries = {}
        self._watch(False)

    def forget(self) -> None:
        """In a child: the descriptors are the parent's business."""
        for entry in self._entries.values():
            if entry.tap is not None:
                os.close(entry.tap.fileno())
        self._entries = {}
        if self._notices is not None:
            self._notices.close()
            self._notices = None

    # -- the network changes --------------------------------------------------------------------------------------

    def _watch(self, wanted: bool) -> None:
        if wanted and self._notices is None:
            self._notices = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
            self._notices.bind((0, LINKS))
            self._poll.register(self._notices.fileno(), select.POLLIN)
        elif not wanted and self._notices is not None:
            self._poll.unregister(self._notices.fileno())
            self._notices.close()
            self._notices = None
            self._due = None

    @property
    def patience_s(self) -> float | None:
        """When to `look` again, if nothing happens."""
        dues = [entry.due for entry in self._entries.values() if entry.tap is None]
        dues += [self._due] if self._due is not None else []
        return max(0.0, min(dues) - self._clock()) if dues else None

    def look(self, ready: set[int]) -> None:
        """Has an interface come or gone? Is something to be tried again?"""
        now = self._clock()
        if self._notices is not None and self._notices.fileno() in ready:
            with contextlib.suppress(OSError):  # also ENOBUFS: more came than fits
                while self._notices.recv(65536):
                    pass
            self._due = self._due or now + QUIET_S
        if (self._due is not None and now >= self._due) or any(
            entry.tap is None and now >= entry.due for entry in self._entries.values()
        ):
            self._due = None
            self._settle()

    # -- making it so ---------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        for entry in self._entries.values():
            try:
                self._settle_one(entry)
            except UkihashiError as error:
                if str(error) != str(entry.problem):
                    self._house.tell(self._about(entry, error))
                entry.problem, entry.due = error, self._clock() + RETRY_S

    def _settle_one(self, entry: _Entry) -> None:
        if entry.tap is not None and not netlink.exists(entry.tap.name):
            self._remove(entry)  # somebody has removed our TAP
        if not netlink.exists(entry.interface):
            raise EnvironmentLacks(N_("there is no network interface {interface}"), interface=entry.interface)
        if entry.tap is None:
            self._join(entry)
        elif entry.joined is not None and not bridge.is_member(entry.joined):
            if not bridge.take_in(entry.joined, self._note):
                raise EnvironmentLacks(
                    N_("{interface} was taken out of the bridge {bridge} by hand, and stays out"),
                    interface=entry.interface,
                    bridge=entry.joined.bridge,
                )
        elif entry.problem is None:
            return
        entry.problem = None
        self._house.tell(
            UkihashiError(
                N_("{interface} is joined to virtual hub {hub}"), interface=entry.interface, hub=entry.wanted.hub
            )
        )
        for warning in bridge.warnings(entry.joined) if entry.joined is not None else []:
            self._house.tell(warning)

    def _join(self, entry: _Entry) -> None:
        joined = bridge.plan(entry.interface, bridge.tap_name(entry.interface), takes=entry.wanted.takes)
        tap = open_tap(joined.tap, offload=self._house.limits.super_frames)
        entry.tap, entry.joined = tap, joined
        try:
            bridge.join(joined, self._note)
            bridge.set_up_tap(joined.tap, RING)
        except UkihashiError:
            self._remove(entry)
            raise
        self._give(entry)

    def _give(self, entry: _Entry) -> None:
        if entry.tap is not None:
            self._house.send("worker", entry.put, [entry.tap.fileno()])

    def _remove(self, entry: _Entry) -> None:
        tap, joined = entry.tap, entry.joined
        if tap is None or joined is None:
            return
        self._house.send("worker", BridgeGone(entry.interface))
        entry.tap = None
        try:
            bridge.part(joined, self._note)
        except UkihashiError as error:
            self._house.tell(error)
            self._left.append(joined)
        entry.joined = None
        tap.close()
        self._write_down()

    def _about(self, entry: _Entry, error: UkihashiError) -> UkihashiError:
        return EnvironmentLacks(
            N_("{interface} is not joined to virtual hub {hub}: {reason}"),
            interface=entry.interface,
            hub=entry.wanted.hub,
            reason=error,
        )

    # -- the journal ----------------------------------------------------------------------------------------------

    def _note(self, _joined: Joined) -> None:
        self._write_down()

    def _write_down(self) -> None:
        lasting = [entry.joined for entry in self._entries.values() if entry.joined is not None and entry.joined.made]
        lasting += self._left
        try:
            if not lasting:
                self._journal.unlink(missing_ok=True)
                return
            new = self._journal.with_name(f"{self._journal.name}-new")
            new.write_bytes(msgspec.json.encode(lasting))
            new.replace(self._journal)
        except OSError as error:
            raise EnvironmentLacks(
                N_("{path} can't be written: {reason}; run this as root (sudo)"),
                path=self._journal,
                reason=error.strerror,
            ) from error

    def _written(self) -> list[Joined]:
        try:
            return msgspec.json.decode(self._journal.read_bytes(), type=list[Joined])
        except (OSError, msgspec.MsgspecError):  # none
            return []

    # -- telling --------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """How each stands: for `hub bridge` and `hub status`."""
        return [self._row(entry) for entry in self._entries.values()]

    def _row(self, entry: _Entry) -> dict[str, Any]:
        row: dict[str, Any] = {"hub": entry.wanted.hub, "interface": entry.interface}
        warnings: list[UkihashiError] = []
        if entry.joined is not None:
            with contextlib.suppress(UkihashiError):
                row |= bridge.row(entry.joined)
                warnings = bridge.warnings(entry.joined)
        row["state"] = "joined" if entry.problem is None else "apart"
        row["problem"] = told(entry.problem)
        row["warnings"] = [told(warning) for warning in warnings]
        return row


def told(error: UkihashiError | None) -> dict[str, Any] | None:
    """An error as plain values, for a control socket."""
    if error is None:
        return None
    values = {name: one if isinstance(one, int | float) else str(one) for name, one in error.values.items()}
    return {"template": error.template, "values": values}
