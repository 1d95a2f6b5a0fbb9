import io
from pathlib import Path
from random import Random

from lab.scene import Frame, Talk, keepalives, pcap, softether_login, ukihashi_login
from ukihashi.alert.service import Alert
from ukihashi.capture.batch import Batch
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.record import Family, Finding, Found, Verdict
from ukihashi.errors import EnvironmentLacks, UkihashiError

CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 443)


class Memory:
    """A sink that keeps everything; it breaks after `room` findings."""

    def __init__(self, room: int = 99) -> None:
        self.found: list[Found] = []
        self.room = room
        self.closed = False

    def take(self, found: Found) -> None:
        if len(self.found) >= self.room:
            raise EnvironmentLacks("full")
        self.found.append(found)

    def close(self) -> None:
        self.closed = True


def source(frames: list[Frame], **how: int) -> CaptureFile:
    return CaptureFile(io.BufferedReader(io.BytesIO(pcap(frames, **how))), "test")  # type: ignore[arg-type]


def session(begin: float, *, port: int = 50000, seconds: float = 60.0) -> list[Frame]:
    chance = Random(begin + port)
    talk = Talk((CLIENT[0], port), SERVER, begin=begin)
    ukihashi_login(talk, chance, base=(155, 349, 1215, 792))
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
    alert.read(source([frame for n in range(3) for frame in session(1_700_000_000.0 + n, port=50000 + n)]))
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
