"""A finding, and a connection that was not found, in words."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
from tests.alert.kept import CORPUS, findings, of_corpus, own_session, session

from ukihashi.alert import explain
from ukihashi.detect.record import Finding, Piece, Reason, Step
from ukihashi.detect.whatif import Change, changes
from ukihashi.locale import catalogue

ENGLISH, JAPANESE = catalogue("en").gettext, catalogue("ja").gettext
CAPTURES = (
    "se-d443-idle.pcap.gz",
    "se-d443-noqos-idle.pcap.gz",
    "se-ssh-idle.pcap.gz",
    "se-d443-mc32-idle-midstream.pcap.gz",
    "uk-dante-bulk.pcap.gz",
)


@cache
def every() -> tuple[Finding, ...]:
    return (*findings(session()), *findings(own_session()), *(found for name in CAPTURES for found in of_corpus(name)))


@cache
def changed(place: int) -> tuple[Change, ...]:
    return tuple(changes(every()[place]))


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "1 : 1"),
        (math.log(3000), "1 : 3,000"),
        (math.log(2.5), "1 : 2.5"),
        (math.log(12), "1 : 12"),
        (math.log(9.97), "1 : 10"),
        (math.log(99.6), "1 : 100"),
        (-math.log(40), "40 : 1"),
        (math.log(4.83e15), "1 : 4.8 × 10¹⁵"),
        (math.log(9.99e12), "1 : 1 × 10¹³"),
        (math.log(9.96e8), "1 : 1,000,000,000"),
    ],
)
def test_a_score_is_said_as_odds(score: float, text: str) -> None:
    assert explain.factor(score) == text


def test_the_reasons_say_what_was_measured_what_the_tunnel_has_and_what_others_have() -> None:
    (finding,) = findings(session())
    login, further = explain.reasons(finding, ENGLISH)
    assert (login.title, further.title) == ("login dialogue", "further connection")
    assert login.factor == explain.factor(max(reason.score for reason in finding.reasons))
    assert login.details[1] == (
        "server's hello (S1): 900 bytes; the tunnel has 300 to 1,750, where about 22% of other turns lie",
        "1 : 4.9",
    )
    assert len(login.explanation) > 40


def test_the_weights_of_the_parts_make_the_weight_of_the_reason() -> None:
    for finding in every():
        assert sum(reason.score for reason in finding.reasons) == pytest.approx(finding.score)
        for reason in finding.reasons:
            if reason.pieces:
                assert sum(piece.score for piece in reason.pieces) == pytest.approx(reason.score), reason.name


def test_lines_hold_reasons_timeline_and_what_would_have_changed_it() -> None:
    (finding,) = findings(session())
    lines = explain.lines(finding, ENGLISH)
    assert lines[0].startswith("  CONFIRMED by rule 1, ")
    assert "    timeline, in seconds since the connection began" in lines
    assert any("client to server, 2,400 bytes" in line and "request (C1)" in line for line in lines)
    assert "      Without the further connections: the verdict would have been only PROBABLE" in lines
    assert any("S1) of connection 1 been smaller than 300 or larger than 2,150 bytes" in line for line in lines)


def test_japanese_says_as_much_and_in_japanese() -> None:
    for place, finding in enumerate(every()):
        found = changed(place)
        english, japanese = (explain.lines(finding, translate, found=found) for translate in (ENGLISH, JAPANESE))
        assert len(english) == len(japanese)
        plain = [line for line in japanese if line.isascii() and any(letter.isalpha() for letter in line)]
        assert plain == []


def test_every_name_that_the_detector_gives_has_words() -> None:
    for finding in every():
        for reason in finding.reasons:
            assert explain.title(reason.name, JAPANESE) != reason.name
            for piece in reason.pieces:
                assert not explain.piece(piece, ENGLISH).startswith(f"{piece.name}: "), piece.name


def test_a_name_without_words_is_shown_as_it_is() -> None:
    (finding,) = findings(session())
    unknown = Reason("a new rule", 1.0, (Piece("tea", 3.0, "count", 0, 1, math.nan, 1.0),))
    lines = explain.lines(replace(finding, reasons=(unknown,)), JAPANESE, found=[])
    assert lines[1:3] == ["    a new rule  1 : 2.7", "      tea: 3  1 : 2.7"]


def test_a_timeline_is_in_order_and_its_lines_are_bounded() -> None:
    for finding in every():
        times = [step.time for step in finding.timeline]
        assert times == sorted(times)
        assert finding.begin - 1e-6 <= times[0]
        assert times[-1] <= finding.decided + 1e-6
    (finding,) = findings(session())
    long = replace(finding, timeline=tuple(Step(finding.begin + n, "message", 0, True, 99, 4.0) for n in range(500)))
    assert "      and 436 more" in explain.lines(long, ENGLISH, found=[])
    assert len(explain.timeline_objects(long)) == 64


def test_objects_are_plain_json() -> None:
    for place, finding in enumerate(every()):
        text = json.dumps(
            [
                explain.reason_objects(finding),
                explain.timeline_objects(finding),
                explain.change_objects(changed(place)),
            ],
            allow_nan=False,
        )
        assert json.loads(text)


# -- one connection -----------------------------------------------------------------------------------------------


def told(name: str, client: str, language: str = "en") -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable,
        "-m",
        "ukihashi.cli.main",
        "--lang",
        language,
        "alert",
        "explain",
        "-r",
        str(CORPUS / name),
        client,
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_a_connection_that_was_not_found_is_told_what_it_lacked() -> None:
    done = told("ng-https-rpc5-mimic.pcap.gz", "10.77.14.2:52880")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == ["10.77.14.2:52880 -> 10.77.220.2:443", "  Not found: no rule was fulfilled."]
    assert "      - close to a message of the other side: 100% of them;" in done.stdout
    assert "SoftEther VPN, login dialogue: +8." in done.stdout
    assert "SoftEther VPN, further connection: -" in done.stdout


def test_a_connection_that_was_found_is_told_why() -> None:
    done = told("se-d443-idle.pcap.gz", "10.77.8.2:43552")
    assert done.returncode == 0
    assert "CONFIRMED by rule 1" in done.stdout
    assert "Without the further connections" in done.stdout


def test_its_further_connection_belongs_to_the_same_finding() -> None:
    assert "CONFIRMED by rule 1" in told("se-d443-idle.pcap.gz", "10.77.8.2:43566").stdout


def test_it_speaks_japanese() -> None:
    done = told("ng-mqtt-ka5.pcap.gz", "10.77.17.2:40714", "ja")
    assert "検知なし" in done.stdout


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ("10.77.17.2:1", "there is no connection from 10.77.17.2:1"),
        ("10.77.17.2", "is not ADDRESS:PORT"),
        ("10.77.17.2:99999", "is not ADDRESS:PORT"),
        ("x:1", "is not ADDRESS:PORT"),
    ],
)
def test_what_is_no_connection_is_refused(client: str, said: str) -> None:
    done = told("ng-mqtt-ka5.pcap.gz", client)
    assert done.returncode == 2
    assert said in done.stderr
