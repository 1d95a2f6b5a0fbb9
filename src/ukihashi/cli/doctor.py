"""`ukihashi card doctor`: try every path to a hub and explain each."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from ukihashi.auth.link import SCHEME, Link
from ukihashi.card import account
from ukihashi.cli.arguments import hide_argument
from ukihashi.cli.output import cell, print_json, say_aside, write
from ukihashi.cli.path_options import check_one_stdin, path_changes, via_options
from ukihashi.cli.user import json_option
from ukihashi.config.card import AUTO, CardConfig
from ukihashi.config.options import applied
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _, say
from ukihashi.net.dial.via import DIRECT

if TYPE_CHECKING:
    from ukihashi.card.doctor import Finding
    from ukihashi.card.path_sources import Survey

SOURCES: Final = {
    "account": N_("the account's path.via"),
    "direct": N_("always tried"),
    "link": N_("the account's path.known"),
    "environment": N_("the environment"),
    "system": "/etc/environment",
    "desktop": N_("the desktop's settings"),
    "command": "--via",
}
BY_ITSELF: Final = frozenset({"account", "direct", "link", "environment", "system"})  # what a card takes unasked
FROM_NOWHERE: Final = "doctor"  # the account that a link would make


@click.command(
    "doctor",
    help=_(
        "Try every path to the hub of an account or a join link (- reads the link from standard input), all at once,"
        " and say of each what it comes to. Nobody logs in; a link is not spent."
    ),
)
@click.argument("what", metavar="[ACCOUNT|LINK|-]", default="")
@via_options
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 120.0),
    default=10.0,
    metavar="SECONDS",
    help=_("How long each path may take [10]."),
)
@json_option
def doctor(what: str, via: str, via_password_file: Any, seconds: float, as_json: bool) -> int:
    """Exit status: 0 a path leads to the hub, 2 no such account, 3 something is missing here, 6 a wrong key, 7 none."""
    from ukihashi.card.doctor import examine, exit_status  # here: other commands would pay half a second for it

    if what == "-":
        check_one_stdin(sys.stdin, via_password_file)
    name, config = _wanted(what)
    found = _paths(config, path_changes(via, via_password_file))
    for one in found.skipped:
        say_aside(_("{where} is left out: {reason}").format(where=one.where, reason=cell(say(one.problem))))
    findings = asyncio.run(examine(config, found.candidates, deadline=seconds))
    if as_json:
        for finding in findings:
            print_json(
                {
                    "via": str(finding.candidate.via),
                    "source": finding.candidate.source,
                    "works": finding.works,
                    "kind": finding.kind,
                    "reason": "" if finding.error is None else str(finding.error),
                    "seconds": round(finding.seconds, 3),
                    "peer": finding.peer,
                    "pin": finding.pin.hex(),
                }
            )
        return exit_status(findings)
    width = max(len(str(finding.candidate.via)) for finding in findings)
    for finding in findings:
        told = _("works: {what}").format(what=_key_word(config, finding.pin))
        if finding.error is not None:
            told = _("fails: {reason}").format(reason=cell(say(finding.error)))
        source = _(SOURCES[finding.candidate.source])
        write(f"{finding.candidate.via!s:<{width}}  {told} [{source}, {finding.seconds:.1f} s]")
    _advise(name, config, findings)
    return exit_status(findings)


def _wanted(what: str) -> tuple[str, CardConfig]:
    """The account's name ("": none, a link was given) and what it says."""
    if what == "-":
        what = sys.stdin.readline()
    elif f"{SCHEME}://" in what.lower():
        hide_argument(what)
    else:
        what = what or _only_account()
        return what, account.read(what)
    return "", account.from_link(Link.parse(what), FROM_NOWHERE)


def _only_account() -> str:
    names = account.names()
    if len(names) != 1:
        raise UsageError(N_("name an account or a join link; accounts here: {names}"), names=", ".join(names) or "-")
    return names[0]


def _paths(config: CardConfig, chosen: dict[str, Any]) -> "Survey":
    """What the card would try, the desktop's settings, and the one of the command line."""
    from ukihashi.card.path_sources import desktop_settings, survey

    found = survey(config, desktop=desktop_settings())
    if chosen.get("path.via", AUTO) == AUTO:
        return found
    (own,), _skipped = survey(applied(config, chosen))
    rest = [one for one in found.candidates if one.via != own.via]
    return found._replace(candidates=[own._replace(source="command"), *rest])


def _key_word(config: CardConfig, pin: bytes) -> str:
    if config.trust.mode == "ca":
        return _("the hub answers, and its certificate is trusted")
    if config.pin:
        return _("the hub answers, with the right key")
    return _("a hub answers; its key, not known here yet, is SHA-256 {pin}").format(pin=pin.hex(":").upper())


def _advise(name: str, config: CardConfig, findings: Sequence["Finding"]) -> None:
    """What to do now, where the lines above don't say it."""
    working = [one.candidate for one in findings if one.works]
    if working and not any(one.source in BY_ITSELF for one in working):
        via = working[0].via
        command = f"ukihashi card set {name} path.via {via}" if name else f"ukihashi card join LINK --via {via}"
        say_aside(_("a card does not find this path by itself; name it: {command}").format(command=command))
    elif not working and config.path.via != AUTO:
        command = f"ukihashi card set {name} path.via {AUTO}"
        say_aside(
            _("the account takes that path alone; to let the card look for others: {command}").format(command=command)
        )
    elif not working and all(one.candidate.via == DIRECT for one in findings):
        say_aside(
            _(
                "no proxy is known here; ask the network's administrator whether there is one, or to allow connections"
                " to {host}, TCP port {port}. A proxy is tried with --via http://HOST:PORT"
            ).format(host=config.hub.host, port=config.hub.port)
        )
