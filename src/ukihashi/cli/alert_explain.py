"""`ukihashi alert explain`: what the detector made of one connection, also where it found nothing."""

from ipaddress import ip_address
from pathlib import Path
from typing import Final

import click

from ukihashi.alert import explain as words
from ukihashi.alert.service import Alert
from ukihashi.capture.batch import Batch
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.decode import as_packets, segments
from ukihashi.detect.flow import FlowTable
from ukihashi.detect.near import Goal, Near, Watch
from ukihashi.detect.record import Endpoint, Finding, Found
from ukihashi.errors import N_, InputUnreadable, UsageError
from ukihashi.locale import _

MAX_STEPS: Final = 40
KINDS: Final = {
    "tls": N_("It opened with TLS, directly or through a proxy."),
    "ssh": N_("It is an SSH connection: what opens inside it is judged by the rule for SSH alone."),
    "": N_("It did not open with TLS or SSH: no rule about openings reads it."),
}


class _Memory:
    """A sink that keeps the findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def take(self, found: Found) -> None:
        if isinstance(found, Finding):
            self.findings.append(found)

    def close(self) -> None:
        pass


class _One:
    """Picks one connection out of a capture, and watches it."""

    def __init__(self, client: Endpoint) -> None:
        self._client = client.address + client.port.to_bytes(2)
        self._watch = Watch()
        self._table = FlowTable(self._watch, limit=1024)
        self._key = b""
        self._now = 0.0

    def take(self, batch: Batch) -> Batch:
        """Look at the packets of one batch, and hand it on."""
        own = [one for one in segments(batch.link_type, batch.buffer, batch.packets) if self._is_it(one[1])]
        if own:
            self._table.take(*as_packets(own, batch.buffer))
            self._now = own[-1][0]
        return batch

    def _is_it(self, key: bytes) -> bool:
        size = (len(key) - 4) // 2
        source, target = key[:size] + key[-4:-2], key[size : 2 * size] + key[-2:]
        return self._client in (source, target)

    def near(self) -> Near | None:
        """What it showed."""
        self._table.advance(self._now)
        return self._watch.near()


@click.command(
    "explain",
    help=_(
        "Say what the detector made of the connection from CLIENT:PORT in a capture: which rule came nearest, and what"
        " lacked."
    ),
)
@click.option("-r", "--read", "files", multiple=True, required=True, metavar="FILE", help=_("The capture file."))
@click.argument("client", metavar="CLIENT:PORT")
def explain(files: tuple[str, ...], client: str) -> None:
    """Explain a connection, found or not. Exit status: 0 told, 2 no such connection."""
    wanted, memory = endpoint(client), _Memory()
    one, detector = _One(wanted), Alert([memory], tell=lambda _error: None, probable=True)
    for name in files:
        try:
            with open(0, "rb", closefd=False) if name == "-" else Path(name).open("rb") as file:
                detector.read(map(one.take, CaptureFile(file, name)))
        except OSError as error:
            raise InputUnreadable(N_("{file} can't be read: {reason}"), file=name, reason=error.strerror) from error
    detector.finish()
    near = one.near()
    if near is None:
        raise UsageError(N_("there is no connection from {client} with data in this capture"), client=client)
    click.echo(f"{near.client} -> {near.server}")
    mine = [found for found in memory.findings if any(each.client == wanted for each in found.connections)]
    for found in mine:
        for line in words.lines(found, _):
            click.echo(line)
    if not mine:
        _tell(near)


def endpoint(text: str) -> Endpoint:
    """Read ADDRESS:PORT or [IPV6]:PORT. Raises: UsageError."""
    host, _colon, port = text.rpartition(":")
    number = int(port[:6]) if port.isascii() and port.isdecimal() else -1
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]")).packed
    except ValueError:
        address = b""
    if not address or not 0 <= number <= 65535:
        raise UsageError(
            N_("{text} is not ADDRESS:PORT, as in 192.0.2.1:50000 or [2001:db8::1]:50000"),
            text=text,
        )
    return Endpoint(address, number)


def _tell(near: Near) -> None:
    click.echo("  " + _("Not found: no rule was fulfilled."))
    if not near.seen:
        click.echo("  " + _("It began before the capture, so that only its keep-alives can tell."))
    else:
        click.echo("  " + _(KINDS[near.kind]))
    for goal in near.goals:
        for line in _goal(goal):
            click.echo(line)
    if near.timeline:
        click.echo("    " + _("timeline, in seconds since the connection began"))
        for step in near.timeline[:MAX_STEPS]:
            click.echo(f"      {step.time - near.begin:9.3f}  {words.plain_step(step, near.client.port, _)}")
        if len(near.timeline) > MAX_STEPS:
            click.echo("      " + _("and {count} more").format(count=len(near.timeline) - MAX_STEPS))


def _goal(goal: Goal) -> list[str]:
    text = _("{family}, {name}: {score:+.1f} of {least:+.1f} that the rule asks for").format(
        family=goal.family.value,
        name=words.title(goal.reason.name, _),
        score=goal.reason.score,
        least=goal.least,
    )
    lines = [f"    {text}"]
    if not goal.reason.pieces:
        lines.append("      " + _("no turns at all that could be such a dialogue"))
    for piece in goal.reason.pieces:
        mark = "-" if piece in goal.lacking else "+" if piece.score else " "
        lines.append(f"      {mark} {words.piece(piece, _)}")
    return lines
