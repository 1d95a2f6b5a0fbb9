"""The detector on a live wire beside our own hub and card: full-length, so only in `./run soak`."""

import signal
import sys

import pytest

from lab.net import Net
from lab.ukihashi import Card, Hub


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_an_idle_tunnel_of_ours_is_a_line_within_70_s_of_its_login(net: Net) -> None:
    machine, host = net.lan("hub", "card")
    detector = machine.spawn([sys.executable, "-m", "ukihashi.cli.main", "alert", "-i", "eth0"], log="alert")
    detector.wait_for(r"Starting Capture Packets at \[")
    hub = Hub(machine)
    hub.start()
    card = Card(host)
    card.join(hub.invite("ann"))
    line = detector.wait_for(r"\] (.*) Connection Detected \(client (\S+), server (\S+)\)", seconds=70)
    assert line[1] == "ukihashi TCP"
    assert line[2].startswith(f"{host.ipv4}:")
    assert line[3] == f"{machine.ipv4}:443"
    assert detector.stop(signal.SIGINT) == 0
    assert detector.output().count("Connection Detected") == 1
