"""Findings with the packets that were kept of them, from scenes and from capture files."""

import io
from functools import cache
from pathlib import Path
from random import Random

from lab.scene import (
    CLIENT_HELLO,
    OWN_TURNS,
    SERVER_HELLO,
    Frame,
    Talk,
    keepalives,
    pcap,
    softether_login,
    ukihashi_login,
)
from ukihashi.alert.service import Alert
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.record import Finding, Found

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
CLIENT, SERVER = "10.0.0.1", ("10.0.0.2", 443)
BEGIN = 1_700_000_000.0
LOGIN = (2400, 900, 3000, 2500)
FURTHER = (2200, 800, 700, 600)
BASE = OWN_TURNS


class Memory:
    """A sink that keeps findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def take(self, found: Found) -> None:
        if isinstance(found, Finding):
            self.findings.append(found)

    def close(self) -> None:
        pass


def findings(frames: list[Frame], *, probable: bool = False) -> list[Finding]:
    """What is found in `frames`."""
    return _read(io.BufferedReader(io.BytesIO(pcap(frames, nanoseconds=True))), "scene", probable=probable)


@cache
def of_corpus(name: str) -> list[Finding]:
    """What is found in a capture of the corpus."""
    with (CORPUS / name).open("rb") as file:
        return _read(file, name)


def _read(file: io.BufferedReader, name: str, *, probable: bool = False) -> list[Finding]:
    memory = Memory()
    alert = Alert([memory], tell=print, probable=probable)
    alert.read(CaptureFile(file, name))
    alert.finish()
    return memory.findings


def opening(
    port: int, begin: float, sizes: tuple[int, ...], *, slow: float = 0.0, before: tuple[tuple[int, bytes], ...] = ()
) -> list[Frame]:
    """A connection with the given opening turns; `slow`: seconds before the second; `before`: what comes before TLS."""
    talk = Talk((CLIENT, port), SERVER, begin=begin)
    talk.open()
    for side, head in before:
        talk.say(side, len(head), head=head)
    talk.say(0, 517, head=CLIENT_HELLO)
    talk.say(1, 1400, head=SERVER_HELLO)
    for place, size in enumerate(sizes):
        talk.now += slow if place == 1 else 0.0
        talk.say(place % 2, size)
    talk.say(0, 200)
    talk.say(1, 200)
    return talk.frames


def session(
    login: tuple[int, ...] = LOGIN,
    further: tuple[int, ...] | None = FURTHER,
    *,
    later: float = 1.5,
    slow: float = 0.0,
    before: tuple[tuple[int, bytes], ...] = (),
) -> list[Frame]:
    """A SoftEther session of two connections whose sizes and times are given."""
    frames = opening(50000, BEGIN, login, slow=slow, before=before)
    if further is not None:
        frames += opening(50001, BEGIN + later, further, before=before)
    return sorted(frames, key=lambda frame: frame[0])


def own_session(seconds: float = 60.0, *, sizes: range = range(512)) -> list[Frame]:
    """A session of ours that idles."""
    chance, talk = Random(7), Talk((CLIENT, 50000), SERVER, begin=BEGIN)
    ukihashi_login(talk, chance, base=BASE)
    keepalives(talk, chance, seconds=seconds, sizes=sizes)
    return talk.frames


def softether_random(port: int, begin: float, *, further: bool = False) -> list[Frame]:
    """A connection with sizes by chance."""
    talk = Talk((CLIENT, port), SERVER, begin=begin)
    softether_login(talk, Random(port), further=further)
    return talk.frames
