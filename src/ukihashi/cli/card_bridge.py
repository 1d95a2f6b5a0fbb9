"""`ukihashi card bridge`: an Ethernet of this machine becomes a part of the virtual LAN."""

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from ukihashi.card import account
from ukihashi.card.control import client
from ukihashi.cli.output import print_json, say_aside
from ukihashi.cli.user import json_option
from ukihashi.config.card import check_account_name
from ukihashi.config.hub import check_bridged
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.locale import _, say
from ukihashi.tap import bridge as kernel_bridge
from ukihashi.tap import netlink
from ukihashi.web.status import size

SETTLE_S: Final = 10.0  # until the card has logged in anew, as a bridge
STATES: Final = {
    "joined": N_("joined"),
    "apart": N_("not joined"),
    "waiting": N_("when the card is online"),
}


@click.command(
    help=_(
        "Join an Ethernet of this machine (eth1, or a bridge such as br0) to the virtual LAN: the hosts there are on it"
        " without any program. This machine itself then has no addresses or routes by this card. Written into the"
        " account; undone when the card leaves."
    )
)
@click.argument("interface", metavar="INTERFACE")
@click.option("--account", "name", default="", metavar="ACCOUNT", help=_("Which account [the only one]."))
@click.option("--remove", is_flag=True, help=_("Part them again: this machine itself joins."))
@click.option(
    "--take-addresses",
    "takes",
    is_flag=True,
    help=_("If INTERFACE has addresses: move them and their routes to the bridge, and back when the card leaves."),
)
@json_option
def bridge(interface: str, name: str, remove: bool, takes: bool, as_json: bool) -> None:
    """Exit status: 0 done, 2 it can't be, or a wrong name, 3 no right or refused, 5 the hub refused."""
    check_bridged(interface)
    name = check_account_name(name) if name else _only()
    config = account.read(name)
    known = config.interface.bridge
    if remove:
        if known != interface:
            raise UsageError(
                N_("the card “{name}” does not bridge {interface}, but “{known}”"),
                name=name,
                interface=interface,
                known=known,
            )
        changes: dict[str, Any] = {"bridge": None, "bridge_addresses": None}
    else:
        if known and known != interface:
            raise UsageError(
                N_("the card “{name}” bridges {known} already; part them first: ukihashi card bridge {known} --remove"),
                name=name,
                known=known,
            )
        netlink.link(interface)  # says that there is none
        if not known:
            kernel_bridge.plan(interface, config.interface.name, takes=takes)
        changes = {"bridge": interface, "bridge_addresses": takes or config.interface.bridge_addresses or None}
    account.edit(name, {("interface", key): value for key, value in changes.items()})
    try:
        client(name).ask("reload")
    except DaemonUnreachable:
        say_aside(_("the card “{name}” is not up; it holds from its next start").format(name=name))
        return
    except UkihashiError:
        if not remove and not known:
            account.edit(name, {("interface", "bridge"): None, ("interface", "bridge_addresses"): None})
        raise
    row = _settled(name)
    if as_json:
        print_json(row)
        return
    for title, said in bridge_lines(row.get("bridge")).items():
        say_aside(f"{title}: {said}")
    if remove:
        say_aside(_("{interface} is no part of the virtual LAN any more").format(interface=interface))


def _only() -> str:
    names = account.names()
    if len(names) != 1:
        raise UsageError(N_("name the account: --account NAME; there are: {names}"), names=", ".join(names) or "-")
    return names[0]


def _settled(name: str) -> dict[str, Any]:
    """The card's row when it is online again."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        row = client(name).ask("status")[0]
        if row["state"] == "online" or time.monotonic() > deadline:
            return row
        time.sleep(0.1)


def bridge_lines(row: Mapping[str, Any] | None) -> dict[str, object]:
    """For `card status`: what is joined, and how it is."""
    if not row:
        return {}
    said = _("{interface}, {state}").format(
        interface=row["interface"], state=_(STATES.get(row["state"], str(row["state"])))
    )
    if row.get("members"):
        said = _("{said}; {bridge} of {members}").format(
            said=said, bridge=row["bridge"], members=", ".join(row["members"])
        )
    counters = row.get("counters", {}).get(row["interface"])
    if counters:
        said = _("{said}; {received} received there, {sent} sent").format(
            said=said, received=size(counters["rx_bytes"]), sent=size(counters["tx_bytes"])
        )
    problem = row.get("problem")
    if problem:
        said = _("{said}: {reason}").format(
            said=said, reason=say(EnvironmentLacks(str(problem["template"]), **problem["values"]))
        )
    return {_("Bridge"): said}
