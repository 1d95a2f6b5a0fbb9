from dataclasses import replace
from datetime import timedelta, timezone
from ipaddress import ip_address

import pytest

from ukihashi.detect.features import Outer
from ukihashi.detect.record import (
    Connection,
    Endpoint,
    Family,
    Finding,
    Reason,
    Verdict,
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
