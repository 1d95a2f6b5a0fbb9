"""Super-frames finished by us, against a splitter that reckons everything anew; the kernel's is asked in
tests/netns/test_segment_beside.py."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ether.super_frames import ACK, CWR, FIN, PSH, TCP, UDP, Packet, packets

from ukihashi.ether import segment
from ukihashi.ether.offload import ALL, NONE, Kind, SuperFrame, flaw
from ukihashi.ether.segment import finish, finish_all, preload

LARGE = Packet(data=bytes(range(256)) * 200, each=1448, options=b"\1" * 12, flags=ACK | PSH | FIN | CWR)


@given(packets())
def test_a_finished_frame_is_what_a_sender_without_offload_would_have_sent(packet: Packet) -> None:
    assert finish(packet.unfinished()) == packet.finished()


@given(packets(split=True, most=60_000))
def test_large_ones_too_whoever_splits_them(packet: Packet) -> None:
    frame, expected = packet.unfinished(), packet.finished()
    assert flaw(frame, ALL) == ""
    assert finish(frame) == expected
    assert segment.split(segment.cut_of(frame)) == expected or len(expected) == 1


@pytest.mark.parametrize("each", [1448, 1447, 512])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 44])
@pytest.mark.parametrize("rest", [0, 1, 500])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_both_ways_to_split_give_the_same_bytes(each: int, count: int, rest: int, protocol: int, version: int) -> None:
    assert preload(), "numpy is part of what ./run installs"
    from ukihashi.ether import segment_fast

    data = (LARGE.data * 2)[: each * count + rest]
    packet = LARGE._replace(data=data, each=each, protocol=protocol, version=version)
    packet = packet._replace(identification=65530, sequence=(1 << 32) - 3000)  # both run over
    cut = segment.cut_of(packet.unfinished())
    expected = packet.finished()
    if len(expected) > 1:
        assert segment.split(cut) == expected
    if each % 2 == 0 and len(expected) > 1:
        assert segment_fast.split(cut) == expected
    assert finish(packet.unfinished()) == expected
    assert {type(frame) for frame in finish(packet.unfinished())} == {bytes}


def test_a_sum_of_zero_is_written_as_the_other_zero() -> None:
    """To a UDP receiver 0 says that the sender made no checksum."""
    data = bytearray(100)
    for protocol, at in ((UDP, 40), (TCP, 50)):
        packet = Packet(protocol=protocol, data=bytes(data))
        (frame,) = packet.finished()
        data[:2] = frame[at : at + 2]  # the checksum added to the data: now the sum is 0xffff
        (frame,) = finish(packet._replace(data=bytes(data)).unfinished())
        assert frame[at : at + 2] == b"\xff\xff"
        data[:2] = b"\0\0"
    train = Packet(protocol=UDP, data=bytes(3000), each=300)
    check = train.finished()[0][40:42]
    train = train._replace(data=(check + bytes(298)) * 10)
    assert [frame[40:42] for frame in finish(train.unfinished())] == [b"\xff\xff"] * 10
    few = train._replace(data=train.data[:900])
    assert [frame[40:42] for frame in finish(few.unfinished())] == [b"\xff\xff"] * 3


def test_what_the_receiver_can_do_itself_is_left_to_it() -> None:
    frame, small = LARGE.unfinished(), Packet().unfinished()
    assert finish(frame, ALL)[0] is frame
    assert finish(frame, Kind.CHECKSUM | Kind.TSO4 | Kind.TSO_ECN)[0] is frame
    assert finish(frame, Kind.CHECKSUM | Kind.TSO4) == LARGE.finished(), "it can't do ECN"
    assert finish(frame, Kind.CHECKSUM | Kind.TSO6 | Kind.TSO_ECN) == LARGE.finished()
    assert finish(small, Kind.CHECKSUM)[0] is small
    assert finish(small, NONE) == Packet().finished()


def test_a_plain_frame_stays_as_it_is() -> None:
    frame = LARGE.finished()[0]
    assert finish(frame)[0] is frame
    frames = [frame, b"", bytes(60)]
    assert finish_all(frames) is frames


def test_a_run_keeps_its_order() -> None:
    plain, small = bytes(60), Packet().unfinished()
    run = [plain, LARGE.unfinished(), small, plain]
    assert finish_all(run) == [plain, *LARGE.finished(), *Packet().finished(), plain]
    assert finish_all(run, ALL) == run
    left = finish_all(run, Kind.CHECKSUM)
    assert left == [plain, *LARGE.finished(), small, plain]
    assert left[-2] is small


def test_a_super_frame_too_short_to_be_split_only_gets_its_checksum() -> None:
    packet = LARGE._replace(data=LARGE.data[:1448])
    assert finish(packet.unfinished()) == packet.finished()
    empty = LARGE._replace(data=b"")
    assert finish(empty.unfinished()) == empty.finished()


@given(packets(), st.data())
def test_whatever_has_no_flaw_can_be_finished(packet: Packet, data: st.DataObject) -> None:
    frame = bytearray(packet.unfinished())
    places = st.integers(-10, 79).filter(lambda at: at < len(frame))  # the trailer and the headers
    for at in data.draw(st.lists(places, min_size=1, max_size=4)):
        frame[at] = data.draw(st.integers(0, 255))
    changed = SuperFrame(bytes(frame))
    if flaw(changed, ALL) == "":
        finished = finish(changed)
        assert 1 <= len(finished) <= 128
        assert max(map(len, finished)) <= 1600
        assert {one[:14] for one in finished} == {bytes(frame[:14])}


def test_without_numpy_it_is_slower_and_the_same() -> None:
    """A process in which numpy can't be imported, as after a worker gave up the right to read its files."""
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from ukihashi.ether.segment import finish, preload\n"
        "from ukihashi.ether.offload import SuperFrame\n"
        "assert not preload()\n"
        "frames = finish(SuperFrame(sys.stdin.buffer.read()))\n"
        "sys.stdout.buffer.write(b''.join(frames))"
    )
    ran = subprocess.run([sys.executable, "-c", code], input=LARGE.unfinished(), capture_output=True, check=True)
    assert ran.stdout == b"".join(LARGE.finished())


def test_numpy_is_not_imported_before_there_is_something_to_split() -> None:
    small, large = Packet().unfinished(), LARGE.unfinished()
    code = (
        "import sys\n"
        "from ukihashi.ether.segment import finish\n"
        "from ukihashi.ether.offload import SuperFrame\n"
        "data = sys.stdin.buffer.read()\n"
        f"small, large = SuperFrame(data[:{len(small)}]), SuperFrame(data[{len(small)}:])\n"
        "assert finish(small)[0] != small and finish(data) == [data]\n"
        "assert 'numpy' not in sys.modules\n"
        "assert len(finish(large)) == 36\n"
        "assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], input=small + large, check=True)


def test_what_was_preloaded_needs_no_file_any_more() -> None:
    """A hub's worker may reach none."""
    code = (
        "import sys\n"
        "from ukihashi.ether.segment import finish, preload\n"
        "from ukihashi.ether.offload import SuperFrame\n"
        "assert preload()\n"
        "sys.meta_path.clear()\n"
        "sys.stdout.buffer.write(b''.join(finish(SuperFrame(sys.stdin.buffer.read()))))"
    )
    for packet in (LARGE, LARGE._replace(protocol=UDP, version=6)):
        ran = subprocess.run([sys.executable, "-c", code], input=packet.unfinished(), capture_output=True, check=True)
        assert ran.stdout == b"".join(packet.finished())
