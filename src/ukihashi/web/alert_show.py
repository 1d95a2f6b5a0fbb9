"""What the templates of the detector's page place: words, numbers, and the measures of its drawings. No I/O."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

from ukihashi.alert import explain, words
from ukihashi.alert.judge import Judge, State
from ukihashi.alert.page_state import Found, Minute, View, mapping, moment, number, numbers, text
from ukihashi.detect.record import Piece, Reason, Verdict
from ukihashi.detect.whatif import Change
from ukihashi.errors import Translate
from ukihashi.web.alert_texts import ALERT
from ukihashi.web.options import DASH
from ukihashi.web.render import Reader

MAX_ROWS: Final = 300
MAX_LADDERS: Final = 2  # connections whose opening is drawn
MAX_TURNS: Final = 16  # of one connection
MAX_LANES: Final = 4
ALLOW_DAYS: Final = 90
MIN_MESSAGES: Final = 3  # fewer show no rhythm
POOR: Final = 0.999  # share of the traffic
LANE: Final = 96  # units of a drawing: height of one connection's messages
STRIP: Final = 720  # width of the time axis
LEFT: Final = 130  # before it
RUNG: Final = 34  # height of one turn
_FULL: Final = 1500.0  # bytes; a bar of full height
_NAMED: Final = frozenset({"C1", "S1", "C2", "S2"})

Values = dict[str, Any]


def amount(count: float) -> str:
    """Bytes in the unit that suits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


# -- how the sensor stands ----------------------------------------------------------------------------------------


def status(view: View, now: float, translate: Translate) -> Values:
    """The sentence, the figures and the history."""
    gauge, found = view.gauge, [one for one in view.found() if one.confirmed]
    if view.connected:
        span = words.span(gauge.uptime, translate)
        told = translate(ALERT["watching"]).format(cards=", ".join(view.cards) or DASH, span=span)
    elif view.since is None:
        told = translate(ALERT["never"])
    else:
        told = translate(ALERT["gone"]).format(time=words.clock(view.since, now))
    figures = {
        "alive": f"{sum(one.ended is None and not one.allowed for one in found):,}",
        "total": f"{len(found):,}",
        "seen": words.share(gauge.coverage),
        "lost": f"{gauge.lost:,}",
        "rate": f"{gauge.rate:,.0f}",
        "flows": f"{gauge.flows:,}",
    }
    if not view.connected:
        figures = {name: figures[name] if name == "total" else DASH for name in figures}
    minutes = view.minutes(now)
    known = [minute.coverage for minute in minutes if minute.known]
    alt = (
        translate(ALERT["history_alt"]).format(known=len(known), least=words.share(min(known)))
        if known
        else translate(ALERT["history_none"])
    )
    return {
        "told": told,
        "watching": view.connected,
        "figures": figures,
        "poor": [
            name
            for name, poor in (("seen", gauge.coverage is not None and gauge.coverage < POOR), ("lost", gauge.lost > 0))
            if poor and view.connected
        ],
        "bars": [_bar(at, minute, now) for at, minute in enumerate(minutes) if minute.known],
        "history_alt": alt,
    }


def _bar(at: int, minute: Minute, now: float) -> Values:
    """A loss of a thousandth must be seen, so the scale is logarithmic: each tenfold loss takes a sixth away."""
    missing = 1.0 - minute.coverage
    height = 1.0 if missing <= 1e-6 else max(0.05, -math.log10(max(missing, 1e-6)) / 6)
    return {
        "x": at * 12,
        "height": round(60 * height, 1),
        "kind": "full" if missing <= 1e-4 else "short" if missing <= 0.05 else "poor",
        "title": f"{words.clock(minute.begin, now)[:-3]}  {words.share(minute.coverage)}",
    }


# -- the list -----------------------------------------------------------------------------------------------------


def listed(view: View, now: float, reader: Reader, *, probable: bool) -> Values:
    """Findings, the newest first."""
    shown = view.found(probable=probable)
    hidden = len(view.found()) - len(view.found(probable=False))
    translate = reader.translate
    return {
        "rows": [row(one, now, translate) for one in shown[:MAX_ROWS]],
        "hidden": translate(ALERT["list_hidden"]).format(count=hidden) if hidden and not probable else "",
        "probable": probable,
        "hidden_count": hidden,
        "base": "/finding/",
        "join": "&" if reader.asked else "?",
    }


def row(found: Found, now: float, translate: Translate) -> Values:
    """One line of the list."""
    return {
        "key": found.key,
        "began": words.clock(found.begin, now),
        "utc": text(found.event.get("timestamp")),
        "family": words.family(found),
        "way": words.transport(found, translate),
        "client": found.client,
        "server": found.server,
        "verdict": words.verdict(found, translate),
        "kind": "allowed" if found.allowed else "confirmed" if found.confirmed else "probable",
        "life": words.life(found, now, translate),
        "alive": found.ended is None,
    }


# -- one finding --------------------------------------------------------------------------------------------------


def finding(found: Found, now: float, reader: Reader, *, judged: bool) -> Values:
    """Everything about one."""
    translate, about = reader.translate, found.about
    shown = row(found, now, translate)
    decided = moment(about.get("decided"))
    after = translate(ALERT["decided_after"]).format(
        time=words.clock(decided, now), span=words.span(decided - found.begin, translate)
    )
    facts = {
        "verdict": shown["verdict"],
        "odds": words.likelihood(found.score, translate),
        "client": found.client,
        "server": found.server,
        "target": text(about.get("target")),
        "began": shown["began"],
        "state": "" if judged else shown["life"],
        "decided": after if decided else "",
        "connections": str(found.connections),
    }
    lost = int(number(mapping(about.get("evidence")).get("capture_lost_bytes")))
    allowed = mapping(about.get("allowed"))
    steps = [mapping(step) for step in about.get("timeline") or ()]
    return {
        "found": shown,
        "heading": translate(ALERT["finding_title"]).format(family=shown["family"], way=shown["way"]),
        "lead": translate(ALERT["finding_lead"]).format(client=found.client, server=found.server),
        "facts": {name: value for name, value in facts.items() if value},
        "lost": translate(ALERT["capture_lost"]).format(lost=f"{lost:,}") if lost else "",
        "allowed": translate(ALERT["allowed_by"]).format(
            owner=text(allowed.get("owner")), expires=text(allowed.get("expires")), reason=text(allowed.get("reason"))
        )
        if allowed
        else "",
        "reasons": reasons(found, translate),
        "ladders": ladders(steps, found, translate),
        "strip": strip(steps, found, translate),
        "steps": [_step(step, found, translate) for step in steps],
        "changes": explain.change_texts(_changes(about.get("changes")), translate),
        "evidence": bool(about.get("evidence_file")) and not judged,
        "raw": json.dumps(found.event, ensure_ascii=False, indent=1),
        "judged": judged,
    }


def reasons(found: Found, translate: Translate) -> list[Values]:
    """In words, the weightiest first, with the length of a bar."""
    given = [
        Reason(text(one.get("name")), number(one.get("score")), tuple(_pieces(one.get("pieces"))))
        for one in map(mapping, found.about.get("reasons") or ())
    ]
    most = max([abs(reason.score) for reason in given], default=1.0) or 1.0
    return [
        {
            "title": told.title,
            "explanation": told.explanation,
            "odds": words.likelihood(reason.score, translate),
            "bar": round(100 * abs(reason.score) / most),
            "against": reason.score < 0,
            "details": [detail for detail, _weight in told.details],
        }
        for reason in sorted(given, key=lambda reason: -abs(reason.score))
        for told in (explain.reason_text(reason, translate),)
    ]


def _pieces(given: object) -> Iterable[Piece]:
    for one in map(mapping, given if isinstance(given, list) else ()):
        low, high, elsewhere = (
            math.nan if one.get(name) is None else number(one.get(name)) for name in ("low", "high", "elsewhere")
        )
        name, unit = text(one.get("name")), text(one.get("unit"))
        yield Piece(name, number(one.get("measured")), unit, low, high, elsewhere, number(one.get("score")))


def _changes(given: object) -> list[Change]:
    verdicts = {verdict.value: verdict for verdict in Verdict}
    return [
        Change(
            kind=text(one.get("kind")),
            name=text(one.get("name")),
            was=number(one.get("was")),
            bound=number(one.get("bound")),
            verdict=verdicts.get(text(one.get("verdict"))),
            connection=int(number(one.get("connection"))),
        )
        for one in map(mapping, given if isinstance(given, list) else ())
    ]


def _step(step: Mapping[str, Any], found: Found, translate: Translate) -> Values:
    kind, name = text(step.get("kind")), text(step.get("name"))
    silence = translate(ALERT["after_silence"]).format(seconds=f"{number(step.get('seconds')):.1f}")
    notes = {"connection": translate(ALERT["begins"]), "message": silence}
    return {
        "time": f"{number(step.get('time')) - found.begin:.3f}",
        "connection": int(number(step.get("connection"))) + 1,
        "direction": ""
        if kind == "connection"
        else translate(ALERT["to_server" if step.get("toward_server") else "to_client"]),
        "size": "" if kind == "connection" else f"{int(number(step.get('size'))):,}",
        "note": translate(explain.PARTS[name]) if name in explain.PARTS else notes.get(kind, ""),
    }


# -- drawings -----------------------------------------------------------------------------------------------------


def ladders(steps: Sequence[Mapping[str, Any]], found: Found, translate: Translate) -> list[Values]:
    """The opening of each connection, a rung for each turn; from the sizes alone where no timeline came."""
    turns = [step for step in steps if step.get("kind") == "turn"]
    drawn: list[tuple[int, list[tuple[Mapping[str, Any], float]]]] = []
    for index in sorted({int(number(step.get("connection"))) for step in turns})[:MAX_LADDERS]:
        own = [step for step in turns if int(number(step.get("connection"))) == index]
        first = number(own[0].get("time"))
        drawn.append((index, [(step, number(step.get("time")) - first) for step in own[:MAX_TURNS]]))
    if not drawn:
        sizes = numbers(mapping(found.about.get("evidence")).get("turn_bytes"))[:MAX_TURNS]
        if sizes:
            drawn = [(0, [({"size": size, "toward_server": at % 2 == 0}, math.nan) for at, size in enumerate(sizes)])]
    return [
        {
            "title": translate(ALERT["connection_no"]).format(count=index + 1),
            "height": 44 + RUNG * len(rungs),
            "rungs": [_rung(at, step, time, translate) for at, (step, time) in enumerate(rungs)],
        }
        for index, rungs in drawn
    ]


def _rung(at: int, step: Mapping[str, Any], time: float, translate: Translate) -> Values:
    name = text(step.get("name"))
    return {
        "y": 44 + RUNG * at + 12,
        "right": bool(step.get("toward_server")),
        "named": name in _NAMED,
        "time": "" if math.isnan(time) else f"{time:.3f} s",
        "bytes": translate(ALERT["bytes"]).format(count=f"{int(number(step.get('size'))):,}"),
        "what": translate(explain.PARTS[name]) if name in explain.PARTS else "",
    }


def strip(steps: Sequence[Mapping[str, Any]], found: Found, translate: Translate) -> Values | None:
    """Messages after silences by time, a lane for each connection."""
    messages = [step for step in steps if step.get("kind") == "message"]
    if len(messages) < MIN_MESSAGES:
        return None
    end = max(number(step.get("time")) for step in messages) - found.begin
    tick = next((tick for tick in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if end / tick <= 10), 3600)
    span = max(tick * math.ceil(end / tick), tick)
    lanes = list[Values]()
    for index in sorted({int(number(step.get("connection"))) for step in messages})[:MAX_LANES]:
        own = [step for step in messages if int(number(step.get("connection"))) == index]
        lanes.append(
            {
                "title": translate(ALERT["connection_no"]).format(count=index + 1),
                "middle": LANE * len(lanes) + LANE // 2,
                "bars": [_message(step, found, span, LANE * len(lanes) + LANE // 2, translate) for step in own],
            }
        )
    return {
        "lanes": lanes,
        "height": LANE * len(lanes) + 30,
        "bottom": LANE * len(lanes),
        "ticks": [
            {"x": LEFT + STRIP * at * tick / span, "label": f"{at * tick:g}"} for at in range(round(span / tick) + 1)
        ],
        "alt": translate(ALERT["strip_alt"]).format(count=len(messages), seconds=f"{end:.0f}"),
    }


def _message(step: Mapping[str, Any], found: Found, span: float, middle: int, translate: Translate) -> Values:
    height = max(4.0, 42 * math.sqrt(min(number(step.get("size")), _FULL) / _FULL))
    shown = _step(step, found, translate)
    return {
        "x": round(LEFT + STRIP * (number(step.get("time")) - found.begin) / span - 2, 1),
        "y": round(middle - height if step.get("toward_server") else middle, 1),
        "height": round(height, 1),
        "client": bool(step.get("toward_server")),
        "title": f"{shown['time']} s, {translate(ALERT['bytes']).format(count=shown['size'])}, {shown['note']}",
    }


# -- the allow list -----------------------------------------------------------------------------------------------


def entries(rows: Iterable[Mapping[str, Any]], now: float) -> list[Values]:
    """The list's rows; what is over is marked."""
    today = date.fromtimestamp(now).isoformat()  # noqa: DTZ012 - an entry's last day is this machine's
    return [
        {name: text(one.get(name)) for name in ("id", "client", "server", "family", "owner", "reason", "expires")}
        | {"port": text(one.get("port") or ""), "over": text(one.get("expires")) < today}
        for one in rows
    ]


def allow_form(found: Found | None, given: Mapping[str, str] | None, now: float) -> Values:
    """What stands in the fields: what was typed, else what suits the finding."""
    until = date.fromtimestamp(now) + timedelta(days=ALLOW_DAYS)  # noqa: DTZ012
    values = {"client": "", "server": "", "port": "", "family": "", "owner": "", "reason": ""}
    if found is not None:
        values |= {
            "client": text(found.event.get("src_ip")),
            "server": text(found.event.get("dest_ip")),
            "port": text(found.event.get("dest_port")),
            "family": text(found.about.get("family")),
        }
    values["expires"] = until.isoformat()
    values |= {name: given.get(name, "") for name in values} if given is not None else {}
    return values | {
        "finding": found.key if found is not None else "",
        "families": words.FAMILIES,
        "today": date.fromtimestamp(now).isoformat(),  # noqa: DTZ012
    }


# -- a file -------------------------------------------------------------------------------------------------------


def judged(judge: Judge, now: float, reader: Reader) -> Values:
    """How far the file is, and what was found in it."""
    last, translate = judge.last, reader.translate
    if last is None:
        return {"reading": False, "told": "", "rows": []}
    found = last.found()
    tunnels = [one for one in found if one.confirmed]
    taken = amount(last.taken)
    if last.state is State.READING:
        template = ALERT["progress"] if last.size else ALERT["progress_open"]
        told = translate(ALERT["judging"]).format(name=last.name)
        figures = translate(template).format(
            taken=taken, size=amount(last.size or 0), packets=f"{last.packets:,}", count=len(tunnels)
        )
    else:
        key = {State.CANCELLED: "result_stopped", State.FAILED: "result_failed"}.get(
            last.state, "result_found" if tunnels else "result_none"
        )
        told = translate(ALERT[key]).format(name=last.name, count=len(tunnels))
        figures = translate(ALERT["result_figures"]).format(
            packets=f"{last.packets:,}", flows=f"{last.flows:,}", span=words.span(last.seconds, translate)
        )
    rows = [row(one, now, translate) | {"life": "", "alive": False} for one in found[:MAX_ROWS]]
    return {
        "reading": last.state is State.READING,
        "state": last.state.value,
        "told": told,
        "figures": figures,
        "part": min(100, round(100 * last.taken / last.size)) if last.size else None,
        "problems": [problem.render(translate) for problem in last.problems],
        "missed": translate(ALERT["result_missed"]).format(missed=f"{last.missed:,}") if last.missed else "",
        "before": bool(rows) and last.state in {State.FAILED, State.CANCELLED},
        "rows": rows,
        "base": "/judge/",
    }
