"""A capture file is judged in a bounded child, whatever it holds."""

import asyncio
import gzip
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ukihashi.alert.judge import Judge, Judged, State
from ukihashi.errors import UsageError

CORPUS = Path(__file__).parent.parent / "corpus"
TUNNEL = (CORPUS / "se-d443-idle.pcap.gz").read_bytes()
CROWDED = 60_000  # connections


def crowd() -> bytes:
    """Many connections, to be remembered one and all."""
    begins = [
        bytes(12) + bytes.fromhex("0800" "45000028000000004006" "0000") + struct.pack("!II", 0x0A000000 + number, 1)
        + struct.pack("!HHIIBBHI", 1000, 443, 7, 0, 0x50, 2, 0, 0)
        for number in range(CROWDED)
    ]  # fmt: skip
    packets = (struct.pack("<IIII", 1, number, len(one), len(one)) + one for number, one in enumerate(begins))
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(packets)


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


async def in_parts(data: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def judge(data: bytes, judge_: Judge | None = None, *, size: int | None = None) -> Judged:
    return asyncio.run((judge_ or Judge()).run(in_parts(data), "a.pcap", size))


def test_a_tunnel_is_found_and_what_would_have_changed_it() -> None:
    judged = judge(TUNNEL)
    assert judged.problems == []
    assert judged.state is State.DONE
    assert (judged.packets, judged.taken) == (741, len(TUNNEL))
    (found,) = judged.found()
    assert found.confirmed
    assert (found.client, found.server, found.connections) == ("10.77.8.2:43552", "10.77.200.2:443", 2)
    assert found.reasons[0][0] == "login dialogue"
    assert [step["name"] for step in found.about["timeline"] if step["name"]][:5] == ["hello", "C1", "S1", "C2", "S2"]
    assert any(change["kind"] == "without further" for change in found.about["changes"])


def test_harmless_traffic_is_not() -> None:
    judged = judge((CORPUS / "ng-wss-chat.pcap.gz").read_bytes())
    assert (judged.state, judged.found(), judged.packets) == (State.DONE, [], 146)


def test_a_damaged_file_says_so_and_keeps_what_was_found_before() -> None:
    judged = judge(TUNNEL[:30000])
    assert judged.state is State.FAILED
    assert "damaged" in str(judged.problems[0])
    assert len(judged.found()) == 1


@pytest.mark.parametrize("data", [b"", b"GIF89a" * 1000, TUNNEL[:20], gzip.compress(b"no capture" * 9999)])
def test_what_is_no_capture_is_told_in_a_sentence(data: bytes) -> None:
    judged = judge(data)
    assert (judged.state, judged.found()) == (State.FAILED, [])
    assert len(judged.problems) == 1


def test_a_file_above_the_bound_is_refused_with_and_without_a_length() -> None:
    small = Judge(max_file=20_000)
    for size in (len(TUNNEL), None):
        judged = judge(TUNNEL, small, size=size)
        assert judged.state is State.FAILED
        assert "larger than" in str(judged.problems[0])
        assert judged.taken <= 20_000 + 4096


def test_a_child_that_takes_too_much_time_is_ended() -> None:
    judged = judge(TUNNEL, Judge(wall_s=0.0))
    assert judged.state is State.FAILED
    assert judged.problems


def test_a_child_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    """Judged by a fresh process: what a test before has freed could be used without asking for more."""
    path = tmp_path / "crowd.pcap"
    path.write_bytes(crowd())
    script = """
import sys
from pathlib import Path
from tests.alert.test_judge import judge
from ukihashi.alert.judge import Judge
judged = judge(Path(sys.argv[1]).read_bytes(), Judge(memory=1 << 20))
print(judged.state.name, len(judged.problems))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=120, check=False
    )
    state, problems = ended.stdout.split()
    assert state == "FAILED", ended.stderr
    assert int(problems) >= 1


def test_who_sees_the_result_may_send_the_next_file() -> None:
    async def run() -> None:
        one = Judge()
        task = asyncio.create_task(one.run(in_parts(TUNNEL[:30000]), "first", None))
        while one.last is None or one.last.state is State.READING:
            await asyncio.sleep(0)
        assert not one.busy
        await task

    asyncio.run(run())


def test_a_bomb_is_bounded_by_time_of_the_processor() -> None:
    """Gigabytes of zeros behind a header: each packet is empty, and there are hundreds of millions."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    packed = gzip.compress(header + bytes(1 << 20), 1)

    async def bomb() -> AsyncIterator[bytes]:
        yield packed
        block = gzip.compress(bytes(64 << 20), 9)
        while True:
            yield block

    began = time.monotonic()
    judged = asyncio.run(Judge(cpu_s=1, wall_s=60.0).run(bomb(), "bomb", None))
    assert judged.state is State.FAILED
    assert judged.problems
    assert time.monotonic() - began < 60


def test_cancelled_means_cancelled_and_no_child_or_descriptor_stays() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield TUNNEL[:30000]
        started.set()
        await asyncio.sleep(60)
        yield b""

    async def run() -> Judged:
        task = asyncio.create_task(one.run(slow(), "slow", None))
        await started.wait()
        with pytest.raises(UsageError):
            await one.run(slow(), "second", None)
        assert one.busy
        one.cancel()
        return await task

    one, started = Judge(), asyncio.Event()
    before, born = os.listdir("/proc/self/fd"), children()  # noqa: PTH208 - names are enough
    judged = asyncio.run(run())
    assert judged.state is State.CANCELLED
    assert not one.busy
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    assert children() == born
    one.forget()
    assert one.last is None


def test_who_sends_may_vanish() -> None:
    async def gone() -> AsyncIterator[bytes]:
        yield TUNNEL[:1000]
        raise ConnectionResetError

    one = Judge()
    with pytest.raises(ConnectionResetError):
        asyncio.run(one.run(gone(), "x", None))
    assert one.last is not None
    assert (one.last.state, one.busy) == (State.CANCELLED, False)


def test_the_parent_keeps_its_own_limits() -> None:
    limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU)]
    judge(TUNNEL)
    assert [resource.getrlimit(kind) for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU)] == limits
