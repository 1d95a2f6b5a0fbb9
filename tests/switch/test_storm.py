"""Storm control: the figures measured at a real server (docs/softether-protocol.md, 18.4), on a clock of our own."""

import random

from tests.switch.frames import ALL, GROUP, P1, P2, A, B, arp, frame, ip4, ip6

from ukihashi.switch import reasons
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.switch.storm import FLOWS_MOST, StormControl
from ukihashi.wire.policy import Policy


def sent(rate: int, seconds: float, *, start: float = 0.0, control: StormControl | None = None) -> list[float]:
    """The moments of those frames that pass, of one sender's `rate` a second."""
    flow = (storms() if control is None else control).flow(A, b"", start)
    return [now for n in range(int(rate * seconds)) if flow.passes(now := start + n / rate)]


def storms(threshold: int = 32, seed: int = 7) -> StormControl:
    return StormControl(threshold, random.Random(seed).random)


def in_second(moments: list[float], second: int) -> int:
    return sum(second <= now < second + 1 for now in moments)


def test_28_a_second_pass() -> None:
    assert len(sent(28, 60)) == 28 * 60


def test_60_a_second_fall_to_a_few_after_a_second() -> None:
    passed = sent(60, 10)
    assert in_second(passed, 0) >= 58  # but for those that trip the check
    assert in_second(passed, 2) < 15
    assert [in_second(passed, second) for second in range(4, 10)] == [0] * 6


def test_300_a_second_are_silent_after_3_seconds() -> None:
    passed = sent(300, 10)
    assert in_second(passed, 0) >= 298
    assert 0 < in_second(passed, 1) < 100
    assert in_second(passed, 2) < 30
    assert passed[-1] < 3.6


def test_after_a_storm_a_quiet_sender_is_let_through_within_seconds() -> None:
    first = []
    for seed in range(200):
        control = storms(seed=seed)
        sent(300, 10, control=control)
        flow = control.flow(A, b"", 10.0)
        first.append(next(n for n in range(1, 60) if flow.passes(10.0 + n)))
    assert min(first) >= 5  # until then it is silent
    assert 7 in first  # what was measured, once
    assert max(first) == 10  # by then everything passes


def test_the_frame_that_trips_the_check_is_dropped() -> None:
    flow = storms().flow(A, b"", 0.0)
    assert [flow.passes(0.0) for _ in range(15)] == [True] * 15
    assert not flow.passes(0.5)  # the 16th in half a second: 32 a second
    assert flow.passes(0.6)  # a value of 2 lets all pass
    other = storms().flow(A, b"", 0.0)
    assert [other.passes(0.0) for _ in range(14)] == [True] * 14
    assert other.passes(0.5)


def test_another_threshold() -> None:
    assert len(sent(60, 10, control=storms(64))) == 600
    assert len(sent(28, 10, control=storms(16))) < 100


def test_the_table_is_bounded_and_strangers_share_what_is_left() -> None:
    control = storms()
    flows = [control.flow(n.to_bytes(6, "big"), b"", 0.0) for n in range(FLOWS_MOST + 300)]
    assert len(control) == FLOWS_MOST
    assert len({id(flow) for flow in flows}) == FLOWS_MOST + 1
    assert sum(flow.passes(0.1) for flow in flows[FLOWS_MOST:]) == 300
    forged = [flow for step in range(1, 20) for flow in flows[FLOWS_MOST:] if flow.passes(step / 2)]
    assert len(forged) < 3 * 300 + 600
    assert control.flow(A, b"", 20.0) is not flows[-1]  # the old ones made room
    assert len(control) == 1


# -- in the switch --------------------------------------------------------------------------------------------------


def stormy(**rules: bool) -> Switch:
    hub = Switch()
    hub.add_port(P1, PortRules(policy=Policy(**rules)))
    hub.add_port(P2)
    return hub


def passed(hub: Switch, made: list[bytes], times: int = 40) -> int:
    """Frames of ten half seconds of a storm that come through."""
    return sum(len(hub.forward(made * times, P1, step / 2).get(P2, ())) for step in range(10))


def test_broadcast_multicast_and_unknown_unicast_are_thinned_out_and_counted() -> None:
    for to in (ALL, GROUP, B):
        hub = stormy()
        through = passed(hub, [frame(to, A)])
        assert through < 200
        assert hub.drops[P1] == {reasons.STORM: 400 - through}


def test_known_unicast_is_not() -> None:
    hub = stormy()
    hub.forward([frame(ALL, B)], P2, 0.0)
    assert passed(hub, [frame(B, A)]) == 400


def test_a_port_without_the_limit() -> None:
    assert passed(stormy(no_broadcast_limiter=True), [frame(ALL, A)]) == 400


def test_senders_and_destinations_count_apart() -> None:
    many = [ip4(ALL, A, to=f"10.0.0.{n}") for n in range(1, 40)] + [
        ip6(GROUP, A, to=f"ff02::{n}") for n in range(1, 40)
    ]
    assert passed(stormy(), many, times=1) == 780
    assert passed(stormy(), [frame(ALL, bytes([2, 0, 0, 0, 1, n])) for n in range(40)], times=1) == 400
    assert passed(stormy(), [arp(A, "10.0.0.1", f"10.0.0.{n}") for n in range(1, 40)], times=1) < 200  # no IP: one flow


def test_another_threshold_of_the_hub_holds_at_once() -> None:
    hub = stormy()
    hub.set_rules(HubRules(storm_threshold=1000))
    assert passed(hub, [frame(ALL, A)]) == 400
