"""Who gets which address, whatever stations say."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ukihashi.ether import dhcp
from ukihashi.hub.lease_book import DECLINED_S, OF_PORT, OFFER_S, Book, Decision
from ukihashi.hub.messages import LeaseAsked
from ukihashi.store.leases import Lease

NUMBERS = range(2, 255)
SERVICE = 254
LEASE_S = 3600
NOW = 1_000_000.0


def mac(number: int) -> bytes:
    return b"\x02\0\0\0" + number.to_bytes(2, "big")


def ask(
    kind: int,
    station: int,
    *,
    user: str = "ann",
    wanted: int = 0,
    session: str = "",
    bridge: bool = False,
    chosen: bool = False,
    host: str = "",
    busy: tuple[int, ...] = (),
) -> LeaseAsked:
    return LeaseAsked(
        1,
        "LAN",
        session or f"SID-{user.upper()}-1",
        user,
        kind,
        mac(station),
        b"\1" + mac(station),
        wanted,
        chosen,
        host,
        bridge,
        busy,
    )


def book(*leases: Lease, own: dict[str, int] | None = None, fixed: dict[bytes, int] | None = None) -> Book:
    made = Book(NUMBERS, SERVICE, leases)
    made.set_kept(fixed or {}, own or {})
    return made


def lease(one: Book, station: int, now: float = NOW, **more: object) -> int:
    """The number that a station gets by DISCOVER and REQUEST; 0 = none."""
    offer = one.decide(ask(dhcp.DISCOVER, station, **more), now, LEASE_S)  # type: ignore[arg-type]
    if not offer.kind:
        return 0
    chosen = {**more, "wanted": offer.number, "chosen": True}
    told = one.decide(ask(dhcp.REQUEST, station, **chosen), now, LEASE_S)  # type: ignore[arg-type]
    assert told == Decision(dhcp.ACK, offer.number, LEASE_S)
    return offer.number


def test_a_user_gets_the_own_number_and_a_second_station_another() -> None:
    one = book(own={"ann": 7, "bob": 8})
    assert lease(one, 1) == 7
    second = lease(one, 2)
    assert second not in (0, 7, 8, SERVICE)
    assert lease(one, 1) == 7  # again
    assert lease(one, 2) == second


def test_what_is_behind_a_bridge_never_gets_an_own_number() -> None:
    one = book(own={"ann": 7})
    assert {lease(one, station, bridge=True) for station in range(20)} & {7, SERVICE, 0} == set()


def test_an_own_number_goes_to_the_users_new_station_when_the_session_of_the_old_has_ended() -> None:
    one = book(own={"ann": 7})
    assert lease(one, 1, session="SID-ANN-1") == 7
    assert lease(one, 2, session="SID-ANN-2") != 7
    one.session_ended("SID-ANN-1")
    assert lease(one, 3, session="SID-ANN-3") == 7
    assert one.decide(ask(dhcp.REQUEST, 1, wanted=7), NOW, LEASE_S).kind == dhcp.NAK


def test_a_fixed_address_is_the_stations_and_nobody_elses() -> None:
    one = book(fixed={mac(1): 50})
    assert lease(one, 2, wanted=50) != 50
    assert one.decide(ask(dhcp.REQUEST, 2, wanted=50), NOW, LEASE_S).kind == dhcp.NAK
    assert lease(one, 1, user="bob", bridge=True) == 50
    one.set_kept({mac(1): 60}, {})
    assert one.decide(ask(dhcp.REQUEST, 1, user="bob", wanted=50), NOW, LEASE_S).kind == dhcp.NAK  # it is to move
    assert lease(one, 1, user="bob", bridge=True) == 60


def test_a_wish_is_heeded_if_it_can_be() -> None:
    one = book(own={"bob": 8})
    assert lease(one, 1, wanted=99) == 99
    assert lease(one, 2, wanted=99, session="x") != 99
    assert lease(one, 3, wanted=8, session="y") != 8
    assert lease(one, 4, wanted=-1, session="z") != 0
    assert lease(one, 5, wanted=101, busy=(101,), session="u") != 101


def test_the_four_states_of_a_request() -> None:
    one = book()
    number = lease(one, 1)
    later = NOW + LEASE_S / 2
    for wanted, kind in (
        (number, dhcp.ACK),
        (number + 1, dhcp.ACK),
        (-1, dhcp.NAK),
        (0, dhcp.NAK),
        (SERVICE, dhcp.NAK),
    ):
        assert one.decide(ask(dhcp.REQUEST, 1, wanted=wanted), later, LEASE_S).kind == kind, wanted
    assert one.decide(ask(dhcp.REQUEST, 1, wanted=number), later, LEASE_S).kind == dhcp.ACK
    assert [one_lease.number for one_lease in one.live(later)] == [number]  # never two for one station


def test_an_offer_is_kept_for_a_while() -> None:
    one = book()
    first = one.decide(ask(dhcp.DISCOVER, 1, wanted=30), NOW, LEASE_S)
    assert first.number == 30
    assert one.decide(ask(dhcp.REQUEST, 2, wanted=30, session="x"), NOW, LEASE_S).kind == dhcp.NAK
    later = NOW + OFFER_S + 1
    assert one.decide(ask(dhcp.REQUEST, 2, wanted=30, session="x"), later, LEASE_S).kind == dhcp.ACK


def test_a_flood_behind_one_port_leaves_room_for_others() -> None:
    one = book()
    for station in range(1, 1000):
        lease(one, station, user="mallory")
    assert len(one.live(NOW)) == OF_PORT
    bridged = [lease(one, station, user="eve", bridge=True) for station in range(1000, 2000)]
    assert sum(number > 0 for number in bridged) == len(NUMBERS) // 2
    for station in range(2000, 2100):
        one.decide(ask(dhcp.DISCOVER, station, user="mallory", session="SID-MALLORY-2"), NOW, LEASE_S)
    assert lease(one, 3000, user="ann")


def test_one_user_can_not_take_all_whatever_the_sessions() -> None:
    one = book()
    for station in range(1, 600):
        lease(one, station, user="mallory", session=f"SID-MALLORY-{station}")
    assert len(one.live(NOW)) < len(NUMBERS) - 20
    assert lease(one, 3000, user="ann")


def test_a_flood_of_declines_leaves_room_for_others() -> None:
    one = book()
    for station in range(1, 600):
        offer = one.decide(ask(dhcp.DISCOVER, station, user="mallory", session=f"s{station // 9}"), NOW, LEASE_S)
        declined = ask(dhcp.DECLINE, station, user="mallory", session=f"s{station // 9}", wanted=offer.number)
        one.decide(declined, NOW, LEASE_S)
    assert one.free(NOW) > len(NUMBERS) * 3 // 4
    assert lease(one, 3000)


def test_a_declined_address_is_not_offered_for_a_while() -> None:
    one = book()
    number = lease(one, 1, wanted=40)
    one.decide(ask(dhcp.DECLINE, 2, user="bob", wanted=number), NOW, LEASE_S)  # not bob's to decline
    assert [one_lease.kind for one_lease in one.leases] == ["leased"]
    one.decide(ask(dhcp.DECLINE, 1, wanted=number), NOW, LEASE_S)
    assert lease(one, 1, wanted=number) != number
    assert lease(one, 2, NOW + DECLINED_S + 1, wanted=number, session="x") == number


def test_a_release_is_heeded_from_its_station_only_and_the_address_is_kept_in_mind() -> None:
    one = book()
    number = lease(one, 1, wanted=33)
    one.decide(ask(dhcp.RELEASE, 1, user="eve", wanted=number), NOW, LEASE_S)
    assert len(one.live(NOW)) == 1
    one.decide(ask(dhcp.RELEASE, 1, wanted=number), NOW, LEASE_S)
    assert one.live(NOW) == []
    assert lease(one, 2, session="x") != number  # others get what nobody had
    assert lease(one, 1) == number


def test_nobody_gets_at_anothers_lease_by_saying_to_be_that_station() -> None:
    one = book(own={"ann": 7})
    assert lease(one, 1, user="ann") == 7
    assert lease(one, 1, user="eve") != 7
    assert one.decide(ask(dhcp.REQUEST, 1, user="eve", wanted=7), NOW, LEASE_S).kind == dhcp.NAK


def test_who_has_an_address_otherwise_says_so() -> None:
    one = book(own={"ann": 7})
    assert one.decide(ask(dhcp.INFORM, 1, wanted=7, host="nova"), NOW, LEASE_S) == Decision(dhcp.ACK)
    assert [(one_lease.kind, one_lease.host) for one_lease in one.live(NOW)] == [("told", "nova")]
    one.decide(ask(dhcp.INFORM, 9, user="eve", wanted=7), NOW, LEASE_S)
    assert [one_lease.user_key for one_lease in one.live(NOW)] == ["ann"]


def test_a_revoked_address_is_nobodys_and_its_station_is_told_once() -> None:
    one = book()
    number = lease(one, 1)
    assert one.revoke(number) is not None
    assert one.revoke(number) is None
    assert one.decide(ask(dhcp.REQUEST, 1, wanted=number), NOW, LEASE_S).kind == dhcp.NAK
    assert lease(one, 1) > 0


def test_leases_last_beyond_the_book() -> None:
    one = book(own={"ann": 7})
    numbers = {station: lease(one, station, session=f"s{station}") for station in range(1, 9)}
    again = book(*one.leases, own={"ann": 7})
    for station, number in numbers.items():
        renewed = again.decide(ask(dhcp.REQUEST, station, wanted=number, session=f"s{station}"), NOW + 9, LEASE_S)
        assert renewed == Decision(dhcp.ACK, number, LEASE_S)


def test_two_hundred_stations_have_two_hundred_addresses() -> None:
    one = book()
    got = [lease(one, station, user="guest", session=f"SID-GUEST-{station}") for station in range(1, 201)]
    assert len(set(got)) == 200
    assert set(got) <= set(NUMBERS) - {SERVICE}


def test_when_nothing_is_left_nothing_is_offered_and_it_is_known_why() -> None:
    one = Book(range(2, 6), 5, ())
    for station in range(3):
        assert lease(one, station, user=f"u{station}") == 2 + station
    assert one.decide(ask(dhcp.DISCOVER, 9, user="late"), NOW, LEASE_S) == Decision()
    assert one.exhausted
    assert lease(one, 9, NOW + LEASE_S + 1, user="late")


@given(st.integers(0, 2**32))
def test_no_address_has_two_holders_whatever_is_said(seed: int) -> None:
    chance, one, now = Random(seed), book(own={"ann": 7, "bob": 8}, fixed={mac(3): 9}), NOW
    granted: dict[int, tuple[str, int, float]] = {}
    for _ in range(200):
        now += chance.choice((0, 1, 20, 700))
        station, user = chance.randrange(1, 7), chance.choice(("ann", "bob", "eve"))
        kind = chance.choice((dhcp.DISCOVER, dhcp.REQUEST, dhcp.REQUEST, dhcp.RELEASE, dhcp.DECLINE, dhcp.INFORM))
        wanted = chance.choice((-1, 0, 2, 3, 7, 8, 9, 10, SERVICE, 255))
        asked = ask(kind, station, user=user, wanted=wanted, bridge=chance.random() < 0.3)
        told = one.decide(asked, now, LEASE_S)
        assert told.number != SERVICE
        if kind in (dhcp.RELEASE, dhcp.DECLINE) and granted.get(wanted, ("", 0, 0))[:2] == (user, station):
            del granted[wanted]
        if kind == dhcp.INFORM:  # a station that has another address by now has none of ours any more
            granted = {old: one_holder for old, one_holder in granted.items() if one_holder[:2] != (user, station)}
        if told.kind == dhcp.ACK and told.number:
            holder = granted.get(told.number)
            assert holder is None or holder[:2] == (user, station) or holder[2] <= now
            for old in [old for old, one_holder in granted.items() if one_holder[:2] == (user, station)]:
                del granted[old]
            granted[told.number] = user, station, now + LEASE_S
    stations = [(held.user_key, held.identity) for held in one.live(now)]
    assert len(stations) == len(set(stations))
