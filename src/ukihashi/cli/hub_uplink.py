"""`ukihashi hub uplink`: members of a virtual hub reach other networks through this machine."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from ukihashi.auth.names import check_hub_name, name_key
from ukihashi.cli.options import show_changes
from ukihashi.cli.output import Column, print_json, say_aside, show
from ukihashi.cli.user import client, json_option
from ukihashi.config import places
from ukihashi.config.edit import edit
from ukihashi.config.hub import HubConfig, load_hub, split_uplink
from ukihashi.config.options import change_rows, changed
from ukihashi.errors import N_, DaemonUnreachable, UkihashiError, UsageError
from ukihashi.locale import _, say
from ukihashi.tap import netlink

SETTLE_S: Final = 5.0  # until a host port that is made now is there
STATES: Final = {
    "on": N_("works"),
    "no way out": N_("no way out: this machine has no default route; name an interface with --to"),
    "no host port": N_("off: this machine has no port in that virtual hub (a hub that is not root can make none)"),
    "no hub": N_("off: there is no such virtual hub"),
    "failed": N_("does not work"),
}


@click.command(
    help=_(
        "Let members of HUB reach the hub's network and the Internet through this machine, hidden behind its addresses."
        " Without HUB: list the ways out. Written into hub.toml; undone when the hub stops."
    )
)
@click.argument("name", metavar="[HUB]", default="")
@click.option(
    "--to",
    "interfaces",
    multiple=True,
    metavar="INTERFACE",
    help=_("The way out; may be given several times [wherever this machine's default routes lead]."),
)
@click.option("--remove", is_flag=True, help=_("No way out any more."))
@json_option
def uplink(name: str, interfaces: Sequence[str], remove: bool, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such hub or a wrong name, 3 hub.toml can't be written, 4 no hub runs (for the list)."""
    if not name:
        if interfaces or remove:
            raise UsageError(N_("name the virtual hub too"))
        show_uplinks(client().ask("uplinks"), as_json=as_json)
        return
    if interfaces and remove:
        raise UsageError(N_("give --to or --remove, not both"))
    name = _spelled(name)
    for interface in interfaces:
        split_uplink(f"{name}:{interface}")
        if not netlink.exists(interface):
            say_aside(_("there is no interface {interface} now; it counts when it comes").format(interface=interface))
    old = load_hub(places.hub_config())
    others = [text for text in old.uplink if name_key(split_uplink(text)[0]) != name_key(name)]
    own = [] if remove else [f"{name}:{interface}" for interface in dict.fromkeys(interfaces)] or [name]
    new = edit(places.hub_config(), HubConfig, {"uplink": [*others, *own] or None})
    try:
        client().ask("reload")
    except DaemonUnreachable:
        show_changes(change_rows("hub", changed(old, new)), as_json=as_json)
        say_aside(_("no hub is running: all of it holds from its next start"))
        return
    rows = [row for row in _settled(name) if name_key(row["hub"]) == name_key(name)]
    if not rows:
        say_aside(_("members of {hub} have no way out through this machine any more").format(hub=name))
    else:
        show_uplinks(rows, as_json=as_json)


def _spelled(name: str) -> str:
    """As the running hub spells it. Raises: UsageError: there is none of that name."""
    name = check_hub_name(name)
    try:
        return str(client().ask("hub_show", name=name)[0]["name"])
    except DaemonUnreachable:
        return name


def _settled(name: str) -> list[dict[str, Any]]:
    """The ways out, once the one of that hub is there or can't be."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        rows = client().ask("uplinks")
        waiting = any(row["state"] == "no host port" for row in rows if name_key(row["hub"]) == name_key(name))
        if not waiting or time.monotonic() > deadline:
            return rows
        time.sleep(0.1)


def show_uplinks(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """A table, and below it what somebody should know."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    columns = [
        Column("hub", _("HUB")),
        Column("interface", _("HOST PORT")),
        Column("ipv4", "IPv4", " ".join),
        Column("ipv6", "IPv6", " ".join),
        Column("connections", _("CONNECTIONS"), right=True),
        Column("state", _("STATE"), lambda state: _(STATES.get(state, state))),
    ]
    show(rows, columns, as_json=False, empty=_("no virtual hub has a way out through this machine"))
    for line in dict.fromkeys(line for row in rows for line in remarks(row)):
        say_aside(line)


def uplink_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """For `hub status`."""
    for row in rows:
        ways = " ".join(dict.fromkeys([*row["ipv4"], *row["ipv6"]]))
        state = ways if row["state"] == "on" else _(STATES.get(row["state"], row["state"]))
        yield _("Way out of {hub}: {state}").format(hub=row["hub"], state=state)
        yield from remarks(row)


def remarks(row: Mapping[str, Any]) -> list[str]:
    """What is wrong, or may be."""
    lines = []
    if problem := row.get("problem"):
        lines.append(
            _("warning: {problem}").format(problem=say(UkihashiError(problem["template"], **problem["values"])))
        )
    if row.get("droppers"):
        told = _(
            "warning: other tables of the packet filter drop what is forwarded ({chains}); unless they let through what"
            " comes from {interface}, it ends there"
        )
        lines.append(told.format(chains=", ".join(row["droppers"]), interface=row["interface"]))
    return lines
