"""A mirror port: copies of what passes one interface leave another one, as a switch would do it.

client --+-- bridge --+-- server
         |  to-client is mirrored
         +-- to-sensor -- sensor: sees frames of others, and says nothing
"""

from pathlib import Path
from typing import Final

from lab.net import Host, Net

WAYS: Final = ("ingress", "egress")
TC_PARENT: Final = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}  # of the queueing discipline clsact


def by_nft(switch: Host, port: str, to: str, *, ways: tuple[str, ...] = WAYS) -> None:
    """Copy with nftables what comes in (`ingress`) and goes out (`egress`) of `port`."""
    for way in ways:
        rule = f'type filter hook {way} device "{port}" priority 0; dup to "{to}";'
        switch.run(["nft", "-f", "-"], stdin=f"table netdev mirror-{way}-{port} {{ chain copies {{ {rule} }}; }}\n")


def by_tc(switch: Host, port: str, to: str, *, ways: tuple[str, ...] = WAYS) -> None:
    """The same with tc's action mirred."""
    switch.run(["tc", "qdisc", "add", "dev", port, "clsact"])
    for way in ways:
        match = ["u32", "match", "u32", "0", "0"]
        action = ["action", "mirred", "egress", "mirror", "dev", to]
        argv = ["tc", "filter", "add", "dev", port, "parent", TC_PARENT[way], "protocol", "all", *match, *action]
        switch.run(argv)


MAKERS: Final = {"nft": by_nft, "tc": by_tc}


def mirrored(net: Net, *, by: str = "nft", ports: tuple[str, ...] = ("client",), ways: tuple[str, ...] = WAYS) -> Host:
    """A client and a server (`net.hosts`) on a switch, and a sensor at its mirror port; gives the sensor.

    The sensor's card is called to-wire. It has no address and is silent.
    """
    net.lan("client", "server")
    switch, sensor = net.hosts["wire"], net.host("sensor")
    for what in ("iptables", "ip6tables"):  # made-up packets have no checksums, and a switch does not look at them
        if Path(f"/proc/sys/net/bridge/bridge-nf-call-{what}").exists():
            switch.set_sysctl(f"net/bridge/bridge-nf-call-{what}", "0")
    net.link(sensor, switch)
    silence(sensor, "to-wire")
    silence(switch, "to-sensor")
    for port in ports:
        MAKERS[by](switch, f"to-{port}", "to-sensor", ways=ways)
    return sensor


def silence(host: Host, interface: str) -> None:
    """Take away its addresses, so that the system itself sends nothing there."""
    host.set_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
    host.ip(f"addr flush dev {interface}")
