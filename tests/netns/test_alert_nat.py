"""A real client behind a NAT router, seen from both sides of it (B28), and what the doctor says of each place."""

import json
import re
import signal
import sys
from pathlib import Path

import pytest

from lab import peers
from lab.net import Host, Net, Process
from lab.ukihashi import Hub
from lab.wait import until

LINE = r"(\S+ ?\S*) TCP Connection Detected \(client (\S+):\d+, server (\S+)\)"
PYTHON = [sys.executable, "-m", "ukihashi.cli.main"]


def detector(host: Host, card: str, log: str) -> Process:
    process = host.spawn([*PYTHON, "alert", "-i", card], log=log)
    process.wait_for(r"Starting Capture Packets at \[", seconds=100)
    return process


def home_network(net: Net) -> tuple[Host, Host, Host]:
    """client -- router (NAT) -- hub, each side with addresses of its own; the router's outer one is public."""
    router, client, hub = net.host("router"), net.host("client"), net.host("hub")
    net.link(router, client)
    net.link(hub, router)
    hub.add_address("to-router", "9.9.9.1/24")
    router.add_address("to-hub", "9.9.9.2/24")
    client.ip(f"route add default via {router.ipv4}")
    router.set_sysctl("net/ipv4/ip_forward", "1")
    rule = 'type nat hook postrouting priority 100; oifname "to-hub" masquerade;'
    router.run(["nft", "-f", "-"], stdin=f"table ip nat {{ chain out {{ {rule} }}; }}\n")
    return client, router, hub


@pytest.mark.slow
@pytest.mark.peer("vpnclient", "vpncmd")
@pytest.mark.timeout(240)
def test_inside_of_a_nat_the_log_has_the_client_and_outside_the_routers_address(net: Net) -> None:
    client, router, machine = home_network(net)
    hub = Hub(machine)
    hub.start()
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    inside, outside = detector(router, "to-client", "inside"), detector(router, "to-hub", "outside")
    vpn = peers.Client(client)
    vpn.start()
    vpn.create_account(
        "v1", server="9.9.9.1", port=443, hub="LAN", user="taro", password=made["password"], cidrs=["10.5.0.2/24"]
    )
    vpn.connect("v1")
    found = {}
    for name, process in (("inside", inside), ("outside", outside)):
        process.wait_for(LINE, seconds=100)
        assert process.stop(signal.SIGTERM, grace_s=30) == 0
        found[name] = re.findall(LINE, process.output())
    assert [line[1:] for line in found["inside"]] == [(client.ipv4, "9.9.9.1:443")]
    assert [line[1:] for line in found["outside"]] == [("9.9.9.2", "9.9.9.1:443")]


def test_the_doctor_tells_the_inside_of_a_nat_from_its_outside(net: Net) -> None:
    client, router, machine = home_network(net)
    machine.spawn([sys.executable, "-m", "http.server", "8080"], cwd=machine.folder)
    until(lambda: client.ask(["curl", "-s", "http://9.9.9.1:8080/"]).returncode == 0, seconds=20, what="the server")
    doctors = {
        card: router.spawn([*PYTHON, "alert", "doctor", "-i", card, "--seconds", "6", "--json"], log=f"doctor-{card}")
        for card in ("to-client", "to-hub")
    }
    until(lambda: all(len(promiscuous(router, card)) for card in doctors), seconds=60, what="both doctors listening")
    for _ in range(14):
        client.run(["curl", "-s", "http://9.9.9.1:8080/"])
    told = {}
    for card, process in doctors.items():
        process.wait(seconds=60)
        rows = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
        told[card] = {row["name"]: row for row in rows}
        assert len(rows) == 11
    assert told["to-client"]["nat"]["level"] == "OK"
    assert told["to-hub"]["nat"]["level"] == "WARN"
    assert told["to-hub"]["nat"]["values"]["client"] == "9.9.9.2"
    assert told["to-client"]["traffic"]["level"] == "OK"
    assert told["to-hub"]["traffic"]["level"] == "FAIL"  # on the router itself, it is all its own
    assert doctors["to-hub"].wait() == 1
    assert told["to-client"]["both-ways"]["level"] == "OK"


def promiscuous(host: Host, card: str) -> list[str]:
    """Not empty once somebody listens to everything on a card."""
    return re.findall(r"promiscuity [1-9]", host.run(["ip", "-d", "link", "show", card]))


def test_doctor_in_words_and_without_traffic(net: Net, tmp_path: Path) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    for host, card in ((a, near), (b, far)):  # nobody looks for neighbours and routers
        host.set_sysctl(f"net/ipv6/conf/{card}/disable_ipv6", "1")
    done = b.ask([*PYTHON, "alert", "doctor", "-i", far, "--seconds", "0.3"], env={"LANGUAGE": "ja"})
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("FAIL  traffic")
    assert "ミラー" in first
    assert len(done.stdout.splitlines()) == 11
    assert b.ask([*PYTHON, "alert", "doctor", "-i", "nosuch0"]).returncode == 2
