"""Real fastd on lab hosts (Debian package fastd): Ethernet over UDP, a middle that forwards between its members.

    start(middle, {member: middle_address_as_seen_by_it, ...}, addresses)

With the method its authors recommend for ordinary processors, Salsa20/12 with UMAC; packets inside are of 1426 bytes.
"""

import shutil
from collections.abc import Mapping
from typing import Final

from lab.net import Host, Process, run
from lab.wait import until

PACKAGE: Final = "fastd"
INTERFACE: Final = "fastd0"
PORT: Final = 10000
DAEMON: Final = """\
mode tap;
interface "{interface}";
mtu 1426;
method "salsa2012+umac";
secret "{secret}";
{role}
"""
MIDDLE: Final = f"bind 0.0.0.0:{PORT};\nforward yes;"


def missing() -> str:
    """Which Debian package must be installed; empty if it is there."""
    return "" if shutil.which("fastd", path="/usr/bin:/usr/sbin:/sbin") else PACKAGE


def version() -> str:
    """The installed version as Debian names it, for reports."""
    return run(["dpkg-query", "-W", "-f", "${Version}", PACKAGE])


def start(middle: Host, members: Mapping[Host, str], cidrs: Mapping[Host, str]) -> list[Process]:
    """Start one on each host.

    Args:
        members: each member, and the middle's address as that member sees it.
        cidrs: the address of each host inside.
    """
    keys = {host: _keys(host) for host in (middle, *members)}  # host -> secret, public
    processes = []
    for host, (secret, _public) in keys.items():
        if host is middle:
            role = "\n".join([MIDDLE, *(f'peer "{member.name}" {{ key "{keys[member][1]}"; }}' for member in members)])
        else:
            role = f'peer "{middle.name}" {{ key "{keys[middle][1]}"; remote {members[host]}:{PORT}; }}'
        path = host.folder / "fastd.conf"
        path.touch(mode=0o600)
        path.write_text(DAEMON.format(interface=INTERFACE, secret=secret, role=role))
        processes.append(host.spawn(["fastd", "--config", path], log="fastd"))
        until(lambda host=host: host.has_interface(INTERFACE), seconds=10.0, what=f"{INTERFACE} existing")  # type: ignore[misc]
        host.add_address(INTERFACE, cidrs[host])
        host.ip(f"link set {INTERFACE} up")
    return processes


def _keys(host: Host) -> tuple[str, str]:
    said = dict(line.split(": ") for line in host.run(["fastd", "--generate-key"]).splitlines())
    return said["Secret"], said["Public"]
