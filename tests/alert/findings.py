"""A finding, a connection that joined it, and its end, for tests of what is told."""

from dataclasses import replace
from ipaddress import ip_address

from ukihashi.detect.features import Outer
from ukihashi.detect.record import Attached, Connection, Ended, Endpoint, Family, Finding, Reason, Verdict

BEGIN = 1_093_690_860.0  # 2004-08-28 20:01:00 in Tokyo


def end(address: str, port: int) -> Endpoint:
    """An endpoint, from text."""
    return Endpoint(ip_address(address).packed, port)


CLIENT = end("192.168.126.229", 1027)
FINDING = Finding(
    family=Family.SOFTETHER,
    verdict=Verdict.CONFIRMED,
    outer=Outer.TCP,
    client=CLIENT,
    server=end("61.197.235.210", 7777),
    target="",
    begin=BEGIN,
    decided=BEGIN + 1.0,
    rule="1",
    score=15.0,
    reasons=(Reason("login dialogue", 8.8), Reason("further connection", 6.2)),
    turns=(517, 1434, 2700, 900, 3100, 2500),
    gaps=(4.125,),
    sizes=(300,),
    connections=(Connection(CLIENT, BEGIN),),
    lost=0,
)
ATTACHED = Attached(FINDING, Connection(replace(CLIENT, port=1028), BEGIN + 2.0))
LINE = (
    "[2004/08/28 20:01:00] SoftEther VPN TCP Connection Detected"
    " (client 192.168.126.229:1027, server 61.197.235.210:7777)"
)


def session_end(finding: Finding, seconds: float, reason: str = "closed") -> Ended:
    """The session is over `seconds` after it began."""
    return Ended(finding, finding.connections[0], finding.begin + seconds, reason, session=True)
