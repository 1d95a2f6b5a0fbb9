"""EVE objects: names, values, ids that are promised."""

import json
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest
from tests.alert.schema import problems

from ukihashi.alert.eve import CATEGORY, Eve, Stats, community_id, event, line, signature, signature_id
from ukihashi.detect.features import Outer
from ukihashi.detect.record import (
    Allowed,
    Attached,
    Connection,
    Ended,
    Endpoint,
    Family,
    Finding,
    Reason,
    Verdict,
)

ROOT = Path(__file__).resolve().parent.parent.parent
BEGIN = 1_093_690_860.5  # 2004-08-28 20:01:00.5 in Tokyo


def end(address: str, port: int) -> Endpoint:
    return Endpoint(ip_address(address).packed, port)


CLIENT = end("192.168.126.229", 1027)
FINDING = Finding(
    family=Family.SOFTETHER,
    verdict=Verdict.CONFIRMED,
    outer=Outer.TCP,
    client=CLIENT,
    server=end("61.197.235.210", 7777),
    target="",
    begin=BEGIN,
    decided=BEGIN + 1.5,
    rule="1",
    score=15.0,
    reasons=(Reason("login dialogue", 8.8), Reason("further connection", 6.2)),
    turns=(517, 1434, 2700, 900, 3100, 2500),
    gaps=(4.125,),
    sizes=(300,),
    connections=(Connection(CLIENT, BEGIN),),
    lost=0,
)
SECOND = Connection(end("192.168.126.229", 1028), BEGIN + 1)


def test_the_json_twin_carries_time_zone_evidence_and_community_id() -> None:
    twin = event(replace(FINDING, outer=Outer.HTTP, target="hub.example.jp:443"))
    assert twin["timestamp"] == "2004-08-28T11:01:00.500000+0000"
    assert (twin["event_type"], twin["proto"]) == ("alert", "TCP")
    assert (twin["src_ip"], twin["src_port"]) == ("192.168.126.229", 1027)
    assert (twin["dest_ip"], twin["dest_port"]) == ("61.197.235.210", 7777)
    assert twin["ukihashi"] == {
        "family": "softether",
        "transport": "HTTP Proxy",
        "target": "hub.example.jp:443",
        "verdict": "CONFIRMED",
        "decided": "2004-08-28T11:01:02.000000+0000",
        "rule": "1",
        "score": 15.0,
        "reasons": [
            {"name": "login dialogue", "score": 8.8, "pieces": []},
            {"name": "further connection", "score": 6.2, "pieces": []},
        ],
        "timeline": [],
        "evidence": {
            "turn_bytes": [517, 1434, 2700, 900, 3100, 2500],
            "keepalive_gaps_s": [4.125],
            "keepalive_bytes": [300],
            "connections": [{"src_port": 1027, "begin": "2004-08-28T11:01:00.500000+0000"}],
            "capture_lost_bytes": 0,
        },
        "again": False,
        "allowed": None,
        "evidence_file": None,
    }


def test_the_object_alert_is_as_rule_engines_write_it() -> None:
    assert event(FINDING)["alert"] == {
        "action": "allowed",
        "gid": 1,
        "signature_id": 1904111,
        "rev": 1,
        "signature": "UKIHASHI SoftEther VPN tunnel, TCP",
        "category": CATEGORY,
        "severity": 1,
    }
    probable = event(replace(FINDING, verdict=Verdict.PROBABLE, outer=Outer.SSH, family=Family.UKIHASHI))["alert"]
    assert (probable["signature_id"], probable["severity"]) == (1904243, 3)
    assert probable["signature"] == "UKIHASHI ukihashi tunnel, SSH, PROBABLE"


def test_each_kind_of_finding_has_a_number_and_words_of_its_own() -> None:
    kinds = list(product(Family, Outer, Verdict))
    numbers = [signature_id(*kind) for kind in kinds]
    assert len(set(numbers)) == len({signature(*kind) for kind in kinds}) == len(kinds)
    assert not any(str(number)[4:6].count("9") for number in numbers), "a family or transport has no number yet"


def test_an_allowed_finding_says_by_whom_and_where_its_evidence_lies() -> None:
    allowed = Allowed("a1", "Ann", "branch office", "2027-03-31")
    twin = event(replace(FINDING, allowed=allowed, evidence_file="/var/lib/x.zip"))["ukihashi"]
    assert twin["allowed"] == {"id": "a1", "owner": "Ann", "reason": "branch office", "expires": "2027-03-31"}
    assert twin["evidence_file"] == "/var/lib/x.zip"


def test_the_end_of_a_connection_is_a_flow_and_that_of_the_session_a_vpn_end() -> None:
    eve = Eve("eth1,eth2", seed=7)
    twin = eve.event(Ended(FINDING, SECOND, BEGIN + 61.25, "closed", to_server=5000, to_client=7000))
    assert (twin["event_type"], twin["src_port"], twin["in_iface"]) == ("flow", 1028, "eth1,eth2")
    assert twin["flow"] == {
        "start": "2004-08-28T11:01:01.500000+0000",
        "end": "2004-08-28T11:02:01.750000+0000",
        "age": 60,
        "state": "closed",
        "reason": "unknown",
        "alerted": True,
        "bytes_toserver": 5000,
        "bytes_toclient": 7000,
    }
    assert twin["flow_id"] == eve.event(Attached(FINDING, SECOND))["flow_id"] < 1 << 53
    over = eve.event(Ended(FINDING, FINDING.connections[0], BEGIN + 100, "silent", session=True))
    assert (over["event_type"], over["reason"], over["seconds"]) == ("vpn_end", "silent", 100.0)
    first = eve.event(FINDING)
    assert over["session"] == over["community_id"] == first["community_id"] == twin["session"]
    assert over["flow_id"] == first["flow_id"]
    assert first["community_id"] != event(FINDING)["community_id"], "the seed changes the id"


def test_stats_have_the_names_of_eve_and_ours() -> None:
    stats = Stats(BEGIN, 12.9, packets=1000, drops=24, gaps=1460, coverage=0.97, flows=3, flows_total=9, period=10.0)
    twin = Eve("eth1").stats(stats)
    assert (twin["event_type"], twin["in_iface"]) == ("stats", "eth1")
    assert twin["stats"]["uptime"] == 12
    assert twin["stats"]["capture"] == {"kernel_packets": 1024, "kernel_drops": 24}
    assert twin["stats"]["decoder"]["pkts"] == twin["stats"]["packets"] == 1000
    assert (twin["stats"]["drops"], twin["stats"]["gaps"], twin["stats"]["coverage"]) == (24, 1460, 0.97)


def test_a_line_is_one_line_and_comes_back_as_it_was() -> None:
    twin = event(replace(FINDING, target='hub\n"日本'))
    assert "\n" not in line(twin)
    assert json.loads(line(twin)) == twin


def test_an_attached_connection_points_to_its_session() -> None:
    twin = event(Attached(FINDING, SECOND))
    assert twin["event_type"] == "vpn_connection"
    assert twin["src_port"] == 1028
    assert twin["session"] == event(FINDING)["community_id"]


@pytest.mark.parametrize(
    ("one", "other", "wanted"),  # the specification's own examples
    [
        (("128.232.110.120", 34855), ("66.35.250.204", 80), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (
            ("2001:470:e5bf:dead:4957:2174:e82c:4887", 63943),
            ("2607:f8b0:400c:c03::1a", 25),
            "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
        ),
    ],
)
def test_community_id_version_1(one: tuple[str, int], other: tuple[str, int], wanted: str) -> None:
    assert community_id(end(*one), end(*other)) == wanted
    assert community_id(end(*other), end(*one)) == wanted


def test_community_id_with_a_seed() -> None:
    one, other = end("128.232.110.120", 34855), end("66.35.250.204", 80)
    assert community_id(one, other, seed=1) == "1:3V71V58M3Ksw/yuFALMcW0LAHvc="


EVENTS = {
    "alert": Eve("eth1").event(replace(FINDING, allowed=Allowed("a", "o", "r", "2030-01-01"), evidence_file="x.zip")),
    "alert of a file": event(replace(FINDING, verdict=Verdict.PROBABLE, target="hub:443")),
    "vpn_connection": event(Attached(FINDING, SECOND)),
    "flow": event(Ended(FINDING, SECOND, BEGIN + 3, "closed")),
    "counted flow": event(Ended(FINDING, SECOND, BEGIN + 3, "silent", to_server=1, to_client=2)),
    "vpn_end": event(Ended(FINDING, FINDING.connections[0], BEGIN, "capture_end", session=True)),
    "stats": Eve("eth1").stats(Stats(BEGIN, 3.0, findings={"softether TCP CONFIRMED": 3})),
}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_fits_the_schema(name: str) -> None:
    assert problems(json.loads(line(EVENTS[name]))) == []


@pytest.mark.parametrize("name", EVENTS)
def test_the_schema_knows_what_belongs_in_an_event(name: str) -> None:
    twin = EVENTS[name]
    for key in twin:
        assert problems({other: value for other, value in twin.items() if other != key}) or key == "in_iface", key
        assert problems(twin | {key: ["no such value"]}), key
    assert problems(twin | {"more": 1})


@pytest.mark.parametrize(("family", "outer", "verdict"), list(product(Family, Outer, Verdict)))
def test_every_kind_of_finding_fits_the_schema(family: Family, outer: Outer, verdict: Verdict) -> None:
    assert problems(event(replace(FINDING, family=family, outer=outer, verdict=verdict))) == []


def test_the_table_in_the_manual_has_every_signature() -> None:
    manual = (ROOT / "docs/alert-outputs.md").read_text()
    for kind in product(Family, Outer, Verdict):
        assert f"| {signature_id(*kind)} | {signature(*kind)} |" in manual
