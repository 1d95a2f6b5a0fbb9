"""PACK: what we write we read, and hostile bytes give one kind of error and little memory."""

import struct
import tracemalloc
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.wire.pack import Pack, Type

names = st.text(st.characters(max_codepoint=0xFF), max_size=63)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(
    lambda text: text.strip(" \t\r\n")
)
values = st.one_of(
    st.tuples(st.just("add_int"), st.lists(st.integers(0, 2**32 - 1), min_size=1)),
    st.tuples(st.just("add_int64"), st.lists(st.integers(0, 2**64 - 1), min_size=1)),
    st.tuples(st.just("add_str"), st.lists(texts, min_size=1)),
    st.tuples(st.just("add_unistr"), st.lists(texts, min_size=1)),
    st.tuples(st.just("add_data"), st.lists(st.binary(), min_size=1)),
)


def ascii_lower(name: str) -> bytes:
    return name.encode("latin-1").lower()


@st.composite
def packs(draw: st.DrawFn) -> Pack:
    pack = Pack()
    for name in draw(st.lists(names, max_size=12, unique_by=ascii_lower)):
        method, items = draw(values)
        getattr(pack, method)(name, *items)
    return pack


def element(name: bytes, kind: int, count: int, data: bytes) -> bytes:
    return struct.pack("!I", len(name) + 1) + name + struct.pack("!II", kind, count) + data


def one(data: bytes) -> bytes:
    return b"\0\0\0\1" + data


@given(packs())
def test_any_pack_survives_encode_and_decode(pack: Pack) -> None:
    assert Pack.decode(pack.encode()) == pack


@given(packs(), st.binary(max_size=8))
def test_bytes_behind_a_pack_are_ignored(pack: Pack, rest: bytes) -> None:
    assert Pack.decode(pack.encode() + rest) == pack


@given(packs(), st.data())
def test_a_pack_cut_short_is_refused(pack: Pack, data: st.DataObject) -> None:
    whole = pack.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PeerViolation):
        Pack.decode(whole[:cut])


@given(st.binary(max_size=400))
def test_hostile_bytes_give_a_pack_or_a_violation(data: bytes) -> None:
    with suppress(PeerViolation):
        Pack.decode(data)


@given(packs(), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_pack_gives_a_pack_or_a_violation(pack: Pack, damage: list[tuple[int, int]]) -> None:
    data = bytearray(pack.encode())
    for place, value in damage:
        data[place % len(data)] = value
    try:
        again = Pack.decode(bytes(data))
    except PeerViolation:
        return
    assert Pack.decode(again.encode()) == again


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(one(b"\0\0\0\0" + bytes(8)), id="name length 0"),
        pytest.param(one(element(b"n", 5, 1, bytes(8))), id="unknown type"),
        pytest.param(one(element(b"n", 0, 0, b"")), id="no values"),
        pytest.param(b"\0\0\0\2" + element(b"Name", 0, 1, bytes(4)) + element(b"nAME", 0, 1, bytes(4)), id="twice"),
        pytest.param(
            b"\0\0\0\2" + element(b"n" * 70, 0, 1, bytes(4)) + element(b"n" * 63, 0, 1, bytes(4)), id="twice, cut"
        ),
        pytest.param(one(element(b"n", 3, 1, b"\0\0\0\0")), id="text without NUL"),
        pytest.param(one(element(b"n", 0, 0xFFFFFFFF, bytes(64))), id="four billion values"),
        pytest.param(one(element(b"n", 1, 1, b"\xff\xff\xff\xff")), id="four billion bytes"),
        pytest.param(b"\xff\xff\xff\xff", id="four billion elements"),
    ],
)
def test_a_fault_makes_the_whole_pack_void(data: bytes) -> None:
    with pytest.raises(PeerViolation):
        Pack.decode(data)


def test_limits_are_the_callers() -> None:
    pack = Pack()
    pack.add_int("a", 1, 2, 3)
    pack.add_int("b", 4)
    data = pack.encode()
    assert Pack.decode(data, max_elements=2, max_values=4, max_bytes=len(data)) == pack
    for limits in ({"max_elements": 1}, {"max_values": 3}, {"max_bytes": len(data) - 1}):
        with pytest.raises(PeerViolation):
            Pack.decode(data, **limits)


def test_an_empty_name_is_legal_and_a_long_one_is_cut() -> None:
    pack = Pack.decode(b"\0\0\0\2" + element(b"", 0, 1, b"\0\0\0\7") + element(b"x" * 80, 0, 1, b"\0\0\0\x08"))
    assert pack.get_int("") == 7
    assert pack.get_int("X" * 63) == 8


def test_names_have_no_case_and_keep_their_spelling() -> None:
    pack = Pack()
    pack.add_str("HubName", "LAN")
    assert "hubname" in pack
    assert pack.get_str("HUBNAME") == "LAN"
    assert pack.names() == ["HubName"]
    with pytest.raises(ValueError, match="hubname"):
        pack.add_str("hubname", "other")


def test_a_getter_of_another_type_finds_nothing() -> None:
    pack = Pack()
    pack.add_int("n", 5)
    assert (pack.get_int64("n", 9), pack.get_str("n", "no"), pack.get_data("n", b"no")) == (9, "no", b"no")
    assert (pack.get_int("n", 7, index=1), pack.get_int("n", 7, index=-1)) == (7, 7)


def test_no_values_means_no_element() -> None:
    pack = Pack()
    pack.add_str("HubName")
    assert "HubName" not in pack
    assert pack.encode() == bytes(4)


def test_texts_are_stripped_and_end_at_a_nul() -> None:
    texts = b"\0\0\0\x07 a b\t\r\n" + b"\0\0\0\x05ab\0cd"
    pack = Pack.decode(one(element(b"s", Type.STR, 2, texts)))
    assert (pack.get_str("s"), pack.get_str("s", index=1)) == ("a b", "ab")


def test_text_that_is_not_utf8_is_taken_with_marks() -> None:
    assert Pack.decode(one(element(b"s", Type.STR, 1, b"\0\0\0\2\xff\xfe"))).get_str("s") == "\ufffd\ufffd"


@given(st.ip_addresses())
def test_addresses_survive(ip: IPv4Address | IPv6Address) -> None:
    pack = Pack()
    pack.add_ip("ClientIpAddress", ip)
    assert Pack.decode(pack.encode()).get_ip("clientipaddress") == ip


def test_a_malformed_address_is_none() -> None:
    pack = Pack()
    pack.add_int("X@ipv6_bool", 1)
    pack.add_data("X@ipv6_array", b"short")
    assert pack.get_ip("X") is None
    assert pack.get_ip("Y") is None


@pytest.mark.parametrize("value", [-1, 2**32])
def test_our_own_wrong_number_is_our_bug(value: int) -> None:
    with pytest.raises(ValueError, match="n"):
        Pack().add_int("n", value)


def test_memory_stays_in_proportion() -> None:
    hostile = one(element(b"n", 0, 16000, bytes(64000)))
    announced = b"\0\0\x0f\xff" + element(b"n", 1, 0x10000, b"\0\0\0\0" * 10)
    tracemalloc.start()
    try:
        Pack.decode(hostile)
        with pytest.raises(PeerViolation):
            Pack.decode(announced)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_repr_shows_no_values() -> None:
    pack = Pack()
    pack.add_str("plain_password", "s3cret")
    assert "s3cret" not in repr(pack)
