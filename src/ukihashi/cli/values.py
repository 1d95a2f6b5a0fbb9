"""What people write for values, and how values are written for them: moments, amounts, policies."""

import base64
import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from ukihashi.cli.output import Column, moment, show
from ukihashi.errors import N_, InputUnreadable, UsageError
from ukihashi.locale import _
from ukihashi.wire.policy import DEFAULT, RANGES, WIRE

MAX_FILE: Final = 200_000  # bytes of a certificate's file

_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?B)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WORDS: Final = {"yes": 1, "on": 1, "true": 1, "no": 0, "off": 0, "false": 0}

POLICIES: Final = {  # fields of `wire.policy.Policy`, in the order in which they are listed
    "access": N_("may join at all"),
    "max_connection": N_("TCP connections of a session"),
    "timeout_s": N_("seconds without a byte after which a session is given up"),
    "multi_logins": N_("sessions at the same time"),
    "max_upload": N_("bit/s toward the hub"),
    "max_download": N_("bit/s from the hub"),
    "max_mac": N_("stations (MAC addresses) of a session"),
    "max_ip": N_("IPv4 addresses of a session"),
    "max_ipv6": N_("IPv6 addresses of a session"),
    "no_bridge": N_("no bridging: at most 3 stations"),
    "no_routing": N_("no IPv4 routing: at most 4 addresses"),
    "no_routing_v6": N_("no IPv6 routing: at most 15 addresses"),
    "vlan_id": N_("VLAN that all its frames belong to"),
    "privacy_filter": N_("no talk between two members that both have it"),
    "no_server": N_("accepts no TCP connections over IPv4"),
    "no_server_v6": N_("accepts no TCP connections over IPv6"),
    "check_mac": N_("takes over no station of another session within 13 s"),
    "check_ip": N_("takes over no IPv4 address of another session"),
    "check_ipv6": N_("takes over no IPv6 address of another session"),
    "dhcp_filter": N_("no DHCPv4"),
    "dhcpv6_filter": N_("no DHCPv6"),
    "dhcp_no_server": N_("is no DHCPv4 server"),
    "dhcpv6_no_server": N_("is no DHCPv6 server"),
    "dhcp_force": N_("uses only IPv4 addresses that DHCP gave it"),
    "arp_dhcp_only": N_("of broadcasts only ARP, DHCP and neighbour discovery"),
    "no_broadcast_limiter": N_("no storm control"),
    "filter_ipv4": N_("no IPv4, no ARP"),
    "filter_ipv6": N_("no IPv6"),
    "filter_non_ip": N_("nothing but IP and ARP"),
    "ra_filter": N_("no router advertisements"),
    "rs_and_ra_filter": N_("no router solicitations and advertisements"),
    "no_ipv6_default_router_in_ra": N_("router advertisements make no default route"),
    "no_ipv6_default_router_in_ra_when_ipv6": N_("the same, for who came over IPv6"),
    "monitor_port": N_("may listen to everything (monitor mode)"),
    "no_qos": N_("no frames are preferred"),
    "fix_password": N_("may not change the password"),
    "no_save_password": N_("the client must not keep the password"),
    "auto_disconnect_s": N_("seconds after which the client ends the session"),
}

policy_option = click.option(
    "--policy",
    "policy",
    multiple=True,
    metavar="NAME=VALUE",
    help=_("A policy value, as in max_upload=10M or no_bridge=yes; may be given several times."),
)
no_policy_option = click.option("--no-policy", is_flag=True, help=_("Take the own policy away."))


def policy_fields(policy: tuple[str, ...], *, no_policy: bool = False) -> dict[str, Any]:
    """The fields of a verb for both options."""
    if policy and no_policy:
        raise UsageError(N_("give --policy or --no-policy, not both"))
    if no_policy:
        return {"own_policy": False}
    return {"policy": assignments(policy)} if policy else {}


def assignments(words: tuple[str, ...]) -> dict[str, int]:
    """`NAME=VALUE` words. Raises UsageError."""
    found: dict[str, int] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise UsageError(N_("“{word}” is no assignment; write NAME=VALUE, as in max_mac=4"), word=word)
        found[name] = number(value)
    return found


def number(text: str) -> int:
    """`yes`, `no`, or a number, which may end in k, M, G or T (thousands). Raises UsageError."""
    if (word := text.strip().casefold()) in _WORDS:
        return _WORDS[word]
    amount = _AMOUNT.fullmatch(text.strip())
    if amount is None or amount[3]:
        raise UsageError(N_("“{text}” is no value; write a number (also 10M), yes or no"), text=text)
    return round(float(amount[1]) * float(1000 ** _POWERS[amount[2].lower()]))


def data_size(text: str) -> int:
    """Bytes: `500M`, `10G`, `1.5TiB`, in powers of 1024 as they are shown. Raises UsageError."""
    amount = _AMOUNT.fullmatch(text.strip())
    if amount is None:
        raise UsageError(N_("“{text}” is no amount of data; write it as 500M or 10G"), text=text)
    return round(float(amount[1]) * float(1024 ** _POWERS[amount[2].lower()]))


def quota(text: str) -> dict[str, Any]:
    """`10G/30d`, `10G`, or `none`, as fields of `user_set`. Raises UsageError."""
    if text.strip().casefold() == "none":
        return {"quota_bytes": 0}
    amount, sign, days = text.partition("/")
    fields: dict[str, Any] = {"quota_bytes": data_size(amount)}
    if sign:
        count = days.strip().lower().removesuffix("d")
        if not count.isdecimal():
            raise UsageError(N_("“{text}” is no period; write days, as in 10G/30d"), text=text)
        fields["quota_days"] = int(count)
    return fields


def when(text: str, now: dt.datetime) -> float:
    """A moment: `never` (0), `30d` from now, or a date with or without time, local if no zone is said."""
    word = text.strip().casefold()
    if word == "never":
        return 0.0
    if word.endswith("d") and word[:-1].isdecimal():
        return (now + dt.timedelta(days=int(word[:-1]))).timestamp()
    try:
        return dt.datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            N_("“{text}” is no date; write 2027-03-31, 2027-03-31T18:00, 30d (from now), or never"), text=text
        ) from None


def read_certificate(path: Path) -> str:
    """A certificate's file as the verbs want it: PEM as it is, anything else in base64. Raises InputUnreadable."""
    try:
        with click.open_file(str(path), "rb") as opened:
            data = bytes(opened.read(MAX_FILE))
    except OSError as error:
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=path, reason=error.strerror) from error
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def policy_lines(policy: Mapping[str, Any]) -> list[str]:
    """What differs from a new user's policy, one line for each value."""
    lines = []
    for field, meaning in POLICIES.items():
        value = policy.get(field)
        if value is not None and value != getattr(DEFAULT, field):
            lines.append(f"{field} = {plain(value)}  ({_(meaning)})")
    return lines


def plain(value: Any) -> str:
    """A value as it is written in NAME=VALUE, in any language."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


@click.command(help=_("List what a policy can say, with a new user's values; the number 0 is no limit."))
@click.option("--json", "as_json", is_flag=True, help=_("One JSON object a line."))
def policies(as_json: bool) -> None:
    """Exit status: 0."""
    rows = []
    for field, meaning in POLICIES.items():
        new = getattr(DEFAULT, field)
        least, most = RANGES.get(field, (None, None))
        rows.append({"name": field, "wire": WIRE[field], "new": new, "least": least, "most": most, "meaning": meaning})
    columns = [
        Column("name", _("NAME")),
        Column("new", _("NEW USER"), plain),
        Column("meaning", _("MEANING"), _),
    ]
    show(rows, columns, as_json=as_json, empty="")


def until(at: float | None) -> str:
    """A moment that may not be."""
    return moment(at) if at else _("never")
