"""DNS questions and answers, written and read."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.ether import dns

labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
names = st.lists(labels, max_size=5).map(".".join).filter(lambda name: len(name) < 250)


@given(names, st.integers(0, 65535), st.sampled_from([0, 512, 1232, 4096]))
def test_a_question_is_read_as_it_was_written(name: str, kind: int, size: int) -> None:
    asked = dns.parse(dns.query(77, name, kind, size=size))
    assert (asked.number, asked.name, asked.kind, asked.klass, asked.size) == (77, name, kind, dns.INTERNET, size)
    assert asked.is_plain
    assert 512 <= asked.limit <= dns.EDNS_LIMIT


def test_names_are_compared_in_lower_case_and_answered_as_they_were_asked() -> None:
    payload = dns.query(1, "Nova.LAN.Internal", dns.A)
    asked = dns.parse(payload)
    assert asked.name == "nova.lan.internal"
    assert b"\x04Nova\x03LAN" in dns.answer(asked)


def test_an_answer_carries_its_records() -> None:
    asked = dns.parse(dns.query(9, "nova.lan.internal", dns.A))
    record = dns.address(ip_address("10.1.2.3"), asked.name, 60)
    told = dns.parse_answer(dns.answer(asked, records=[record]))
    assert told == dns.Answer(9, dns.NO_ERROR, False, [record])
    assert dns.address_of(told.records[0]) == ip_address("10.1.2.3")
    no = dns.parse_answer(dns.answer(asked, dns.NO_SUCH_NAME, authority=[dns.authority("lan", "ns.lan", 60)]))
    assert (no.code, no.records) == (dns.NO_SUCH_NAME, [])


@pytest.mark.parametrize("size", [0, 600, 4096])
def test_an_answer_keeps_to_its_limit_and_says_so(size: int) -> None:
    asked = dns.parse(dns.query(9, "nova.lan.internal", dns.A, size=size))
    records = [dns.address(ip_address(f"10.1.2.{n}"), asked.name, 60) for n in range(200)]
    answer = dns.answer(asked, records=records)
    assert len(answer) <= asked.limit
    assert dns.parse_answer(answer).truncated
    assert not dns.parse_answer(dns.answer(asked, records=records[:9])).truncated


def test_names_with_pointers_end() -> None:
    data = b"\x03lan\x00" + b"\x04nova\xc0\x00" + b"\xc0\x05"
    assert dns.read_name(data, 5) == ("nova.lan", 12)
    assert dns.read_names(data) == ["lan", "nova.lan", "nova.lan"]
    for bad in (b"\xc0\x00", b"\x01a\xc0\x00", b"\x01a\xc0", b"\x05ab", b"\x80a\0", b"", b"\x3f" * 300):
        with pytest.raises(PeerViolation):
            dns.read_name(bad, 0)


def test_names_that_can_not_be_written() -> None:
    assert dns.write_name("") == dns.write_name(".") == b"\0"
    for bad in ("a..b", "a" * 64, ".".join(["a" * 60] * 5), ".a"):
        with pytest.raises(ValueError, match=r"name|label"):
            dns.write_name(bad)


@pytest.mark.parametrize("ip", ["10.1.2.3", "fd00:1:2::a"])
def test_the_way_back_from_an_address(ip: str) -> None:
    address = ip_address(ip)
    assert dns.reverse(address.reverse_pointer) == address
    record = dns.pointer(address, "nova.lan", 60)
    assert record.name == address.reverse_pointer
    assert dns.read_name(record.data, 0) == ("nova.lan", len(record.data))


@pytest.mark.parametrize(
    "name",
    ["", "arpa", "10.in-addr.arpa", "x.1.1.1.in-addr.arpa", "300.1.1.1.in-addr.arpa", ".".join("z" * 32) + ".ip6.arpa"],
)
def test_no_address_of_a_part_or_of_nonsense(name: str) -> None:
    assert dns.reverse(name) is None


def test_what_asks_nothing_is_refused() -> None:
    good = dns.query(1, "a.b", dns.A)
    for bad in (
        good[:11],
        good[:20],
        b"\0\1\x80\0" + good[4:],
        good[:4] + b"\0\2" + good[6:],
        good[:6] + b"\0\1" + good[8:],
    ):
        with pytest.raises(PeerViolation):
            dns.parse(bad)
    with pytest.raises(PeerViolation):
        dns.parse_answer(good)
    assert not dns.parse(good[:2] + b"\x28\0" + good[4:]).is_plain
    assert not dns.parse(dns.query(1, "a.b", dns.A, size=0)[:-2] + b"\0\3").is_plain


def test_what_is_inside_a_zone() -> None:
    assert dns.is_inside("lan.internal", "lan.internal")
    assert dns.is_inside("a.b.lan.internal", "lan.internal")
    assert not dns.is_inside("xlan.internal", "lan.internal")
    assert not dns.is_inside("internal", "lan.internal")


@given(st.binary(max_size=200), st.booleans())
def test_hostile_bytes_give_a_question_or_a_refusal(data: bytes, headed: bool) -> None:
    payload = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 1) + data if headed else data
    try:
        asked = dns.parse(payload)
    except PeerViolation:
        return
    assert dns.parse(dns.query(asked.number, asked.name, asked.kind)).name == asked.name
    assert len(dns.answer(asked)) <= asked.limit
