"""Traffic limits: bits in windows of a second."""

from tests.switch.frames import P1, P2, A, B, ether, frame

from ukihashi.switch import reasons
from ukihashi.switch.forward import Switch
from ukihashi.switch.limiter import Limiter
from ukihashi.switch.rules import PortRules
from ukihashi.wire.policy import Policy

KILO = frame(B, A, length=1000)  # 8000 bits


def test_a_window_takes_what_fits_and_the_next_one_again() -> None:
    limiter = Limiter(80_000)
    assert limiter.admit([KILO] * 4, 10.0) == [KILO] * 4
    assert limiter.admit([KILO] * 8, 10.5) == [KILO] * 6
    assert limiter.admit([frame(B, A)], 10.99) == []
    assert limiter.admit([KILO] * 11, 11.0) == [KILO] * 10


def test_a_smaller_frame_may_still_fit() -> None:
    assert [len(each) for each in Limiter(9000).admit([KILO, KILO, frame(B, A, length=125)], 0.0)] == [1000, 125]


def test_urgent_frames_always_pass_and_count() -> None:
    from scapy.layers.inet import ICMP, IP, UDP

    urgent = ether(B, A, IP(tos=0xB8), UDP(), bytes(500))
    ping = ether(B, A, IP(), ICMP(), bytes(50))
    long_ping, bulk, slow = (
        ether(B, A, IP(), ICMP(), bytes(100)),
        ether(B, A, IP(), UDP()),
        ether(B, A, IP(tos=8), UDP()),
    )
    limiter = Limiter(8000)
    assert limiter.admit([KILO, urgent, ping, long_ping, bulk, slow], 0.0) == [KILO, urgent, ping]
    other = Limiter(8000)
    assert other.admit([urgent, urgent, bulk], 0.0) == [urgent, urgent]


def test_in_the_switch_each_direction_has_its_own() -> None:
    hub = Switch()
    hub.add_port(P1, PortRules(policy=Policy(max_upload=16_000, max_download=24_000)))
    hub.add_port(P2)
    assert len(hub.forward([KILO] * 5, P1, 0.0)[P2]) == 2
    assert len(hub.forward([frame(A, B, length=1000)] * 5, P2, 0.0)[P1]) == 3
    assert hub.drops == {P1: {reasons.UPLOAD: 3, reasons.DOWNLOAD: 2}, P2: {}}
    assert hub.forward([frame(A, B, length=1000)], P2, 0.5) == {}
    assert len(hub.forward([KILO] * 5, P1, 1.0)[P2]) == 2
