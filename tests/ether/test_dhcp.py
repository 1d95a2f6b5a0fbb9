"""DHCP messages, written and read."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.ether import datagram, dhcp
from ukihashi.ether.frame import BROADCAST

MAC = b"\x02\0\0\0\0\x01"
FIXED = 236 + 4
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
codes = st.integers(1, 254).filter(lambda code: code != dhcp.OVERLOAD)
messages = st.builds(
    dhcp.Message,
    op=st.sampled_from([dhcp.BOOT_REQUEST, dhcp.BOOT_REPLY]),
    xid=st.integers(0, 2**32 - 1),
    mac=st.binary(min_size=6, max_size=6),
    seconds=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    client=addresses,
    your=addresses,
    server=addresses,
    relay=addresses,
    options=st.dictionaries(codes, st.binary(max_size=600), max_size=8),
)


@given(messages)
def test_a_message_is_read_as_it_was_written(message: dhcp.Message) -> None:
    payload = message.encode()
    assert len(payload) >= dhcp.MIN_SIZE
    assert dhcp.parse(payload) == message


def test_options_in_the_fields_of_file_and_name_are_joined() -> None:
    message = dhcp.Message(dhcp.BOOT_REQUEST, 1, MAC, options={dhcp.MESSAGE_TYPE: b"\1"})
    payload = bytearray(message.encode())
    payload[44 : 44 + 6] = b"\x0c\x02ne\xff\0"  # server name
    payload[108 : 108 + 6] = b"\x0c\x02ni\xff\0"  # file
    payload[FIXED:] = b"\x35\1\1\x34\1\3\xff".ljust(60, b"\0")
    read = dhcp.parse(bytes(payload))
    assert read.options == {dhcp.MESSAGE_TYPE: b"\1", dhcp.HOST_NAME: b"nine"}  # file first (RFC 3396, section 5)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(300),
        b"\3" + dhcp.Message(1, 1, MAC).encode()[1:],
        b"\1\6" + dhcp.Message(1, 1, MAC).encode()[2:],
        dhcp.Message(1, 1, MAC).encode()[:FIXED] + b"\x35",
        dhcp.Message(1, 1, MAC).encode()[:FIXED] + b"\x35\x05ab",
        dhcp.Message(1, 1, MAC).encode()[:FIXED] + b"".join(bytes((code, 0)) for code in range(1, 200)),
    ],
)
def test_garbage_is_refused(payload: bytes) -> None:
    with pytest.raises(PeerViolation):
        dhcp.parse(payload)


def test_what_a_message_says_is_read_by_kind() -> None:
    options = {dhcp.MESSAGE_TYPE: b"\3", dhcp.HOST_NAME: b"nova\0", dhcp.LEASE_TIME: b"\0\0\x0e\x10"}
    options[dhcp.DNS] = dhcp.write_addresses([IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")])
    message = dhcp.Message(1, 1, MAC, flags=0x8000, options=options)
    assert (message.kind, message.wants_broadcast, message.text(dhcp.HOST_NAME)) == (dhcp.REQUEST, True, "nova")
    assert message.number(dhcp.LEASE_TIME) == 3600
    assert message.addresses(dhcp.DNS) == [IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")]
    assert message.address(dhcp.DNS) == IPv4Address("10.0.0.1")
    assert message.address(dhcp.REQUESTED) is None
    assert message.number(dhcp.MTU) is None
    assert message.identity == b"\1" + MAC
    assert dhcp.Message(1, 1, MAC, options={dhcp.CLIENT_ID: b"\xffid"}).identity == b"\xffid"


def test_routes_as_in_rfc_3442() -> None:
    routes = [
        (IPv4Network("0.0.0.0/0"), IPv4Address("10.0.0.1")),
        (IPv4Network("10.17.0.0/16"), IPv4Address("10.0.0.2")),
        (IPv4Network("10.27.129.0/24"), IPv4Address("0.0.0.0")),
        (IPv4Network("10.229.0.128/25"), IPv4Address("10.0.0.3")),
    ]
    value = dhcp.write_routes(routes)
    assert value[:5] == bytes.fromhex("000a000001")
    assert value[5:8] == bytes.fromhex("100a11")
    assert dhcp.read_routes(value) == routes
    for cut in (value[:-1], value[:3], b"\x21"):
        with pytest.raises(PeerViolation):
            dhcp.read_routes(cut)


def test_frames_of_a_client_and_a_server() -> None:
    message = dhcp.Message(dhcp.BOOT_REQUEST, 7, MAC, options={dhcp.MESSAGE_TYPE: b"\1"})
    asked = datagram.parse(dhcp.client_frame(message))
    assert asked is not None
    assert asked[:6] == (MAC, BROADCAST, IPv4Address(0), IPv4Address("255.255.255.255"), 68, 67)
    assert dhcp.parse(asked.payload) == message
    server, client = IPv4Address("10.0.0.254"), IPv4Address("10.0.0.7")
    frame = dhcp.server_frame(message, mac=b"\x02SERVE", source=server, destination=client, destination_mac=MAC)
    answered = datagram.parse(frame)
    assert answered is not None
    assert answered[:6] == (b"\x02SERVE", MAC, server, client, 67, 68)


@given(st.binary(max_size=400))
def test_hostile_options_give_a_message_or_a_refusal(options: bytes) -> None:
    try:
        message = dhcp.parse(dhcp.Message(1, 1, MAC).encode()[:FIXED] + options)
    except PeerViolation:
        return
    assert message.mac == MAC
    assert message.identity
