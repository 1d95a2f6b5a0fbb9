"""Packets per second of capture readers on one core: ours, nfstream, ndpiReader and tshark, in turn, round by round.

The capture is made here: ordinary connections (TLS dialogues, then downloads of very different sizes, of many at the
same time), and among them the packets of tests/corpus with other addresses, tunnels included: many more of them than a
network has. `measure` gives the median of each reader's rounds in millions of packets per second.
"""

import gzip
import io
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from lab.scene import CLIENT_HELLO, SERVER_HELLO
from ukihashi.capture.pcap import CaptureFile

CORPUS: Final = Path(__file__).resolve().parents[1] / "tests" / "corpus"
PACKETS: Final = 4_000_000
TUNNEL_SHARE: Final = 0.02  # of the packets: those of tests/corpus
AT_ONCE: Final = 400  # connections
SHORT: Final = 400_000  # packets of the capture for readers that would take minutes
ROUNDS: Final = 3
SNAP: Final = 160  # bytes kept of a packet
NFSTREAM: Final = "nfstream==6.6.0"
_IP: Final = struct.Struct("!BBHHHBBHII")
_TCP: Final = struct.Struct("!HHIIBBHHH")
_RECORD: Final = struct.Struct("<IIII")

Packet = tuple[bytes, int]  # what was captured, bytes on the wire


def ordinary(chance: Random, number: int) -> Iterator[Packet]:
    """A connection: TLS, one to five questions, answers of 200 bytes to 3 MB with a long tail."""
    client, server, port = 0x0A000000 + number, 0x5DB80000 + chance.randrange(1 << 16), chance.randrange(20_000, 60_000)
    next_ = [chance.randrange(1 << 32), chance.randrange(1 << 32)]

    def packet(side: int, flags: int, size: int, head: bytes = b"") -> Packet:
        ends, ports = ((client, server), (port, 443)) if side == 0 else ((server, client), (443, port))
        here, there = next_[side] & 0xFFFFFFFF, next_[1 - side] & 0xFFFFFFFF if flags & 0x10 else 0
        header = bytes(12) + b"\x08\0" + _IP.pack(0x45, 0, 40 + size, 0, 0x4000, 64, 6, 0, *ends)
        header += _TCP.pack(*ports, here, there, 0x50, flags, 65000, 0, 0)
        next_[side] += size + (flags & 3 != 0)
        return header + (head + bytes(size))[: min(size, SNAP - 54)], 54 + size

    yield packet(0, 0x02, 0)
    yield packet(1, 0x12, 0)
    yield packet(0, 0x10, 0)
    turns = [(0, 517), (1, chance.choice((1200, 3800, 4500))), (0, chance.choice((64, 126, 600))), (1, 255)]
    for _ in range(chance.choice((1, 1, 2, 3, 5))):
        turns += [(0, chance.randrange(60, 900)), (1, int(min(3e6, max(200.0, chance.paretovariate(0.9) * 1500))))]
    for place, (side, total) in enumerate(turns):
        left = total
        head, sent = (CLIENT_HELLO, SERVER_HELLO)[place] if place < 2 else b"\x17\x03\x03", 0
        while left:
            size = min(1460, left)
            yield packet(side, 0x18, size, head)
            left, head, sent = left - size, b"", sent + 1
            if side == 1 and sent % 2 == 0:
                yield packet(0, 0x10, 0)
    yield packet(0, 0x11, 0)
    yield packet(1, 0x11, 0)


def corpus() -> list[list[tuple[float, Packet]]]:
    """The Ethernet captures beside the tests, packet by packet, each from second 0 on."""
    found = []
    for path in sorted(CORPUS.glob("*.pcap.gz")):
        packets = list[tuple[float, Packet]]()
        reader = cast("io.BufferedReader", io.BytesIO(gzip.decompress(path.read_bytes())))
        for batch in CaptureFile(io.BufferedReader(cast("io.RawIOBase", reader)), path.name):
            if batch.link_type != 1:
                break
            packets += [
                (at, (bytes(batch.buffer[place : place + size]), length)) for at, place, size, length in batch.packets
            ]
        if packets:
            found.append([(at - packets[0][0], packet) for at, packet in packets])
    return found


def elsewhere(packet: Packet, number: int) -> Packet:
    """The same packet between other IPv4 addresses; the same ones for each `number`."""
    data = bytearray(packet[0])
    if data[12:14] == b"\x08\x00" and len(data) >= 34:
        for at in (26, 30):
            data[at : at + 2] = (0x6400 + number).to_bytes(2)
    return bytes(data), packet[1]


def write_capture(path: Path, count: int, *, seed: int = 1) -> int:
    """A capture of about `count` packets; how many there are."""
    chance = Random(seed)
    sessions = corpus()
    rows = list[tuple[float, Packet]]()
    seconds = count / 40_000  # of capture time
    wanted, number = int(count * TUNNEL_SHARE), 0
    while len(rows) < wanted:
        session = sessions[number % len(sessions)]
        begin = chance.random() * max(1.0, seconds - session[-1][0])
        rows += [(begin + at, elsewhere(packet, number % 0x4000)) for at, packet in session if begin + at < seconds]
        number += 1
    rows.sort(key=lambda row: row[0])
    written, place, flows, live = 0, 0, 0, list[Iterator[Packet]]()
    begin = 1_700_000_000
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))

        def put(now: float, packet: Packet) -> None:
            file.write(_RECORD.pack(begin + int(now), int(now % 1 * 1e6), len(packet[0]), packet[1]) + packet[0])

        while written < count:
            now = written * seconds / count
            while place < len(rows) and rows[place][0] <= now:
                put(now, rows[place][1])
                written, place = written + 1, place + 1
            while len(live) < AT_ONCE:
                flows += 1
                live.append(ordinary(chance, flows))
            which = chance.randrange(len(live))
            for _ in range(chance.randrange(1, 12)):
                packet = next(live[which], None)
                if packet is None:
                    live[which] = live[-1]
                    live.pop()
                    break
                put(now, packet)
                written += 1
    return written


def nfstream(folder: Path) -> tuple[Path | None, str]:
    """A Python that has nfstream, in an environment of its own; or why there is none."""
    python = folder / "bin" / "python"
    for command in ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "-q", NFSTREAM]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, f"{NFSTREAM} could not be installed: {done.stderr.strip().splitlines()[-1:]}"
    return python, ""


_NFSTREAM: Final = """
import sys
from nfstream import NFStreamer
packets = sum(flow.bidirectional_packets for flow in NFStreamer(
    source=sys.argv[1], statistical_analysis=False, n_dissections=20, n_meters=1))
"""


def _seconds(command: list[str], core: int) -> tuple[float, float]:
    """Seconds by the clock, and of the processor, on one core; start included."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(*, packets: int = PACKETS, rounds: int = ROUNDS, core: int | None = None) -> dict[str, Any]:
    """Millions of packets per second by reader, by the clock, the program's start included; `about`: the rest.

    Readers that would take minutes are given a shorter capture, made in the same way.
    """
    core = max(os.sched_getaffinity(0)) if core is None else core
    notes = list[str]()
    with tempfile.TemporaryDirectory(prefix="ukihashi-speed-") as folder:
        whole, short = Path(folder, "whole.pcap"), Path(folder, "short.pcap")
        counts = {whole: write_capture(whole, packets), short: write_capture(short, min(packets, SHORT))}
        ours = [str(Path(sys.executable).with_name("ukihashi")), "alert", "-r", str(whole)]
        readers: dict[str, tuple[list[str], Path]] = {"ukihashi": (ours, whole)}
        python, why = nfstream(Path(folder, "nfstream"))
        if python is not None:
            readers["nfstream"] = ([str(python), "-c", _NFSTREAM, str(short)], short)
        else:
            notes.append(why)
        for name, command in (
            ("ndpiReader", ["ndpiReader", "-q", "-i", str(short)]),
            ("tshark", ["tshark", "-n", "-q", "-z", "conv,tcp", "-r", str(short)]),
        ):
            if shutil.which(name):
                readers[name] = (command, short)
            else:
                notes.append(f"{name} is not installed")
        subprocess.run([sys.executable, "-P", "-m", "ukihashi.capture.warm"], check=True)
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
        for _ in range(rounds):
            for name, (command, _path) in readers.items():
                spent[name].append(_seconds(command, core))
    found: dict[str, Any] = {}
    processor: dict[str, float] = {}
    for name, taken in spent.items():
        millions = counts[readers[name][1]] / 1e6
        found[name] = round(millions / statistics.median(one[0] for one in taken), 4)
        processor[name] = round(millions / statistics.median(one[1] for one in taken), 4)
    found["about"] = {
        "packets": counts[whole],
        "packets_for_the_others": counts[short],
        "by_seconds_of_the_processor": processor,
        "seconds_by_round": {name: [round(one[0], 2) for one in taken] for name, taken in spent.items()},
        "notes": notes,
    }
    if "nfstream" in found:
        found["about"]["times_nfstream"] = round(found["ukihashi"] / found["nfstream"], 1)
        found["about"]["times_nfstream_by_processor"] = round(processor["ukihashi"] / processor["nfstream"], 1)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(packets=int(sys.argv[1]) if len(sys.argv) > 1 else PACKETS), indent=1))
