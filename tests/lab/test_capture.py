"""A capture holds what passed, and says what it missed."""

import pytest

from lab.capture import Capture
from lab.net import Net

pytestmark = pytest.mark.peer("tcpdump")


def test_a_capture_holds_what_passed_and_nothing_after_its_end(net: Net) -> None:
    a, b = net.lan("a", "b")
    a.pings(b.ipv4)
    with Capture(b, "eth0", expression="icmp") as capture:
        a.run(["ping", "-c3", "-i0.05", "-p", "756b6968617368", b.ipv4])
        capture.wait_for_bytes(b"ukihash")
    a.run(["ping", "-c2", "-i0.05", b.ipv4])
    assert capture.seen == 6
    assert capture.missed == 0
    assert capture.path.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"
