"""The report of an evidence bundle: one page without scripts or network, in every language, to read or to print.

Both languages stand in the page; a choice at its top shows one of them. Drawings are inline SVG, each with a table that
says the same.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from ukihashi import __version__
from ukihashi.alert import duties, explain
from ukihashi.alert.words import TRANSPORTS
from ukihashi.detect.record import Finding, Piece, Step, Verdict, moment
from ukihashi.detect.whatif import Change
from ukihashi.errors import N_, Translate
from ukihashi.locale import LANGUAGES, catalogue

if TYPE_CHECKING:
    from ukihashi.alert.bundle import Circumstances

LANGUAGE_NAMES: Final = {"en": "English", "ja": "日本語"}
SHOWN_STEPS: Final = 200  # rows of the timeline's table
_LEAST_BYTES, _MOST_BYTES = 20, 60_000  # of the size scale

TEXTS: Final = {
    "title": N_("Evidence of a VPN tunnel"),
    "language": N_("Language"),
    "in_short": N_("In short"),
    "confirmed": N_(
        "The computer {client} opened a {family} tunnel ({transport}) to {server} on {begin}. The detector was sure of"
        " it {seconds:.1f} seconds later."
    ),
    "probable": N_(
        "The computer {client} probably opened a {family} tunnel ({transport}) to {server} on {begin}. The detector"
        " said so {seconds:.1f} seconds later."
    ),
    "weight": N_(
        "Weight of the evidence: {factor}. So many times likelier is this traffic with a tunnel than without one."
    ),
    "verdict": N_("Verdict"),
    "client": N_("Client"),
    "server": N_("Server"),
    "target": N_("Address asked of the proxy"),
    "begin": N_("Connection began"),
    "decided": N_("Verdict reached"),
    "connections": N_("TCP connections"),
    "rule": N_("Rule"),
    "capture": N_("Capture"),
    "captured": N_("{packets:,} packets read, {dropped:,} lost for lack of time; {coverage} of the bytes were seen"),
    "sensor": N_("Sensor"),
    "why": N_("Why"),
    "why_note": N_(
        "What other traffic does is the method's assumption (sizes and silences spread evenly over their logarithm),"
        " not a count on this network. docs/detection.md says what was measured."
    ),
    "weighs": N_("weighs"),
    "condition": N_("a condition, not weighed"),
    "measured": N_("Measured"),
    "usual": N_("The tunnel has"),
    "elsewhere": N_("Of other traffic"),
    "part": N_("Part"),
    "bytes": N_("bytes"),
    "scale_note": N_(
        "Band: sizes that the tunnel has. Mark: the size measured. The scale goes from 20 to 60,000 bytes, logarithmic."
    ),
    "timeline": N_("Timeline"),
    "opening": N_("How connection {number} opened (client port {port})"),
    "opening_note": N_("Each arrow is all the data of one side until the other answered. Not to scale in time."),
    "whole": N_("From the first packet to the verdict"),
    "whole_note": N_(
        "To scale in time. Up: messages from client to server; down: from server to client; longer lines are more"
        " bytes. Only messages after a silence of that direction are drawn."
    ),
    "verdict_here": N_("verdict"),
    "seconds": N_("s"),
    "time": N_("Time (s)"),
    "event": N_("Event"),
    "table": N_("The timeline as a table"),
    "more": N_("{count} more entries are in finding.json."),
    "whatif": N_("What would have changed the verdict"),
    "whatif_note": N_(
        "Found by judging the packets of this bundle again with one piece changed, by the same program. More traffic"
        " later might have led to the verdict all the same."
    ),
    "limits": N_("What this does not show"),
    "limit_content": N_("What was sent through the tunnel: it is encrypted, and nobody has read it."),
    "limit_person": N_("Who used the computer: an address belongs to a machine, perhaps to several behind one router."),
    "limit_intent": N_("Whether it was forbidden: that is for the rules of the network to say."),
    "limit_chance": N_(
        "Certainty: the verdict rests on sizes, order and times. A program made to copy them all would be taken for"
        " a tunnel."
    ),
    "next": N_("What to do next"),
    "privacy": N_("Privacy"),
    "privacy_kept": N_(
        "This bundle holds addresses, ports, sizes and times of packets, and the first bytes of TLS, proxy and SSH"
        " greetings. User names, passwords and all other content in the clear were removed before it was written."
    ),
    "privacy_use": N_(
        "Show it only to those who have to decide about it, keep it no longer than that takes, and tell the person it"
        " is about where the law asks for it."
    ),
    "check": N_("How to check it"),
    "check_files": N_(
        "manifest.json lists the SHA-256 of each file; manifest.sig is the sensor's signature of it. These commands"
        " check both and judge the packets again:"
    ),
    "check_key": N_("The sensor's key must be this one; ask its owner for it, not this page:"),
    "made": N_("Made {made} by ukihashi {version}."),
    "no_warranty": N_("No warranty: it can miss tunnels, and it can be wrong."),
}


class Strip(NamedTuple):
    """One size on the logarithmic scale; all in per cent of its width."""

    part: str
    size: int
    low: int
    high: int
    share: str
    factor: str
    left: float
    width: float
    mark: float


class Arrow(NamedTuple):
    """One turn of an opening."""

    y: int
    time: str
    label: str
    to_server: bool
    counted: bool


class Ladder(NamedTuple):
    """The opening of one connection."""

    title: str
    arrows: list[Arrow]
    height: int


class Bar(NamedTuple):
    """One message in the drawing to scale."""

    x: float
    height: float
    to_server: bool


class Lane(NamedTuple):
    """One connection in the drawing to scale."""

    number: int
    y: int
    begin: float
    bars: list[Bar]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("ukihashi.alert"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def preload() -> None:
    """Read template and catalogues now."""
    _environment().get_template("report.html")
    for language in LANGUAGES:
        catalogue(language)


def render(
    finding: Finding, found: Sequence[Change], about: "Circumstances", *, fingerprint: str, language: str, made: float
) -> str:
    """The page as HTML. `found`: see `whatif.changes`; `language`: which one it opens in."""
    articles = [_article(code, finding, found, about, made) for code in LANGUAGES]
    return (
        _environment()
        .get_template("report.html")
        .render(
            articles=articles,
            opens=language if language in LANGUAGES else LANGUAGES[0],
            names=LANGUAGE_NAMES,
            fingerprint=fingerprint,
            titles={article["code"]: article["t"]["title"] for article in articles},
        )
    )


def _article(
    code: str, finding: Finding, found: Sequence[Change], about: "Circumstances", made: float
) -> dict[str, Any]:
    translate = catalogue(code).gettext
    t = {key: translate(text) for key, text in TEXTS.items()}
    values = {
        "client": finding.client.host,
        "server": finding.server,
        "family": finding.family.value,
        "transport": translate(TRANSPORTS[finding.outer.value]),
        "begin": clock(finding.begin),
        "seconds": finding.decided - finding.begin,
    }
    kind = "confirmed" if finding.verdict is Verdict.CONFIRMED else "probable"
    return {
        "code": code,
        "t": t,
        "verdict": finding.verdict.value,
        "summary": t[kind].format(**values),
        "weight": t["weight"].format(factor=explain.factor(finding.score)),
        "facts": list(_facts(t, finding, about)),
        "reasons": [
            {"text": text, "strips": _strips(reason.pieces, translate), "weighed": bool(reason.score)}
            for text, reason in zip(
                explain.reasons(finding, translate),
                sorted(finding.reasons, key=lambda reason: -reason.score),
                strict=True,
            )
        ],
        "ladders": list(_ladders(finding, t, translate)),
        "scale": _scale(finding),
        "rows": [
            (f"{one.time - finding.begin:.3f}", explain.step(one, finding, translate))
            for one in finding.timeline[:SHOWN_STEPS]
        ],
        "more": t["more"].format(count=len(finding.timeline) - SHOWN_STEPS)
        if len(finding.timeline) > SHOWN_STEPS
        else "",
        "changes": explain.change_texts(found, translate),
        "ask": translate(duties.ASK),
        "duties": [translate(duty) for duty in duties.DUTIES],
        "made": t["made"].format(made=clock(made), version=__version__),
    }


def clock(time: float) -> str:
    """The sensor's local time with its zone, and UTC."""
    utc = moment(time)
    local = utc.astimezone()
    if local.utcoffset() == utc.utcoffset():
        return f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return f"{local:%Y-%m-%d %H:%M:%S %z} ({utc.astimezone(UTC):%H:%M:%S} UTC)"


def _facts(t: dict[str, str], finding: Finding, about: "Circumstances") -> Iterator[tuple[str, str]]:
    yield t["verdict"], finding.verdict.value
    yield t["client"], str(finding.client)
    yield t["server"], str(finding.server)
    if finding.target:
        yield t["target"], finding.target
    yield t["begin"], clock(finding.begin)
    yield t["decided"], clock(finding.decided)
    yield t["connections"], str(len(finding.connections))
    yield t["rule"], finding.rule
    if about.interface or about.host:
        yield t["sensor"], " ".join(filter(None, (about.host, about.interface)))
    coverage = f"{math.floor(about.coverage * 1000) / 10:g}%"
    yield t["capture"], t["captured"].format(packets=about.packets, dropped=about.dropped, coverage=coverage)


def _strips(pieces: Sequence[Piece], translate: Translate) -> list[Strip]:
    return [
        Strip(
            translate(explain.PARTS[piece.name]),
            int(piece.measured),
            int(piece.low),
            int(piece.high),
            explain.percent(piece.elsewhere),
            explain.factor(piece.score),
            round(_place(piece.low), 2),
            round(_place(piece.high) - _place(piece.low), 2),
            round(_place(piece.measured), 2),
        )
        for piece in pieces
        if piece.name in explain.PARTS
    ]


def _place(size: float) -> float:
    """On the logarithmic scale, 0..100."""
    inside = min(max(size, _LEAST_BYTES), _MOST_BYTES)
    return 100 * math.log(inside / _LEAST_BYTES) / math.log(_MOST_BYTES / _LEAST_BYTES)


def _ladders(finding: Finding, t: dict[str, str], translate: Translate) -> Iterator[Ladder]:
    for index, connection in enumerate(finding.connections[:2]):
        turns = [one for one in finding.timeline if one.connection == index and one.kind == "turn"]
        if not turns:
            continue
        arrows = [_arrow(place, one, finding, t, translate) for place, one in enumerate(turns)]
        yield Ladder(t["opening"].format(number=index + 1, port=connection.client.port), arrows, 64 + 34 * len(arrows))


def _arrow(place: int, one: Step, finding: Finding, t: dict[str, str], translate: Translate) -> Arrow:
    size = f"{one.size:,} {t['bytes']}"
    name = translate(explain.PARTS[one.name]) if one.name in explain.PARTS else ""
    return Arrow(
        66 + 34 * place,
        f"{one.time - finding.begin:.3f}",
        f"{name}  {size}" if name else size,
        one.toward_server,
        one.name not in {"", "hello"},
    )


def _scale(finding: Finding) -> dict[str, Any]:
    """The drawing to scale: 1000 wide; {} where no messages were weighed."""
    messages = [one for one in finding.timeline if one.kind == "message"]
    if len(messages) < 2:
        return {}
    seconds = max(finding.decided - finding.begin, 0.001)

    def place(time: float) -> float:
        return round(40 + 920 * min(1.0, max(0.0, (time - finding.begin) / seconds)), 1)

    lanes = list[Lane]()
    for index in sorted({one.connection for one in messages})[:6]:
        begin = finding.connections[index].begin if index < len(finding.connections) else finding.begin
        bars = [
            Bar(place(one.time), _length(one.size), one.toward_server) for one in messages if one.connection == index
        ]
        lanes.append(Lane(index + 1, 70 + 130 * len(lanes), place(begin), bars))
    return {
        "lanes": lanes,
        "ticks": [(place(finding.begin + at), f"{at:g}") for at in _ticks(seconds)],
        "verdict": place(finding.decided),
        "height": 130 * len(lanes) + 50,
        "bottom": 130 * len(lanes) + 14,
    }


def _length(size: int) -> float:
    """Of the line for a message, by the logarithm of its bytes: 6 to 54."""
    return round(6 + 48 * min(1.0, math.log(max(size, 20) / 20) / math.log(75)), 1)


def _ticks(seconds: float) -> list[float]:
    """About ten round numbers from 0."""
    step = next(
        step for step in (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 300, 3600) if seconds / step <= 10 or step == 3600
    )
    return [round(step * at, 3) for at in range(int(seconds / step) + 1)]
