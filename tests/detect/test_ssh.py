from collections.abc import Iterable
from random import Random

import pytest

from lab.scene import Frame, Talk
from ukihashi.detect.features import Outer, is_ssh, ssh_client, ssh_wrong_way
from ukihashi.detect.flow import FlowTable, Turn
from ukihashi.detect.record import Attached, Ended, Family, Finding, Verdict
from ukihashi.detect.sieve import OPENINGS
from ukihashi.detect.verdict import Detector

CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 22)
BEGIN = 1_700_000_000.0
OPENSSH = b"SSH-2.0-OpenSSH_9.2p1\r\n"
OWN = (155, 349, 1215, 792)  # bytes of our opening's turns without padding (docs/detection.md)


def packet(number: int, size: int) -> bytes:
    """The begin of an SSH packet in the clear."""
    return (size - 4).to_bytes(4) + b"\x06" + bytes([number])


class Shell(Talk):
    """An SSH connection: what is said inside is wrapped as chacha20-poly1305 does it."""

    def __init__(
        self,
        *,
        name: bytes = OPENSSH,
        server_first: bool = False,
        client: tuple[str, int] = CLIENT,
        server: tuple[str, int] = SERVER,
    ) -> None:
        super().__init__(client, server, begin=BEGIN)
        self.open()
        banners = [(0, name), (1, b"SSH-2.0-OpenSSH_9.2\r\n")]
        for side, text in banners[::-1] if server_first else banners:
            self.say(side, len(text), head=text)
        self.say(0, 1536, head=packet(20, 1536))
        self.say(1, 1080, head=packet(20, 1080))
        self.say(0, 1208, head=packet(30, 1208))
        self.say(1, 1564, head=packet(31, 1128))
        for place, size in enumerate((60, 44, 140, 100, 308, 28)):
            self.say(place % 2, size)

    def inside(self, side: int, size: int, *, at: float | None = None) -> None:
        """A message of a channel."""
        while size > 0:
            part = min(size, 32_000)
            self.say(side, 4 + (part + 9 + 1 + 4 + 7) // 8 * 8 + 16, at=at)
            size -= part
            at = None

    def handshake(self) -> None:
        """Channel and TLS 1.3 up to the server's Finished."""
        self.inside(0, 60)
        self.inside(1, 20)
        self.inside(0, 317)
        self.inside(1, 1434)

    def login(self, chance: Random, *, further: bool = False) -> None:
        """A connection of the SoftEther protocol."""
        self.handshake()
        self.inside(0, 1640 + chance.randint(0, 1999))
        self.inside(1, 470 + chance.randint(0, 999))
        self.inside(0, (430 if further else 2670) + chance.randint(0, 999))
        self.inside(1, (330 if further else 2130) + chance.randint(0, 999))
        self.inside(0, 200)

    def own_login(self, chance: Random) -> None:
        """A connection of ours."""
        self.handshake()
        self.inside(0, OWN[0] + 80)
        for side, size in zip((1, 0, 1), OWN[1:], strict=True):
            self.inside(side, size + chance.randint(0, 999))
        self.inside(0, 200)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def live(self, chance: Random, seconds: float) -> None:
        """What two connections of the SoftEther protocol say by themselves: a keep-alive and a poll each way."""
        end = self.now + seconds
        due = [(self.now + 4 * chance.random(), number) for number in range(4)]
        while min(due)[0] < end:
            at, number = min(due)
            self.inside(number % 2, 30 + chance.randint(0, 511), at=max(at, self.now))
            due[number] = self.now + max(4.0, 10 * chance.random()), number
        self.now = max(self.now, end)

    def session(self, chance: Random, seconds: float) -> None:
        """A session of two connections."""
        self.login(chance)
        self.wait(1)
        self.login(chance, further=True)
        self.live(chance, seconds)


def judge(
    talks: Iterable[Talk], *, until: float = 0.0, clients: tuple[str, ...] = (), drop: int = 0
) -> list[Finding | Attached]:
    """What is found in a capture of `talks`, without the first `drop` packets."""
    frames: list[Frame] = sorted((frame for talk in talks for frame in talk.frames), key=lambda item: item[0])[drop:]
    detector = Detector(ssh_clients=clients)
    table = FlowTable(detector, sieve=OPENINGS)
    for time, frame in frames:
        table.take(1, frame, [(time, 0, len(frame), len(frame))])
    end = max(until, frames[-1][0])
    table.advance(end)
    detector.finish(end)
    return [found for found in detector.drain() if isinstance(found, Finding | Attached)]


def lines(found: list[Finding | Attached]) -> list[Finding]:
    return [one for one in found if isinstance(one, Finding) and one.verdict is Verdict.CONFIRMED and not one.again]


# -- a session inside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_login_and_a_further_connection_inside_are_one_line(seed: int) -> None:
    chance, one = Random(seed), Shell()
    one.wait(3)
    begin = one.now
    one.session(chance, 75)
    (line,) = lines(judge([one]))
    assert (line.family, line.outer) == (Family.SOFTETHER, Outer.SSH)
    assert (str(line.client), str(line.server)) == ("10.0.0.1:50000", "10.0.0.2:22")
    assert begin <= line.begin < begin + 0.5 < begin + 5 < line.decided < begin + 75
    names = {reason.name: reason.score for reason in line.reasons}
    assert names["login dialogue inside SSH"] >= 6.5
    assert names["further connection inside SSH"] >= 3.5
    assert ("each side speaks without being asked" in names) == (line.rule == "6")
    assert line.rule in ("6", "6b", "2, SSH")
    assert len(line.connections) == 2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("slow", [0.0, 1.5])
def test_two_dialogues_and_then_questions_and_answers_are_no_line(seed: int, slow: float) -> None:
    chance, one = Random(seed), Shell()
    one.session(chance, 0)
    for _ in range(60):
        one.inside(0, 60 + chance.randint(0, 500), at=one.now + chance.expovariate(1 / 3))
        one.inside(1, 60 + chance.randint(0, 500), at=one.now + slow * chance.random())
    assert lines(judge([one])) == []


@pytest.mark.parametrize("seed", range(10))
def test_two_dialogues_and_slow_answers_to_large_questions_are_no_line(seed: int) -> None:
    chance, one = Random(seed), Shell()
    one.session(chance, 0)
    for _ in range(60):
        one.inside(0, 1200 + chance.randint(0, 1500), at=one.now + chance.expovariate(1 / 3))
        one.inside(1, 60 + chance.randint(0, 500), at=one.now + 0.2 + chance.expovariate(1))
    assert lines(judge([one])) == []


@pytest.mark.parametrize("seed", range(3))
def test_where_dialogues_come_and_go_none_is_a_tunnel(seed: int) -> None:
    chance, one = Random(seed), Shell()
    for _ in range(12):
        one.login(chance)
        one.login(chance, further=True)
        one.live(chance, 3)
        one.login(chance, further=True)
        one.live(chance, 3)
    assert lines(judge([one])) == []


def test_what_opens_long_after_the_login_is_no_further_connection_of_it() -> None:
    chance, one = Random(10), Shell()
    one.login(chance)
    one.wait(30)
    one.login(chance, further=True)
    one.live(chance, 40)
    assert "6" not in [line.rule for line in lines(judge([one]))]


def test_a_session_that_is_full_of_data_at_once_is_a_line() -> None:
    chance, one = Random(9), Shell()
    one.session(chance, 0)
    while one.now < BEGIN + 75:
        one.inside(0, 1300 + chance.randint(0, 80), at=one.now + 0.3)
        one.inside(1, 160 + chance.randint(0, 40))
    (line,) = lines(judge([one]))
    assert line.rule == "6b"
    assert line.decided - line.begin < 75


def test_two_sessions_inside_one_connection_are_two_lines() -> None:
    chance, one = Random(1), Shell()
    begins = []
    for seconds in (9, 75):
        begins.append(one.now)
        one.session(chance, seconds)
    found = lines(judge([one]))
    assert sorted(round(line.begin - BEGIN) for line in found) == [round(begin - BEGIN) for begin in begins]


def test_the_end_of_the_ssh_connection_is_the_end_of_its_sessions() -> None:
    chance, one = Random(8), Shell()
    one.session(chance, 75)
    one.close()
    detector = Detector()
    table = FlowTable(detector, sieve=OPENINGS)
    for time, frame in one.frames:
        table.take(1, frame, [(time, 0, len(frame), len(frame))])
    table.advance(one.now + 60)
    ends = [entry for entry in detector.drain() if isinstance(entry, Ended)]
    assert [(entry.reason, entry.session) for entry in ends] == [("closed", False), ("closed", True)]


def test_a_later_connection_of_a_session_is_attached() -> None:
    chance, one = Random(2), Shell()
    one.login(chance)
    for _ in range(3):
        one.wait(1)
        one.login(chance, further=True)
    one.live(chance, 60)
    one.login(chance, further=True)
    found = judge([one])
    (line,) = lines(found)
    assert len(line.connections) == 4  # those before the verdict
    assert sum(isinstance(entry, Attached) for entry in found) == 1


def test_key_strokes_between_the_turns_are_no_hindrance() -> None:
    chance, one = Random(3), Shell()
    for further in (False, True):
        one.handshake()
        for side, size in ((0, 2500), (1, 900), (0, 900 if further else 3100), (1, 800 if further else 2600), (0, 100)):
            for _ in range(2):
                one.inside(0, 12)
                one.inside(1, 20)
            one.inside(side, size)
        one.wait(1 + chance.random())
    one.live(chance, 75)
    (line,) = lines(judge([one]))
    assert "further connection inside SSH" in [reason.name for reason in line.reasons]


def test_a_login_that_goes_on_without_silence_is_a_line_and_one_that_does_not_is_probable() -> None:
    chance, one = Random(4), Shell()
    one.login(chance)
    silent = judge([one], until=BEGIN + 100)
    assert [(entry.rule, entry.verdict) for entry in silent if isinstance(entry, Finding)] == [
        ("6, alone", Verdict.PROBABLE)
    ]
    one.live(chance, 80)
    assert [line.rule for line in lines(judge([one]))] in (["6b"], ["2, SSH"])


@pytest.mark.parametrize("alive", [False, True], ids=["quiet", "with ServerAliveInterval"])
def test_our_own_tunnel_is_known_by_its_timers(alive: bool) -> None:
    chance, one = Random(5), Shell()
    one.own_login(chance)
    due = [one.now + 5, one.now + 7.5]
    asks = one.now + 3.1
    while one.now < BEGIN + 100:
        if alive and asks < min(due):
            one.say(0, 52, at=max(one.now, asks))
            one.say(1, 28)
            asks += 5
            continue
        side = 0 if due[0] <= due[1] else 1
        one.inside(side, 30 + chance.randint(0, 511), at=max(one.now, due[side]))
        due[side] = one.now - 0.01 + 5
    (line,) = lines(judge([one]))
    assert (line.family, line.rule, line.outer) == (Family.UKIHASHI, "own, SSH", Outer.SSH)


# -- roles and beginnings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [0, 1, 2, 3], ids=["whole", "no SYN", "no handshake of TCP but its ACK", "none"])
@pytest.mark.parametrize("ports", [(50000, 22), (40000, 60022), (2222, 2222)])
@pytest.mark.parametrize("server_first", [False, True])
def test_client_and_server_are_never_swapped(drop: int, ports: tuple[int, int], server_first: bool) -> None:
    chance = Random(6)
    one = Shell(client=(CLIENT[0], ports[0]), server=(SERVER[0], ports[1]), server_first=server_first)
    one.session(chance, 75)
    (line,) = lines(judge([one], drop=drop))
    assert (str(line.client), str(line.server)) == (f"10.0.0.1:{ports[0]}", f"10.0.0.2:{ports[1]}")


def test_what_shows_the_roles() -> None:
    turn = Turn(0.0, toward_server=True)
    for number, wrong in ((20, False), (30, False), (31, True), (33, True), (34, False)):
        turn.head = packet(number, 1208)
        assert ssh_wrong_way(turn) is wrong
        turn.toward_server = False
        assert ssh_wrong_way(turn) is (number in (30, 34))
        turn.toward_server = True
    turn.head = b"\0\0\0\1\x06\x1f"
    assert not ssh_wrong_way(turn)
    assert not is_ssh([turn])


# -- the client's name -----------------------------------------------------------------------------------------------


def test_a_client_is_reported_by_its_name_only_if_that_is_asked_for() -> None:
    one = Shell(name=b"SSH-2.0-SoftEther_1.0\r\n")
    one.wait(5)
    assert judge([one]) == []
    (line,) = lines(judge([one], clients=("SSH-2.0-SoftEther*",)))
    assert (line.rule, line.outer, line.target) == ("identification", Outer.SSH, "SSH-2.0-SoftEther_1.0")
    assert [reason.name for reason in line.reasons] == ["SSH client identification"]
    assert judge([one], clients=("SSH-2.0-Other*",)) == []


def test_what_runs_inside_a_named_connection_is_told_without_a_second_line() -> None:
    chance, one = Random(7), Shell()
    for seconds in (9, 75):
        one.session(chance, seconds)
    found = [entry for entry in judge([one], clients=("SSH-2.0-OpenSSH*",)) if isinstance(entry, Finding)]
    assert [(entry.rule == "identification", entry.again, entry.lined) for entry in found] == [
        (True, False, False),
        (False, True, True),
        (False, False, False),
    ]
    assert [reason.name for reason in found[1].reasons][-1] == "SSH client identification"


@pytest.mark.parametrize("name", [b"SSH-2.0-\xff\xfe\r\n", b"SSH-2.0-\x1b[2J\r\n"])
def test_a_name_of_strange_characters_is_not_repeated(name: bytes) -> None:
    turn = Turn(0.0, toward_server=True)
    turn.head = name
    assert ssh_client([turn]) == ""


# -- what else runs over SSH -----------------------------------------------------------------------------------------


def shell(one: Shell, chance: Random) -> None:
    for _ in range(300):
        one.inside(0, 12, at=one.now + 0.1 + chance.random() / 3)
        one.inside(1, chance.choice((12, 20, 80, 400, 3000)))


def copy(one: Shell, chance: Random) -> None:
    for _ in range(15):
        one.inside(0, 32_000)
        one.inside(1, 30)
    del chance


def browsing(one: Shell, chance: Random) -> None:
    for _ in range(20):
        one.handshake()
        for _ in range(4):
            one.inside(0, chance.randint(150, 1400))
            one.inside(1, int(10 ** (2 + 3 * chance.random())))
        one.wait(chance.random() * 2)


def asking(one: Shell, chance: Random) -> None:
    one.own_login(chance)
    for _ in range(25):
        one.inside(0, 210 + chance.randint(0, 6), at=one.now + 5)
        one.inside(1, chance.randint(60, 540))


@pytest.mark.parametrize("habit", [shell, copy, browsing, asking])
@pytest.mark.parametrize("seed", range(3))
def test_other_uses_are_no_tunnel(habit: object, seed: int) -> None:
    chance, one = Random(seed), Shell()
    assert callable(habit)
    habit(one, chance)
    assert [entry for entry in judge([one]) if isinstance(entry, Finding)] == []
