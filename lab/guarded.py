"""Networks that do not let a card through to its hub directly, with the real programs that do.

One town, whose gate forwards nothing at all; every `Road` leads through a program on it:

    card ---- gate ---- hub

    with Net() as net:
        town = Town(net)
        town.open()                                     # the programs on the gate, a hub with a host port
        town.take(ROADS["squid Basic"], version=6)      # what the account's [path] says
        town.card.up(town.account)

Five guarded networks before one hub, whose firewalls drop without a word what they do not allow:

    card ---- gate --+
    card ---- gate --+-- hub            of each GUARDS a card and a gate that routes
"""

import itertools
import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme

from lab import small_proxies, squid, sshd
from lab.faults import FaultRelay
from lab.net import Host, Net
from lab.numbered import End
from lab.own_files import with_files
from lab.ukihashi import Card, Hub
from lab.wait import TimeOver, until

SSH_SECRET: Final = "s3cret 'q\" $HOME %s wörd"
CLOSED_PORT: Final = 2222  # of an SSH server that forwards nothing
DYNAMIC_PORT: Final = 1082  # SOCKS by OpenSSH
OTHER_PORT: Final = 8443  # where the hub listens too
HUB_NAME: Final = "hub.lab"
TABLE: Final = "ukihashi_guard"
PROGRAMS: Final = ("squid", "danted", "microsocks", "tinyproxy", "ssh", "sshd", "openssl", "ss", "unshare", "nft")


@dataclass(frozen=True)
class Road:
    """A way through the gate."""

    name: str
    scheme: str
    port: int  # on the gate; 0: what ssh's configuration says
    user: str = ""
    secret: str = ""
    versions: tuple[int, ...] = (4, 6)  # of IP, both to the gate and from there to the hub
    ssh: str = ""  # how ssh proves who we are: "key", "password", "jump"


ROADS: Final[dict[str, Road]] = {
    road.name: road
    for road in (
        Road("squid", "http", squid.PORTS["open"]),
        Road("squid Basic", "http", squid.PORTS["basic"], squid.USER, squid.SECRET),
        Road("squid Digest", "http", squid.PORTS["digest"], squid.USER, squid.SECRET),
        Road("squid NTLM", "http", squid.PORTS["ntlm"], r"LAB%5Ctaro", "whatever"),
        Road("squid, port 443 only", "http", squid.PORTS["only443"]),
        Road("squid inside TLS", "https", squid.PORTS["tls"]),
        Road("tinyproxy", "http", small_proxies.TINYPROXY_PORT, small_proxies.USER, small_proxies.SECRET),
        Road("dante SOCKS4", "socks4", small_proxies.DANTE_PORT, versions=(4,)),
        Road("dante SOCKS4a", "socks4a", small_proxies.DANTE_PORT, versions=(4,)),  # takes addresses only
        Road("ssh -D, SOCKS4a", "socks4a", DYNAMIC_PORT, versions=(4,)),
        Road("dante SOCKS5", "socks5", small_proxies.DANTE_PORT),
        Road("dante SOCKS5h", "socks5h", small_proxies.DANTE_PORT),
        Road("microsocks", "socks5h", small_proxies.MICROSOCKS_PORT, small_proxies.USER, small_proxies.SECRET),
        Road("ssh, key", "ssh", 0, ssh="key"),
        Road("ssh, password", "ssh", 0, sshd.USER, SSH_SECRET, ssh="password"),
        Road("ssh, jump host", "ssh", 0, ssh="jump"),
    )
}


def hub_end(hub: Hub) -> End:
    """The hub machine's own interface on the virtual LAN."""
    names = [link["ifname"] for link in json.loads(hub.host.run(["ip", "-j", "link"]))]
    return End(hub.host, next(name for name in names if name.startswith("uk")))


class Gate:
    """The programs on one machine, and what their clients must know."""

    def __init__(self, host: Host, *, outside: str, names: Mapping[str, str] | None = None) -> None:
        """`outside`: the interface towards the hub; `names`: what can be looked up there, and their addresses."""
        self.host: Final = host
        hosts = host.folder / "hosts"
        hosts.write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in (names or {}).items())
        )
        self._files: Final = {"/etc/hosts": hosts}
        self._outside = outside
        self.authority: Final = host.folder / "authority.pem"
        authority = trustme.CA()
        leaf = authority.issue_cert(*host.addresses)
        files = host.folder / "proxy.pem", host.folder / "proxy.key"
        leaf.cert_chain_pems[0].write_to_path(str(files[0]))
        leaf.private_key_pem.write_to_path(str(files[1]))
        authority.cert_pem.write_to_path(str(self.authority))
        self.squid: Final = squid.Squid(host, names=names, tls=files)
        self.sshd: sshd.Sshd | None = None
        self.closed: sshd.Sshd | None = None

    def open(self, *kinds: str) -> None:
        """Start "http", "socks", "ssh": those that are named, or all."""
        kinds = kinds or ("http", "socks", "ssh")
        if "http" in kinds:
            self.squid.start()
            small_proxies.tinyproxy(self.host)
        if "socks" in kinds:
            small_proxies.dante(self.host, external=self._outside, files=self._files)
            small_proxies.microsocks(self.host)
        if "ssh" in kinds:
            self.sshd = sshd.on_host(self.host, password=SSH_SECRET, files=self._files)
            closed = ["AllowTcpForwarding=no"]
            self.closed = sshd.on_host(self.host, password=SSH_SECRET, name="closed", options=closed, port=CLOSED_PORT)
            config = str(self.ssh_config(self.host.folder / "ssh-D"))
            argv = ["ssh", "-F", config, "-N", "-D", f"{self.host.ipv4}:{DYNAMIC_PORT}", self.host.ipv4]
            self.host.spawn(argv, log="ssh-D")
            listening = f":{DYNAMIC_PORT} "
            until(lambda: listening in self.host.run(["ss", "-Hltn"]), seconds=20, what="ssh -D listening", step_s=0.1)

    def ssh_config(self, path: Path, *lines: str, key: bool = True, known: Path | None = None) -> Path:
        """Write a configuration of these lines that trusts the server, at whatever port, and the key it takes."""
        assert self.sshd is not None
        aliases = path.with_suffix(".known")
        aliases.write_text(f"gate {' '.join((self.sshd.folder / 'host.pub').read_text().split()[:2])}\n")
        text = [
            *lines,
            *(f"Match originalhost {address}\nHostKeyAlias gate" for address in self.host.addresses),
            "Match all",
            f"User {sshd.USER}",
            f"IdentityFile {self.sshd.folder}/user" if key else "IdentityFile none",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {known or aliases}",
            "GlobalKnownHostsFile /dev/null",
        ]
        path.write_text("\n".join(text) + "\n")
        return path


class Town:
    """A card, a gate that forwards nothing, and a hub."""

    def __init__(self, net: Net) -> None:
        self.machine, gate, self.hub_host = (net.host(name) for name in ("card", "gate", "hub"))
        net.link(gate, self.machine)
        outside, _ = net.link(gate, self.hub_host)
        self.gate: Final = Gate(gate, outside=outside, names={HUB_NAME: self.hub_host.ipv4})
        self.hub: Final = Hub(self.hub_host)
        self.card: Final = Card(self.machine)
        self.account = ""
        self.folder: Final = net.folder
        self._room = tempfile.TemporaryDirectory(prefix="uk-town-")  # what the card puts into its TMPDIR
        net.at_close(self._room.cleanup)
        self.card.env["TMPDIR"] = self._room.name
        self.behind: sshd.Sshd | None = None  # an SSH server on the hub's machine

    def open(self, hub: Mapping[str, Any] | None = None, card: Mapping[str, Any] | None = None) -> None:
        """Start everything; `hub`, `card`: settings."""
        self.gate.open()
        self.behind = sshd.on_host(self.hub_host, password=SSH_SECRET)
        self.hub.configure(hub or {})
        self.hub.start(words=["--listen", f"0.0.0.0:{OTHER_PORT}"])
        settings = {**(card or {}), "path": {"authorities": str(self.gate.authority)}}
        self.account = self.card.prepare(self.hub.invite("taro"), settings)

    def take(self, road: Road, version: int = 4, *, port: int = 0, **path: str) -> None:
        """Lead the account over that road; `port` on the gate instead of the usual, `path` on top of it all."""
        place = self.gate.host.ipv6 if version == 6 else self.gate.host.ipv4
        if road.ssh == "jump":
            place = self._address(version)
        elif road.ssh and not port:
            port = sshd.PORT
        at = f"[{place}]" if ":" in place else place
        number = port or road.port
        settings = {
            "via": f"{road.scheme}://{road.user and road.user + '@'}{at}{f':{number}' if number else ''}",
            "password": road.secret,
            "ssh_config": str(self._ssh_config(road, version)) if road.ssh else "",
            "known": [],
            **path,
        }
        self.card.configure(self.account, {"hub": {"host": self._address(version), "port": 443}, "path": settings})

    def relay(self, road: Road, port: int, seed: int = 0) -> FaultRelay:
        """To be put between the card and a program on the gate, at `port` there."""
        return FaultRelay(
            self.gate.host,
            listen=(self.gate.host.ipv4, port),
            target=(self.gate.host.ipv4, road.port or sshd.PORT),
            seed=seed,
        )

    def ends(self) -> tuple[End, End]:
        """Of the virtual LAN: the card's, the hub machine's own."""
        return End(self.machine, self.card.interface()), hub_end(self.hub)

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """When the block ends: no process, no interface, no file of the card, nothing held by hub and SSH servers."""
        until(self._own_port, seconds=20.0, what="the hub's own port")
        before = self._census()
        yield
        left: dict[str, Any] = {}

        def same() -> bool:
            nonlocal left
            now = self._census()
            left = {name: now[name] for name in now if now[name] != before[name]}
            return not left

        try:
            # a connection that a proxy keeps open without a login is closed by the hub after 15 s
            until(same, seconds=20.0, what="nothing left over", step_s=0.1)
        except TimeOver:
            raise AssertionError(f"left over: {left}, before: { {name: before[name] for name in left} }") from None

    def _own_port(self) -> bool:
        return bool(self.hub.rows("hub", "status")[0]["worker"]["host_ports"])

    def _census(self) -> dict[str, Any]:
        links = [link["ifname"] for link in json.loads(self.machine.run(["ip", "-j", "link"]))]
        return {
            "processes of the card": [found for pid in self.machine.pids() if (found := _command(pid))],
            "interfaces": links,
            "files": sorted(path.name for path in Path(self._room.name).iterdir()),
            "descriptors of the hub": {
                pid: count for pid in self.hub_host.pids() if "serve" in _command(pid) and (count := _open_files(pid))
            },
            "SSH connections": sum("sshd" in _command(pid) for host in (self.gate.host, self.hub_host)
                                   for pid in host.pids()),
        }  # fmt: skip

    def _address(self, version: int) -> str:
        return self.hub_host.ipv6 if version == 6 else self.hub_host.ipv4

    def _ssh_config(self, road: Road, version: int) -> Path:
        path = self.folder / f"ssh-{road.ssh}-{version}"
        if road.ssh != "jump":
            return self.gate.ssh_config(path, key=road.ssh == "key")
        assert self.behind is not None
        there = self._address(version)
        jump = self.gate.host.ipv6 if version == 6 else self.gate.host.ipv4
        aim = f"[{jump}]" if ":" in jump else jump
        lines = [f"Match originalhost {there}", f"ProxyJump {sshd.USER}@{aim}", "HostKeyAlias behind"]
        config = self.gate.ssh_config(path, *lines, f"IdentityFile {self.behind.folder}/user")
        with path.with_suffix(".known").open("a") as known:
            known.write(f"behind {' '.join((self.behind.folder / 'host.pub').read_text().split()[:2])}\n")
        return config


# of each guarded network: who may be spoken to on the gate, what the gate lets through
GUARDS: Final[dict[str, tuple[tuple[int, ...], str]]] = {
    "http": ((squid.PORTS["basic"],), "drop"),
    "socks": ((small_proxies.DANTE_PORT,), "drop"),
    "ssh": ((sshd.PORT,), "drop"),
    "ipv6": ((), "meta nfproto ipv4 drop"),
    "open": ((), ""),
}
RULES: Final = """\
table inet {table} {{
    chain forward {{
        type filter hook forward priority 0;
        {forward}
    }}
    chain input {{
        type filter hook input priority 0;
        iifname "{inside}" meta l4proto {{ icmp, ipv6-icmp }} accept
        {input}
        iifname "{inside}" drop
    }}
}}
"""


class Region:
    """One hub and a network of each kind before it: a machine, and the gate it sends everything to."""

    def __init__(self, net: Net) -> None:
        self.machines: Final = {name: net.host(f"c-{name}") for name in GUARDS}
        gates = {name: net.host(f"g-{name}") for name in GUARDS}
        for name, gate in gates.items():
            net.link(gate, self.machines[name])
        self.hub_host, *_ = net.lan("hub", *(gate.name for gate in gates.values()))
        self.gates: Final[dict[str, Gate]] = {}
        for name, gate in gates.items():
            for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                gate.set_sysctl(key, "1")
            inner4, inner6, outer4, outer6 = gate.addresses
            self.machines[name].ip(f"route add default via {inner4}")
            self.machines[name].ip(f"-6 route add default via {inner6}")
            gate.ip(f"route add default via {self.hub_host.ipv4}")
            gate.ip(f"-6 route add default via {self.hub_host.ipv6}")
            self.hub_host.ip(f"route add {inner4.rpartition('.')[0]}.0/24 via {outer4}")
            self.hub_host.ip(f"-6 route add {inner6.rpartition('::')[0]}::/64 via {outer6}")
            self.gates[name] = Gate(gate, outside="eth0", names={HUB_NAME: self.hub_host.ipv4})
            ports, forward = GUARDS[name]
            allowed = "".join(f"tcp dport {port} accept\n" for port in ports)
            rules = RULES.format(table=TABLE, forward=forward, input=allowed, inside=f"to-c-{name}")
            gate.run(["nft", "-f", "-"], stdin=rules)
        self.hub: Final = Hub(self.hub_host)
        self._numbers = itertools.count(1)

    def let_through(self, name: str) -> None:
        """Let the machine in the open network reach the gate of that one, from behind."""
        here, there = self.gates["open"].host, self.gates[name].host
        for one, other in ((here, there), (there, here)):
            inner4, _, outer4, _ = other.addresses
            one.ip(f"route replace {inner4.rpartition('.')[0]}.0/24 via {outer4}")

    def open(self) -> None:
        """Start the hub and on each gate what its network has."""
        for name in ("http", "socks", "ssh"):
            self.gates[name].open(name)
        self.hub.start()

    def card(self, name: str) -> Card:
        """One more installation on the machine in that network, as nobody has prepared it but for `/etc`."""
        made = Card(self.machines[name], f"card-{next(self._numbers)}")
        folder = made.folder / "own"
        folder.mkdir()
        shown = f"{self.hub_host.ipv4} {HUB_NAME}\n{self.hub_host.ipv6} {HUB_NAME}\n"
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{shown}")
        gate = self.gates[name]
        if gate.sshd is not None:
            gate.ssh_config(folder / "ssh_config")
        else:
            (folder / "ssh_config").touch()
        script = folder / "python"
        own = {"/etc/hosts": folder / "hosts", "/etc/ssh/ssh_config": folder / "ssh_config"}
        script.write_text(f'#!/bin/sh\nexec {shlex.join(with_files([made.python], own))} "$@"\n')
        script.chmod(0o755)
        made.python, made.own_interpreter = str(script), True
        return made


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # ended meanwhile
        return ""


def _open_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0
