"""Look-alikes run with their real servers, keep talking, and are recorded on the client's wire."""

from pathlib import Path

import pytest

from lab.look_alikes import QUICK, TABLE, Made, missing, pcap, record, rows
from lab.look_alikes.pcap import Packet


def packet(number: int, size: int) -> Packet:
    return Packet(1000.25 + number, 1514, bytes([number % 256]) * size)


def test_a_capture_is_cut_after_its_begin_and_comes_back_as_it_was(tmp_path: Path) -> None:
    packets = [packet(number, 1514) for number in range(pcap.WHOLE + 5)]
    kept = pcap.shorten(packets)
    assert [len(one.data) for one in kept] == [1514] * pcap.WHOLE + [pcap.SNAP] * 5
    assert {one.wire for one in kept} == {1514}
    for name in ("a.pcap", "a.pcap.gz"):
        pcap.write(tmp_path / name, kept)
        assert pcap.read(tmp_path / name) == kept


def test_a_damaged_end_is_left_out_and_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    pcap.write(tmp_path / "whole.pcap", [packet(0, 100), packet(1, 100)])
    (tmp_path / "cut.pcap").write_bytes((tmp_path / "whole.pcap").read_bytes()[:-1])
    assert pcap.read(tmp_path / "cut.pcap") == [packet(0, 100)]
    (tmp_path / "words").write_bytes(b"these are words")
    with pytest.raises(ValueError, match="no capture file"):
        pcap.read(tmp_path / "words")


def test_every_row_has_a_name_of_its_own_and_words() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert sum(not row.imitates for row in TABLE) >= 40
    assert all(row.runs and row.start.__doc__ and 0 < row.port < 65536 for row in TABLE)


def test_what_no_debian_has_is_said_to_be_missing() -> None:
    assert missing(["no-such-package"]) == ["no-such-package"]
    assert missing([]) == []


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.peer("sshd", "ssh", "tcpdump")
@pytest.mark.timeout(170)
def test_three_of_them_run(tmp_path: Path) -> None:
    made = record(tmp_path, seconds=12.0, chosen=rows(QUICK))
    check(made)
    for one in made:
        assert one.path is not None
        packets = pcap.read(one.path)
        ports = {int.from_bytes(data[34 + end : 36 + end]) for _, _, data, _ in packets for end in (0, 2)}
        assert one.row.port in ports


@pytest.mark.netns
@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_all_of_them_run(tmp_path: Path) -> None:
    made = record(tmp_path)
    check(made)
    assert sum(one.path is not None for one in made) >= 20


def check(made: list[Made]) -> None:
    for one in made:
        assert not one.failed, f"{one.row.name}: {one.failed}"
        assert one.skipped == " ".join(missing(one.row.packages))
