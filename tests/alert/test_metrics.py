"""Prometheus' text format, over HTTP; no client can harm it."""

import contextlib
import http.client
import re
import socket
from collections.abc import Iterator

import pytest

from ukihashi import __version__
from ukihashi.alert.eve import Stats
from ukihashi.alert.metrics import TYPE, Metrics, text
from ukihashi.errors import EnvironmentLacks

STATS = Stats(
    1_700_000_000.0,
    61.5,
    packets=1000,
    drops=3,
    gaps=1460,
    coverage=0.997,
    flows=5,
    flows_total=9,
    findings={"softether HTTP Proxy CONFIRMED": 2, "ukihashi TCP CONFIRMED allowed": 1},
)
LINE = re.compile(r'(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+({[a-z]+="[^"]*"(,[a-z]+="[^"]*")*})? [0-9.]+)')


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics("127.0.0.1", 0, ("eth1",))
    yield made
    made.close()


def get(metrics: Metrics, path: str, method: str = "GET") -> tuple[int, str | None, str]:
    host, port = metrics.address
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as client:
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


def test_the_text_has_every_counter_and_each_line_is_well_formed() -> None:
    page = text(STATS, ["eth1"])
    assert [line for line in page.splitlines() if not LINE.fullmatch(line)] == []
    assert page.endswith("\n")
    for line in (
        "ukihashi_alert_packets_total 1000",
        "ukihashi_alert_dropped_packets_total 3",
        "ukihashi_alert_gap_bytes_total 1460",
        "ukihashi_alert_coverage_ratio 0.997",
        "ukihashi_alert_flows 5",
        "ukihashi_alert_uptime_seconds 61.5",
        'ukihashi_alert_findings_total{family="softether",transport="HTTP Proxy",verdict="CONFIRMED",allowed="no"} 2',
        'ukihashi_alert_findings_total{family="ukihashi",transport="TCP",verdict="CONFIRMED",allowed="yes"} 1',
    ):
        assert line in page.splitlines()
    assert f'ukihashi_alert_build_info{{version="{__version__}",python=' in page


def test_a_label_may_hold_any_text() -> None:
    assert 'cards="a\\"b\\\\c\\nd"' in text(None, ['a"b\\c\nd'])


def test_it_answers_over_http(metrics: Metrics) -> None:
    status, kind, page = get(metrics, "/metrics")
    assert (status, kind, "packets_total" in page) == (200, TYPE, False)
    metrics.count(STATS)
    assert "ukihashi_alert_packets_total 1000\n" in get(metrics, "/metrics?x=1")[2]
    assert get(metrics, "/metrics", "HEAD")[2] == ""
    assert get(metrics, "/")[0] == 404
    assert get(metrics, "/metrics", "POST")[0] == 501


def test_rubbish_and_clients_that_break_off_are_nothing(metrics: Metrics) -> None:
    for data in (b"\x16\x03\x01\0\0", b"GET /metrics HTTP/1.1\r\n", b"GET " + b"x" * 100_000 + b"\r\n\r\n"):
        with contextlib.suppress(OSError), contextlib.closing(socket.create_connection(metrics.address)) as client:
            client.sendall(data)
    assert get(metrics, "/metrics")[0] == 200


def test_a_port_that_is_taken_or_an_address_of_others_is_one_sentence(metrics: Metrics) -> None:
    for address in (metrics.address, ("192.0.2.1", 9719)):
        with pytest.raises(EnvironmentLacks, match=r"metrics can't be offered at"):
            Metrics(*address)


def test_ipv6() -> None:
    made = Metrics("::1", 0)
    assert get(made, "/metrics")[0] == 200
    made.close()
