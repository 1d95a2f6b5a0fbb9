"""Several workers, one hub: what crosses between them, what they know of each other, sessions that move."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub.cards import Card, Refused, frame
from tests.hub.farm import Farm, dead_end, numbers

from ukihashi.hub import mesh, moving, trunk
from ukihashi.hub.balance import Balance
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import HubPut, SessionClosed, SessionResumed, SessionsHere
from ukihashi.net.tls import server_context
from ukihashi.switch.access import Rule
from ukihashi.switch.reasons import TRUNK
from ukihashi.switch.rules import PortRules
from ukihashi.wire.constants import Code
from ukihashi.wire.policy import Policy

LIMITS = Limits(linger_s=0.2)
SetUp = Callable[..., Farm]


@pytest.fixture
def make_farm(certificate: tuple[Path, Path]) -> Iterator[SetUp]:
    made: list[Farm] = []

    def make(count: int = 3, limits: Limits = LIMITS, seed: int | None = None) -> Farm:
        made.append(Farm(server_context(*certificate), limits, count, seed))
        return made[-1]

    yield make
    for farm in made:
        farm.close()


def three(farm: Farm, **login: Any) -> tuple[Card, Card, Card]:
    """A card at each worker, its station known to all."""
    cards = tuple(farm.card(worker, user, **login) for worker, user in enumerate("abc"))
    for number, card in enumerate(cards, 1):
        card.send(frame(0, number))
    farm.until(lambda: all(len(card.got) == 2 for card in cards), "the broadcasts")
    for card in cards:
        card.got.clear()
    return cards  # type: ignore[return-value]


# -- frames -----------------------------------------------------------------------------------------------------------


def test_a_broadcast_comes_once_to_everybody_and_an_answer_to_one(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, c = three(farm)
    d = farm.card(0, "d")
    a.send(frame(0, 1, 7))
    farm.until(lambda: b.got and c.got and d.got)
    b.send(frame(1, 2, 8), frame(1, 2, 9))
    farm.until(lambda: len(a.got) == 2)
    farm.quiet()
    assert (a.got, b.got, c.got, d.got) == (
        [frame(1, 2, 8), frame(1, 2, 9)],
        [frame(0, 1, 7)],
        [frame(0, 1, 7)],
        [frame(0, 1, 7)],
    )
    assert [row["drops"] for made in farm.neighbours for row in made.rows()] == [{}] * 6


def test_every_worker_lists_its_own_stations_and_knows_the_others(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, c = three(farm)
    for worker, card in enumerate((a, b, c)):
        assert farm.stations(worker) == {worker + 1: card.welcome.session_name}
    assert farm.ports(0) == {1: a.welcome.session_name, 2: "worker 1", 3: "worker 2"}
    keys = [row["key"] for worker in range(3) for row in farm.hub(worker).mac_rows(0.0)]
    assert len(set(keys)) == 3
    assert [farm.hub(worker).forget_station(keys[0]) for worker in range(3)] == [True, False, False]
    farm.quiet()
    assert [1 in farm.ports(worker) for worker in range(3)] == [False] * 3


def test_a_station_that_talks_only_to_its_neighbour_is_known_to_all(make_farm: SetUp) -> None:
    farm = make_farm(2)
    a, b = farm.card(0, "a"), farm.card(0, "b")
    a.send(frame(0, 1))
    farm.until(lambda: b.got)
    b.send(frame(1, 2))  # goes nowhere else
    farm.until(lambda: a.got)
    farm.until(lambda: farm.ports(1) == {1: "worker 0", 2: "worker 0"}, "the news")


def test_who_leaves_is_forgotten_everywhere(make_farm: SetUp) -> None:
    farm = make_farm()
    a, _b, _c = three(farm)
    farm.session(a).close("test")
    farm.until(lambda: 1 not in farm.ports(1) and 1 not in farm.ports(2))


def test_a_station_that_moves_is_found_at_its_new_place(make_farm: SetUp) -> None:
    farm = make_farm()
    _a, b, c = three(farm)
    farm.after(0.5)
    b.send(frame(3, 1))  # who was at a
    farm.until(lambda: c.got)
    farm.until(lambda: farm.ports(0)[1] == "worker 1" and farm.ports(2)[1] == "worker 1")
    c.send(frame(1, 3, 5))
    farm.until(lambda: numbers(b.got, 3) == [5])


def test_what_would_go_from_trunk_to_trunk_is_dropped_and_counted(make_farm: SetUp) -> None:
    farm = make_farm()
    three(farm)
    hub = farm.hub(0)
    hub.arrived(1, PortRules(is_trunk=True), [frame(3, 2)], farm.fields[0].clock.now)
    assert hub.switch.drops[hub.trunks[1].port][TRUNK] == 1
    assert {row["worker"]: row["drops"] for row in hub.trunk_rows()} == {1: {TRUNK: 1}, 2: {}}


def test_a_worker_that_is_gone_takes_its_stations_along_and_a_new_one_learns_all(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, _c = three(farm)
    farm.lose(2)
    farm.until(lambda: 2 not in farm.neighbours[0].links and 2 not in farm.neighbours[1].links)
    assert farm.ports(0) == {1: a.welcome.session_name, 2: "worker 1"}
    a.send(frame(2, 1, 1), frame(0, 1, 2))
    farm.until(lambda: numbers(b.got, 1) == [1, 2])
    farm.fields[2].sessions.remove_hub("LAN")
    farm.join(2, 0)
    farm.join(2, 1)
    farm.fields[2].sessions.put_hub(HubPut("LAN"))
    farm.until(lambda: farm.ports(2) == {1: "worker 0", 2: "worker 1"}, "the tables of others")
    c = farm.card(2, "c")
    a.send(frame(0, 1, 3))
    farm.until(lambda: numbers(c.got, 1) == [3])


# -- rules ------------------------------------------------------------------------------------------------------------


def test_the_privacy_filter_holds_between_workers(make_farm: SetUp) -> None:
    farm = make_farm()
    for field in farm.fields:
        field.answers["policy"] = Policy(privacy_filter=True)
    a, b = farm.card(0, "a"), farm.card(1, "b")
    farm.fields[2].answers["policy"] = Policy()
    c = farm.card(2, "c")
    a.send(frame(0, 1, 1))
    farm.until(lambda: c.got)
    farm.quiet()
    assert b.got == []
    assert farm.session(b).drops["privacy"] == 1
    c.send(frame(0, 3, 2))
    farm.until(lambda: numbers(b.got, 3) == [2] and numbers(a.got, 3) == [2])


def test_an_access_list_by_users_holds_between_workers(make_farm: SetUp) -> None:
    farm = make_farm(2)
    a, b, c = farm.card(0, "a"), farm.card(1, "b"), farm.card(0, "c")
    farm.put_hub(HubPut("LAN", access=(Rule(source_user="a", destination_user="b"),)))
    a.send(frame(0, 1, 1))
    c.send(frame(0, 3, 2))
    farm.until(lambda: numbers(b.got, 3) == [2] and numbers(a.got, 3) == [2] and numbers(c.got, 1) == [1])
    farm.quiet()
    assert numbers(b.got, 1) == []
    farm.put_hub(HubPut("LAN"))
    a.send(frame(0, 1, 3))
    farm.until(lambda: numbers(b.got, 1) == [3])


def test_who_watches_addresses_knows_those_of_other_workers(make_farm: SetUp) -> None:
    farm = make_farm(2)
    a = farm.card(0, "a")
    farm.fields[1].answers["policy"] = Policy(check_mac=True)
    b = farm.card(1, "b")
    a.send(frame(0, 1))
    farm.until(lambda: b.got)
    b.send(frame(0, 1))
    farm.quiet()
    assert farm.session(b).drops["station_taken"] == 1
    assert not numbers(a.got, 1)


def test_monitors_are_refused(make_farm: SetUp) -> None:
    farm = make_farm(2)
    farm.fields[0].answers["policy"] = Policy(monitor_port=True)
    with pytest.raises(Refused) as refused:
        farm.card(0, "a", monitor_mode=True, resume=False, extension=0, extension_oldest=0)
    assert refused.value.code == Code.MONITOR_MODE_DENIED


def test_connections_have_names_of_their_own(make_farm: SetUp) -> None:
    farm = make_farm()
    names = [field.sessions.next_connection() for field in farm.fields for _ in range(5)]
    assert len(set(names)) == 15


def test_the_number_of_a_session_is_controls(make_farm: SetUp) -> None:
    farm = make_farm(2)
    farm.fields[0].answers["number"] = 7
    assert farm.card(0, "a").welcome.session_name == "SID-A-7"
    farm.fields[0].answers["number"] = 5
    assert farm.card(0, "a").welcome.session_name == "SID-A-5"
    assert farm.hub(0).sessions_so_far == 7


# -- sessions that move -----------------------------------------------------------------------------------------------


def test_a_resume_at_another_worker_brings_the_session_there(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, c = three(farm)
    b.send(frame(1, 2, 1))
    a.send(frame(2, 1, 1))
    farm.until(lambda: b.got and a.got)
    a.cut()
    b.send(frame(1, 2, 2))
    farm.quiet()
    farm.go_to(a, 2)
    a.resume()
    assert farm.where(a) == [2]
    farm.until(lambda: numbers(a.got, 2) == [1, 2], "what was kept")
    c.send(frame(1, 3, 3))
    b.send(frame(0, 2, 4))
    farm.until(lambda: sorted(numbers(a.got, 2)) == [1, 2, 4] and numbers(a.got, 3) == [3])
    a.send(frame(2, 1, 2))
    farm.until(lambda: numbers(b.got, 1) == [1, 2])
    farm.quiet()
    assert farm.stations(2)[1] == a.welcome.session_name
    assert farm.ports(0)[1] == farm.ports(1)[1] == "worker 2"
    assert farm.session(a).count.frames_in == 3  # the first one was the broadcast
    assert not any(hub.ports[port].name.startswith("SID-A") for hub in (farm.hub(0), farm.hub(1)) for port in hub.ports)
    told = farm.fields[2].events(SessionsHere)[-1]
    assert told.sessions[0][:3] == ("LAN", a.welcome.session_name, "a")
    assert len(farm.fields[2].events(SessionResumed)) == 1
    assert not farm.fields[0].events(SessionClosed)


def test_a_standard_member_is_moved_by_its_key(make_farm: SetUp) -> None:
    farm = make_farm()
    standard = {"resume": False, "extension": 0, "extension_oldest": 0}
    a, b = farm.card(0, "a", **standard), farm.card(1, "b")
    b.send(frame(0, 2, 1))
    farm.until(lambda: numbers(a.got, 2) == [1])
    farm.go_to(a, 1)
    link = a.dial()
    assert link.pack(a.request(None)).get_int("error") == 0
    assert farm.where(a) == [1]
    assert farm.session(a).tunnels


def test_a_key_that_nobody_knows_is_refused_at_once(make_farm: SetUp) -> None:
    farm = make_farm()
    a = farm.card(0, "a")
    a.key = b"x" * 20
    assert a.dial().pack(a.request(None)).get_int("error") == Code.SESSION_TIMEOUT


def test_a_worker_that_says_nothing_is_waited_for_no_longer_than_that(make_farm: SetUp) -> None:
    farm = make_farm(2)
    silent = dead_end(farm, 1, 9)
    a = farm.card(0, "a")
    a.cut()
    farm.quiet()
    a.key = b"x" * 20
    farm.go_to(a, 1)
    link = a.dial()
    a.ask(link)
    farm.quiet()
    assert not link.plain
    farm.after(moving.MOVE_S + 0.1)
    with pytest.raises(Refused) as refused:
        a.answered(link)
    assert refused.value.code == Code.SESSION_TIMEOUT
    silent.close()


def test_a_worker_that_has_just_been_started_is_not_waited_for(make_farm: SetUp) -> None:
    """One has died: its cards hear at once that their sessions are gone, though its successor has not spoken yet."""
    farm = make_farm(2)
    silent = dead_end(farm, 0, 9, is_new=True)
    a = farm.card(1, "a")
    farm.lose(1)
    a.cut()
    farm.go_to(a, 0)
    assert a.dial().pack(a.request(None)).get_int("error") == Code.SESSION_TIMEOUT
    silent.close()


def test_a_worker_that_has_spoken_since_it_was_started_is_asked(make_farm: SetUp) -> None:
    farm = make_farm(2)
    a = farm.card(1, "a")
    farm.join(0, 1, is_new=True)  # as if it had been started again
    farm.until(lambda: not farm.neighbours[0].links[1].is_new, "a word")
    a.cut()
    farm.go_to(a, 0)
    a.resume()
    assert farm.where(a) == [0]


def test_an_attempt_that_is_too_old_changes_nothing_at_the_other_worker(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, _c = three(farm)
    a.cut()
    slow, fast = a.dial(), a.dial()
    late = a.machine.ask(slow.number)
    assert late is not None
    a.ask(fast)  # with a later number
    a.answered(fast)
    farm.until(lambda: farm.session(a).tunnels)
    farm.go_to(a, 2)
    answer = a.dial().pack(a.request(late))
    assert answer.get_int("error") == Code.INVALID_PROTOCOL
    assert answer.get_int64("ukihashi_attempt") == farm.resumable(a).machine.attempt
    assert farm.where(a) == [0]
    b.send(frame(1, 2, 5))
    farm.until(lambda: numbers(a.got, 2) == [5])


def test_two_connections_for_one_session_at_two_workers_end_at_the_later_one(make_farm: SetUp) -> None:
    farm = make_farm(4)
    a = farm.card(0, "a")
    b = farm.card(3, "b")
    a.send(frame(0, 1))
    farm.until(lambda: b.got)
    a.cut()
    farm.go_to(a, 1)
    first = a.dial()
    farm.go_to(a, 2)
    second = a.dial()
    a.ask(first)
    a.ask(second)
    a.answered(second)
    assert farm.where(a) == [2]
    b.send(frame(1, 2, 9))
    farm.until(lambda: numbers(a.got, 2) == [9])


def test_an_answer_to_the_first_question_is_none_to_the_second(make_farm: SetUp) -> None:
    """A worker that has it not says so, and is asked again because the session has gone to it meanwhile."""
    farm = make_farm(2)
    others = {number: dead_end(farm, 0, number) for number in (8, 9)}
    moves, refused = farm.neighbours[0].moves, list[int]()
    moves.seek(b"k" * 20, None, lambda code, _numbers: refused.append(code))
    links = farm.neighbours[0].links
    moves.not_here(links[1], mesh.NotHere(1))
    moves.not_here(links[8], mesh.NotHere(1, gone_to=9))
    moves.not_here(links[9], mesh.NotHere(1))
    assert not refused
    moves.not_here(links[9], mesh.NotHere(1))
    assert refused == [Code.SESSION_TIMEOUT]
    for sock in others.values():
        sock.close()


def test_a_session_that_goes_round_comes_back(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, _c = three(farm)
    sent: list[int] = []
    for worker in (1, 2, 0, 2, 1, 0):
        a.cut()
        farm.go_to(a, worker)
        a.resume()
        sent.append(len(sent) + 1)
        b.send(frame(1, 2, sent[-1]))
        farm.until(lambda: numbers(a.got, 2) == sent)
        farm.quiet()
        assert farm.where(a) == [worker]


def test_a_giver_that_dies_in_the_middle_leaves_the_session_with_the_taker(make_farm: SetUp) -> None:
    farm = make_farm()
    a, b, _c = three(farm)
    a.cut()
    farm.go_to(a, 2)
    link = a.dial()
    a.ask(link)
    farm.until(lambda: farm.where(a) == [2])
    farm.lose(0)
    a.answered(link)
    b.send(frame(0, 2, 4))
    farm.until(lambda: numbers(a.got, 2) == [4])


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_when_nothing_is_lost_doubled_or_exchanged(make_farm: SetUp, seed: int) -> None:
    """Two and one that moves send to each other, to one or to all; the workers turn in an order drawn by chance."""
    farm = make_farm(4, seed=seed)
    chance = farm.chance
    assert chance is not None
    a, b, c = farm.card(0, "a"), farm.card(1, "b"), farm.card(3, "c")
    a.send(frame(0, 1))
    farm.until(lambda: b.got and c.got)
    sent = {1: 0, 2: 0, 3: 0}

    def say() -> None:
        for number, card in ((2, b), (3, c)):
            for _ in range(chance.randint(0, 3)):
                sent[number] += 1
                card.send(frame(chance.choice([0, 1]), number, sent[number]))
        if a.machine.carries(a.machine.link or 0):
            sent[1] += 1
            a.send(frame(chance.choice([0, 2, 3]), 1, sent[1]))

    for _ in range(8):
        if chance.random() < 0.5:
            a.cut()
        else:  # it is silent, and the worker has not noticed
            a.machine.silent()
        farm.go_to(a, chance.randrange(4))
        link = a.dial()
        say()
        a.ask(link)
        for _ in range(chance.randint(0, 12)):
            say()
            farm.turn()
            for card in (b, c):
                card.pump()
        a.answered(link)
        say()
        for _ in range(chance.randint(0, 6)):
            say()
            farm.turn()
            for card in farm.cards:
                card.pump()
    farm.until(lambda: all(len(numbers(a.got, by)) >= sent[by] for by in (2, 3)), "all frames")
    farm.quiet()
    for by in (2, 3):
        assert numbers(a.got, by) == list(range(1, sent[by] + 1))
    assert min(sent.values()) > 10
    mine = numbers(b.got, 1), numbers(c.got, 1)
    assert all(their == sorted(set(their)) for their in mine)
    assert {number for their in mine for number in their if number} == set(range(1, sent[1] + 1))


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_what_another_worker_does_not_take_waits_and_then_is_dropped_newest_first(
    make_farm: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "QUEUE", 64 * 1024)
    farm = make_farm(2)
    silent = dead_end(farm, 0, 9)
    hub, now = farm.hub(0), farm.fields[0].clock.now
    one = hub.trunks[9]
    frames = [frame(0, 1, number, 1500) for number in range(1, 2001)]
    for at in range(0, len(frames), 10):
        hub.forward(frames[at : at + 10], farm.hub(0).trunks[1].port, now)
    assert one.queue.bytes == 0  # from trunk to trunk nothing goes
    a = farm.card(0, "a")
    for at in range(0, len(frames), 10):
        hub.forward(frames[at : at + 10], farm.session(a).port, now)
        hub.outbox.flush()
    assert one.link.waiting < mesh.FULL + 2 * trunk.BATCH
    assert one.queue.bytes <= 64 * 1024
    assert one.queue.dropped["queue_full"] > 0
    silent.close()


def test_nonsense_over_a_link_ends_that_link_only(make_farm: SetUp) -> None:
    farm = make_farm(2)
    other = dead_end(farm, 0, 9)
    other.sendall(b"\xff\xff\xff\xff\x00")
    farm.until(lambda: 9 not in farm.neighbours[0].links)
    assert 1 in farm.neighbours[0].links
    other.close()


def test_the_ones_with_least_listen() -> None:
    balance = Balance()
    assert balance.is_my_turn
    balance.own = 3
    assert balance.is_my_turn
    balance.others = {1: 3, 2: 9}
    assert balance.is_my_turn
    balance.others[2] = 2
    assert not balance.is_my_turn
    balance.own, balance.others = 104, {1: 100, 2: 200}
    assert balance.is_my_turn
