"""A finding in words: its reasons with what was measured, its timeline, what would have changed the verdict.

`translate` is gettext in the reader's language. Text lines are for `--explain`; the report page takes the parts.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ukihashi.alert.words import EXPLANATIONS
from ukihashi.detect.record import Finding, Piece, Reason, Step, Verdict
from ukihashi.detect.whatif import Change, changes
from ukihashi.errors import N_, Translate

MAX_LINES: Final = 64  # of a timeline

TITLES: Final = {
    "login dialogue": N_("login dialogue"),
    "further connection": N_("further connection"),
    "keep-alive timers": N_("keep-alive timers"),
    "never silent for long": N_("never silent for long"),
    "acknowledgements of records": N_("acknowledgements of records"),
    "login dialogue inside SSH": N_("login dialogue inside SSH"),
    "further connection inside SSH": N_("further connection inside SSH"),
    "SSH client identification": N_("SSH client identification"),
}
PARTS: Final = {
    "hello": N_("TLS greeting"),
    "C1": N_("request (C1)"),
    "S1": N_("server's hello (S1)"),
    "C2": N_("login data (C2)"),
    "S2": N_("server's answer (S2)"),
}
_SIZE: Final = N_(
    "{part}: {measured:,.0f} bytes; the tunnel has {low:,.0f} to {high:,.0f}, where about {share} of other turns lie"
)
_PIECES: Final = {
    "waits": N_("answers came {measured:.1f} s later than a program's usually do"),
    "tickets": N_("read with the server's TLS session tickets between two parts of the request"),
    "other connection": N_("carried over from an earlier connection of the same session"),
    "silences": N_("{measured:.0f} silences, each ended by a message, were weighed"),
    "timeout": N_(
        "the keep-alive law that fits best, session timeout {measured:g} s: a message {low:.1f} to {high:.1f} s after"
        " the last data; about {share} of other silences are that long"
    ),
    "exact wait": N_(
        "ended {low:.2f} to {high:.2f} s after the last data of that direction: {measured:.0%} of them; about {share}"
        " of other silences are that long"
    ),
    "shortest wait": N_(
        "ended at the shortest wait: {measured:.0%} of them; the tunnel has {low:.0%} to {high:.0%}, of other traffic"
        " about {share} ends there"
    ),
    "too long": N_("longer than the law allows: {measured:.0%} of them; the tunnel has at most {high:.0%}"),
    "answered at once": N_(
        "close to a message of the other side: {measured:.0%} of them; the tunnel has at most {high:.0%}, question and"
        " answer nearly all"
    ),
    "acknowledgements": N_(
        "{measured:.0f} acknowledgements of records were weighed: short segments of one size that answer nothing"
    ),
    "size": N_("each has {measured:.0f} bytes"),
    "in time": N_("came when the law says: {measured:.0%} of them; the tunnel has at least {low:.0%}"),
    "wait": N_("the wait before them: {measured:.2f} s; the tunnel has {low:.2f} to {high:.2f} s"),
    "different sizes": N_("with a size of their own: {measured:.0%} of them; the tunnel has at least {low:.0%}"),
}
_THEN: Final = {
    None: N_("nothing would have been found"),
    Verdict.PROBABLE: N_("the verdict would have been only PROBABLE"),
    Verdict.CONFIRMED: N_("the verdict would have been CONFIRMED"),
}
_SIZED: Final = {
    (True, True): N_(
        "Had the {part} of connection {number} been smaller than {low:,} or larger than {high:,} bytes (it had {was:,})"
    ),
    (True, False): N_("Had the {part} of connection {number} been smaller than {low:,} bytes (it had {was:,})"),
    (False, True): N_("Had the {part} of connection {number} been larger than {high:,} bytes (it had {was:,})"),
}
_CHANGED: Final = {
    "without further": N_("Without the further connections"),
    "further later": N_(
        "Had the further connection begun more than {bound:.0f} s after the first (it was {was:.1f} s)"
    ),
    "slower": N_(
        "Had the {part} of connection {number} come more than {bound:.1f} s after the turn before it"
        " (it was {was:.2f} s)"
    ),
    "equal sizes": N_("Had the messages after silences all had the same size"),
    "equal waits": N_("Had the silences all been equally long"),
    "answered": N_("Had each message of the server followed one of the client at once, as an answer does"),
    "silence": N_("Had both sides once been silent for more than {bound:.1f} s (the longest was {was:.1f} s)"),
}
TO_SERVER: Final = N_("client to server")
TO_CLIENT: Final = N_("server to client")
_STEPS: Final = {
    "connection": N_("connection {number} begins, from client port {port}"),
    "turn": N_("{way}, {size:,} bytes, {seconds:.3f} s after the turn before"),
    "message": N_("{way}, {size:,} bytes after {seconds:.2f} s of silence"),
}


_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class ReasonText(NamedTuple):
    """One reason in words."""

    title: str
    explanation: str
    factor: str  # how much it weighs
    details: tuple[tuple[str, str], ...]  # text, factor or ""


def factor(score: float) -> str:
    """A natural-log likelihood ratio as odds, other traffic first: "1 : 3,000"."""
    if abs(score) < 0.05:
        return "1 : 1"
    value = abs(score) / math.log(10)
    if value < 9:
        odds = 10.0**value
        digits = 0 if odds < 9.95 else 1 - math.floor(math.log10(odds))
        text = f"{odds:.1f}" if odds < 9.95 else f"{round(odds, digits):,.0f}"
    else:
        power = int(value)
        mantissa = round(10 ** (value - power), 1)
        if mantissa >= 10:
            mantissa, power = 1.0, power + 1
        text = f"{mantissa:g} × 10{str(power).translate(_RAISED)}"
    return f"1 : {text}" if score > 0 else f"{text} : 1"


def percent(share: float) -> str:
    """0..1 as a whole per cent, at least "1%"."""
    return "-" if math.isnan(share) else f"{max(1, round(100 * share))}%"


def title(name: str, translate: Translate) -> str:
    """A reason's name."""
    return translate(TITLES.get(name, name))


def reasons(finding: Finding, translate: Translate) -> list[ReasonText]:
    """The reasons, the weightiest first."""
    ranked = sorted(finding.reasons, key=lambda reason: -reason.score)
    return [reason_text(reason, translate) for reason in ranked]


def reason_text(reason: Reason, translate: Translate) -> ReasonText:
    """One reason in words."""
    explanation = EXPLANATIONS.get(reason.name)
    return ReasonText(
        title(reason.name, translate),
        translate(explanation) if explanation is not None else "",
        factor(reason.score),
        tuple((piece(one, translate), factor(one.score) if one.score else "") for one in reason.pieces),
    )


def piece(one: Piece, translate: Translate) -> str:
    """What was measured, beside what the tunnel has and how usual that is."""
    if one.name in PARTS:
        template, part = _SIZE, translate(PARTS[one.name])
    elif one.name in _PIECES:
        template, part = _PIECES[one.name], ""
    else:
        return f"{one.name}: {one.measured:g}"
    return translate(template).format(
        part=part, measured=one.measured, low=one.low, high=one.high, share=percent(one.elsewhere)
    )


def step(one: Step, finding: Finding, translate: Translate) -> str:
    """One entry of the timeline, without its time."""
    port = finding.connections[one.connection].client.port if one.connection < len(finding.connections) else 0
    return plain_step(one, port, translate)


def plain_step(one: Step, port: int, translate: Translate) -> str:
    """One entry of a connection from client port `port`."""
    text = translate(_STEPS[one.kind]).format(
        number=one.connection + 1,
        port=port,
        way=translate(TO_SERVER if one.toward_server else TO_CLIENT),
        size=one.size,
        seconds=one.seconds,
    )
    return f"{text} - {translate(PARTS[one.name])}" if one.name in PARTS else text


def change_texts(found: Sequence[Change], translate: Translate) -> list[str]:
    """What would have changed the verdict, a sentence each; both bounds of one turn in one sentence."""
    sized: dict[tuple[str, int, Verdict | None], dict[str, Change]] = {}
    lines = list[str]()
    for change in found:
        if change.kind in {"larger", "smaller"}:
            sized.setdefault((change.name, change.connection, change.verdict), {})[change.kind] = change
    told = set[tuple[str, int, Verdict | None]]()
    for change in found:
        key = (change.name, change.connection, change.verdict)
        if change.kind in {"larger", "smaller"}:
            if key in told:
                continue
            told.add(key)
            low, high = sized[key].get("smaller"), sized[key].get("larger")
            text = translate(_SIZED[low is not None, high is not None]).format(
                part=translate(PARTS.get(change.name, change.name)),
                number=change.connection + 1,
                low=int(low.bound) if low is not None else 0,
                high=int(high.bound) if high is not None else 0,
                was=int(change.was),
            )
        else:
            text = translate(_CHANGED[change.kind]).format(
                part=translate(PARTS.get(change.name, change.name)),
                number=change.connection + 1,
                was=change.was,
                bound=change.bound,
            )
        lines.append(translate(N_("{condition}: {then}")).format(condition=text, then=translate(_THEN[change.verdict])))
    return lines


def summary(finding: Finding, translate: Translate) -> str:
    """Verdict, rule, time and weight in one sentence."""
    return translate(
        N_("{verdict} by rule {rule}, {seconds:.1f} s after the connection began; other traffic to tunnel {factor}")
    ).format(
        verdict=finding.verdict.value,
        rule=finding.rule,
        seconds=finding.decided - finding.begin,
        factor=factor(finding.score),
    )


def lines(finding: Finding, translate: Translate, *, found: Iterable[Change] | None = None) -> list[str]:
    """All of it as text lines; `found`: what would have changed the verdict, if it is known already."""
    text = [f"  {summary(finding, translate)}"]
    for reason in reasons(finding, translate):
        text.append(f"    {reason.title}  {reason.factor}")
        text += [f"      {detail}" + (f"  {weight}" if weight else "") for detail, weight in reason.details]
    if finding.timeline:
        text.append("    " + translate(N_("timeline, in seconds since the connection began")))
        text += [
            f"      {one.time - finding.begin:9.3f}  {step(one, finding, translate)}"
            for one in finding.timeline[:MAX_LINES]
        ]
        if len(finding.timeline) > MAX_LINES:
            text.append("      " + translate(N_("and {count} more")).format(count=len(finding.timeline) - MAX_LINES))
    told = change_texts(list(changes(finding) if found is None else found), translate)
    if told:
        text.append("    " + translate(N_("what would have changed the verdict")))
        text += [f"      {line}" for line in told]
    return text


def reason_objects(finding: Finding) -> list[dict[str, object]]:
    """The reasons for programs: name, score, factor, and each piece."""
    return [
        {
            "name": reason.name,
            "score": round(reason.score, 2),
            "pieces": [_piece_object(piece) for piece in reason.pieces],
        }
        for reason in sorted(finding.reasons, key=lambda reason: -reason.score)
    ]


def _piece_object(piece: Piece) -> dict[str, object]:
    return {
        key: (None if math.isnan(value) else round(value, 4)) if isinstance(value, float) else value
        for key, value in piece._asdict().items()
    }


def timeline_objects(finding: Finding, limit: int = MAX_LINES) -> list[dict[str, object]]:
    """The timeline for programs: seconds since the connection began."""
    return [
        {
            "seconds": round(one.time - finding.begin, 3),
            "kind": one.kind,
            "connection": one.connection,
            "direction": "to_server" if one.toward_server else "to_client",
            "bytes": one.size,
            "after": round(one.seconds, 3),
            "name": one.name or None,
        }
        for one in finding.timeline[:limit]
    ]


def change_objects(found: Sequence[Change]) -> list[dict[str, object]]:
    """What would have changed the verdict, for programs; verdict null = nothing would have been found."""
    return [
        {
            "kind": change.kind,
            "connection": change.connection,
            "name": change.name or None,
            "was": round(change.was, 3),
            "bound": None if math.isnan(change.bound) else round(change.bound, 3),
            "verdict": change.verdict.value if change.verdict is not None else None,
        }
        for change in found
    ]
