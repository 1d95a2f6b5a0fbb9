"""`ukihashi hub bridge`: an Ethernet of the hub machine becomes a part of a virtual hub."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from ukihashi.auth.names import check_hub_name, name_key
from ukihashi.cli.output import Column, cell, print_json, say_aside, show
from ukihashi.cli.user import client, json_option
from ukihashi.config import places
from ukihashi.config.edit import edit
from ukihashi.config.hub import HubConfig, check_bridged, load_hub
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.locale import _, say
from ukihashi.net.privileges import is_root
from ukihashi.tap import bridge as kernel_bridge
from ukihashi.tap import netlink
from ukihashi.web.status import size

SETTLE_S: Final = 5.0  # until a bridge is there or was refused
STATES: Final = {
    "joined": N_("joined"),
    "apart": N_("not joined"),
    "no hub": N_("not joined: there is no such virtual hub"),
}


@click.command(
    help=_(
        "Join an Ethernet of this machine (eth1, or a bridge such as br0) to virtual hub HUB: the hosts there are"
        " members without any program. Without HUB: list the bridges. Written into hub.toml; undone when the hub stops."
    )
)
@click.argument("name", metavar="[HUB]", default="")
@click.argument("interface", metavar="[INTERFACE]", default="")
@click.option("--remove", is_flag=True, help=_("Part them again."))
@click.option(
    "--take-addresses",
    "takes",
    is_flag=True,
    help=_("If INTERFACE has addresses: move them and their routes to the bridge, and back in the end."),
)
@json_option
def bridge(name: str, interface: str, remove: bool, takes: bool, as_json: bool) -> None:
    """Exit status: 0 done, 2 it can't be or a wrong name, 3 no right or refused, 4 no hub runs (for the list)."""
    if not name:
        show_bridges(client().ask("bridges"), as_json=as_json)
        return
    if not interface:
        raise UsageError(N_("name the interface too, as in: ukihashi hub bridge {hub} eth1"), hub=name)
    check_bridged(interface)
    if not is_root():
        raise EnvironmentLacks(N_("bridging an interface of this machine needs root; try again with sudo"))
    name = _spelled(name)
    old = load_hub(places.hub_config())
    if remove:
        _remove(old, name, interface, as_json=as_json)
        return
    other = old.bridged().get(interface, name)
    if name_key(other) != name_key(name):
        raise UsageError(
            N_("{interface} is joined to virtual hub {hub} already; part them first: ukihashi hub bridge {command}"),
            interface=interface,
            hub=other,
            command=f"{other} {interface} --remove",
        )
    is_new = interface not in old.bridged()
    if is_new:
        netlink.link(interface)  # says that there is none
        kernel_bridge.plan(interface, kernel_bridge.tap_name(interface), takes=takes)
    takes = takes or interface in old.bridge_addresses
    _put(old, other if not is_new else name, interface, there=True, takes=takes)
    row = _settled(interface)
    if row is None:
        say_aside(_("no hub is running: all of it holds from its next start"))
        return
    if row["state"] == "apart" and is_new:
        _put(load_hub(places.hub_config()), name, interface, there=False)
        _settled(interface)
        raise _problem(row["problem"])
    show_bridges([row], as_json=as_json)


def _remove(old: HubConfig, name: str, interface: str, *, as_json: bool) -> None:
    known = old.bridged().get(interface)
    if known is None or name_key(known) != name_key(name):
        raise UsageError(
            N_("{interface} is not joined to virtual hub {hub}; `ukihashi hub bridge` lists what is"),
            interface=interface,
            hub=name,
        )
    _put(old, known, interface, there=False)
    _settled(interface)
    if as_json:
        print_json({"hub": known, "interface": interface})
    else:
        say_aside(_("{interface} is no part of virtual hub {hub} any more").format(interface=interface, hub=known))


def _put(old: HubConfig, hub: str, interface: str, *, there: bool, takes: bool = False) -> None:
    """Into hub.toml, or out of it."""
    bridges = {one: [each for each in interfaces if each != interface] for one, interfaces in old.bridges.items()}
    if there:
        bridges.setdefault(hub, []).append(interface)
    taking = [one for one in old.bridge_addresses if one != interface] + ([interface] if there and takes else [])
    changes = {
        "bridges": {one: interfaces for one, interfaces in bridges.items() if interfaces} or None,
        "bridge_addresses": taking or None,
    }
    edit(places.hub_config(), HubConfig, changes)


def _settled(interface: str) -> dict[str, Any] | None:
    """After a reload: its row, once it is joined or can't be; None without a hub, or if there is no such row."""
    try:
        client().ask("reload")
    except DaemonUnreachable:
        return None
    deadline = time.monotonic() + SETTLE_S
    while True:
        row = next((one for one in client().ask("bridges") if one["interface"] == interface), None)
        if row is None or row["state"] != "no hub" or time.monotonic() > deadline:
            return row
        time.sleep(0.05)


def _spelled(name: str) -> str:
    """As the running hub spells it. Raises: UsageError: there is none of that name."""
    name = check_hub_name(name)
    try:
        return str(client().ask("hub_show", name=name)[0]["name"])
    except DaemonUnreachable:
        return name


def show_bridges(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """A table, and below it what somebody should know."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    columns = [
        Column("hub", _("HUB")),
        Column("interface", _("INTERFACE")),
        Column("bridge", _("BRIDGE")),
        Column("members", _("MEMBERS"), " ".join),
        Column("state", _("STATE"), lambda state: _(STATES.get(state, state))),
        Column("received", _("RECEIVED"), size, right=True),
        Column("sent", _("SENT"), size, right=True),
    ]
    shown = [{"bridge": "", "members": [], **row, **_amounts(row)} for row in rows]
    show(shown, columns, as_json=False, empty=_("no Ethernet of this machine is joined to a virtual hub"))
    for row in rows:
        for line in _remarks(row):
            say_aside(line)


def bridge_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """For `hub status`."""
    for row in rows:
        state = _(STATES.get(row["state"], row["state"]))
        line = _("Bridge: {interface} and virtual hub {hub}, {state}").format(
            interface=cell(row["interface"]), hub=cell(row["hub"]), state=state
        )
        if row.get("members"):
            told = _("{line}; {bridge} of {members}; {received} received, {sent} sent")
            amounts = {name: size(value) for name, value in _amounts(row).items()}
            line = told.format(line=line, bridge=row["bridge"], members=", ".join(row["members"]), **amounts)
        yield line
        yield from (f"  {remark}" for remark in _remarks(row))


def _amounts(row: Mapping[str, Any]) -> dict[str, int]:
    """Bytes from the Ethernet into the hub, and back."""
    port = row.get("port") or {}
    return {"received": port.get("bytes_in", 0), "sent": port.get("bytes_out", 0)}


def _remarks(row: Mapping[str, Any]) -> Iterator[str]:
    if row.get("problem"):
        yield say(_problem(row["problem"]))
    for warning in row.get("warnings", []):
        yield _("warning: {problem}").format(problem=say(_problem(warning)))


def _problem(told: Mapping[str, Any]) -> UkihashiError:
    return EnvironmentLacks(str(told["template"]), **told["values"])
