import random

import pytest

from ukihashi.ether.icmp import checksum, echo_reply, echo_request


def test_an_ipv4_request_as_ping_sends_it() -> None:
    assert echo_request(4, 0x1234, 1) == bytes.fromhex("0800 e5ca 1234 0001")
    assert checksum(echo_request(4, 0xFFFF, 0xFFFF)) == 0  # what a receiver checks


def test_an_ipv6_request_leaves_the_checksum_to_the_kernel() -> None:
    assert echo_request(6, 0x1234, 7) == bytes.fromhex("8000 0000 1234 0007")


def test_the_checksum_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001 f203 f4f5 f6f7")) == 0x220D


def test_replies() -> None:
    header = bytes([0x45]) + bytes(19)
    assert echo_reply(4, header + bytes.fromhex("0000 0000 1234 0001")) == (0x1234, 1)
    assert echo_reply(4, bytes([0x46]) + bytes(23) + bytes.fromhex("0000 0000 1234 0001") + b"more") == (0x1234, 1)
    assert echo_reply(6, bytes.fromhex("8100 0000 1234 0002")) == (0x1234, 2)


@pytest.mark.parametrize("packet", ["", "45", "0800 0000 1234 0001", "8100 0000 1234", "8101 0000 1234 0001"])
def test_what_is_no_reply(packet: str) -> None:
    assert echo_reply(6, bytes.fromhex(packet)) is None
    assert echo_reply(4, bytes([0x45]) + bytes(19) + bytes.fromhex(packet)) is None


def test_any_bytes_are_survived() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        packet = chance.randbytes(chance.randrange(40))
        echo_reply(4, packet)
        echo_reply(6, packet)
