"""How fast the pure core is on this machine: `./run bench core`. Prints, asserts nothing.

Figures are per second of CPU time of one core, the median of several rounds.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ukihashi.ether import segment
from ukihashi.ether.offload import ALL, OFFLOAD, SuperFrame, flaw
from ukihashi.switch.access import Rule
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.policy import Policy

ROUNDS = 7
SECONDS = 0.2  # of each round
QUICK_ROUNDS = 3
A, B, C = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3))


rounds = ROUNDS
found: dict[str, float] = {}  # what was measured -> frames a second of CPU


def measure(name: str, frames: int, work: Callable[[], object]) -> None:
    """Repeat `work`, which handles `frames` frames, and print the rate."""
    compare([(name, frames, work)])


def compare(cases: Sequence[tuple[str, int, Callable[[], object]]]) -> None:
    """The same for several, in turn, and what each is beside the first: of one run, whatever else the machine does."""
    rates: dict[str, list[float]] = {name: [] for name, _, _ in cases}
    for _ in range(rounds):
        for name, frames, work in cases:
            count, start = 0, time.process_time()
            while time.process_time() - start < SECONDS:
                for _ in range(10):
                    work()
                count += 10 * frames
            rates[name].append(count / (time.process_time() - start))
    base = rates[cases[0][0]]
    for name, its in rates.items():
        found[name] = statistics.median(its)
        spread = f"({min(its) / 1e6:.2f}..{max(its) / 1e6:.2f})"
        share = statistics.median(one / other for one, other in zip(its, base, strict=True))
        ratio = f"  {share:5.2f} of the first" if its is not base else ""
        print(f"{name:48} {found[name] / 1e6:8.2f} M frames/s {spread}{ratio}", flush=True)


def frame(destination: bytes, source: bytes, length: int = 1514) -> bytes:
    """A frame of TCP over IPv4."""
    head = b"\x45\0" + (length - 14).to_bytes(2, "big") + b"\0\0\0\0\x40\6\0\0\x0a\0\0\1\x0a\0\0\2"
    return (destination + source + b"\x08\x00" + head + b"\x30\x39\x14\x51" + bytes(length))[:length]


def bench_decoder() -> None:
    """One read of 16 to 256 KiB with one batch of frames; the same cut at a bad place."""
    for kib in (16, 64, 256):
        for length in (1514, 64):
            frames = [frame(A, B, length)] * (kib * 1024 // (length + 4))
            data, decoder = encode_frames(frames), BlockDecoder()
            measure(f"decode {kib} KiB, frames of {length} B", len(frames), partial(decoder.feed, data))
    frames = [frame(A, B, length) for length in (1514, 66, 1514, 1400, 90, 66, 1514)] * 8
    data = encode_frames(frames)
    measure("decode 50 KiB, mixed sizes", len(frames), partial(BlockDecoder().feed, data))
    frames = [frame(A, B)] * 43
    data = encode_frames(frames)
    pieces, decoder = [data[: len(data) - 700], data[-700:]], BlockDecoder()
    measure("decode 64 KiB cut in a frame", len(frames), lambda: [decoder.feed(piece) for piece in pieces])


def bench_encoder() -> None:
    """Frames of one turn into one batch."""
    frames = [frame(A, B)] * 43
    measure("encode 64 KiB, frames of 1514 B", len(frames), lambda: encode_frames(frames))


def bench_switch() -> None:
    """Batches of 43 frames between learned stations, alternating ones, and floods; then with rules that are asked."""
    plain = learned()
    one, two = [frame(B, A)] * 43, [frame(B, A), frame(C, A)] * 21
    flood, single = [frame(b"\xff" * 6, A)] * 43, [frame(B, A)]
    compare(
        [
            ("switch, run to a known station", len(one), lambda: plain.forward(one, PortId(1), 1.0)),
            ("switch, two known stations in turn", len(two), lambda: plain.forward(two, PortId(1), 1.0)),
            ("switch, flood to two ports", len(flood), lambda: plain.forward(flood, PortId(1), 1.0)),
            ("switch, batches of one frame", 1, lambda: plain.forward(single, PortId(1), 1.0)),
        ]
    )
    cases = {
        "no rules": PortRules(),
        "a usual member": PortRules(confined=True),
        "a filter": PortRules(policy=Policy(dhcp_no_server=True)),
        "traffic limits": PortRules(policy=Policy(max_upload=1 << 31)),
        "a VLAN": PortRules(policy=Policy(vlan_id=5)),
    }
    switches = {name: learned(rules) for name, rules in cases.items()}
    switches["an access list"] = listed = learned()
    listed.set_rules(HubRules(), [Rule(protocol=6, destination_ports=(25, 25))] * 10)
    switches["a monitor beside"] = heard = learned()
    heard.add_port(PortId(4), PortRules(monitor=True))
    compare(
        [
            (f"switch, {name}", len(one), partial(switch.forward, one, PortId(1), 1.0))
            for name, switch in switches.items()
        ]
    )


def bench_offload() -> None:
    """Frames that leave the world of super-frames: a checksum put in, 64 KiB split; and the look at their headers."""
    for length in (66, 1400):
        small = left_undone(length)
        measure(f"checksum put into a frame of {length} B", 1, partial(segment.finish, small))
    large = left_undone(65_000, each=1448)
    count, cut = len(segment.finish(large)), segment.cut_of(large)
    cases: list[tuple[str, int, Callable[[], object]]] = [
        ("64 KiB split, plain Python", count, lambda: segment.split(cut)),
    ]
    if segment.preload():
        cases.append(("64 KiB split, numpy", count, lambda: segment.finish(large)))
    compare(cases)
    measure("header looked at, checksum only", 1, lambda: flaw(small, ALL))
    measure("header looked at, to be split", 1, lambda: flaw(large, ALL))


def left_undone(length: int, each: int = 0) -> SuperFrame:
    """A frame of TCP over IPv4 that lacks its checksum, and is to be split if `each` is given."""
    whole = frame(A, B, length)
    whole = whole[:46] + b"\x80\x10" + whole[48:]  # a header of 32 bytes
    return SuperFrame(whole + OFFLOAD.pack(1, 1 if each else 0, 66 if each else 0, each, 34, 16))


def learned(rules: PortRules = PortRules()) -> Switch:  # noqa: B008 - a value
    """A switch of three ports that knows their stations; the first two have these rules."""
    switch = Switch()
    for port in (1, 2, 3):
        switch.add_port(PortId(port), rules if port < 3 else PortRules())
    for port, station in ((1, A), (2, B), (3, C)):
        switch.forward([frame(b"\xff" * 6, station)], PortId(port), 0.0)
    return switch


def main(argv: Sequence[str]) -> int:
    """Run all; with --json FILE write the medians."""
    global rounds  # noqa: PLW0603 - one run a process
    parser = argparse.ArgumentParser(prog="./run bench core", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians there, frames a second of CPU")
    words = parser.parse_args(argv)
    rounds = QUICK_ROUNDS if words.quick else ROUNDS
    bench_decoder()
    bench_encoder()
    bench_switch()
    bench_offload()
    if words.json:
        words.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
