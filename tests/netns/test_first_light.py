"""Hub and cards as a user runs them, on hosts of their own: what A1, A6, A12 to A15 promise, seen from outside."""

import json
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import peers
from lab.capture import Capture
from lab.flow import Probe, stream
from lab.net import Host, Net
from lab.raw import BROADCAST, Wire, crosses
from lab.ukihashi import Card, Hub, gateway
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

Lan = tuple[Hub, dict[str, Card]]  # and its cards by name
MARKER = b"a planted marker that nobody on the way may read"


def joined(net: Net, *names: str, own_interpreter: bool = False) -> Lan:
    """A hub on host `hub` and a card on each other host, all online."""
    machine, *hosts = net.lan("hub", *names)
    hub = Hub(machine)
    cards = {host.name: Card(host) for host in hosts}
    for installation in (hub, *cards.values()):
        installation.own_interpreter = own_interpreter
    hub.start()
    for name, card in cards.items():
        card.join(hub.invite(name))
    return hub, cards


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """Three cards at a hub, for tests that leave them online."""
    with Net() as net:
        yield joined(net, "a", "b", "c")


def test_every_kind_of_frame_crosses_and_the_hub_learns_where_stations_are(lan: Lan) -> None:
    hub, cards = lan
    a, b, c = (cards[name].host for name in "abc")
    for version in (4, 6):
        a.pings(cards["b"].address(version))  # ARP or neighbour discovery, then IP
        a.pings(gateway(cards["a"].address(version)))  # the hub's own host port
        hub.host.pings(cards["b"].address(version))
    with (
        Wire(a, cards["a"].interface()) as at_a,
        Wire(b, cards["b"].interface()) as at_b,
        Wire(c, cards["c"].interface()) as at_c,
    ):
        for head in (
            BROADCAST + at_a.mac + b"\x81\x00\x00\x0a\x88\xb5",  # VLAN 10
            BROADCAST + at_a.mac + b"\x9a\xbc",  # nobody knows this EtherType
            b"\x01\x00\x5e\x01\x02\x03" + at_a.mac + b"\x88\xb6",  # multicast
            at_b.mac + at_a.mac + b"\x88\xb6",  # a station the hub has learned
        ):
            crosses(at_a, at_b, head + bytes(range(60)))
        overheard = [frame for frame in at_c.frames(seconds=0.3) if frame[:6] == at_b.mac]
    assert overheard == []  # unicast to a learned station is not flooded
    learned = {row["mac"] for row in hub.mac_table()}
    assert {at_a.mac.hex(":"), at_b.mac.hex(":")} <= learned


def test_a_stream_passes_whole_and_in_large_writes(lan: Lan) -> None:
    _hub, cards = lan
    before = cards["a"].status()
    total = stream(cards["a"].host, cards["b"].host, cards["b"].address(4), seconds=2.0)
    after = cards["a"].status()
    assert total > 1_000_000
    sent = after["bytes_out"] - before["bytes_out"]
    writes = after["tls_writes"] - before["tls_writes"]
    assert sent >= 8 * 1514 * writes  # as super-frames or many at once


def test_a_reset_connection_is_replaced_and_the_card_stays(lan: Lan) -> None:
    hub, cards = lan
    a, b = cards["a"].host, cards["b"].host
    key = a.run(["cat", f"/sys/class/net/{cards['a'].interface()}/ifindex"])
    session = {row["user"]: row["session"] for row in hub.sessions()}["a"]
    with Probe(a, b, cards["b"].address(4)) as probe:
        cut = time.monotonic()
        hub.host.run(["ss", "-K", "state", "established", "sport", "=", ":443", "dst", a.ipv4])
        assert probe.flows_again(cut, seconds=30.0) < 30.0
    assert a.run(["cat", f"/sys/class/net/{cards['a'].interface()}/ifindex"]) == key
    assert session in {row["session"] for row in hub.sessions()}  # the same session, not a new login


def test_leaving_frees_everything(lan: Lan) -> None:
    hub, cards = lan
    a = cards["a"].host
    interface = cards["a"].interface()
    account = cards["a"].status()["account"]
    cards["a"].leave(account)
    assert not a.has_interface(interface)
    until(lambda: "a" not in {row["user"] for row in hub.sessions()}, seconds=30, what="the session ending")
    cards["a"].up(account)
    a.pings(cards["b"].address(4))


# -- what passes on the wire --------------------------------------------------------------------------------------


def payloads(path: Path) -> dict[tuple[str, str], bytes]:
    """Each direction of each TCP connection in a capture as the bytes that were sent, put in order by tshark."""
    out = subprocess.run(
        [
            *("tshark", "-r", str(path), "-o", "tcp.desegment_tcp_streams:FALSE", "-Y", "tcp.len > 0", "-T", "fields"),
            *("-e", "tcp.stream", "-e", "tcp.srcport", "-e", "tcp.seq", "-e", "tcp.payload"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    pieces: defaultdict[tuple[str, str], dict[int, bytes]] = defaultdict(dict)
    for line in out.splitlines():
        stream_number, port, begin, digits = line.split("\t")
        piece = bytes.fromhex(digits.replace(":", ""))
        known = pieces[stream_number, port].get(int(begin), b"")
        pieces[stream_number, port][int(begin)] = max(piece, known, key=len)
    whole = {}
    for key, found in pieces.items():
        data, at = b"", 1
        for sequence in sorted(found):
            assert sequence <= at, f"the capture misses bytes {at}..{sequence} of {key}"
            data += found[sequence][at - sequence :]
            at = max(at, sequence + len(found[sequence]))
        whole[key] = data
    return whole


def tls_records(data: bytes) -> int:
    """How many TLS records `data` is made of; fails if it is anything else (RFC 8446, section 5.1)."""
    at = count = 0
    while at < len(data):
        kind, major, minor = data[at], data[at + 1], data[at + 2]
        length = int.from_bytes(data[at + 3 : at + 5])
        assert kind in range(20, 24), f"no TLS record at byte {at}"
        assert (major, minor) in {(3, 1), (3, 3)}, f"no TLS version at byte {at}"
        assert length <= 16384 + 256
        at += 5 + length
        count += 1
    assert at == len(data), "the last record is cut"
    return count


@dataclass
class Life:
    """A card's whole life as it was recorded."""

    capture: Path
    keys: Path  # of its TLS
    hub: str  # address


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    """Join, a ping and frames that hold MARKER, leave."""
    with Net() as net:
        yield recorded(net)


def recorded(net: Net) -> Life:
    machine, host = net.lan("hub", "a")
    hub, card = Hub(machine), Card(host)
    hub.start()
    keys = host.folder / "keys"
    keys.touch(mode=0o666)
    keys.chmod(0o666)  # the card's process that speaks TLS has no rights
    card.env["SSLKEYLOGFILE"] = str(keys)
    with Capture(machine, "eth0", expression="tcp port 443") as capture:
        card.join(hub.invite("a"))
        target = gateway(card.address(4))
        host.run(["ping", "-c3", "-i0.2", "-s", str(len(MARKER)), "-p", MARKER[:16].hex(), target])
        with Wire(host, card.interface()) as wire:
            for _ in range(5):
                wire.send(BROADCAST + wire.mac + b"\x88\xb5" + MARKER)
        until(lambda: hub.sessions()[0]["frames_in"] >= 8, seconds=10, what="the frames arriving")
        card.leave(card.status()["account"])
    return Life(capture.path, keys, machine.ipv4)


@pytest.mark.peer("tshark", "tcpdump")
def test_all_communication_is_inside_tls(life: Life) -> None:
    assert MARKER not in life.capture.read_bytes()
    assert MARKER[:16] not in life.capture.read_bytes()
    directions = payloads(life.capture)
    assert len(directions) == 2  # one connection
    assert all(tls_records(data) > 5 for data in directions.values())


@pytest.mark.peer("tshark", "tcpdump")
def test_with_the_keys_the_first_bytes_are_an_http_request(life: Life) -> None:
    out = subprocess.run(
        ["tshark", "-r", str(life.capture), "-o", f"tls.keylog_file:{life.keys}", "-q", "-z", "follow,tls,ascii,0"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    said = [line for line in out.splitlines() if line.strip()]
    first = next(index for index, line in enumerate(said) if line.startswith("POST "))
    assert re.fullmatch(r"POST /vpnsvc/connect\.cgi HTTP/1\.1", said[first])
    assert any(re.fullmatch(rf"(?i)host: {re.escape(life.hub)}(:443)?", line) for line in said[first : first + 6])
    assert re.search(r"^\s*HTTP/1\.1 200 ", out, re.MULTILINE)


@pytest.mark.peer("curl")
def test_curl_alone_gets_the_page_and_the_hello(net: Net) -> None:
    machine, host = net.lan("hub", "a")
    hub = Hub(machine)
    hub.start()
    for address in (machine.ipv4, f"[{machine.ipv6}]"):
        for language in ("ja", "en"):
            argv = ["curl", "-sk", "-H", f"Accept-Language: {language}", f"https://{address}/", "-w", "%{content_type}"]
            page = host.run(argv)
            assert f'<html lang="{language}"' in page
            assert page.endswith("text/html; charset=utf-8")
    hello = host.folder / "hello"
    argv = ["curl", "-sk", "-X", "POST", "-H", "Content-Type: image/jpeg", "--data-binary", "VPNCONNECT"]
    host.run([*argv, "-o", hello, f"https://{machine.ipv4}/vpnsvc/connect.cgi"])
    assert b"ukihashi hub" in hello.read_bytes()
    assert b"random" in hello.read_bytes()


def test_a_join_is_quick_beside_a_thousand_silent_connections(net: Net) -> None:
    machine, host, silent = net.lan("hub", "a", "silent")
    hub, card = Hub(machine), Card(host)
    hub.start()
    link = hub.invite("a")
    script = (
        "import resource, socket, sys, time\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        f"held = [socket.create_connection(({machine.ipv4!r}, 443), timeout=20) for _ in range(1000)]\n"
        "print('all are open', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = silent.spawn(["python3", "-c", script], log="silent")
    holder.wait_for("all are open", seconds=30)
    card.join(link)
    assert card.status()["opened_in_s"] < 2.0  # from the first SYN to the welcome; A15 states this one time


# -- rights -------------------------------------------------------------------------------------------------------


def statuses(host: Host) -> dict[int, dict[str, str]]:
    """/proc/PID/status of every Python process on a host."""
    found = {}
    for pid in host.pids():
        text = Path(f"/proc/{pid}/status").read_text()
        fields = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
        if b"ukihashi" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found[pid] = fields
    return found


def test_processes_that_parse_the_network_have_no_rights(net: Net) -> None:
    hub, _cards = joined(net, "a", own_interpreter=True)  # as it is installed: what it reads before it gives up rights
    machine = hub.host
    worker = json.loads(hub.run("hub", "status", "--json"))["worker"]["pid"]
    fields = statuses(machine)[worker]
    assert "0" not in fields["Uid"].split()
    assert "0" not in fields["Gid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    card = statuses(net.host("a"))
    bare = [fields for fields in card.values() if int(fields["CapEff"], 16) == 0 and "0" not in fields["Uid"].split()]
    assert bare, "the card has no process without rights"


# -- a real client of others --------------------------------------------------------------------------------------


@pytest.mark.soak  # test_upgrade.py has the same, and goes on from there
@pytest.mark.peer("vpnclient", "vpncmd")
def test_the_official_client_joins_and_meets_our_card(net: Net) -> None:
    machine, host, windows = net.lan("hub", "a", "b")
    hub, card = Hub(machine), Card(host)
    hub.start()
    card.join(hub.invite("a"))
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    client = peers.Client(windows)
    client.start()
    own = card.address(4)
    theirs = ".".join([*own.split(".")[:3], "200"])
    client.create_account(
        "v1", server=machine.ipv4, port=443, hub="LAN", user="taro", password=made["password"], cidrs=[f"{theirs}/24"]
    )
    client.connect("v1")
    host.pings(theirs, seconds=30)
    windows.pings(own, seconds=30)
    assert {"a", "taro"} <= {row["user"] for row in hub.sessions()}
    client.disconnect("v1")
