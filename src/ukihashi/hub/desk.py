"""What an administrator can ask of a hub, by verb: the same for the command line and the web page.

Live state is the worker's: those questions are passed on to it. Lasting state is the database's. Each verb gives rows
of plain values.
"""

import ipaddress
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Unpack

import structlog

from ukihashi.auth.names import check_hub_name, name_key
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.hub.addresses import HOST_PORT_NUMBER, addresses, choose_subnets, host_port_name
from ukihashi.hub.backstage import Facts, Live, pick_hub
from ukihashi.hub.changes import HubFields, changed_hub
from ukihashi.hub.guard_plan import Catches, guard_rules
from ukihashi.hub.lan_plan import numbers, plan
from ukihashi.hub.messages import HostPortGone, HostPortWanted, HubPut, HubRemoved, Upgraded
from ukihashi.hub.rows import hub_row
from ukihashi.hub.storage import Storage
from ukihashi.net import host
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import hubs, leases, rules, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub

_log = structlog.get_logger()


class Desk:
    """The verbs about the whole and about virtual hubs; users and links are in `people`."""

    def __init__(self, facts: Facts, storage: Storage, live: Live, *, clock: Callable[[], float] = time.time) -> None:
        self.facts = facts
        self._storage = storage
        self._live = live
        self._clock = clock
        self._started = clock()
        self.catches = Catches(clock=clock)
        self.upgraded: Upgraded | None = None  # how the last upgrade went, once all of it is done
        self.on_change: Callable[[], Awaitable[None]] | None = None  # a hub went online, offline, or away

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "status": self.status,
            "sessions": self.sessions,
            "mac_table": self.mac_table,
            "disconnect": self.disconnect,
            "list": self.list_hubs,
            "create": self.create,
            "hub_show": self.hub_show,
            "hub_set": self.hub_set,
            "delete": self.delete,
            "options": self.options,
            "set_option": self.set_option,
            "reload": self.reload,
            "upgrade": self.upgrade,
            "uplinks": self.uplinks,
            "bridges": self.bridges,
        }

    # -- live state -----------------------------------------------------------------------------------------------

    async def status(self) -> list[Row]:
        """One row about the whole."""
        try:
            worker: Row = (await self._live.ask_worker("status") or [{}])[0]
            sessions: int | None = len(await self._live.ask_worker("sessions"))
        except UkihashiError as error:
            worker, sessions = {"error": str(error)}, None
        try:
            bridges = with_ports(await self._live.wish("bridges"), worker) if self.facts.bridges else []
        except UkihashiError:
            bridges = []
        try:
            uplinks = await self.uplinks() if self.facts.uplinks else []
        except UkihashiError:
            uplinks = []
        return [
            {
                "version": self.facts.version,
                "started": self._started,
                "uptime_s": round(self._clock() - self._started, 3),
                "listen": [str(one) for one in self.facts.endpoints],
                "pin": self.facts.pin.hex(),
                "hubs": len(await self._storage.read(hubs.all_hubs)),
                "sessions": sessions,
                "caught": self.catches.rows(),
                "upgrade": upgrade_row(self.upgraded) if self.upgraded is not None else None,
                "bridges": bridges,
                "uplinks": uplinks,
                "worker": worker,
            }
        ]

    async def sessions(self, hub: str = "") -> list[Row]:
        """Sessions of one hub or all."""
        return await self._live.ask_worker("sessions", hub=(await self._pick(hub)).name if hub else "")

    async def mac_table(self, hub: str) -> list[Row]:
        """Stations that a hub has learned."""
        return await self._live.ask_worker("mac_table", hub=(await self._pick(hub)).name)

    async def disconnect(self, session: str, hub: str = "") -> list[Row]:
        """End a session by its name; without `hub`, in whichever hub it is."""
        named = (await self._pick(hub)).name if hub else ""
        rows: list[Row] = []
        for one in await self._live.ask_worker("sessions", hub=named):
            if str(one.get("session", "")).casefold() == session.casefold():
                rows += await self._live.ask_worker("disconnect", hub=str(one["hub"]), name=str(one["session"]))
        if not rows:
            raise UsageError(N_("there is no session “{session}”; `ukihashi hub sessions` lists them"), session=session)
        _log.info("session_disconnected", session=session, by=asker.get())
        return rows

    # -- options and upgrade: the supervisor's -------------------------------------------------------------------

    async def options(self) -> list[Row]:
        """Every option of hub.toml."""
        return await self._live.wish("options")

    async def set_option(self, key: str, value: str) -> list[Row]:
        """Change one that is heeded at once, here and in hub.toml; what has changed."""
        rows = await self._live.wish("set_option", key=key, value=value)
        _log.info("option_set", option=key, value=value, by=asker.get())
        return rows

    async def reload(self) -> list[Row]:
        """Read hub.toml again; what has changed."""
        return await self._live.wish("reload")

    async def bridges(self) -> list[Row]:
        """How the Ethernets of this machine stand that hub.toml joins to virtual hubs."""
        rows = await self._live.wish("bridges")
        return with_ports(rows, (await self._live.ask_worker("status") or [{}])[0])

    async def uplinks(self) -> list[Row]:
        """How the ways out stand that hub.toml gives to virtual hubs."""
        names = {name_key(one.name): one.name for one in await self._storage.read(hubs.all_hubs)}
        rows = await self._live.wish("uplinks")
        return [
            {
                **row,
                "hub": names.get(row["hub"], row["hub"]),
                "state": row["state"] if row["hub"] in names else "no hub",
            }
            for row in rows
        ]

    async def upgrade(self) -> list[Row]:
        """Let the hub become the program that is installed now. The answer comes before it begins."""
        rows = await self._live.wish("upgrade")
        _log.info("hub_upgrades", by=asker.get(), **rows[0])
        return rows

    # -- virtual hubs ---------------------------------------------------------------------------------------------

    async def list_hubs(self) -> list[Row]:
        """Every virtual hub."""
        known = await self._storage.read(hubs.all_hubs)
        counts = await self._storage.read(users.count)
        try:
            live: Counter[str] | None = Counter(
                str(one.get("hub", "")) for one in await self._live.ask_worker("sessions")
            )
        except UkihashiError:
            live = None
        return [
            hub_row(one) | {"users": counts.get(one.id, 0), "sessions": None if live is None else live[one.name]}
            for one in known
        ]

    async def create(self, name: str, host_port: bool = False, offline: bool = False) -> list[Row]:
        """Make a virtual hub, with subnets that are free on this machine."""
        name = check_hub_name(name)
        if host_port and not self.facts.host_ports:
            raise EnvironmentLacks(N_("a host port needs a hub that was started as root; start it with sudo"))
        used = host.used_networks()
        taken = host.interfaces()

        def make(db: Database) -> Hub:
            known = hubs.all_hubs(db)
            if any(name_key(one.name) == name_key(name) for one in known):
                raise UsageError(N_("there is a virtual hub “{name}” already"), name=name)
            own = [network for one in known for network in _networks(one)]
            subnet4, subnet6 = choose_subnets([*used, *own], secrets.randbelow)
            wanted = host_port or (self.facts.host_ports and name_key(name) in self.facts.uplinks)
            interface = host_port_name(name, taken | {one.host_port for one in known}) if wanted else ""
            return hubs.create(
                db,
                name,
                subnet4=str(subnet4),
                subnet6=str(subnet6),
                host_port=interface,
                online=not offline,
                now=self._clock(),
            )

        hub = await self._storage.change(make)
        _log.info("hub_created", hub=hub.name, subnet4=hub.subnet4, subnet6=hub.subnet6, by=asker.get())
        await self.announce(hub)
        return [hub_row(hub)]

    async def hub_show(self, name: str = "") -> list[Row]:
        """One virtual hub; the only one if none is named."""
        hub = await self._pick(name)
        return [row for row in await self.list_hubs() if row["name"] == hub.name]

    async def hub_set(self, name: str, **fields: Unpack[HubFields]) -> list[Row]:
        """Change what is named."""

        def put(db: Database) -> Hub:
            hubs.put_settings(db, changed_hub(hubs.get(db, name), fields))
            return hubs.get(db, name)

        hub = await self._storage.change(put)
        _log.info("hub_changed", hub=hub.name, online=hub.online, changed=sorted(fields), by=asker.get())
        await self.tell_worker(hub)
        await self._changed()
        return [hub_row(hub)]

    async def delete(self, name: str) -> list[Row]:
        """Delete a hub with its users; its sessions end."""
        hub = await self._pick(name)
        await self._storage.change(hubs.delete, hub)
        _log.info("hub_deleted", hub=hub.name, by=asker.get())
        await self._live.tell_worker(HubRemoved(hub=hub.name))
        if hub.host_port:
            await self._live.tell_supervisor(HostPortGone(hub=hub.name))
        await self._changed()
        return [hub_row(hub)]

    async def give_host_ports(self) -> None:
        """Virtual hubs that are to have a way out get a place on this machine, by which it leads."""
        if not self.facts.host_ports or not self.facts.uplinks:
            return
        taken = host.interfaces()

        def give(db: Database) -> list[Hub]:
            known = hubs.all_hubs(db)
            without = [one for one in known if name_key(one.name) in self.facts.uplinks and not one.host_port]
            for one in without:
                name = host_port_name(one.name, taken | {other.host_port for other in hubs.all_hubs(db)})
                hubs.put_host_port(db, one, name)
            return [hubs.get(db, one.name) for one in without]

        for hub in await self._storage.change(give):
            _log.info("host_port_given", hub=hub.name, interface=hub.host_port)
            await self.announce(hub)

    async def announce(self, hub: Hub) -> None:
        """Tell the worker and the supervisor of one hub."""
        await self.tell_worker(hub)
        if hub.host_port and self.facts.host_ports:
            wanted = HostPortWanted(hub.name, hub.host_port, list(addresses(hub, HOST_PORT_NUMBER)))
            await self._live.tell_supervisor(wanted)

    async def announce_all(self, *, worker_only: bool = False) -> None:
        """Tell a new worker of every hub; at the start, the supervisor too."""
        for hub in await self._storage.read(hubs.all_hubs):
            if worker_only:
                await self.tell_worker(hub)
            else:
                await self.announce(hub)

    async def tell_worker(self, hub: Hub) -> None:
        """Tell the worker how a hub is set now."""
        if not hub.service_number:
            hub = await self._storage.change(_with_service, hub, self._clock())
        access, service = await self._storage.read(rules.access_list, hub), plan(hub, self.facts.uplinks)
        await self._live.tell_worker(
            HubPut(
                hub.name,
                online=hub.online,
                ageing_s=self.facts.mac_ageing_s,
                session_timeout_s=self.facts.session_timeout_s,
                listed=hub.listed,
                banner=hub.banner,
                rules=hub.rules,
                access=tuple(one.rule for one in access),
                service=service,
                guard=guard_rules(hub, service),
            )
        )

    async def _changed(self) -> None:
        if self.on_change is not None:
            await self.on_change()

    async def _pick(self, name: str) -> Hub:
        return await pick_hub(self._storage, name)


def upgrade_row(done: Upgraded) -> Row:
    """How an upgrade went."""
    return {
        "number": done.number,
        "from": done.old_version,
        "sessions": done.sessions,
        "pause_s": done.pause_s,
    }


def _with_service(db: Database, hub: Hub, now: float) -> Hub:
    usable = numbers(hub.subnet4)
    number = leases.service_number(db, hub, first=usable.start, last=usable.stop - 1, now=now)
    return replace(hub, service_number=number)


def with_ports(bridges: list[Row], worker: Row) -> list[Row]:
    """The supervisor's rows of bridges with what the worker says of their ports."""
    ports = {one["bridged"]: one for one in worker.get("bridges", [])}
    found = []
    for row in bridges:
        port = ports.get(row["interface"])
        is_apart = row["state"] == "joined" and port is None
        found.append({**row, "state": "no hub" if is_apart else row["state"], "port": port})
    return found


def _networks(hub: Hub) -> tuple[Any, Any]:
    return ipaddress.ip_network(hub.subnet4), ipaddress.ip_network(hub.subnet6)
