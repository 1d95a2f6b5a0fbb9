"""`ukihashi hub access`, `source`, `authority`, `revoke`: who and what gets through a virtual hub."""

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ukihashi.cli import values
from ukihashi.cli.output import Column, cell, moment, say_aside, show, yes_no
from ukihashi.cli.user import client, hub_option, json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _

PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}

_number = click.argument("number", metavar="NUMBER", type=int)
_priority = click.option(
    "--priority", type=int, default=1000, metavar="NUMBER", help=_("The lowest is asked first [1000].")
)


# -- frames -------------------------------------------------------------------------------------------------------


@click.group(help=_("Which frames pass a virtual hub: the first rule that matches decides."))
def access() -> None:
    """The group."""


@access.command("list", help=_("List rules in the order in which they are asked."))
@hub_option
@json_option
def list_access(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    rows = client().ask("access_list", hub=hub_name)
    _show_access(rows, as_json)


@access.command("add", help=_("Add a rule. What is left out is not asked."))
@click.argument("what", type=click.Choice(["pass", "discard"]))
@hub_option
@click.option("--from", "source", default="", metavar="NETWORK", help=_("Sent by: 192.0.2.0/24, 2001:db8::/32."))
@click.option("--to", "destination", default="", metavar="NETWORK", help=_("Sent to."))
@click.option("--ipv6", is_flag=True, help=_("About IPv6, where no network says so."))
@click.option("--protocol", default="", metavar="NAME", help=_("tcp, udp, icmp, icmpv6, or a number."))
@click.option("--from-port", "source_ports", default="", metavar="PORT[-PORT]", help=_("Of TCP or UDP."))
@click.option("--to-port", "destination_ports", default="", metavar="PORT[-PORT]", help=_("Of TCP or UDP."))
@click.option("--from-user", "source_user", default="", metavar="USER", help=_("The member it comes from."))
@click.option("--to-user", "destination_user", default="", metavar="USER", help=_("The member it goes to."))
@click.option("--from-mac", "source_mac", default="", metavar="MAC[/MASK]", help=_("Station it comes from."))
@click.option("--to-mac", "destination_mac", default="", metavar="MAC[/MASK]", help=_("Station it goes to."))
@click.option("--established/--opening", default=None, help=_("TCP: belongs to a connection, or begins one."))
@click.option("--off", is_flag=True, help=_("Keep the rule, but don't ask it."))
@click.option("--note", default="", metavar="TEXT", help=_("A remark for listings."))
@_priority
@json_option
def add_access(hub_name: str, as_json: bool, what: str, off: bool, **given: Any) -> None:
    """Exit status: 0 added, 2 no such hub or a wrong value, 4 no hub runs."""
    rule = {
        **given,
        "discard": what == "discard",
        "active": not off,
        "ipv6": given["ipv6"] or _is_ipv6(given["source"]) or _is_ipv6(given["destination"]),
        "protocol": _protocol(given["protocol"]),
        "source_ports": _ports(given["source_ports"]),
        "destination_ports": _ports(given["destination_ports"]),
    }
    _show_access(client().ask("access_put", rule=rule, hub=hub_name), as_json)


@access.command("remove", help=_("Remove a rule; numbers are in `list`."))
@_number
@hub_option
@json_option
def remove_access(number: int, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 removed, 2 no such hub or rule, 4 no hub runs."""
    _removed(client().ask("access_remove", number=number, hub=hub_name), as_json)


def _show_access(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    columns = [
        Column("number", _("NUMBER"), right=True),
        Column("priority", _("PRIORITY"), right=True),
        Column("active", _("ON"), yes_no),
        Column("discard", _("DOES"), lambda discard: _("discard") if discard else _("pass")),
        Column("match", _("WITH")),
        Column("note", _("NOTE")),
    ]
    told = rows if as_json else [{**row, "match": rule_text(row)} for row in rows]
    show(told, columns, as_json=as_json, empty=_("no rules: every frame passes"))


def rule_text(row: Mapping[str, Any]) -> str:
    """What a rule asks, in the words of the options."""
    parts = []
    if row["ipv6"]:
        parts.append("ipv6")
    if protocol := row["protocol"]:
        parts.append(next((name for name, known in PROTOCOLS.items() if known == protocol), str(protocol)))
    for word, field in (("from", "source"), ("to", "destination")):
        if row[field]:
            parts.append(f"{word} {row[field]}")
        first, last = row[f"{field}_ports"]
        if last:
            parts.append(f"{word}-port {first}-{last}" if first != last else f"{word}-port {first}")
        parts += [f"{word}-{kind} {row[f'{field}_{kind}']}" for kind in ("user", "mac") if row[f"{field}_{kind}"]]
    if row["established"] is not None:
        parts.append("established" if row["established"] else "opening")
    return " ".join(parts) or _("every frame")


def _is_ipv6(network: str) -> bool:
    try:
        return ipaddress.ip_network(network, strict=False).version == 6
    except ValueError:
        return False  # the hub says what is wrong with it


def _protocol(text: str) -> int:
    if text.isdecimal():
        return int(text)
    if text and text.lower() not in PROTOCOLS:
        raise UsageError(
            N_("there is no protocol “{text}”; give {names}, or its number"), text=text, names=", ".join(PROTOCOLS)
        )
    return PROTOCOLS.get(text.lower(), 0)


def _ports(text: str) -> tuple[int, int]:
    first, sign, last = text.partition("-")
    if not text:
        return 0, 0
    if not first.isdecimal() or (sign and not last.isdecimal()):
        raise UsageError(N_("“{text}” is no port; write 80 or 8000-8099"), text=text)
    return int(first), int(last if sign else first)


# -- where logins come from ---------------------------------------------------------------------------------------


@click.group(help=_("Where logins may come from: the first rule that matches decides; without any, from anywhere."))
def source() -> None:
    """The group."""


@source.command("list", help=_("List rules in the order in which they are asked."))
@hub_option
@json_option
def list_sources(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    _show_sources(client().ask("sources", hub=hub_name), as_json)


@source.command("add", help=_("Add a rule. 0.0.0.0/0 and ::/0 are everything."))
@click.argument("what", type=click.Choice(["allow", "deny"]))
@click.argument("network", metavar="NETWORK")
@hub_option
@_priority
@json_option
def add_source(what: str, network: str, hub_name: str, priority: int, as_json: bool) -> None:
    """Exit status: 0 added, 2 no such hub or a wrong value, 4 no hub runs."""
    rows = client().ask("source_put", network=network, deny=what == "deny", hub=hub_name, priority=priority)
    _show_sources(rows, as_json)


@source.command("remove", help=_("Remove a rule; numbers are in `list`."))
@_number
@hub_option
@json_option
def remove_source(number: int, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 removed, 2 no such hub or rule, 4 no hub runs."""
    _removed(client().ask("source_remove", number=number, hub=hub_name), as_json)


def _show_sources(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    columns = [
        Column("number", _("NUMBER"), right=True),
        Column("priority", _("PRIORITY"), right=True),
        Column("deny", _("DOES"), lambda deny: _("deny") if deny else _("allow")),
        Column("network", _("NETWORK")),
    ]
    show(rows, columns, as_json=as_json, empty=_("no rules: logins may come from anywhere"))


# -- certificates -------------------------------------------------------------------------------------------------


@click.group(help=_("Authorities whose certificates let users in."))
def authority() -> None:
    """The group."""


@authority.command("list", help=_("List trusted authorities."))
@hub_option
@json_option
def list_authorities(hub_name: str, as_json: bool) -> None:
    """Exit status: 0 listed, 2 no such hub, 4 no hub runs."""
    _show_authorities(client().ask("authorities", hub=hub_name), as_json)


@authority.command("add", help=_("Trust the authority whose certificate is in FILE."))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@hub_option
@json_option
def add_authority(file: Path, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 added, 2 no such hub or no certificate, 4 no hub runs."""
    rows = client().ask("authority_add", certificate_text=values.read_certificate(file), hub=hub_name)
    _show_authorities(rows, as_json)


@authority.command("remove", help=_("Trust an authority no more; numbers are in `list`."))
@_number
@hub_option
@json_option
def remove_authority(number: int, hub_name: str, as_json: bool) -> None:
    """Exit status: 0 removed, 2 no such hub or authority, 4 no hub runs."""
    _removed(client().ask("authority_remove", number=number, hub=hub_name), as_json)


def _show_authorities(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    columns = [
        Column("number", _("NUMBER"), right=True),
        Column("subject", _("AUTHORITY")),
        Column("not_after", _("UNTIL"), moment),
        Column("sha256", "SHA-256"),
    ]
    show(rows, columns, as_json=as_json, empty=_("no authority is trusted"))


@click.command(help=_("Take no certificate with the serial number SERIAL any more. Or list, or take one again."))
@click.argument("serial", metavar="[SERIAL]", default="")
@hub_option
@click.option("--list", "listing", is_flag=True, help=_("List revoked serial numbers."))
@click.option("--undo", type=int, metavar="NUMBER", help=_("Take it again; numbers are in --list."))
@json_option
def revoke(serial: str, hub_name: str, listing: bool, undo: int | None, as_json: bool) -> None:
    """Exit status: 0 done, 2 no such hub or number, 4 no hub runs."""
    if bool(serial) + listing + (undo is not None) != 1:
        raise UsageError(N_("give one of SERIAL, --list and --undo NUMBER"))
    if undo is not None:
        _removed(client().ask("revoke_remove", number=undo, hub=hub_name), as_json)
        return
    rows = client().ask("revoked", hub=hub_name) if listing else client().ask("revoke_add", serial=serial, hub=hub_name)
    columns = [Column("number", _("NUMBER"), right=True), Column("serial", _("SERIAL NUMBER"))]
    show(rows, columns, as_json=as_json, empty=_("nothing is revoked"))


def _removed(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        show(rows, [], as_json=True, empty="")
    else:
        say_aside(
            _("number {number} of hub {hub} was removed").format(number=rows[0]["number"], hub=cell(rows[0]["hub"]))
        )
