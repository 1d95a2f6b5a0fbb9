"""Offices: Ethernets of hosts that know nothing of ukihashi, each with a gateway machine that does.

      west                        outside                         east
    w1 --+                  +-- web (a web server) --+                +-- e1
    w2 --+-- w-gate --------+-- cloud (for a hub) ---+-------- e-gate-+-- e2
    ...  +-- w-router ------+                        +                +   ...

    with Net() as net:
        town = Town(net)
        west, east = town.office("w", hosts=2), town.office("e", hosts=8)
        west.add_router()                       # real dnsmasq: DHCP, router advertisements, DNS; a way outside
        hub, card = Hub(west.gate), Card(east.gate)
        ...                                     # bridge `eth1` of both gates with the hub
        east.hosts[0].lease()                   # by a real DHCP client, over the far side

Each Ethernet is a kernel bridge in a namespace of its own. The gate's interface in the office is `eth1`, its interface
outside is `eth0`; hosts have `eth0`. A host has no address until `lease` or the kernel's own IPv6 gets it one.
"""

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.net import Host, LabError, Net, Process, run
from lab.wait import until

MAX_HOSTS: Final = 8
LAN: Final = "eth1"  # the gate's interface in the office
OUTSIDE4, OUTSIDE6 = "198.51.100", "2001:db8:51:100:"  # RFC 5737, RFC 3849
ROUTED4, ROUTED6 = "192.168.77", "fd5c:77:77:77:"  # an office with a router of its own
PACKAGES: Final = {
    "dnsmasq": "dnsmasq-base", "avahi-daemon": "avahi-daemon", "dhclient": "isc-dhcp-client", "udhcpc": "udhcpc",
}  # fmt: skip
BOUND: Final = r"""#!/bin/sh
# $reason comes from dhclient, $1 from udhcpc; interface, address and all else in variables of either's names
case ${reason:-$1} in
BOUND | RENEW | REBIND | REBOOT | bound | renew)
    interface=${interface:-eth0}
    ip addr replace "${new_ip_address:-$ip}/${new_subnet_mask:-$subnet}" dev "$interface"
    router=${new_routers:-$router}
    [ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
    {
        echo "address=${new_ip_address:-$ip}"
        echo "mask=${new_subnet_mask:-$subnet}"
        echo "router=$router"
        echo "dns=${new_domain_name_servers:-$dns}"
        echo "domain=${new_domain_name:-$domain}"
        echo "server=${new_dhcp_server_identifier:-$serverid}"
        echo "mtu=${new_interface_mtu:-$mtu}"
    } >LEASE.new
    mv LEASE.new LEASE
    ;;
EXPIRE | FAIL | RELEASE | STOP | deconfig)
    ip -4 addr flush dev "${interface:-eth0}" scope global
    rm -f LEASE
    ;;
esac
"""
AVAHI: Final = """
mount -t tmpfs tmpfs /run && mkdir /run/avahi-daemon && printf '%s' "$1" >/run/avahi.conf &&
exec avahi-daemon -f /run/avahi.conf --no-drop-root --no-chroot --no-rlimits --no-proc-title
"""
AVAHI_CONFIG: Final = """[server]
host-name={name}
use-ipv4=yes
use-ipv6=yes
allow-interfaces=eth0
enable-dbus=no
[publish]
publish-workstation=no
publish-hinfo=no
"""
SERVE: Final = "http.server"  # of Python: it sends whole files by the kernel


class Wire:
    """An Ethernet: a kernel bridge in a namespace of its own. Its ports are called `to-HOST`."""

    def __init__(self, net: Net, name: str, *, mtu: int = 1500) -> None:
        self.switch: Final = net.host(name)
        self.mtu: Final = mtu
        self.switch.ip("link add br0 type bridge mcast_snooping 0")
        self.switch.ip("link set br0 up")

    def plug(self, host: Host, interface: str = "eth0", *, port: str = "") -> None:
        """Connect a new interface of `host`; both ends are up afterwards. `port`: another name of the bridge's end."""
        port = port or f"to-{host.name}"
        ends = (port, "netns", self.switch.namespace), (interface, "netns", host.namespace)
        run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]])
        for place, name in ((self.switch, port), (host, interface)):
            if self.mtu != 1500:
                place.ip(f"link set {name} mtu {self.mtu}")
        self.switch.ip(f"link set {port} master br0")
        self.switch.ip(f"link set {port} up")
        host.ip(f"link set {interface} up")

    def cut(self, host: Host, *, port: str = "") -> None:
        """Pull the plug."""
        self.switch.ip(f"link set {port or f'to-{host.name}'} down")

    def mend(self, host: Host, *, port: str = "") -> None:
        """Put it back."""
        self.switch.ip(f"link set {port or f'to-{host.name}'} up")


class Town:
    """What the offices have in common: the outside, with a web server, and a machine in a data centre."""

    def __init__(self, net: Net) -> None:
        self.net: Final = net
        self.outside: Final = Wire(net, "outside")
        self._count = 0
        self.web: Final = self.dweller("web")
        self.cloud: Final = self.dweller("cloud")

    def dweller(self, name: str) -> Host:
        """A machine outside with an address of either kind at `eth0`."""
        host = self.net.host(name)
        self.outside.plug(host)
        self._count += 1
        for address, length in ((f"{OUTSIDE4}.{self._count}", 24), (f"{OUTSIDE6}:{self._count:x}", 64)):
            host.add_address("eth0", f"{address}/{length}")
            host.addresses.append(address)
        return host

    def office(self, name: str, *, hosts: int = 2, gate: bool = True) -> "Office":
        """An office whose hosts are called `name`1, `name`2, ... (at most 8 of them); `name` has one or two letters."""
        return Office(self, name, hosts=hosts, gate=gate)


class Member:
    """A machine of an office: no ukihashi, only what every system has."""

    def __init__(self, host: Host) -> None:
        self.host: Final = host
        self._lease = host.folder / "lease"
        self._mdns: Process | None = None
        self._client: Process | None = None

    def lease(self, client: str = "udhcpc", *, seconds: float = 20.0) -> dict[str, str]:
        """What a DHCP server gives it: address, mask, router, dns, domain, server, mtu ("" = not told). Asked once.

        Args:
            client: "udhcpc" or "dhclient", the real programs; it goes on running and renews.
        """
        if self._client is None:
            self._client = self._ask(client)
        until(self._lease.exists, seconds=seconds, what=f"{self.host.name} getting a lease", step_s=0.05)
        return dict(line.split("=", 1) for line in self._lease.read_text().splitlines())

    def forget(self) -> None:
        """End the DHCP client and drop the address, without a word to the server."""
        if self._client is not None:
            self._client.stop()
            self._client = None
        self._lease.unlink(missing_ok=True)
        self.host.ip("-4 addr flush dev eth0 scope global")

    def _ask(self, client: str) -> Process:
        folder = self.host.folder
        script = folder / "bound"
        script.write_text(BOUND.replace("LEASE", str(self._lease)))
        script.chmod(0o755)
        if client == "udhcpc":
            return self.host.spawn(["udhcpc", "-f", "-i", "eth0", "-s", script, "-t", "30", "-T", "1"])
        config = folder / "dhclient.conf"
        config.write_text("initial-delay 0; initial-interval 1; backoff-cutoff 2;\n")
        leases, pid = folder / "dhclient.leases", folder / "dhclient.pid"
        argv = ["dhclient", "-4", "-d", "-cf", config, "-sf", script, "-lf", leases, "-pf", pid, "eth0"]
        return self.host.spawn(list(map(str, argv)), log="dhclient")

    def ipv6(self, prefix: str = "", *, seconds: float = 20.0) -> str:
        """Its address by router advertisements (SLAAC), beginning with `prefix`; waits for it."""
        return until(
            lambda: next((one for one in self.ipv6s() if one.startswith(prefix)), None),
            seconds=seconds,
            what=f"{self.host.name} having an IPv6 address {prefix}...",
            step_s=0.1,
        )

    def ipv6s(self) -> list[str]:
        """All its global IPv6 addresses."""
        shown = json.loads(self.host.run(["ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "global"]))
        return [entry["local"] for link in shown for entry in link["addr_info"] if "local" in entry]

    def use_dns(self, server: str, domain: str = "") -> None:
        """What a resolver of this host asks from now on (`/etc/resolv.conf` of its own)."""
        self.host.own_etc("resolv.conf", f"nameserver {server}\n" + (f"search {domain}\n" if domain else ""))

    def resolves(self, name: str) -> list[str]:
        """The addresses of `name` by the system's resolver; [] if it knows none."""
        out = self.host.ask(["getent", "ahosts", name]).stdout
        return list(dict.fromkeys(line.split()[0] for line in out.splitlines() if line.split()))

    def speak_mdns(self) -> None:
        """Be HOST.local from now on (avahi-daemon, without D-Bus, its folder below /run its own)."""
        config = AVAHI_CONFIG.format(name=self.host.name)
        self._mdns = self.host.spawn(["sh", "-c", AVAHI, "avahi", config], log="avahi")
        self._mdns.wait_for("Server startup complete")

    def hears_mdns(self, other: "Member", version: int = 4, *, seconds: float = 20.0) -> str:
        """The address of the other's `.local` name, as its avahi-daemon finds it. Raises `TimeOver`.

        One that gets a better address while it says its name may hear itself, and call itself NAME-2 then.
        """
        name = other.host.name
        return until(
            lambda: self._resolve_mdns(f"{name}.local", version) or self._resolve_mdns(f"{name}-2.local", version),
            seconds=seconds,
            what=f"{self.host.name} finding {name}.local",
            step_s=0.1,
        )

    def _resolve_mdns(self, name: str, version: int) -> str | None:
        """avahi-daemon's line protocol on its UNIX socket, which nss-mdns speaks, too."""
        if self._mdns is None:
            raise LabError(f"{self.host.name} speaks no mDNS; call speak_mdns first")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10.0)
            sock.connect(str(Path("/proc", str(self._mdns.pid), "root", "run/avahi-daemon/socket")))
            sock.sendall(f"RESOLVE-HOSTNAME-IPV{version} {name}\n".encode())
            answer = sock.makefile().readline().split()
        return answer[4] if answer[:1] == ["+"] else None  # + INTERFACE PROTOCOL NAME ADDRESS

    def serve(self, folder: Path, port: int = 80) -> Process:
        """A web server for the files of `folder`, on all addresses."""
        return web_server(self.host, folder, port)

    def fetch_sum(self, url: str, *, seconds: float = 60.0) -> str:
        """SHA-256 of what the web server there sends. Raises `LabError`."""
        words = ["bash", "-o", "pipefail", "-c", 'curl -sSfg --noproxy "*" "$1" | sha256sum', "fetch", url]
        done = self.host.ask(words, timeout_s=seconds)
        if done.returncode:
            raise LabError(f"{self.host.name} could not fetch {url}: {done.stderr.strip()}")
        return done.stdout.split()[0]

    def neighbours(self) -> dict[str, str]:
        """Address -> MAC of all that ARP and neighbour discovery have found."""
        shown = json.loads(self.host.run(["ip", "-j", "neigh", "show", "dev", "eth0"]) or "[]")
        return {entry["dst"]: entry["lladdr"] for entry in shown if "lladdr" in entry}


class Office:
    """One Ethernet with hosts, a gate (the machine that runs ukihashi), and a router if asked."""

    def __init__(self, town: Town, name: str, *, hosts: int, gate: bool) -> None:
        if not 0 <= hosts <= MAX_HOSTS:
            raise LabError(f"an office has up to {MAX_HOSTS} hosts, not {hosts}")
        self.town: Final = town
        self.name: Final = name
        self.wire: Final = Wire(town.net, f"{name}-lan")
        self.hosts: Final = [self._member(f"{name}{number}") for number in range(1, hosts + 1)]
        self._gate = town.dweller(f"{name}-gate") if gate else None
        if self._gate is not None:
            self.wire.plug(self._gate, LAN)
        self.router: Host | None = None
        self.dnsmasq: Process | None = None

    @property
    def gate(self) -> Host:
        """The machine with `eth1` in the office and `eth0` outside."""
        if self._gate is None:
            raise LabError(f"office {self.name} was made without a gate")
        return self._gate

    def add_host(self) -> Member:
        """One more."""
        if len(self.hosts) >= MAX_HOSTS:
            raise LabError(f"an office has up to {MAX_HOSTS} hosts")
        self.hosts.append(self._member(f"{self.name}{len(self.hosts) + 1}"))
        return self.hosts[-1]

    def add_router(self, words: Sequence[str] = (), *, dhcp: bool = True) -> Host:
        """A router between this office and the outside: `.1` of 192.168.77.0/24 and fd5c:77:77:77::/64, `web` by name.

        Args:
            words: more of dnsmasq's options. dhcp: False: it routes, and no dnsmasq runs.
        """
        host = self.router = self.town.dweller(f"{self.name}-rtr")
        self.wire.plug(host, LAN)
        host.set_sysctl("net/ipv4/ip_forward", "1")
        host.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        host.add_address(LAN, f"{ROUTED4}.1/24")
        host.add_address(LAN, f"{ROUTED6}:1/64")
        web = self.town.web
        web.ip(f"route replace {ROUTED4}.0/24 via {host.ipv4}")
        web.ip(f"-6 route replace {ROUTED6}:/64 via {host.ipv6}")
        if dhcp:
            self.dnsmasq = dnsmasq(host, web, words)
        return host

    def _member(self, name: str) -> Member:
        host = self.town.net.host(name)
        host.set_sysctl("net/ipv6/conf/default/router_solicitation_delay", "0")
        self.wire.plug(host)
        return Member(host)


def dnsmasq(router: Host, web: Host, words: Sequence[str] = ()) -> Process:
    """DHCP .100 to .199, router advertisements and DNS at the router's `eth1`; knows web.example and itself."""
    argv = [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
        *("--pid-file=", f"--dhcp-leasefile={router.folder}/dnsmasq.leases", "--log-facility=-", "--log-dhcp"),
        *(f"--interface={LAN}", "--bind-interfaces", "--except-interface=lo", "--dhcp-authoritative", "--no-ping"),
        *(f"--dhcp-range={ROUTED4}.100,{ROUTED4}.199,255.255.255.0,1h", f"--dhcp-range={ROUTED6}:,ra-only,64,1h"),
        *("--enable-ra", f"--ra-param={LAN},4,1800", "--domain=office.example", "--local=/office.example/"),
        *(f"--host-record=web.example,{web.ipv4},{web.ipv6}", f"--host-record=router.office.example,{ROUTED4}.1"),
    ]
    process = router.spawn([*argv, *words], log="dnsmasq")
    process.wait_for("IPv6 router advertisement enabled")
    return process


def web_server(host: Host, folder: Path, port: int = 80) -> Process:
    """A web server for the files of `folder`, on all of the host's addresses."""
    argv = ["python3", "-u", "-m", SERVE, "--bind", "::", "--directory", str(folder), str(port)]
    process = host.spawn(argv, log=f"web-{port}")
    process.wait_for("Serving HTTP")
    return process
