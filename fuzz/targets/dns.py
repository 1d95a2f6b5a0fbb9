"""DNS messages of strangers: a question is answered within its limit, an answer of others is read or refused."""

from ipaddress import ip_address

from ukihashi.errors import PeerViolation
from ukihashi.ether import dns

ALLOWED = (PeerViolation,)
TOKENS = [b"\xc0\x0c", b"\xc0\0", b"\0\0\x01\0\x01", b"\x04arpa\0", b"\x07in-addr", b"\0\0\x29\x04\xd0", b"\x3f"]


def seeds() -> list[bytes]:
    """Questions and answers."""
    asked = dns.query(7, "nova.lan.internal", dns.A)
    query = dns.parse(asked)
    records = [dns.address(ip_address("10.1.2.3"), "nova.lan.internal", 60)]
    back = ip_address("fd00::1").reverse_pointer
    return [
        asked,
        dns.query(8, back, dns.PTR, size=0),
        dns.answer(query, records=records),
        dns.answer(query, dns.NO_SUCH_NAME, authority=[dns.authority("lan.internal", "ns.lan.internal", 60)]),
        b"\x03lan\0\x04nova\xc0\0",
    ]


def run(data: bytes) -> object:
    """As names, as an answer, as a question."""
    told: object = None
    for read in (dns.read_names, dns.parse_answer):
        try:
            told = len(str(read(data))) > 40
        except PeerViolation:
            continue
    asked = dns.parse(data)
    assert dns.parse(dns.query(asked.number, asked.name, asked.kind)).name == asked.name
    records = [dns.address(ip_address("10.1.2.3"), asked.name, 60)] * 99
    answer = dns.answer(asked, records=records, authority=[dns.authority("lan", "ns.lan", 60)])
    assert len(answer) <= asked.limit
    assert dns.parse_answer(answer).truncated
    return told, asked.is_plain, dns.reverse(asked.name) is None, asked.size > 0, asked.name.count(".")
