"""Super-frames: what kind they are, and which must not reach the kernel or the splitter."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ether.super_frames import ACK, CWR, MACS, UDP, Packet, packets

from ukihashi.ether import offload
from ukihashi.ether.frame import MAX_FRAME
from ukihashi.ether.offload import (
    ALL,
    MAX_SEGMENTS,
    MAX_SUPER_FRAME,
    NONE,
    OFFLOAD,
    TRAILER,
    Kind,
    SuperFrame,
    common,
    fits,
    flaw,
    kind_of,
    names,
    sound,
)

TSO4 = Packet(data=bytes(5000), each=1400)
CHECKED = Packet(data=bytes(100))
UDP_TRAIN = Packet(protocol=UDP, data=bytes(5000), each=1000)


def with_plan(frame: SuperFrame, **new: int) -> SuperFrame:
    """The frame with some fields of its trailer changed."""
    names = ("flags", "split", "head", "each", "start", "offset")
    fields = dict(zip(names, OFFLOAD.unpack(frame[-TRAILER:]), strict=True)) | new
    return SuperFrame(frame[:-TRAILER] + OFFLOAD.pack(*fields.values()))


def with_byte(frame: SuperFrame, at: int, value: int) -> SuperFrame:
    """The frame with one byte changed."""
    return SuperFrame(frame[:at] + bytes([value]) + frame[at + 1 :])


def test_the_trailer_is_linux_virtio_net_hdr() -> None:
    frame = TSO4.unfinished()
    assert frame[-10:] == struct.pack("<BBHHHH", 1, 1, 54, 1400, 34, 16)
    assert type(frame[:-10]) is bytes


@given(packets())
def test_what_a_kernel_would_send_has_no_flaw(packet: Packet) -> None:
    assert flaw(packet.unfinished(), ALL) == ""
    assert flaw(packet.unfinished(), ALL) == "", "nor when it is remembered"


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (CHECKED, Kind.CHECKSUM),
        (TSO4, Kind.CHECKSUM | Kind.TSO4),
        (TSO4._replace(version=6), Kind.CHECKSUM | Kind.TSO6),
        (TSO4._replace(flags=ACK | CWR), Kind.CHECKSUM | Kind.TSO4 | Kind.TSO_ECN),
        (TSO4._replace(version=6, flags=CWR), Kind.CHECKSUM | Kind.TSO6 | Kind.TSO_ECN),
        (UDP_TRAIN, Kind.CHECKSUM | Kind.USO4),
        (UDP_TRAIN._replace(version=6), Kind.CHECKSUM | Kind.USO6),
        (UDP_TRAIN._replace(tag=b"\x81\0\0\1"), Kind.CHECKSUM | Kind.USO4),
    ],
)
def test_each_kind_is_known_and_goes_only_where_it_was_granted(packet: Packet, kind: Kind) -> None:
    frame = packet.unfinished()
    assert kind_of(frame) == kind
    assert flaw(frame, kind) == ""
    assert fits(frame, kind)
    for lacking in kind:
        assert flaw(frame, kind & ~lacking) == "not granted"
        assert not fits(frame, ALL & ~lacking)


def test_a_plain_frame_is_of_no_kind_and_fits_everywhere() -> None:
    frame = CHECKED.finished()[0]
    assert kind_of(frame) == NONE
    assert fits(frame, NONE)


@pytest.mark.parametrize(
    ("ours", "theirs", "both"),
    [
        (ALL, ALL, ALL),
        (ALL, 0, NONE),
        (ALL, 1 << 30 | 3, Kind.CHECKSUM | Kind.TSO4),
        (ALL, 2 | 8, NONE),  # none without the checksum
        (ALL, 1 | 8 | 16, Kind.CHECKSUM | Kind.USO4),  # ECN is of TCP
        (3, 5, Kind.CHECKSUM),
    ],
)
def test_what_two_ends_share(ours: int, theirs: int, both: Kind) -> None:
    assert common(ours, theirs) == both == common(theirs, ours)


TSO6 = TSO4._replace(version=6)
BEHIND = TSO6._replace(ip_options=bytes(8))  # behind an extension header
FLAWS = [
    (CHECKED, {"flags": 0}, "flags"),
    (CHECKED, {"flags": 2}, "flags"),
    (CHECKED, {"flags": 3}, "flags"),
    (TSO4, {"flags": 0}, "flags"),
    (CHECKED, {"split": 2}, "kind"),
    (CHECKED, {"split": 3}, "kind"),  # UFO
    (TSO4, {"split": 0x85}, "kind"),
    (TSO4, {"split": 0x80}, "kind"),
    (CHECKED, {"start": 33}, "checksum start"),
    (CHECKED, {"start": 0}, "checksum start"),
    (CHECKED, {"start": 65535, "offset": 65535}, "beyond the end"),
    (CHECKED, {"offset": 119}, "beyond the end"),
    (CHECKED, {"head": 155}, "beyond the end"),
    (CHECKED, {"each": 1}, "segment size"),
    (TSO4, {"each": 0}, "segment size"),
    (TSO4, {"each": MAX_FRAME - 54 + 1}, "segment size"),
    (TSO4, {"each": 39}, "too many segments"),
    (TSO4, {"start": 38}, "checksum start"),
    (TSO4, {"start": 30}, "checksum start"),
    (TSO4, {"start": 5040}, "beyond the end"),
    (TSO4, {"head": 5055}, "beyond the end"),
    (TSO4, {"offset": 6}, "checksum offset"),
    (UDP_TRAIN, {"offset": 16}, "checksum offset"),
    (TSO4, {"split": 4}, "IP version"),
    (TSO6, {"split": 1}, "IP version"),
    (TSO6, {"start": 53}, "checksum start"),
    (TSO6, {"start": 55}, "checksum start"),
    (TSO6, {"start": 62}, "checksum start"),
    (BEHIND, {"start": 54}, "protocol"),
    (BEHIND, {"start": 63}, "checksum start"),  # odd: no header is
    (BEHIND, {"start": 70}, "checksum start"),
    (BEHIND, {"split": 5, "offset": 6}, "protocol"),
    (UDP_TRAIN, {"split": 1, "offset": 16}, "protocol"),
    (TSO4, {"split": 5, "offset": 6}, "protocol"),
    (TSO6, {"split": 5, "offset": 6}, "protocol"),
]


@pytest.mark.parametrize(("packet", "new", "reason"), FLAWS)
def test_a_wrong_field_is_a_flaw(packet: Packet, new: dict[str, int], reason: str) -> None:
    assert flaw(with_plan(packet.unfinished(), **new), ALL) == reason


@pytest.mark.parametrize(
    ("packet", "at", "value", "reason"),
    [
        (TSO4, 14, 0x65, "IP version"),
        (TSO4, 14, 0x46, "checksum start"),
        (TSO4, 20, 0x20, "fragment"),  # more fragments
        (TSO4, 21, 0x01, "fragment"),
        (TSO4, 46, 0x40, "TCP header"),
        (TSO4._replace(data=bytes(5), each=2), 46, 0x70, "TCP header"),  # beyond the end
        (TSO6, 14, 0x40, "IP version"),
        (TSO6, 20, 44, "protocol"),
        (BEHIND, 55, 255, "checksum start"),  # its length
        (BEHIND, 54, 60, "protocol"),  # one more, which is not there
        (TSO4, 13, 6, "IP version"),  # ARP
        (UDP_TRAIN, 13, 6, "IP version"),
        (TSO4._replace(tag=b"\x81\0\0\1"), 17, 1, "IP version"),
    ],
)
def test_headers_that_are_not_what_the_kind_says_are_a_flaw(packet: Packet, at: int, value: int, reason: str) -> None:
    assert flaw(with_byte(packet.unfinished(), at, value), ALL) == reason


def test_two_tags_are_a_flaw_where_it_is_to_be_split_only() -> None:
    tags = b"\x88\xa8\0\1\x81\0\0\2"
    assert flaw(TSO4._replace(tag=tags).unfinished(), ALL) == "IP version"
    assert flaw(CHECKED._replace(tag=tags).unfinished(), ALL) == ""


def test_sizes_have_limits() -> None:
    whole = Packet(protocol=UDP, data=bytes(MAX_FRAME - 42))
    assert flaw(whole.unfinished(), ALL) == ""
    assert flaw(whole._replace(data=whole.data + b"\0").unfinished(), ALL) == "too long"
    largest = Packet(data=bytes(MAX_SUPER_FRAME - TRAILER - 54 - 160), each=1500).unfinished()
    assert flaw(largest, ALL) == ""
    longer = SuperFrame(largest[:-TRAILER] + bytes(160) + largest[-TRAILER:])
    assert len(longer) == MAX_SUPER_FRAME
    assert flaw(longer, ALL) == ""
    assert flaw(SuperFrame(b"\0" + longer), ALL) == "too long"
    most = Packet(protocol=UDP, data=bytes(MAX_SEGMENTS * 100), each=100)
    assert flaw(most.unfinished(), ALL) == ""
    assert flaw(most._replace(data=most.data + b"\0").unfinished(), ALL) == "too many segments"


@given(st.binary(max_size=120), packets(), st.integers(0, 4000), st.integers(0, 63))
def test_anything_at_all_is_survived(noise: bytes, packet: Packet, at: int, granted: int) -> None:
    frame = packet.unfinished()
    for some in (noise, MACS + noise, frame[:at], frame[:at] + noise, noise + frame, frame[:-TRAILER] + noise[-10:]):
        assert isinstance(flaw(SuperFrame(some), Kind(granted)), str)


@given(packets(), st.tuples(*[st.integers(0, 5)] * 2, *[st.sampled_from((0, 1, 14, 34, 54, 100, 1400, 65535))] * 4))
def test_what_was_remembered_changes_no_verdict(packet: Packet, plan: tuple[int, ...]) -> None:
    frame = SuperFrame(packet.unfinished()[:-TRAILER] + OFFLOAD.pack(*plan))
    offload._LEAST.clear()
    first = flaw(frame, ALL)
    flaw(SuperFrame(bytes(1590) + frame[-TRAILER:]), ALL)
    assert flaw(frame, ALL) == first
    assert flaw(frame, NONE) != ""


@given(st.data())
def test_no_verdict_on_a_long_frame_changes_when_others_are_remembered(data: st.DataObject) -> None:
    offload._MOST.clear()
    packet = data.draw(st.sampled_from((TSO4, TSO4._replace(each=100), TSO4._replace(data=bytes(60_000)))))
    good = packet.unfinished()
    assert flaw(good, ALL) == flaw(good, ALL) == ""
    assert len(offload._MOST) == 1
    places = st.one_of(st.integers(12, 60), st.integers(-TRAILER, -1).map(lambda at: len(good) + at))
    bad = good
    for at in data.draw(st.lists(places, min_size=1, max_size=3)):
        bad = with_byte(bad, at, data.draw(st.sampled_from((0, 1, 4, 5, 6, 8, 0x11, 0x20, 0x40, 0x45, 0x50, 255))))
    bad = SuperFrame(bytes(bad[:-TRAILER]) + data.draw(st.sampled_from((b"", bytes(9000)))) + bad[-TRAILER:])
    granted = data.draw(st.sampled_from((ALL, Kind.CHECKSUM | Kind.TSO4, Kind.CHECKSUM | Kind.TSO6, NONE)))
    known = flaw(bad, granted)
    offload._MOST.clear()
    assert flaw(bad, granted) == known


def test_what_is_remembered_is_bounded() -> None:
    offload._MOST.clear()
    for each in range(100, 1300):
        assert flaw(with_plan(TSO4.unfinished(), each=each), ALL) == ""
    assert len(offload._MOST) == 1024
    offload._MOST.clear()
    offload._LEAST.clear()
    for start in range(34, 1500):
        assert flaw(with_plan(Packet(data=bytes(1500)).unfinished(), start=start, offset=0), ALL) == ""
    assert len(offload._LEAST) <= 1024
    offload._LEAST.clear()


def test_kinds_have_names() -> None:
    assert names(ALL) == "checksum, TSO4, TSO6, TSO_ECN, USO4, USO6"
    assert names(Kind.CHECKSUM | Kind.TSO6) == "checksum, TSO6"
    assert names(0) == ""


@given(st.lists(st.one_of(st.binary(min_size=24, max_size=90), packets().map(Packet.unfinished)), max_size=8))
def test_the_sound_ones_of_a_run_are_those_without_a_flaw(run: list[bytes]) -> None:
    frames = [frame for one in run for frame in (SuperFrame(one), bytes(one))]
    for granted in (ALL, Kind.CHECKSUM | Kind.TSO4, NONE):
        for _ in range(2):  # the second time some are known
            wanted = [frame for frame in frames if not isinstance(frame, SuperFrame) or not flaw(frame, granted)]
            assert sound(frames, granted) == wanted


@pytest.mark.parametrize("size", [MAX_FRAME + TRAILER - 1, MAX_FRAME + TRAILER, MAX_FRAME + TRAILER + 1])
def test_an_unknown_trailer_is_judged_whatever_the_length(size: int) -> None:
    odd = SuperFrame(bytes(size - TRAILER) + OFFLOAD.pack(2, 0, 0, 0, size % 251, 16))
    assert flaw(odd, ALL)
    assert sound([odd, b"plain"], ALL) == [b"plain"]
