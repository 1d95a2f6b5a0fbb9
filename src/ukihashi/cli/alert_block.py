"""`ukihashi alert block`: keep out what a sensor of this machine finds. Nothing is blocked unless this command runs.

Exit status: 0 stopped by a signal, or done; 2 a wrong value, or no such block; 3 this machine can't block; 4 no blocker
runs (list, confirm, undo).
"""

import asyncio
import contextlib
import datetime as dt
import json
import re
import signal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from socket import socket as Socket  # noqa: N812 - options have that name
from typing import Any, Final, TextIO

import click

from ukihashi.alert import block_service, conntrack
from ukihashi.alert.blocker import Action, Blocker, Notice, Policy
from ukihashi.alert.bus import default_path as sensor_path
from ukihashi.alert.nftables import KernelWall, Match
from ukihashi.cli.output import Column, moment, print_json, say_aside, show, write
from ukihashi.cli.user import json_option
from ukihashi.errors import N_, EnvironmentLacks, UsageError
from ukihashi.locale import _, say

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
LONGEST_S: Final = 30 * 86400.0
SHOWN: Final = 5  # other connections named in a line

_SENTENCES: Final = {
    Action.BLOCKED: N_("block {number}: {what} is blocked until {until}"),
    Action.WOULD_BLOCK: N_("would block: {what}"),
    Action.RENEWED: N_("block {number}: {what} was detected again; blocked until {until}"),
    Action.CONFIRMED: N_("block {number}: {what} is confirmed; blocked until {until}"),
    Action.UNDONE: N_("block {number}: {what} is let through again, and left alone from now on"),
    Action.UNCONFIRMED: N_("block {number}: {what} is let through again, for nobody confirmed the block in time"),
    Action.EXPIRED: N_("block {number}: {what} was not detected again; the block has ended"),
    Action.NO_EFFECT: N_("block {number}: no packet of {what} has come by here; its traffic takes another way"),
    Action.LEFT_ALONE: N_("not blocked: {what}: {why}"),
}


def _seconds(text: str) -> float:
    """`90s`, `10m`, `2h`, `1d`; a number alone is seconds."""
    found = _TIME.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 1.0 <= seconds <= LONGEST_S:
        raise UsageError(N_("“{text}” is no time from 1s to 30d; write it as 90s, 10m or 2h"), text=text)
    return seconds


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise UsageError(N_("“{text}” is no address or prefix, such as 10.1.2.0/24"), text=text) from None


@click.group(
    help=_(
        "Block the tunnels that a sensor of this machine confirms, for a time, where this machine forwards the traffic."
        " A tunnel through a proxy or an SSH server is blocked by exactly its connections. Nothing stays when the"
        " program ends, however it ends."
    )
)
def block() -> None:
    """The blocker."""


_socket_option = click.option(
    "--socket", type=click.Path(path_type=Path), metavar="PATH", help=_("The blocker's own socket.")
)


@block.command(help=_("Block until stopped (Ctrl-C). Needs root, and a sensor: ukihashi alert -i CARD."))
@click.option(
    "--dry-run", is_flag=True, help=_("Block nothing; say what would be blocked, and what else that would hit.")
)
@click.option(
    "--for", "time", default="10m", metavar="TIME", show_default=True, help=_("How long, from the last detection.")
)
@click.option(
    "--trial",
    default="2m",
    metavar="TIME",
    show_default=True,
    help=_("A block that nobody confirms in time is undone."),
)
@click.option("--no-trial", is_flag=True, help=_("Blocks need no confirmation."))
@click.option("--never", multiple=True, metavar="PREFIX", help=_("Block nothing from or to these; may be given again."))
@click.option("--reset", is_flag=True, help=_("Answer blocked packets with a TCP reset, instead of dropping them."))
@click.option("--bus", type=click.Path(path_type=Path), metavar="PATH", help=_("The sensor's socket."))
@_socket_option
@click.option("--log", type=click.Path(path_type=Path), metavar="FILE", help=_("Append what happens as JSON lines."))
@json_option
def run(
    dry_run: bool,
    time: str,
    trial: str,
    no_trial: bool,
    never: tuple[str, ...],
    reset: bool,
    bus: Path | None,
    socket: Path | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Follow the sensor."""
    policy = Policy(_seconds(time), None if no_trial else _seconds(trial), tuple(map(_network, never)))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(block_service.listening(socket or block_service.default_path()))
        record = stack.enter_context(_opened(log)) if log is not None else None
        wall = None if dry_run else stack.enter_context(KernelWall(reset=reset))

        def tell(notice: Notice) -> None:
            found = block_service.event(notice)
            if record is not None:
                _append(record, found)
            if as_json:
                print_json(found)
            else:
                for line in _lines(notice, policy):
                    write(line)

        blocker = Blocker(wall, policy, tell, _others)
        say_aside(_ready(policy, dry_run=dry_run))
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_follow(blocker, bus or sensor_path(), listener))


def _ready(policy: Policy, *, dry_run: bool) -> str:
    if dry_run:
        return _("dry run: nothing is blocked (end with Ctrl-C)")
    if policy.trial_s is None:
        return _("blocking what the sensor confirms (end with Ctrl-C: then nothing is blocked any more)")
    return _(
        "blocking what the sensor confirms; confirm each block within {seconds:g} s with `ukihashi alert block confirm"
        " NUMBER`, or it is undone (end with Ctrl-C: then nothing is blocked any more)"
    ).format(seconds=policy.trial_s)


async def _follow(blocker: Blocker, sensor: Path, listener: Socket) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)

    def lost(gone: bool) -> None:
        if gone:
            say_aside(_("no sensor on {path}; blocks stay until their time ends").format(path=sensor))
        else:
            say_aside(_("the sensor is there again"))

    await block_service.serve(blocker, sensor, listener, lost)


def _others(match: Match, own: set[int]) -> tuple[Match, ...] | None:
    known = conntrack.connections()
    return None if known is None else tuple(conntrack.others(match, own, known))


def _opened(path: Path) -> TextIO:
    try:
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise EnvironmentLacks(N_("{file} can't be opened: {reason}"), file=path, reason=error.strerror) from error


def _append(record: TextIO, found: dict[str, Any]) -> None:
    try:
        record.write(json.dumps(found) + "\n")
    except OSError as error:  # blocking goes on
        say_aside(_("the log can't be written: {reason}").format(reason=error.strerror))


def _lines(notice: Notice, policy: Policy) -> list[str]:
    """For people."""
    client, server, port = notice.key
    what = _("{family} over {transport}, client {client}, server {server} port {port}").format(
        family=notice.family, transport=notice.transport, client=client, server=server, port=port
    )
    block = notice.block
    lines = [
        f"[{dt.datetime.fromtimestamp(notice.time):%Y/%m/%d %H:%M:%S}] "  # noqa: DTZ006 - local time, as all log lines
        + _(_SENTENCES[notice.action]).format(
            number=block.number if block is not None else "",
            what=what,
            until=moment(block.until) if block is not None else "",
            why=say(notice.why) if notice.why is not None else "",
        )
    ]
    if notice.action in (Action.BLOCKED, Action.WOULD_BLOCK):
        lines += [f"    {_matched(match)}" for match in notice.matches]
        lines.append(f"    {_hit(notice.others, exact=bool(notice.matches[0].client_port))}")
    if notice.action is Action.BLOCKED and block is not None and block.trial_until is not None:
        lines.append(
            "    "
            + _("on trial for {seconds:g} s; keep it: ukihashi alert block confirm {number}").format(
                seconds=policy.trial_s, number=block.number
            )
        )
    return lines


def _matched(match: Match) -> str:
    if match.client_port:
        return _("the connection from {client} port {client_port} to {server} port {port}").format(**match._asdict())
    return _("all TCP between {client} and {server} port {port}").format(**match._asdict())


def _hit(others: tuple[Match, ...] | None, *, exact: bool) -> str:
    if exact:
        return _("hits nothing else")
    if others is None:
        return _("what else it hits is not known: this kernel tracks no connections")
    if not others:
        return _("hits no other connection that is open now")
    ports = ", ".join(str(match.client_port) for match in others[:SHOWN])
    return _("also hits {count} other open connections, from ports {ports}").format(
        count=len(others), ports=ports + (", ..." if len(others) > SHOWN else "")
    )


@block.command("list", help=_("Show what is blocked now."))
@_socket_option
@json_option
def list_blocks(socket: Path | None, as_json: bool) -> None:
    """Show the blocks."""
    answer = block_service.ask({"do": "list"}, socket or block_service.default_path())
    columns = [
        Column("number", _("NUMBER"), right=True),
        Column("client", _("CLIENT")),
        Column("server", _("SERVER")),
        Column("port", _("PORT"), right=True),
        Column("family", _("FAMILY")),
        Column("transport", _("TRANSPORT")),
        Column("until", _("UNTIL"), moment),
        Column("trial_until", _("CONFIRM BEFORE"), moment),
        Column("packets", _("PACKETS STOPPED"), right=True),
    ]
    show(answer["blocks"], columns, as_json=as_json, empty=_("nothing is blocked"))


@block.command(help=_("Keep a block that is on trial."))
@click.argument("number", type=int)
@_socket_option
@json_option
def confirm(number: int, socket: Path | None, as_json: bool) -> None:
    """Confirm a block."""
    kept = block_service.ask({"do": "confirm", "number": number}, socket or block_service.default_path())["block"]
    if as_json:
        print_json(kept)
    else:
        say_aside(_("block {number} stays until {until}").format(number=number, until=moment(kept["until"])))


@block.command(help=_("Let a tunnel through again, and leave it alone until the blocker is started anew."))
@click.argument("number", type=int)
@_socket_option
@json_option
def undo(number: int, socket: Path | None, as_json: bool) -> None:
    """Undo a block."""
    gone = block_service.ask({"do": "undo", "number": number}, socket or block_service.default_path())["block"]
    if as_json:
        print_json(gone)
    else:
        say_aside(_("block {number} is undone").format(number=number))
