"""The doctor sees what is wrong, says so in one line each, and leaves no trace."""

import contextlib
import datetime as dt
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from lab.net import Net
from lab.ukihashi import Card, Hub
from ukihashi.config import places
from ukihashi.errors import EnvironmentLacks
from ukihashi.ops import doctor, doctor_firewall, doctor_machine, doctor_network, doctor_state
from ukihashi.ops.doctor import Answer, Check, Finding, Level, Look
from ukihashi.ops.report import write_report
from ukihashi.pki import ca
from ukihashi.store.db import Database

ACCOUNT = """
[hub]
host = "hub.example"
hub = "LAN"
user = "ann"
[trust]
mode = "ca"
[login]
method = "anonymous"
[interface]
name = "uklan"
mac = "02:00:00:00:00:05"
addresses = ["10.81.7.2/24"]
"""


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (places.STATE, places.RUNTIME, places.CONFIG):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture
def fake(tmp_path: Path) -> Look:
    """A machine that is nothing but empty folders."""
    for name in ("proc", "sys", "dev", "etc", "run", "bin"):
        (tmp_path / name).mkdir()
    return Look(
        root=True,
        proc=tmp_path / "proc",
        sys=tmp_path / "sys",
        dev=tmp_path / "dev",
        etc=tmp_path / "etc",
        run=tmp_path / "run",
        search=str(tmp_path / "bin"),
    )


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def program(look: Look, name: str, script: str) -> None:
    """A program of the system's, as a shell script."""
    put(Path(look.search) / name, f"#!/bin/sh\n{script}\n", 0o755)


def told(check: Check, look: Look) -> list[tuple[Level, str]]:
    return [(answer.level, answer.template.format(**answer.values)) for answer in check(look)]


def only(check: Check, look: Look) -> tuple[Level, str]:
    (one,) = told(check, look)
    return one


# -- how checks are made ----------------------------------------------------------------------------------------------


def test_a_check_that_hangs_is_given_up_and_the_others_are_made() -> None:
    forever = threading.Event()

    def hangs(_look: Look) -> Iterator[Answer]:
        forever.wait(30)
        yield doctor.ok("late")

    def lacks(_look: Look) -> Iterator[Answer]:
        yield doctor.ok("one")
        raise EnvironmentLacks("no {what}", what="tool")

    begin = time.monotonic()
    found = list(doctor.examine(Look(), {"a": hangs, "b": lacks}, deadline_s=0.2))
    forever.set()
    assert time.monotonic() - begin < 10
    assert [(one.name, one.level) for one in found] == [("a", Level.WARN), ("b", Level.OK), ("b", Level.SKIP)]
    assert str(found[2].sentence) == "could not be looked at: no tool"


def test_a_fault_of_ours_is_not_hidden() -> None:
    def wrong(_look: Look) -> Iterator[Answer]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        list(doctor.examine(Look(), {"a": wrong}))


def test_the_worst_counts() -> None:
    def findings(*levels: Level) -> list[Finding]:
        return [Finding("a", level, "b") for level in levels]

    assert doctor.worst(findings(Level.OK, Level.SKIP)) is Level.OK
    assert doctor.worst(findings(Level.WARN, Level.SKIP)) is Level.WARN
    assert doctor.worst(findings(Level.WARN, Level.FAIL, Level.OK)) is Level.FAIL


@pytest.mark.parametrize("root", [True, False])
def test_every_check_says_something_of_an_empty_machine(fake: Look, root: bool) -> None:
    look = Look(root=root, proc=fake.proc, sys=fake.sys, dev=fake.dev, etc=fake.etc, run=fake.run, search=fake.search)
    known = doctor.checks()
    found = list(doctor.examine(look, known))
    assert {one.name for one in found} == set(known)
    assert all(str(one.sentence) for one in found)


def test_somebody_who_is_not_root_gets_answers_too(needs_root: None, tmp_path: Path) -> None:
    put(places.card_config("lan"), ACCOUNT, 0o600)
    tmp_path.chmod(0o700)
    known = doctor.checks()
    os.seteuid(65534)
    try:
        found = list(doctor.examine(Look(), known))
    finally:
        os.seteuid(0)
    assert {one.name for one in found} == set(known)
    levels = {one.name: one.level for one in found}
    assert levels["rights"] is Level.WARN
    assert levels["firewall"] is Level.SKIP


# -- the machine ------------------------------------------------------------------------------------------------------


def test_root_without_the_right_to_change_the_network(fake: Look) -> None:
    status = put(fake.proc / "self/status", "Name:\tx\nCapEff:\t00000000a80425fb\n")
    assert only(doctor_machine.rights, fake)[0] is Level.FAIL
    status.write_text("CapEff:\t000001ffffffffff\n")
    assert only(doctor_machine.rights, fake)[0] is Level.OK


def test_a_machine_without_tun(fake: Look) -> None:
    level, text = only(doctor_machine.tun, fake)
    assert level is Level.FAIL
    assert "modprobe tun" in text


def test_tun_and_the_kernel_of_this_machine(needs_root: None) -> None:
    before = socket.if_nameindex()
    assert only(doctor_machine.tun, Look())[0] is Level.OK
    assert only(doctor_machine.kernel, Look())[0] in {Level.OK, Level.WARN}
    assert socket.if_nameindex() == before


def test_nftables_is_asked_and_nothing_comes_of_it(net: Net) -> None:
    host = net.host("a")
    with host.inside():
        assert only(doctor_machine.nftables, Look())[0] is Level.OK
    assert "ukihashi-check" not in host.run(["nft", "list", "ruleset"])


def test_nftables_that_refuses_or_is_not_there(fake: Look) -> None:
    assert "apt install nftables" in only(doctor_machine.nftables, fake)[1]
    program(fake, "nft", "cat >/dev/null; echo 'Error: Could not process rule: Not supported' >&2; exit 1")
    level, text = only(doctor_machine.nftables, fake)
    assert level is Level.WARN
    assert "Not supported" in text


def test_ipv6_that_is_off(fake: Look) -> None:
    assert only(doctor_machine.ipv6, fake)[0] is Level.WARN
    put(fake.proc / "net/if_inet6", "")
    assert only(doctor_machine.ipv6, fake)[0] is Level.OK
    put(fake.proc / "sys/net/ipv6/conf/all/disable_ipv6", "1\n")
    assert only(doctor_machine.ipv6, fake)[0] is Level.WARN


def test_a_congestion_control_that_the_kernel_lacks(fake: Look) -> None:
    put(fake.proc / "sys/net/ipv4/tcp_available_congestion_control", "reno cubic\n")
    put(places.hub_config(), 'congestion = "bbr"\n')
    level, text = only(doctor_machine.congestion, fake)
    assert level is Level.WARN
    assert "modprobe tcp_bbr" in text


def test_a_processor_without_aes(fake: Look) -> None:
    cpu = put(fake.proc / "cpuinfo", "processor : 0\nFeatures : fp asimd\n")
    assert any("ChaCha20" in text for _level, text in told(doctor_machine.tls, fake))
    cpu.write_text("flags\t: fpu aes avx\n")
    assert not any("ChaCha20" in text for _level, text in told(doctor_machine.tls, fake))


def test_a_clock_before_its_time(fake: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ukihashi.ops.doctor_machine.time.time", lambda: 86_400.0)
    assert only(doctor_machine.clock, fake) == (
        Level.FAIL,
        "the clock says 1970-01-02, which can't be: certificates will not be valid; set it (timedatectl set-time)",
    )


def test_little_memory_and_much_of_it_promised(fake: Look) -> None:
    meminfo = put(fake.proc / "meminfo", "MemTotal:  1048576 kB\nMemAvailable:  20480 kB\n")
    assert only(doctor_machine.memory, fake)[0] is Level.WARN
    meminfo.write_text("MemTotal:  1048576 kB\nMemAvailable:  900000 kB\n")
    assert only(doctor_machine.memory, fake)[0] is Level.OK
    put(places.hub_config(), "[resume]\nmemory_mib = 600\n")
    level, text = only(doctor_machine.memory, Look(root=True, proc=fake.proc, sys=fake.sys))
    assert level is Level.WARN
    assert "1024" in text
    put(fake.sys / "fs/cgroup/memory.max", str(50 << 20))
    assert "50 MiB of 50 MiB" in only(doctor_machine.memory, fake)[1]


# -- our own files ----------------------------------------------------------------------------------------------------


def test_settings_and_accounts_that_are_wrong(fake: Look) -> None:
    put(places.hub_config(), "lissten = 443\n")
    level, text = only(doctor_state.settings, fake)
    assert level is Level.FAIL
    assert "did you mean listen?" in text
    put(places.card_config("lan"), ACCOUNT, 0o600)
    put(places.card_config("open"), ACCOUNT, 0o644)
    put(places.card_config("bad"), "[hub]\n", 0o600)
    found = told(doctor_state.accounts, fake)
    assert [level for level, _text in found] == [Level.FAIL, Level.WARN]
    assert "chmod 600" in found[1][1]


def test_a_certificate_that_has_ended_and_a_key_that_is_open(fake: Look) -> None:
    assert only(doctor_state.certificate, fake)[0] is Level.SKIP
    folder = places.state_dir() / "pki"
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=ca.LIFE_DAYS + 1)
    made = ca.load_or_make(folder, name="hub", now=long_ago)
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    level, text = only(doctor_state.certificate, fake)
    assert level is Level.FAIL
    assert str(made.not_after.date()) in text
    made.key.chmod(0o644)
    assert [level for level, _text in told(doctor_state.certificate, fake)] == [Level.FAIL, Level.FAIL]
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before
    assert made.key.stat().st_mode & 0o777 == 0o644


@pytest.fixture
def database(fake: Look) -> Path:
    path = fake.database
    path.parent.mkdir(parents=True)
    with contextlib.closing(Database(path)):
        pass
    return path


def test_a_database_is_looked_at_without_a_trace(fake: Look, database: Path) -> None:
    names = sorted(path.name for path in database.parent.iterdir())
    assert only(doctor_state.database, fake)[0] is Level.OK
    assert sorted(path.name for path in database.parent.iterdir()) == names
    with contextlib.closing(Database(database)) as live:
        add_hub(live, "LAN", "10.81.7.0/24")
        assert only(doctor_state.database, fake)[0] is Level.OK
        assert [hub.name for hub in doctor_network.virtual_hubs(fake)] == ["LAN"]
        add_hub(live, "TWO", "10.81.8.0/24")


def test_a_database_that_is_damaged(fake: Look, database: Path) -> None:
    data = bytearray(database.read_bytes())
    data[4096:12288] = bytes(8192)
    database.write_bytes(data)
    level, text = only(doctor_state.database, fake)
    assert level is Level.FAIL
    assert str(database) in text
    database.write_bytes(b"nothing of the kind")
    assert only(doctor_state.database, fake)[0] is Level.FAIL


def test_a_database_of_a_newer_version(fake: Look, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 999")
    assert "999" in only(doctor_state.database, fake)[1]


def test_a_socket_that_nobody_listens_on(fake: Look) -> None:
    path = places.hub_socket()
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert told(doctor_state.daemons, fake)[0][0] is Level.FAIL
    path.unlink()
    assert only(doctor_state.daemons, fake) == (Level.OK, "neither hub nor card is running")


def test_reports_of_the_last_week(fake: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert only(doctor_state.reports, fake)[0] is Level.OK
    path = write_report(ValueError("x"))
    assert path is not None
    level, text = only(doctor_state.reports, fake)
    assert level is Level.WARN
    assert str(path) in text
    os.utime(path, (0, 0))
    assert only(doctor_state.reports, fake)[0] is Level.OK


def test_units_that_failed(fake: Look) -> None:
    assert only(doctor_state.units, fake)[0] is Level.SKIP
    (fake.run / "systemd/system").mkdir(parents=True)
    rows = (
        "Id=ukihashi-hub.service\nActiveState=failed\nNRestarts=1\nNeedDaemonReload=no\nUnitFileState=enabled\n\n"
        "Id=ukihashi-card@lan.service\nActiveState=active\nNRestarts=9\nNeedDaemonReload=yes\nUnitFileState=enabled\n"
    )
    program(fake, "systemctl", f"cat <<'TEXT'\n{rows}\nTEXT")
    levels = [level for level, _text in told(doctor_state.units, fake)]
    assert levels == [Level.FAIL, Level.WARN, Level.WARN, Level.OK]


# -- the network ------------------------------------------------------------------------------------------------------


def test_who_has_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        put(places.hub_config(), f'listen = ["127.0.0.1:{server.getsockname()[1]}"]\n')
        level, text = only(doctor_network.port, Look())
        assert level in {Level.FAIL, Level.OK}  # this process may well be called ukihashi, by its folder
        assert f"(pid {os.getpid()})" in text or level is Level.OK
    assert "is free" in only(doctor_network.port, Look())[1]


def test_a_port_of_somebody_else(fake: Look) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n"
    put(fake.proc / "net/tcp", head + row)
    assert only(doctor_network.port, fake)[0] is Level.SKIP
    (fake.proc / "99/fd").mkdir(parents=True)
    (fake.proc / "99/fd/3").symlink_to("socket:[4711]")
    put(fake.proc / "99/comm", "nginx\n")
    put(fake.proc / "99/cmdline", "nginx: master process\0")
    assert only(doctor_network.port, fake)[0] is Level.WARN
    put(places.hub_config(), "")
    again = Look(root=True, proc=fake.proc)
    level, text = only(doctor_network.port, again)
    assert level is Level.FAIL
    assert "nginx (pid 99)" in text
    put(fake.proc / "99/cmdline", "/usr/bin/python3\0/usr/bin/ukihashi\0hub\0serve\0")
    assert only(doctor_network.port, Look(root=True, proc=fake.proc))[0] is Level.OK


def add_hub(db: Database, name: str, subnet: str) -> None:
    db.insert(
        "INSERT INTO hubs (name, key, subnet4, subnet6, host_port, created_at) VALUES (?, ?, ?, ?, ?, 0)",
        (name, name.lower(), subnet, f"fd00:{len(subnet) + ord(name[0]):x}::/64", f"uk{name.lower()}"),
    )


ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t0007510A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "uklan\t0007510A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)


def test_routes_are_read_as_the_kernel_writes_them(fake: Look, net: Net) -> None:
    put(fake.proc / "net/route", ROUTES)
    found = [(way.interface, str(way.network)) for way in doctor_network.ways(fake)]
    assert found == [("eth0", "0.0.0.0/0"), ("eth0", "10.81.7.0/24"), ("uklan", "10.81.7.0/24")]
    a, _b = net.lan("a", "b")
    a.ip("route add 10.9.0.0/16 via 10.77.1.2")
    a.ip("-6 route add fd09::/48 via fd77:0:0:1::2")
    shown = put(fake.proc / "net/route", a.run(["cat", "/proc/net/route"]))
    put(fake.proc / "net/ipv6_route", a.run(["cat", "/proc/net/ipv6_route"]))
    ways = {(way.interface, str(way.network)) for way in doctor_network.ways(fake)}
    assert {("eth0", "10.9.0.0/16"), ("eth0", "fd09::/48"), ("eth0", "10.77.1.0/24")} <= ways
    assert shown.exists()


def test_addresses_that_clash(fake: Look, database: Path) -> None:
    put(fake.proc / "net/route", ROUTES.replace("0007510A\t00000000\t0001", "0008510A\t00000000\t0001"))
    with contextlib.closing(Database(database)) as db:
        add_hub(db, "LAN", "10.81.7.0/24")
    assert only(doctor_network.subnets, fake)[0] is Level.OK
    put(fake.proc / "net/route", ROUTES)
    level, text = only(doctor_network.subnets, fake)
    assert level is Level.WARN
    assert "hub LAN has 10.81.7.0/24, and eth0" in text
    put(fake.proc / "net/route", "")
    put(places.card_config("lan"), ACCOUNT, 0o600)
    again = Look(root=True, proc=fake.proc, sys=fake.sys)
    assert only(doctor_network.subnets, again)[1].startswith("card lan and hub LAN both have 10.81.7.0/24")
    assert not doctor_network.overlap(ip_network("fd00::/8"), ip_network("10.0.0.0/8"))


def test_a_machine_that_passes_packets_on_unasked(fake: Look, database: Path) -> None:
    assert only(doctor_network.forwarding, fake)[0] is Level.OK
    with contextlib.closing(Database(database)) as db:
        add_hub(db, "LAN", "10.81.7.0/24")
    put(fake.proc / "sys/net/ipv4/ip_forward", "1\n")
    assert only(doctor_network.forwarding, fake)[0] is Level.WARN
    put(places.hub_config(), 'uplink = ["LAN"]\n')
    (fake.sys / "class/net/uklan").mkdir(parents=True)
    look = Look(root=True, proc=fake.proc, sys=fake.sys)
    assert only(doctor_network.forwarding, look)[0] is Level.OK
    put(fake.proc / "sys/net/ipv4/ip_forward", "0\n")
    assert only(doctor_network.forwarding, look)[0] is Level.FAIL


def test_interfaces_that_are_to_be_joined(fake: Look) -> None:
    assert only(doctor_network.bridged, fake)[0] is Level.SKIP
    put(places.hub_config(), '[bridges]\nLAN = ["eth1", "eth2", "wlan0", "eth3"]\n')
    put(fake.sys / "class/net/eth2/operstate", "down\n")
    put(fake.sys / "class/net/wlan0/phy80211/index", "0\n")
    put(fake.sys / "class/net/eth3/mtu", "9000\n")
    look = Look(root=True, proc=fake.proc, sys=fake.sys)
    found = told(doctor_network.bridged, look)
    assert [level for level, _text in found] == [Level.FAIL, Level.WARN, Level.FAIL, Level.WARN]
    assert all(text.startswith("hub LAN") for _level, text in found)
    put(fake.sys / "class/net/eth3/mtu", "1500\n")
    assert told(doctor_network.bridged, look)[-1][0] is Level.OK


def test_mtu_and_other_vpns(fake: Look) -> None:
    assert only(doctor_network.mtu, fake)[0] is Level.WARN  # no default route
    put(fake.proc / "net/route", ROUTES)
    put(fake.sys / "class/net/eth0/mtu", "1200\n")
    put(fake.sys / "class/net/wg0/mtu", "1420\n")
    assert only(doctor_network.mtu, fake) == (
        Level.WARN,
        "the MTU of eth0 1200 is below 1280: IPv6 and much else will not pass",
    )
    assert only(doctor_network.others, fake)[0] is Level.OK
    put(fake.proc / "net/route", ROUTES.replace("eth0", "wg0"))
    assert only(doctor_network.mtu, fake)[0] is Level.OK
    assert only(doctor_network.others, fake)[0] is Level.WARN


def test_who_answers_names(fake: Look) -> None:
    assert only(doctor_network.resolver, fake)[0] is Level.WARN
    put(fake.etc / "resolv.conf", "nameserver 192.0.2.1\n")
    assert "192.0.2.1" in only(doctor_network.resolver, fake)[1]
    (fake.etc / "resolv.conf").unlink()
    put(fake.etc / "systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")
    (fake.etc / "resolv.conf").symlink_to("systemd/resolve/stub-resolv.conf")
    assert only(doctor_network.resolver, fake)[0] is Level.FAIL
    (fake.run / "systemd/resolve").mkdir(parents=True)
    assert "systemd-resolved" in only(doctor_network.resolver, fake)[1]


# -- firewalls --------------------------------------------------------------------------------------------------------

OPEN = "tcp dport { 22, 443 } accept"
CLOSED = "tcp dport 22 accept"


def ruleset(rule: str) -> str:
    return f"table inet filter {{\nchain in {{\ntype filter hook input priority 0; policy drop;\n{rule}\n}}\n}}\n"


@pytest.mark.parametrize(
    ("rule", "named"),
    [(OPEN, True), (CLOSED, False), ("tcp dport 400-500 accept", True), ("tcp dport 444-500 accept", False),
     ("iifname lo accept", False), ("tcp sport 443 accept", False)],
)  # fmt: skip
def test_a_rule_that_names_the_port_is_found_in_what_nft_says(net: Net, rule: str, named: bool) -> None:
    host = net.host("a")
    host.run(["nft", "-f", "-"], stdin=ruleset(rule))
    (chain,) = doctor_firewall.dropping(json.loads(host.run(["nft", "-j", "list", "ruleset"])))
    assert (str(chain), chain.hook) == ("inet filter in", "input")
    assert doctor_firewall.names_port(chain.rules, 443) is named
    put(places.hub_config(), "")
    with host.inside():
        level = only(doctor_firewall.firewall, Look())[0]
    assert level is (Level.OK if named else Level.WARN)


@pytest.mark.parametrize(
    ("right", "port", "held"),
    [(443, 443, True), (443, 444, False), ({"set": [1, {"range": [440, 450]}]}, 443, True),
     ({"range": ["a", 1]}, 1, False), ("@allowed", 443, True), ({"set": None}, 1, False), ([443], 443, True)],
)  # fmt: skip
def test_what_a_comparison_holds(right: Any, port: int, held: bool) -> None:
    assert doctor_firewall.holds(right, port) is held


# -- the command ------------------------------------------------------------------------------------------------------


def state(host: Any) -> list[str]:
    said = [host.ip(words) for words in ("addr", "rule", "-6 rule", "route show table all")]
    return [*said, host.run(["nft", "list", "ruleset"])]


@pytest.mark.slow
def test_the_command_beside_a_hub_and_a_card(net: Net) -> None:
    machine, one = net.lan("hub", "one")
    hub, card = Hub(machine), Card(one)
    hub.start()
    card.join(hub.first_link())
    for here in (hub, card):
        before = state(here.host)
        done = here.ask("doctor", "--json")
        rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
        assert state(here.host) == before
        assert done.returncode == 0, done.stdout
        assert [name for name, row in rows.items() if row["level"] == "FAIL"] == []
        assert list(rows) == list(doctor.checks())
        wanted = "hub" if here is hub else "card lan"
        assert rows["daemons"]["text"] == f"running and answering: {wanted}"
        assert wanted in rows["subnets"]["text"].replace("hub LAN", "hub")
    assert hub.rows("doctor", "port")[0]["text"] == "TCP port 443 is ours"
    assert hub.ask("doctor", "--lang=ja").returncode == 2
    assert "there are: rights" in hub.ask("doctor", "nothing").stderr
    put(one.folder / "ukihashi-card/etc/hub.toml", "workers = 99\n")
    failed = card.ask("doctor", "-q", "settings", "disk")
    assert failed.returncode == 1
    assert len(failed.stdout.splitlines()) == 1
