"""The arithmetic of `./run bench alert`, what it does to captures, what it reads out of nDPI, what it prints."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import alert, alert_ndpi, alert_report
from bench.alert_conditions import BLIND, CONDITIONS, LOSS, begin_unseen, blind, lossy, one_sided, rewritten, segment
from lab.look_alikes.pcap import Packet, read
from ukihashi.detect.record import Finding, Verdict

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "corpus"
SESSION = CORPUS / "se-d443-reconnect.pcap.gz"
NOTHING = CORPUS / "ng-wss-5s.pcap.gz"


# -- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "of", "low", "high"),
    [  # computed with R: binom.confint(found, of, methods = "wilson")
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (97, 100, 0.9155, 0.9897),
        (1, 2, 0.0945, 0.9055),
        (0, 0, 0.0, 1.0),
    ],
)
def test_intervals_are_wilsons(found: int, of: int, low: float, high: float) -> None:
    assert alert_report.interval(found, of) == pytest.approx((low, high), abs=5e-5)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert alert_report.median([9.0, 1.0, 2.0, 4.0]) == 3.0
    assert alert_report.median([5.0, 1.0, 2.0]) == 2.0
    assert alert_report.median([]) is alert_report.worst([]) is None
    assert alert_report.worst([1.0, 7.0, 2.0]) == 7.0


@pytest.fixture(scope="module")
def finding() -> Finding:
    return alert.judge(SESSION)[0][0]


def label(name: str, kind: str, expect: int, path: Path = SESSION) -> alert.Label:
    return alert.Label(path, name, kind, (), "", expect, "")


def entered(*entries: tuple[alert.Label, Sequence[Finding]]) -> alert.Table:
    table = alert.Table()
    for one, findings in entries:
        alert.enter(table, one, findings)
    return table


def test_sessions_count_once_and_only_of_the_right_family(finding: Finding) -> None:
    unsure = replace(finding, verdict=Verdict.PROBABLE)
    sure_now = replace(finding, again=True)
    table = entered(
        (label("softether", "direct", 2), [finding]),
        (label("softether", "direct", 1), [unsure, sure_now]),
        (label("softether", "direct", 1), [unsure]),
        (label("ukihashi", "direct", 1), [finding]),
        (label("softether", "direct", 1), [finding, finding]),
    )
    ours, theirs = table.rows()[1], table.rows()[0]
    assert (theirs["n"], theirs["flagged"], theirs["confirmed"]) == (5, 4, 3)
    assert (ours["n"], ours["flagged"], ours["confirmed"], ours["delay_s"]) == (1, 0, 0, None)
    assert table.recall("direct") == (3, 6, 1)
    assert len(table.missed) == 3
    assert len(table.doubled) == 1


def test_a_line_on_harmless_traffic_is_a_false_alarm_but_on_an_imitation_it_is_told_apart(finding: Finding) -> None:
    unsure = replace(finding, verdict=Verdict.PROBABLE)
    table = entered(
        (label("other", "tls", 0), [finding]),
        (label("foreign", "", 0), [unsure]),
        (label("other", "ssh", 0), []),
        (label(alert.IMITATION, "tls", 0), [finding]),
    )
    assert table.harmless() == {"n": 3, "flagged": 2, "confirmed": 1}
    assert len(table.false_alarms) == len(table.probable_on_others) == len(table.imitations) == 1
    assert table.rows() == []


def test_ends_and_kind_are_compared(finding: Finding) -> None:
    right = alert.Label(SESSION, "softether", "direct", (str(finding.client),), str(finding.server), 1, "")
    assert entered((right, [finding])).wrong_ends == []
    assert entered((right, [finding])).wrong_transport == []
    assert len(entered((right._replace(server="192.0.2.1:443"), [finding])).wrong_ends) == 1
    assert len(entered((right._replace(transport="socks"), [finding])).wrong_transport) == 1


# -- what is done to captures -----------------------------------------------------------------------------------------


def tcp(
    source: int, target: int, flags: int = 0x18, payload: bytes = b"", tag: bytes = b"", v6: bool = False
) -> Packet:
    """Ports below 1000 are on the server's address."""
    hosts = [bytes([10, 0, 0, 1 if port < 1000 else 2]) * (4 if v6 else 1) for port in (source, target)]
    head = source.to_bytes(2) + target.to_bytes(2) + bytes(8) + bytes([0x50, flags]) + bytes(6)
    body = head + payload
    if v6:
        ip = b"\x60\0\0\0" + len(body).to_bytes(2) + b"\x06\x40" + hosts[0] + hosts[1]
    else:
        ip = b"\x45\0" + (20 + len(body)).to_bytes(2) + bytes(5) + b"\x06\0\0" + hosts[0] + hosts[1]
    data = bytes(12) + tag + (b"\x86\xdd" if v6 else b"\x08\0") + ip + body
    return Packet(1.0, len(data), data)


@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\x05", b"\x88\xa8\0\x05\x81\0\0\x06"])
@pytest.mark.parametrize("v6", [False, True])
def test_one_direction_is_by_who_opened_and_by_ports_where_nobody_saw_it(tag: bytes, v6: bool) -> None:
    opened = [
        tcp(22, 40000, 0x02, tag=tag, v6=v6),
        tcp(40000, 22, 0x12, tag=tag, v6=v6),
        tcp(22, 40000, tag=tag, v6=v6),
    ]
    unseen = [tcp(50000, 443, tag=tag, v6=v6), tcp(443, 50000, tag=tag, v6=v6)]
    other = Packet(1.0, 60, bytes(12) + b"\x08\x06" + bytes(46))
    kept = one_sided([*opened, *unseen, other], toward_server=True)
    assert kept == [opened[0], opened[2], unseen[0], other]
    assert one_sided([*opened, *unseen, other], toward_server=False) == [opened[1], unseen[1], other]


def test_loss_takes_its_share_the_same_each_time() -> None:
    packets = [tcp(40000, 443, payload=number.to_bytes(4)) for number in range(4000)]
    kept = lossy(packets, seed="a")
    assert kept == lossy(packets, seed="a") != lossy(packets, seed="b")
    assert (1 - LOSS) * 4000 - 60 < len(kept) < (1 - LOSS) * 4000 + 60
    assert [one for one in packets if one in set(kept)] == kept


def test_a_capture_that_begins_later_has_what_came_later() -> None:
    packets = [tcp(40000, 443)._replace(time=100.0 + second) for second in range(30)]
    assert begin_unseen(packets) == packets[15:]
    assert begin_unseen([]) == []


def test_blind_changes_ports_and_everything_encrypted_and_nothing_else() -> None:
    hello = b"\x16\x03\x01\x01\x00hello"
    secret = b"\x17\x03\x03\x00\x40" + b"secret" * 20
    packets = [
        tcp(40000, 443, 0x02), tcp(443, 40000, 0x12), tcp(40000, 443, payload=b"CONNECT x:1 HTTP/1.1\r\n\r\n"),
        tcp(443, 40000, payload=b"HTTP/1.1 200 ok\r\n\r\n"), tcp(40000, 443, payload=hello),
        tcp(40000, 443, payload=b"its end"), tcp(443, 40000, payload=hello), tcp(40000, 443, payload=secret),
        tcp(443, 40000, payload=secret), tcp(41000, 443, payload=secret),
    ]  # fmt: skip
    changed = blind(packets, seed="a")
    assert changed == blind(packets, seed="a")
    assert [one.data[54:] for one in changed[:7]] == [one.data[54:] for one in packets[:7]]
    for before, after in zip(packets[7:], changed[7:], strict=True):
        assert len(before.data) == len(after.data)
        assert before.data[54:] != after.data[54:]
    seen = [segment(one) for one in changed]
    ports = {one.target[1] for one in seen if one is not None and one.target[0][3] == 1}
    assert len(ports) == 1  # the server's port is the same for both connections
    assert ports.isdisjoint({443})
    for before, after in zip(packets, changed, strict=True):
        assert before.data[:34] == after.data[:34]
        assert before.data[38:54] == after.data[38:54]


def test_every_condition_leaves_a_capture_that_can_be_judged(tmp_path: Path) -> None:
    whole = len(read(NOTHING))
    for name, change in CONDITIONS.items():
        if change is None:
            continue
        path = rewritten(NOTHING, change, tmp_path)
        packets = read(path)
        assert 0 < len(packets) <= whole
        assert (len(packets) == whole) is (name == BLIND)
        findings, judged, trouble = alert.judge(path)
        assert findings == []
        assert trouble == ""
        assert judged.packets == len(packets)


# -- nDPI -------------------------------------------------------------------------------------------------------------

SAID = """
Detected protocols:
	TLS                  packets: 10            bytes: 100           flows: 1
	1	TCP 10.0.0.1:4 <-> 10.0.0.2:443 [proto: 91/TLS][Encrypted][Confidence: DPI][cat: Web/5][1 pkts]
	2	UDP 10.0.0.1:4 <-> 10.0.0.2:53 [proto: 5.126/DNS.Google][Confidence: DPI][cat: Network/14][1 pkts]
"""


def test_names_of_flows_are_read_and_tunnels_known() -> None:
    plain = alert_ndpi.parse(SAID)
    assert plain == (("TLS", "DNS.Google"), False, False)
    vpn = "\t1\tTCP 10.0.0.1:4 <-> 10.0.0.2:443 [proto: 159/OpenVPN][Encrypted][cat: VPN/2][1 pkts]\n"
    assert alert_ndpi.parse(SAID + vpn) == (("TLS", "DNS.Google", "OpenVPN"), True, False)
    assert alert_ndpi.parse(vpn.replace("159/OpenVPN", "91.290/TLS.SoftEther").replace("VPN/2", "Web/5"))[1:] == (
        True,
        True,
    )
    assert not alert_ndpi.parse(vpn.replace("OpenVPN", "Victoria").replace("cat: VPN/2", "cat: Web/5")).vpn


# -- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with one session and one harmless capture."""
    with (CORPUS / "labels.csv").open(newline="", encoding="utf-8") as source:
        rows = [row for row in csv.DictReader(source) if row["file"] in (SESSION.name, NOTHING.name)]
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for path in (SESSION, NOTHING):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_json_has_what_is_promised(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alert_ndpi, "missing", lambda: "libndpi-bin")
    assert alert.main([str(small), "--json", str(small / "out.json")]) == 0
    result = json.loads((small / "out.json").read_text())
    assert set(result) == {"rows", "benign", "mpps", "conditions", "mutations", "ndpi"}
    assert [set(row) for row in result["rows"]] == [{"kind", "family", "n", "flagged", "confirmed", "delay_s"}]
    assert (result["rows"][0]["kind"], result["rows"][0]["family"]) == ("direct", "softether")
    assert result["rows"][0]["n"] == result["rows"][0]["confirmed"]
    assert result["benign"] == {"n": 1, "flagged": 0, "confirmed": 0}
    assert set(result["conditions"]) == set(CONDITIONS)
    assert "direct      softether" in capsys.readouterr().out
    result["mpps"] = {"ukihashi": 2.25, "tshark": {"skipped": "not installed"}}
    result["mutations"] = [{"family": "softether", "change": "no padding", "sessions": 3, "flagged": 2, "confirmed": 1}]
    assert "ukihashi: 2.25" in alert_report.extras(result)
    about = {"date": "2026-01-01", "commit": "abc", "machine": "a machine"}
    page = alert_report.page(result, about, fresh=0, folders=["corpus"])
    assert page.count("| direct | softether |") == len(CONDITIONS)
    assert "| softether | no padding | 3 | 2 | 1 |" in page
    assert "ukihashi: 2.25" in page
    assert page.count("| no tunnel | (captures) | 1 | 0 | 0 |") == len(CONDITIONS)


def test_a_false_alarm_is_the_exit_status(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_ndpi, "missing", lambda: "libndpi-bin")
    monkeypatch.setattr(alert, "CONDITIONS", {"full": None})
    text = (small / "labels.csv").read_text().replace(f"{SESSION.name},softether", f"{SESSION.name},other")
    (small / "labels.csv").write_text(text)
    assert alert.main([str(small)]) == 1
