"""The PROXY protocol's headers: what is read, what is refused, and that it doesn't matter how the bytes arrive."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.net.proxy_protocol import MAX_HEADER, MAX_LINE, SIGNATURE, Header, read_header

V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(str).filter(lambda text: ipaddress.IPv6Address(text).ipv4_mapped is None)
PORT = st.integers(0, 65535)


def line(kind: str, source: str, destination: str, port: int, our_port: int) -> bytes:
    """Version 1."""
    return f"PROXY {kind} {source} {destination} {port} {our_port}\r\n".encode()


def block(command: int, family: int, rest: bytes) -> bytes:
    """Version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def addresses(source: str, destination: str, port: int, our_port: int) -> bytes:
    packed = b"".join(ipaddress.ip_address(one).packed for one in (source, destination))
    return packed + struct.pack("!HH", port, our_port)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, tuple[str, int] | None]:
    """Any valid header and the client that it names."""
    address, kind, family = draw(st.sampled_from([(V4, "TCP4", 0x11), (V6, "TCP6", 0x21)]))
    source, destination, port, our_port = draw(address), draw(address), draw(PORT), draw(PORT)
    tlvs = draw(st.binary(max_size=200))
    whole = addresses(source, destination, port, our_port)
    return draw(
        st.sampled_from(
            [
                (line(kind, source, destination, port, our_port), (source, port)),
                (block(0x21, family, whole + tlvs), (source, port)),
                (block(0x20, family, whole), None),
                (block(0x20, 0, tlvs), None),
                (block(0x21, 0, tlvs), None),
                (block(0x21, 0x31, bytes(216)), None),
                (b"PROXY UNKNOWN\r\n", None),
                (b"PROXY UNKNOWN ffff::1 anything 1 2\r\n", None),
            ]
        )
    )


@given(header=headers(), behind=st.binary(max_size=50))
def test_a_header_is_read_whatever_follows_and_not_one_byte_more(
    header: tuple[bytes, tuple[str, int] | None], behind: bytes
) -> None:
    data, client = header
    assert read_header(data + behind) == Header(client, len(data))
    assert [read_header(data[:at]) for at in range(len(data))] == [None] * len(data)


def test_the_examples_of_the_specification() -> None:
    address = ":".join(["ffff"] * 8)
    longest = line("TCP6", address, address, 65535, 65535)
    assert len(longest) == 104
    assert read_header(longest) == Header((address, 65535), 104)
    assert read_header(line("TCP4", "255.255.255.255", "255.255.255.255", 65535, 65535)) == Header(
        ("255.255.255.255", 65535), 56
    )
    unknown = b"PROXY UNKNOWN " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"
    assert len(unknown) == MAX_LINE
    assert read_header(unknown + b"\x16\x03") == Header(None, MAX_LINE)


def test_an_ipv4_client_told_as_an_ipv6_one() -> None:
    for data in (
        line("TCP6", "::ffff:192.0.2.7", "::ffff:192.0.2.1", 4711, 443),
        block(0x21, 0x21, addresses("::ffff:192.0.2.7", "::ffff:192.0.2.1", 4711, 443)),
    ):
        assert read_header(data) == Header(("192.0.2.7", 4711), len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXZ",
        b"proxy TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
        b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 \xb2\r\n",
        b"PROXY TCP4 192.0.2.007 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n" + b"x" * 80,
        b"PROXY UNKNOWN " + b"x" * 200,
        SIGNATURE[:11] + b"\r",
        SIGNATURE + b"\x11\x11\0\x0c",  # version 1 in a header of version 2
        SIGNATURE + b"\x22\x11\0\x0c",  # no such command
        SIGNATURE + b"\x21\x41\0\x0c",  # no such family
        SIGNATURE + b"\x21\x11\0\x0b",  # too short for two addresses
        SIGNATURE + b"\x21\x21\0\x23",
        SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_HEADER - 15),  # too long, said before it has come
        SIGNATURE + b"\x20\x00\xff\xff",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(PeerViolation):
        read_header(data)


def test_the_longest_that_is_taken() -> None:
    data = block(0x21, 0x11, addresses("192.0.2.7", "192.0.2.1", 1, 2) + bytes(MAX_HEADER - 28))
    assert len(data) == MAX_HEADER
    assert read_header(data[:-1]) is None
    assert read_header(data) == Header(("192.0.2.7", 1), MAX_HEADER)


@given(st.binary(max_size=300))
def test_junk_is_refused_or_waited_for_in_bounds(junk: bytes) -> None:
    for start in (b"", b"PROXY ", SIGNATURE):
        data = start + junk
        try:
            header = read_header(data)
        except PeerViolation:
            continue
        assert header is None or 0 < header.length <= len(data)
        if header is None and start == b"PROXY ":
            assert len(data) < MAX_LINE
