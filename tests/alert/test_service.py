import io
from collections.abc import Callable
from pathlib import Path
from random import Random

from lab.scene import Frame, Talk, keepalives, pcap, softether_login, ukihashi_login
from ukihashi.alert.allow import AllowList
from ukihashi.alert.eve import Stats
from ukihashi.alert.service import Alert
from ukihashi.alert.sinks import LogFile
from ukihashi.capture.batch import Batch
from ukihashi.capture.health import Coverage
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.record import Ended, Family, Finding, Found, Verdict
from ukihashi.errors import EnvironmentLacks, UkihashiError

CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 443)


class Memory:
    """A sink that keeps everything; it breaks after `room` findings."""

    def __init__(self, room: int = 99) -> None:
        self.found: list[Found] = []
        self.ended: list[Ended] = []
        self.room = room
        self.closed = False

    def take(self, found: Found) -> None:
        if isinstance(found, Ended):
            self.ended.append(found)
            return
        if len(self.found) >= self.room:
            raise EnvironmentLacks("full")
        self.found.append(found)

    def close(self) -> None:
        self.closed = True


def source(frames: list[Frame], **how: int) -> CaptureFile:
    return CaptureFile(io.BufferedReader(io.BytesIO(pcap(frames, **how))), "test")  # type: ignore[arg-type]


def keeping(kept: list[Finding]) -> Callable[[Finding], str]:
    """Evidence is only remembered."""

    def keep(finding: Finding) -> str:
        kept.append(finding)
        return "kept"

    return keep


def session(begin: float, *, port: int = 50000, seconds: float = 60.0, client: str = CLIENT[0]) -> list[Frame]:
    chance = Random(begin + port)
    talk = Talk((client, port), SERVER, begin=begin)
    ukihashi_login(talk, chance)
    keepalives(talk, chance, seconds=seconds)
    return talk.frames


def test_findings_reach_every_sink_and_the_counters() -> None:
    one, two, told = Memory(), Memory(), list[UkihashiError]()
    alert = Alert([one, two], tell=told.append)
    frames = session(1_700_000_000.0)
    alert.read(source(frames))
    alert.finish()
    assert len(one.found) == len(two.found) == alert.detections == 1
    assert isinstance(one.found[0], Finding)
    assert one.found[0].family is Family.UKIHASHI
    assert (alert.packets, alert.flows, alert.missed, told) == (len(frames), 1, 0, [])


def test_a_sink_that_fails_is_left_out_told_once_and_the_others_go_on() -> None:
    good, bad, told = Memory(), Memory(room=1), list[UkihashiError]()
    alert = Alert([bad, good], tell=told.append)
    alert.read(source([frame for n in range(3) for frame in session(1_700_000_000.0, client=f"10.0.1.{n}")]))
    assert (len(good.found), len(bad.found), bad.closed, alert.sink_failed) == (3, 1, True, True)
    assert [str(error) for error in told] == ["full"]


def test_a_capture_in_rotated_files_is_one_capture() -> None:
    frames = session(1_700_000_000.0)
    memory = Memory()
    alert = Alert([memory], tell=print)
    third = len(frames) // 3
    for part in (frames[:third], frames[third : 2 * third], frames[2 * third :]):
        alert.read(source(part))
    alert.finish()
    assert [isinstance(found, Finding) and found.rule for found in memory.found] == ["own"]
    assert alert.flows == 1


def test_captures_of_different_days_know_nothing_of_each_other() -> None:
    memory = Memory()
    alert = Alert([memory], tell=print)
    alert.read(source(session(1_700_000_000.0)))
    alert.read(source(session(1_600_000_000.0)))
    alert.finish()
    assert (len(memory.found), alert.flows) == (2, 2)


def test_probable_findings_are_given_only_when_asked_for() -> None:
    talk = Talk(CLIENT, SERVER)
    softether_login(talk, Random(1))
    for probable in (False, True):
        memory = Memory()
        alert = Alert([memory], tell=print, probable=probable)
        alert.read(source(talk.frames))
        alert.finish()
        assert [found.verdict for found in memory.found if isinstance(found, Finding)] == [Verdict.PROBABLE] * probable
        assert alert.detections == 0


def test_a_link_type_nobody_reads_is_told_once() -> None:
    told = list[UkihashiError]()
    alert = Alert([], tell=told.append)
    for _ in range(2):
        alert.take(Batch(147, b"x" * 40, [(0.0, 0, 40, 40)]))
    assert [str(error) for error in told] == ["packets of link type 147 can't be read; left out"]


def test_the_whole_way_from_a_file_of_the_corpus() -> None:
    path = Path(__file__).parent.parent / "corpus" / "se-d443-idle-vlan.pcap.gz"
    memory = Memory()
    alert = Alert([memory], tell=print)
    with path.open("rb") as file:
        alert.read(CaptureFile(file, path.name))
    alert.finish()
    finding = memory.found[0]
    assert isinstance(finding, Finding)
    assert (str(finding.client), str(finding.server)) == ("10.77.8.2:43552", "10.77.200.2:443")


def test_the_end_of_each_connection_and_of_the_session_is_told() -> None:
    memory = Memory()
    alert = Alert([memory], tell=print)
    frames = session(1_700_000_000.0)
    alert.read(source(frames))
    alert.finish()
    assert [(end.session, end.reason) for end in memory.ended] == [(False, "capture_end"), (True, "capture_end")]
    assert abs(memory.ended[0].time - frames[-1][0]) < 1e-5
    assert isinstance(memory.found[0], Finding)
    assert memory.ended[1].finding.client == memory.found[0].client


def test_a_session_whose_connection_is_closed_ends_when_no_other_can_belong_to_it() -> None:
    talk = Talk(CLIENT, SERVER)
    softether_login(talk, Random(1))
    further = Talk((CLIENT[0], 50001), SERVER, begin=talk.now + 1)
    softether_login(further, Random(2), further=True)
    frames = sorted([*talk.frames, *further.frames])
    memory = Memory()
    alert = Alert([memory], tell=print)
    alert.read(source(frames))
    for seconds in range(1, 400):
        alert.idle(frames[-1][0] + seconds)
    assert [type(found) for found in memory.found] == [Finding]
    assert [(end.session, end.reason) for end in memory.ended] == [(False, "silent")] * 2 + [(True, "silent")]


ALLOW = """[[allow]]
id = "a"
client = "10.0.0.0/24"
owner = "Ann"
reason = "approved"
expires = 2040-01-01
"""


def test_an_allowed_finding_is_no_detection_but_an_event_and_so_is_what_follows(tmp_path: Path) -> None:
    (tmp_path / "allow.toml").write_text(ALLOW)
    memory, explained, kept = Memory(), list[Finding](), list[Finding]()
    alert = Alert(
        [memory],
        tell=print,
        explain=explained.append,
        allow=AllowList(tmp_path / "allow.toml"),
        evidence=keeping(kept),
    )
    alert.read(source(session(1_700_000_000.0)))
    alert.finish()
    (finding,) = memory.found
    assert isinstance(finding, Finding)
    assert finding.allowed is not None
    assert finding.allowed.owner == "Ann"
    assert all(end.finding.allowed for end in memory.ended)
    assert (alert.detections, explained, kept) == (0, [], [])
    assert alert.findings == {"ukihashi TCP CONFIRMED allowed": 1}


def test_the_file_with_the_evidence_is_in_the_finding() -> None:
    memory = Memory()
    alert = Alert([memory], tell=print, evidence=lambda finding: f"{finding.client.port}.zip")
    alert.read(source(session(1_700_000_000.0)))
    alert.finish()
    assert isinstance(memory.found[0], Finding)
    assert memory.found[0].evidence_file == "50000.zip"


class Clock(Memory):
    """A sink that is a gauge, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stats: list[Stats] = []

    def count(self, stats: Stats) -> None:
        self.stats.append(stats)


def test_counters_each_second_and_a_report_at_the_end_of_each_period() -> None:
    clock, reports = Clock(), list[tuple[Coverage, int]]()
    alert = Alert([clock], tell=print, report=lambda seen, lines: reports.append((seen, lines)), period_s=10)
    begin = 1_700_000_000.0
    for second in range(1, 26):
        seen = Coverage(begin, begin + second, packets=100 * second, dropped=second // 20, tcp_bytes=10, missing=0)
        alert.measured(seen, seen)
    alert.close()
    assert len(clock.stats) == 26
    assert [round(stats.period) for stats in clock.stats if stats.period] == [10, 10, 5]
    assert [(seen.packets, seen.dropped) for seen, _lines in reports] == [(1000, 0), (1000, 1), (500, 0)]
    assert [seen.begin - begin for seen, _lines in reports] == [0, 10, 20]
    assert clock.stats[-1].coverage == 2500 / 2501


def test_a_capture_file_has_counters_at_its_end_by_its_own_clock() -> None:
    clock = Clock()
    alert = Alert([clock], tell=print)
    frames = session(1_700_000_000.0)
    alert.read(source(frames))
    alert.finish()
    alert.close()
    (stats,) = clock.stats
    assert abs(stats.period - (frames[-1][0] - frames[0][0])) < 1e-3
    assert (stats.packets, stats.flows_total, stats.findings) == (len(frames), 1, {"ukihashi TCP CONFIRMED": 1})


def test_what_is_only_probable_reaches_a_sink_that_wants_it() -> None:
    class Keen(Memory):
        wants_probable = True

    talk = Talk(CLIENT, SERVER)
    softether_login(talk, Random(1))
    keen, plain, kept = Keen(), Memory(), list[Finding]()
    alert = Alert([keen, plain], tell=print, evidence=keeping(kept))
    alert.read(source(talk.frames))
    alert.finish()
    assert [found.verdict for found in keen.found if isinstance(found, Finding)] == [Verdict.PROBABLE]
    assert (plain.found, kept) == ([], [])


def test_logs_are_begun_anew_when_asked_and_a_log_that_mends_itself_is_kept(tmp_path: Path) -> None:
    told = list[UkihashiError]()
    log, full = LogFile(tmp_path / "a.log"), LogFile(Path("/dev/full"))
    alert = Alert([log, full], tell=told.append)
    alert.read(source(session(1_700_000_000.0)))
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    alert.reopen()
    alert.measured(Coverage(0, 1), Coverage(0, 1))
    assert (tmp_path / "a.log").read_text() == ""
    alert.read(source(session(1_700_000_001.0, port=50001)))
    alert.close()
    assert len((tmp_path / "a.log").read_text().splitlines()) == 1
    assert len((tmp_path / "a.log.1").read_text().splitlines()) == 1
    assert alert.sink_failed
    assert [str(error) for error in told] == [
        "/dev/full can't be written (No space left on device); its lines wait in memory until it can"
    ]


def test_a_run_that_saw_nothing_has_no_counters() -> None:
    clock, reports = Clock(), list[int]()
    alert = Alert([clock], tell=print, report=lambda _seen, lines: reports.append(lines))
    alert.close()
    assert (clock.stats, reports, clock.closed) == ([], [], True)
