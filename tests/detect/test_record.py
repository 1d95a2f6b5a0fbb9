from dataclasses import replace
from datetime import timedelta, timezone
from ipaddress import ip_address

import pytest

from ukihashi.detect.features import Outer
from ukihashi.detect.record import (
    Attached,
    Connection,
    Endpoint,
    Family,
    Finding,
    Reason,
    Verdict,
    community_id,
    event,
    log_line,
)

TOKYO = timezone(timedelta(hours=9))
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


def test_the_line_of_2004_byte_for_byte() -> None:
    assert log_line(FINDING, zone=TOKYO, classic=True) == (
        "[2004/08/28 20:01:00] SoftEther 1.0 TCP Connection Detected"
        " (client 192.168.126.229:1027, server 61.197.235.210:7777)"
    )
    ssh = replace(
        FINDING,
        outer=Outer.SSH,
        begin=BEGIN + 8059,
        client=end("192.168.126.229", 1108),
        server=end("130.158.86.23", 22),
    )
    assert log_line(ssh, zone=TOKYO, classic=True) == (
        "[2004/08/28 22:15:19] SoftEther 1.0 SSH Connection Detected"
        " (client 192.168.126.229:1108, server 130.158.86.23:22)"
    )


@pytest.mark.parametrize(("family", "label"), [(Family.SOFTETHER, "SoftEther VPN"), (Family.UKIHASHI, "ukihashi")])
@pytest.mark.parametrize(
    ("outer", "word"),
    [(Outer.TCP, "TCP"), (Outer.HTTP, "HTTP Proxy"), (Outer.SOCKS, "SOCKS Proxy"), (Outer.SSH, "SSH")],
)
def test_labels_and_transports(family: Family, label: str, outer: Outer, word: str) -> None:
    line = log_line(replace(FINDING, family=family, outer=outer), zone=TOKYO)
    assert line == (
        f"[2004/08/28 20:01:00] {label} {word} Connection Detected"
        " (client 192.168.126.229:1027, server 61.197.235.210:7777)"
    )
    classic = log_line(replace(FINDING, family=family, outer=outer), zone=TOKYO, classic=True)
    assert classic == line.replace(label, "SoftEther 1.0", 1)


def test_ipv6_is_written_in_brackets() -> None:
    finding = replace(FINDING, client=end("fd77::10:2", 39928), server=end("fd77::c8:2", 443))
    assert log_line(finding, zone=TOKYO).endswith("(client [fd77::10:2]:39928, server [fd77::c8:2]:443)")


def test_what_is_only_probable_says_so_behind_the_line() -> None:
    line = log_line(replace(FINDING, verdict=Verdict.PROBABLE), zone=TOKYO)
    assert line == log_line(FINDING, zone=TOKYO) + " verdict=PROBABLE"


def test_the_json_twin_carries_time_zone_evidence_and_community_id() -> None:
    twin = event(replace(FINDING, outer=Outer.HTTP, target="hub.example.jp:443"))
    assert twin["timestamp"] == "2004-08-28T11:01:00.500000+0000"
    assert (twin["event_type"], twin["proto"]) == ("vpn", "TCP")
    assert (twin["src_ip"], twin["src_port"]) == ("192.168.126.229", 1027)
    assert (twin["dest_ip"], twin["dest_port"]) == ("61.197.235.210", 7777)
    assert twin["vpn"] == {
        "family": "softether",
        "transport": "HTTP Proxy",
        "target": "hub.example.jp:443",
        "verdict": "CONFIRMED",
        "decided": "2004-08-28T11:01:02.000000+0000",
        "rule": "1",
        "score": 15.0,
        "reasons": [{"name": "login dialogue", "score": 8.8}, {"name": "further connection", "score": 6.2}],
        "evidence": {
            "turn_bytes": [517, 1434, 2700, 900, 3100, 2500],
            "keepalive_gaps_s": [4.125],
            "keepalive_bytes": [300],
            "connections": [{"src_port": 1027, "begin": "2004-08-28T11:01:00.500000+0000"}],
            "capture_lost_bytes": 0,
        },
    }


def test_an_attached_connection_points_to_its_session() -> None:
    twin = event(Attached(FINDING, Connection(end("192.168.126.229", 1028), BEGIN + 1)))
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
