"""Real tinc on lab hosts (Debian package tinc): Ethernet (switch mode), a middle that relays between its members.

    start(middle, {member: middle_address_as_seen_by_it, ...}, addresses)

Set as it comes: UDP where it passes, AES-256-CBC with HMAC-SHA-256. Members encrypt for each other; the middle passes
their packets on, because it does not route between them.
"""

import shutil
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lab.net import Host, Process, run
from lab.wait import until

PACKAGE: Final = "tinc"
INTERFACE: Final = "tinc0"
PEM: Final = Encoding.PEM
DAEMON: Final = """\
Name = {name}
Mode = switch
DeviceType = tap
Interface = {interface}
AddressFamily = ipv4
{connect}
"""
PARTNER: Final = """\
{address}
Cipher = aes-256-cbc
Digest = sha256
{key}
"""


def missing() -> str:
    """Which Debian package must be installed; empty if it is there."""
    return "" if shutil.which("tincd", path="/usr/sbin:/usr/bin:/sbin") else PACKAGE


def version() -> str:
    """The installed version as Debian names it, for reports."""
    return run(["dpkg-query", "-W", "-f", "${Version}", PACKAGE])


def start(middle: Host, members: Mapping[Host, str], cidrs: Mapping[Host, str]) -> list[Process]:
    """Start one on each host.

    Args:
        members: each member, and the middle's address as that member sees it.
        cidrs: the address of each host inside.
    """
    keys = {host: rsa.generate_private_key(public_exponent=65537, key_size=2048) for host in (middle, *members)}
    processes = []
    for host, key in keys.items():
        folder = host.folder / "tinc"
        (folder / "hosts").mkdir(parents=True)
        private = folder / "rsa_key.priv"
        private.touch(mode=0o600)
        private.write_bytes(key.private_bytes(PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        for other, its in keys.items():
            address = f"Address = {members[host]}" if host is not middle and other is middle else ""
            public = its.public_key().public_bytes(PEM, PublicFormat.PKCS1).decode()
            (folder / "hosts" / _name(other)).write_text(PARTNER.format(address=address, key=public))
        connect = "" if host is middle else f"ConnectTo = {_name(middle)}"
        (folder / "tinc.conf").write_text(DAEMON.format(name=_name(host), interface=INTERFACE, connect=connect))
        up = folder / "tinc-up"
        up.write_text("#!/bin/sh\n")  # without one it warns; the interface is dressed below
        up.chmod(0o755)
        processes.append(host.spawn(["tincd", "-D", "-c", folder, "--pidfile", folder / "pid", "-d1"], log="tincd"))
        until(lambda host=host: host.has_interface(INTERFACE), seconds=10.0, what=f"{INTERFACE} existing")  # type: ignore[misc]
        host.add_address(INTERFACE, cidrs[host])
        host.ip(f"link set {INTERFACE} up")
    return processes


def _name(host: Host) -> str:
    return f"lab_{host.name}"
