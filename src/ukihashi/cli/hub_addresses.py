"""`ukihashi hub addresses` and `ukihashi hub leases`: which addresses and names a virtual hub gives, and to whom."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from ukihashi.cli.output import DASH, Column, cell, moment, print_json, say_aside, show, write
from ukihashi.cli.user import client, json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _
from ukihashi.web.status import span

_SPAN: Final = re.compile(r"(\d+)\s*([smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
NONE: Final = "none"

_hub = click.argument("hub_name", metavar="[HUB]", default="")


class Usual(click.Group):
    """A group whose first command is meant where none is named."""

    usual = ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`hub addresses LAN` is `hub addresses show LAN`."""
        names = {*self.commands, *ctx.help_option_names}
        if not args or args[0] not in names:
            args = [self.usual, *args]
        return super().parse_args(ctx, args)


class _Addresses(Usual):
    usual = "show"


class _Leases(Usual):
    usual = "list"


# -- addresses ----------------------------------------------------------------------------------------------------


@click.group(cls=_Addresses, help=_("Which addresses, routes and names a virtual hub gives its members."))
def addresses() -> None:
    """The group."""


@addresses.command("show", help=_("Show how HUB gives addresses and names; what is meant without a command."))
@_hub
@json_option
def show_addresses(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 shown, 2 no such hub, 4 no hub runs."""
    _show(client().ask("addresses", hub=hub_name)[0], as_json)


_on_off = click.Choice(["on", "off"])


@addresses.command("set", help=_("Change how HUB gives addresses and names. Members feel it at once."))
@click.argument("hub_name", metavar="HUB")
@click.option(
    "--dhcp",
    type=click.Choice(["serve", "relay", "off"]),
    help=_("serve: the hub gives IPv4 addresses; relay: a DHCP server behind a trusted port does; off: neither."),
)
@click.option("--lease", metavar="TIME", help=_("How long an address is leased: 90m, 12h, 7d [1d]."))
@click.option(
    "--router",
    metavar="auto|none|ADDRESS",
    help=_("The way out that members are told; auto: the host port, if the hub has an uplink [auto]."),
)
@click.option(
    "--route",
    "routes",
    multiple=True,
    metavar="NET[,GATEWAY]",
    help=_("A network behind a member, or behind this machine; may be repeated, takes the place of all; none: none."),
)
@click.option("--dns", type=_on_off, help=_("Answer names of users and stations."))
@click.option("--domain", metavar="NAME", help=_("Of those names; auto: the hub's name and .internal [auto]."))
@click.option(
    "--name-server",
    "name_servers",
    multiple=True,
    metavar="ADDRESS",
    help=_("DNS server that members are told in place of the hub; may be repeated; none: the hub."),
)
@click.option(
    "--forward",
    type=click.Choice(["auto", "on", "off"]),
    help=_("Ask this machine's resolvers for all other names; auto: if the hub has an uplink [auto]."),
)
@click.option("--ra", type=_on_off, help=_("Router advertisements with the hub's IPv6 prefix."))
@click.option("--guard", type=_on_off, help=_("Stop DHCP servers, routers and forged ARP of members."))
@click.option(
    "--trust",
    multiple=True,
    metavar="NAME",
    help=_("A user, a cascade or “bridge INTERFACE” that the guard leaves alone from now on; may be repeated."),
)
@click.option("--no-trust", multiple=True, metavar="NAME", help=_("And one that it leaves alone no more."))
@json_option
def set_addresses(hub_name: str, as_json: bool, **given: Any) -> None:
    """Exit status: 0 changed, 2 no such hub or a wrong value, 4 no hub runs."""
    fields = {name: given[name] for name in ("dhcp", "router", "domain", "forward") if given[name] is not None}
    fields |= {name: given[name] == "on" for name in ("dns", "ra", "guard") if given[name] is not None}
    for name in ("routes", "name_servers"):
        if given[name]:
            fields[name] = [] if given[name] == (NONE,) else list(given[name])
    fields |= {name: list(given[name]) for name in ("trust", "no_trust") if given[name]}
    if given["lease"] is not None:
        fields["lease_s"] = _seconds(given["lease"])
    if not fields:
        raise UsageError(N_("nothing to change; `ukihashi hub addresses set --help` lists what can be set"))
    _show(client().ask("addresses_set", hub=hub_name, **fields)[0], as_json)


def _seconds(text: str) -> int:
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(N_("“{text}” is no time; write 90m, 12h or 7d"), text=text)
    return int(found[1]) * _UNITS[found[2]]


def _show(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    dhcp = {
        "serve": _("served by the hub, leases of {time}").format(time=span(row["lease_s"], _)),
        "relay": _("left to a server behind a trusted port"),
        "off": _("off"),
    }
    router = row["router_now"] or _("none")
    lines = {
        _("Hub"): row["hub"],
        _("Subnets"): f"{row['subnet4']}, {row['subnet6']}",
        _("Service"): f"{row['service4']}, {row['service6']}, {row['service_mac']}",
        "DHCP": dhcp[row["dhcp"]],
        _("Leases"): _("{count} hold, {free} are free").format(count=row["leases"], free=row["free"]),
        _("Router"): f"{router} (auto)" if row["router"] == "auto" else router,
        _("Routes"): ", ".join(_("{network} by {gateway}").format(network=n, gateway=g) for n, g in row["routes"]),
        "DNS": row["domain"] if row["dns"] else _("off"),
        _("Other names"): _("asked of this machine's resolvers") if row["forwards"] else _("refused"),
        _("Name servers"): ", ".join(row["name_servers"]) or (_("the hub") if row["dns"] else _("none")),
        _("IPv6 router advertisements"): _("on") if row["ra"] else _("off"),
        _("Guard"): _("on") if row["guard"] else _("off"),
        _("Trusted"): ", ".join(row["trusted"]),
    }
    for name, value in lines.items():
        write(f"{name}: {cell(value)}")


# -- leases -------------------------------------------------------------------------------------------------------


@click.group(cls=_Leases, help=_("Who has which address of a virtual hub."))
def leases() -> None:
    """The group."""


@leases.command("list", help=_("List leases and kept addresses of HUB; what is meant without a command."))
@_hub
@json_option
def list_leases(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    _list(client().ask("leases", hub=hub_name), as_json)


@leases.command(help=_("Take the lease of ADDRESS back; its station gets another address when it asks again."))
@click.argument("hub_name", metavar="HUB")
@click.argument("address", metavar="ADDRESS")
@json_option
def release(hub_name: str, address: str, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such hub or lease, 4 no hub runs."""
    row = client().ask("lease_release", hub=hub_name, address=address)[0]
    if as_json:
        print_json(row)
    else:
        say_aside(_("the lease of {address} in hub {hub} was taken back").format(address=address, hub=row["hub"]))


@leases.command(help=_("Keep ADDRESS for a station (its MAC) or a user; with --remove, keep a station's no more."))
@click.argument("hub_name", metavar="HUB")
@click.argument("who", metavar="MAC|USER")
@click.argument("address", metavar="[ADDRESS]", default="")
@click.option("--remove", is_flag=True, help=_("Keep none any more."))
@json_option
def fix(hub_name: str, who: str, address: str, remove: bool, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such hub, user or free address, 4 no hub runs."""
    if remove == bool(address):
        raise UsageError(N_("give either ADDRESS or --remove"))
    if remove:
        row = client().ask("lease_unfix", hub=hub_name, who=who)[0]
        if as_json:
            print_json(row)
        else:
            say_aside(_("no address of hub {hub} is kept for {who} any more").format(hub=row["hub"], who=who))
        return
    _list(client().ask("lease_fix", hub=hub_name, who=who, address=address), as_json)


def _list(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    states = {
        "leased": _("leased"),
        "told": _("set at the station"),
        "declined": _("in use by somebody unknown"),
        "kept": _("kept"),
    }
    fixed = {"": "", "user": _("for the user"), "station": _("for the station")}
    columns = [
        Column("hub", _("HUB")),
        Column("address", _("ADDRESS")),
        Column("state", _("STATE"), lambda state: states.get(state, state)),
        Column("fixed", _("KEPT"), lambda kind: fixed.get(kind, kind)),
        Column("user", _("USER")),
        Column("mac", "MAC"),
        Column("name", _("NAME")),
        Column("until", _("UNTIL"), lambda at: moment(at) if at else DASH),
        Column("session", _("SESSION")),
    ]
    show(rows, columns, as_json=as_json, empty=_("no leases yet"))
