"""The guards of a virtual hub, control's side: what they go by, and what they have caught."""

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from ukihashi.auth.names import name_key
from ukihashi.errors import N_, UsageError
from ukihashi.ether import ndp
from ukihashi.hub.addresses import HOST_PORT_NUMBER, addresses, host_port_mac
from ukihashi.hub.lan_plan import LanService
from ukihashi.hub.messages import Caught
from ukihashi.net.control_socket import Row
from ukihashi.store import cascades, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.switch.rules import GuardRules

MOST_TRUSTED: Final = 64
MOST_CAUGHT: Final = 64  # ports that are told of
TOLD_S: Final = 3600.0  # for so long after the last
BRIDGE: Final = "bridge "  # before an interface: the port of `hub bridge`

_log = structlog.get_logger()


def guard_rules(hub: Hub, service: LanService | None) -> GuardRules:
    """What the guards of `hub` go by; `service`: its address service, if it has one."""
    settings = hub.addresses
    if not settings.guard:
        return GuardRules(relay=settings.dhcp == "relay", trusted=settings.trusted)
    own, stations = list[bytes](), list[bytes]()
    if service is not None:
        stations.append(service.mac)
        own += [service.address4.packed, service.address6.packed, service.link_local.packed]
        if service.router4 is not None:
            own.append(service.router4.packed)
    if hub.host_port:
        host = addresses(hub, HOST_PORT_NUMBER)
        mac = host_port_mac(hub.name, host)
        stations.append(mac)
        own += [ipaddress.ip_interface(address).ip.packed for address in host]
        own.append(ndp.link_local(mac).packed)
    return GuardRules(
        on=True,
        trusted=settings.trusted,
        relay=settings.dhcp == "relay",
        serve=settings.dhcp == "serve",
        addresses=tuple(dict.fromkeys(own)),
        stations=tuple(stations),
    )


def trusted(db: Database, hub: Hub, more: Sequence[str], fewer: Sequence[str]) -> tuple[str, ...]:
    """Whom the guards trust when some have come and gone.

    Raises: UsageError for a name that is no user's, cascade's or bridge's.
    """
    known = {name_key(user.name): user.name for user in users.all_users(db, hub)}
    known |= {name_key(one.name): one.name for one in cascades.all_cascades(db, hub)}
    names = {name_key(name): name for name in hub.addresses.trusted}
    for name in fewer:
        if names.pop(name_key(name), None) is None:
            raise UsageError(N_("the guards of hub {hub} don't trust “{name}” anyway"), hub=hub.name, name=name)
    for name in more:
        found = known.get(name_key(name), name if name.startswith(BRIDGE) and name != BRIDGE else None)
        if found is None:
            raise UsageError(
                N_("hub {hub} has no user and no cascade “{name}”; a bridge is named as in “bridge eth1”"),
                hub=hub.name,
                name=name,
            )
        names[name_key(name)] = found
    if len(names) > MOST_TRUSTED:
        raise UsageError(N_("--trust: at most {most} can be given"), most=MOST_TRUSTED)
    return tuple(names.values())


class Catches:
    """What the guards have caught lately, as workers tell it."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._caught: dict[tuple[str, str], Row] = {}  # by hub and port, the latest last

    def put(self, caught: Caught) -> None:
        """A worker says so, at most once a minute for each port."""
        _log.warning(
            "guard_dropped",
            hub=caught.hub,
            session=caught.session,
            user=caught.user,
            dropped=caught.dropped,
            detail=caught.detail,
        )
        key = caught.hub, caught.session
        before = self._caught.pop(key, {})
        self._caught[key] = {
            "hub": caught.hub,
            "session": caught.session,
            "user": caught.user,
            "dropped": dict(Counter(before.get("dropped", {})) + Counter(caught.dropped)),
            "detail": caught.detail,
            "since": before.get("since", caught.at),
            "last": caught.at,
        }
        while len(self._caught) > MOST_CAUGHT:
            del self._caught[next(iter(self._caught))]

    def rows(self) -> list[Row]:
        """For listings, the latest first."""
        now = self._clock()
        return [row for row in reversed(self._caught.values()) if now - row["last"] < TOLD_S]
