"""DHCP messages of strangers, whole frames and bare payloads: what is read is written again as the same message."""

from ipaddress import IPv4Address, IPv4Network

from ukihashi.errors import PeerViolation
from ukihashi.ether import datagram, dhcp

ALLOWED = (PeerViolation,)
TOKENS = [b"\x63\x82\x53\x63", b"\x35\1\1", b"\x35\1\3", b"\x34\1\3", b"\xff", b"\x79\x05\0\x0a\0\0\1", b"\x3d\7\1"]
MAC = b"\x02\0\0\0\0\x01"


def seeds() -> list[bytes]:
    """Payloads of a client and a server, and a frame."""
    routes = dhcp.write_routes([(IPv4Network("10.0.0.0/9"), IPv4Address("10.0.0.1"))])
    options = {dhcp.MESSAGE_TYPE: b"\1", dhcp.HOST_NAME: b"nova", dhcp.CLIENT_ID: b"\1" + MAC, dhcp.WANTED: b"\1\3\6"}
    asked = dhcp.Message(dhcp.BOOT_REQUEST, 77, MAC, flags=dhcp.BROADCAST_FLAG, options=options)
    told = dhcp.Message(
        dhcp.BOOT_REPLY, 77, MAC, options={dhcp.MESSAGE_TYPE: b"\2", dhcp.ROUTES: routes, 43: b"x" * 400}
    )
    return [asked.encode(), told.encode(), dhcp.client_frame(asked)]


def run(data: bytes) -> object:
    """As a payload, and as what is in a frame."""
    try:
        found = datagram.parse(data)
    except PeerViolation:
        found = None
    message = dhcp.parse(found.payload if found else data)
    assert dhcp.parse(message.encode()) == message
    assert message.identity
    message.text(dhcp.HOST_NAME), message.addresses(dhcp.DNS), message.number(dhcp.LEASE_TIME)
    routes = dhcp.read_routes(message.options.get(dhcp.ROUTES, b""))
    assert dhcp.read_routes(dhcp.write_routes(routes)) == routes
    return message.kind, len(message.options), len(routes), found is None
