"""Filter expressions: libpcap's reason for a wrong one, and one meaning for files and cards."""

import ctypes
import struct

import pytest

from ukihashi.capture import bpf
from ukihashi.capture.batch import ETHERNET, RAW_IP, Batch
from ukihashi.errors import EnvironmentLacks, UsageError

ADDRESSES = b"\x02\xaa\xaa\xaa\xaa\xaa\x02\xbb\xbb\xbb\xbb\xbb"


def frame(port: int, *tags: bytes, source: str = "192.168.1.2") -> bytes:
    address = bytes(map(int, source.split(".")))
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + address + bytes((10, 0, 0, 1))
    return (
        ADDRESSES + b"".join(tags) + b"\x08\x00" + header + struct.pack("!HHIIBBHHH", 50000, port, 1, 0, 80, 2, 0, 0, 0)
    )


VLAN = b"\x81\x00\x00\x14"


@pytest.mark.parametrize(
    ("expression", "data", "passes"),
    [
        ("not port 22", frame(22), False),
        ("not port 22", frame(443), True),
        ("not port 22", frame(22, VLAN), False),  # as the kernel's filter sees it: without the tag
        ("tcp port 443", frame(443, VLAN), True),
        ("tcp port 443", frame(443, b"\x88\xa8\x00\x05", VLAN), False),  # the inner tag stays
        ("vlan 20", frame(443, VLAN), True),
        ("vlan 21", frame(443, VLAN), False),
        ("vlan 20 and port 22", frame(22, VLAN), True),
        ("net 192.168.0.0/16", frame(1), True),
        ("net 192.168.0.0/16", frame(1, source="8.8.8.8"), False),
        ("greater 100", frame(1), False),
    ],
)
def test_an_expression_means_what_it_means_on_a_card(expression: str, data: bytes, passes: bool) -> None:
    assert bpf.Filter(expression, ETHERNET).passes(data, len(data)) is passes


def test_lengths_are_those_on_the_wire() -> None:
    assert bpf.Filter("greater 1000", ETHERNET).passes(frame(1), 1500)
    assert not bpf.Filter("greater 1500", ETHERNET).passes(frame(1, VLAN), 1503)  # without the tag: 1499


def test_a_sieve_keeps_order_and_knows_several_link_types() -> None:
    frames = [frame(22), frame(443), frame(22, VLAN), frame(80)]
    buffer, packets = b"", []
    for number, data in enumerate(frames):
        packets.append((float(number), len(buffer), len(data), len(data)))
        buffer += data
    sieve = bpf.Sieve("not port 22")
    assert [packet[0] for packet in sieve(Batch(ETHERNET, buffer, packets)).packets] == [1.0, 3.0]
    raw = frame(22)[14:] + frame(23)[14:]
    left = sieve(Batch(RAW_IP, raw, [(1.0, 0, 40, 40), (2.0, 40, 40, 40)])).packets
    assert [packet[0] for packet in left] == [2.0]


def test_a_wrong_expression_gets_libpcaps_reason_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="syntax error") as caught:
        bpf.Sieve("port port")
    assert "\n" not in str(caught.value)
    assert "'port port'" in str(caught.value)


def test_without_libpcap_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise OSError("no such file")

    bpf._library.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", absent)
        patch.setattr(ctypes.util, "find_library", lambda _name: None)
        with pytest.raises(EnvironmentLacks, match="libpcap"):
            bpf.Sieve("not port 22")
    bpf._library.cache_clear()


def run(program: list[bpf.Instruction], data: bytes) -> int:
    """libpcap's machine over a program without extensions."""
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    return int(bpf._library().bpf_filter(code, data, len(data), len(data)))


def test_a_program_cuts_packets_to_the_snap_length() -> None:
    assert run(bpf.everything(256), frame(1)) == 256
    assert run(bpf.compile_expression("tcp", ETHERNET, 300), frame(1)) == 300
    assert run(bpf.compile_expression("udp", ETHERNET, 300), frame(1)) == 0
