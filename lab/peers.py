"""Real SoftEther programs on lab hosts (Debian packages softether-vpnserver, -vpnclient, -vpncmd).

The packaged programs keep their state in fixed folders; each instance here gets folders of its own, bound over the
fixed ones in the mount namespace that `ip netns exec` makes, so that any number of them run side by side.

Three habits of the 5.01 programs to know when using them:

- They mistake a TCP connection closed without TLS close_notify for an error of *every* connection of that thread, and
  stay poisoned. A test that kills our side abruptly must `restart()` the peer afterwards.
- `vpnclient` makes its card (`vpn_NIC`) anew whenever it starts: addresses are lost, and `Client.restart()` gives them
  again. The card's link is down while no session is up.
- A hub that can't be reached is tried again only after the account's retry interval (here 5 s).
"""

import csv
import io
import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lab.net import Host, LabError, Process, run
from lab.wait import TimeOver, until

PROGRAMS: Final = Path("/usr/libexec/softether")
ADMIN_PORT: Final = 5555  # of the server, on every address of its host; one of its default listeners
PACKAGES: Final = {"vpnserver": "softether-vpnserver", "vpnclient": "softether-vpnclient", "vpncmd": "softether-vpncmd"}
DONE: Final = "The command completed successfully"


def missing(*programs: str) -> str:
    """Which Debian packages must be installed to run these; empty if all are here."""
    gone = [PACKAGES[name] for name in programs if not (PROGRAMS / name / name).exists()]
    if shutil.which("vpncmd") is None and PACKAGES["vpncmd"] not in gone:
        gone.append(PACKAGES["vpncmd"])
    return " ".join(gone)


class _Program:
    """One running instance of vpnserver or vpnclient."""

    program = ""
    target: Sequence[str] = ()

    def __init__(self, host: Host, name: str = "") -> None:
        if gone := missing(self.program):
            raise LabError(f"missing Debian packages: {gone}")
        self.host: Final = host
        self.folder: Final = host.folder / (name or self.program)
        self.process: Process | None = None
        self.env: Final[dict[str, str]] = {}  # for the next start
        for part in ("lib", "log", "run"):
            (self.folder / part).mkdir(parents=True)
        host.net.at_close(self.stop)

    def start(self) -> None:
        """Start it and wait until it takes commands."""
        mounts = []
        for part, place in (("lib", "/var/lib"), ("log", "/var/log"), ("run", "/run")):
            Path(place, "softether").mkdir(exist_ok=True)  # a mount needs a place
            mounts.append(f"mount --bind '{self.folder / part}' {place}/softether")
        # execsvc: stay in the foreground, stop in order at SIGTERM
        script = " && ".join([*mounts, f"exec {PROGRAMS}/{self.program}/{self.program} execsvc"])
        self.process = self.host.spawn(["sh", "-c", script], log=self.folder.name, env=self.env)
        self._wait_ready()

    def stop(self) -> None:
        """End it in order: it says goodbye to its peers and writes its configuration.

        A program is a guard and a worker, which lives on if the guard alone is told; so the whole group is told.
        """
        if self.process is not None:
            process, self.process = self.process, None
            _tell(process, signal.SIGTERM)
            try:
                until(lambda: not (process.running or _tell(process, 0)), seconds=10.0, what=f"{self.program} ending")
            except TimeOver:
                _tell(process, signal.SIGKILL)
            process.stop()

    def restart(self) -> None:
        """A fresh process with the same configuration; cures a poisoned one (see the top)."""
        self.stop()
        self.start()

    def say(self, *lines: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Give commands to it through vpncmd, in one go. Raises `LabError` if one of them fails."""
        script = self.folder / "commands.txt"  # not argv: passwords are among them
        script.write_text("\n".join(lines) + "\n")
        out = self.host.ask(["vpncmd", *self.target, f"/IN:{script}", "/CSV"], timeout_s=timeout_s).stdout
        if check and (found := re.search(r"Error occurred.*", out, re.DOTALL)):
            raise LabError(f"vpncmd {lines}: {found[0][:500]}")
        return out

    def table(self, *lines: str) -> list[dict[str, str]]:
        """The rows which the last of the commands prints, by column title."""
        out = self.say(*lines)
        rows = list(csv.reader(io.StringIO(out)))
        titles, *values = [row for row in rows if len(row) > 1]
        return [dict(zip(titles, row, strict=True)) for row in values if len(row) == len(titles)]

    def items(self, *lines: str, check: bool = True) -> dict[str, str]:
        """What the last of the commands prints as item and value."""
        return {row[0]: row[1] for row in csv.reader(io.StringIO(self.say(*lines, check=check))) if len(row) == 2}

    def logged(self) -> str:
        """Its own log files (not what it prints)."""
        paths = sorted((self.folder / "log").rglob("*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def _wait_ready(self) -> None:
        assert self.process is not None
        process = self.process

        def look() -> bool:
            if not process.running:
                raise LabError(f"{self.program} ended:\n{process.output()[-1000:]}")
            return "Error occurred" not in self.say(self.question, check=False) and self._answered()

        try:
            until(look, seconds=30.0, what=f"{self.program} taking commands", step_s=0.1)
        except TimeOver as late:
            raise LabError(f"{late}:\n{process.output()[-1000:]}") from None

    question = ""

    def _answered(self) -> bool:
        return True


class Server(_Program):
    """vpnserver: listens on 443, 992, 1194 and 5555 of its host."""

    program = "vpnserver"
    target = (f"localhost:{ADMIN_PORT}", "/SERVER")
    question = "ServerInfoGet"

    def start(self) -> None:
        """Start it; what would call the maker's servers is switched off."""
        super().start()
        self.say("DynamicDnsDisable", "VpnAzureSetEnable no", "KeepDisable")

    def create_hub(self, hub: str) -> None:
        """A virtual hub without an admin password, not logging packets."""
        self.say(f"HubCreate {hub} /PASSWORD:none", f"Hub {hub}", "LogDisable security", "LogDisable packet")

    def create_user(self, hub: str, user: str, password: str | None = None) -> None:
        """A user of `hub`; without a password an anonymous one."""
        kind = f"UserAnonymousSet {user}" if password is None else f"UserPasswordSet {user} /PASSWORD:{password}"
        self.say(f"Hub {hub}", f"UserCreate {user} /GROUP:none /REALNAME:none /NOTE:none", kind)

    def create_certificate_user(self, hub: str, user: str, certificate: Path) -> None:
        """A user of `hub` who logs in with exactly this certificate (PEM)."""
        made = f"UserCreate {user} /GROUP:none /REALNAME:none /NOTE:none"
        self.say(f"Hub {hub}", made, f"UserCertSet {user} /LOADCERT:{certificate}")

    def set_policy(self, hub: str, user: str, values: Mapping[str, int | bool]) -> None:
        """Values of the user's policy, by their names in the protocol; a new policy begins as the default one."""
        words = {
            name: ("yes" if value else "no") if isinstance(value, bool) else value for name, value in values.items()
        }
        self.say(f"Hub {hub}", *(f"UserPolicySet {user} /NAME:{name} /VALUE:{word}" for name, word in words.items()))

    def create_cascade(
        self,
        hub: str,
        name: str,
        *,
        server: str,
        port: int,
        far_hub: str,
        user: str,
        password: str | None = None,
        certificate: tuple[Path, Path] | None = None,
        max_tcp: int = 1,
        half: bool = False,
        compress: bool = False,
    ) -> None:
        """A cascade of `hub` to another server's hub, not yet online; arguments as `Client.create_account` has them."""
        target = f"[{server}]:{port}" if ":" in server else f"{server}:{port}"
        self.say(
            f"Hub {hub}",
            f"CascadeCreate {name} /SERVER:{target} /HUB:{far_hub} /USERNAME:{user}",
            _login("Cascade", name, password, certificate, plain=False),
            f"CascadeDetailSet {name} /MAXTCP:{max_tcp} /INTERVAL:1 /TTL:0 /HALF:{_yes(half)} /NOQOS:yes",
            f"CascadeCompress{'Enable' if compress else 'Disable'} {name}",
        )

    def cascade(self, hub: str, name: str, *, online: bool = True) -> None:
        """Let a cascade dial, or end it in order."""
        self.say(f"Hub {hub}", f"Cascade{'Online' if online else 'Offline'} {name}")

    def cascade_status(self, hub: str, name: str) -> dict[str, str]:
        """CascadeStatusGet; empty while it is not connected."""
        return self.items(f"Hub {hub}", f"CascadeStatusGet {name}", check=False)

    def session(self, hub: str, name: str) -> dict[str, str]:
        """SessionGet: what the server knows of one session; empty if it is gone."""
        return self.items(f"Hub {hub}", f"SessionGet {name}", check=False)

    def bridge(self, hub: str, device: str, *, cidrs: Sequence[str] = ()) -> str:
        """A TAP on the server's host that is a port of `hub`; gives its interface name (`tap_DEVICE`)."""
        self.say(f"BridgeCreate {hub} /DEVICE:{device} /TAP:yes")
        interface = f"tap_{device}"
        until(lambda: self.host.has_interface(interface), seconds=10.0, what=f"{interface} existing")
        for cidr in cidrs:
            self.host.add_address(interface, cidr)
        self.host.ip(f"link set {interface} up")
        return interface

    def sessions(self, hub: str) -> list[dict[str, str]]:
        """SessionList as rows: `Session Name`, `User Name`, `TCP Connections`, ..."""
        return self.table(f"Hub {hub}", "SessionList")

    def mac_table(self, hub: str) -> list[dict[str, str]]:
        """MacTable as rows: `Session Name`, `MAC Address`, ..."""
        return self.table(f"Hub {hub}", "MacTable")


class Client(_Program):
    """vpnclient: the official virtual LAN card; an account and its card have one name here."""

    program = "vpnclient"
    target = ("localhost", "/CLIENT")
    question = "VersionGet"

    def __init__(self, host: Host, name: str = "") -> None:
        super().__init__(host, name)
        self._cards: dict[str, list[str]] = {}  # account -> addresses of its card
        self._connected: list[str] = []

    def create_account(
        self,
        account: str,
        *,
        server: str,
        port: int,
        hub: str,
        user: str,
        password: str | None = None,
        plain: bool = False,
        certificate: tuple[Path, Path] | None = None,
        cidrs: Sequence[str] = (),
        max_tcp: int = 1,
        half: bool = False,
        compress: bool = False,
        udp: bool = False,
        bridge: bool = False,
    ) -> str:
        """An account with a card of its own; gives the card's interface name.

        Args:
            password: None = anonymous.
            plain: send the password itself (inside TLS) instead of its SHA-0 form: "RADIUS or NT domain" to the client.
            certificate: log in with this certificate and its key (PEM files) instead.
            cidrs: addresses for the card.  max_tcp: TCP connections of the session, 1..32.
            half: each connection one way only.  udp: UDP acceleration is offered.
        """
        target = f"[{server}]:{port}" if ":" in server else f"{server}:{port}"
        detail = f"/MAXTCP:{max_tcp} /INTERVAL:1 /TTL:0 /HALF:{_yes(half)} /BRIDGE:{_yes(bridge)}"
        lines = [
            f"NicCreate {account}",
            f"AccountCreate {account} /SERVER:{target} /HUB:{hub} /USERNAME:{user} /NICNAME:{account}",
            _login("Account", account, password, certificate, plain=plain),
            f"AccountDetailSet {account} {detail} /MONITOR:no /NOTRACK:yes /NOQOS:yes /DISABLEUDP:{_yes(not udp)}",
            f"AccountCompress{'Enable' if compress else 'Disable'} {account}",
            f"AccountRetrySet {account} /NUM:999 /INTERVAL:5",
        ]
        self.say(*lines)
        self._cards[account] = list(cidrs)
        self._dress(account)
        return f"vpn_{account}"

    def connect(self, account: str, *, seconds: float = 30.0) -> None:
        """Connect and wait until the session is up. Raises `LabError` with the client's own words if it isn't."""
        out = self.say(f"AccountConnect {account}", check=False)
        if "Error occurred" in out and "(Error code: 35)" not in out:  # 35: it tries already
            raise LabError(out)
        if account not in self._connected:
            self._connected.append(account)
        try:
            until(lambda: self.online(account), seconds=seconds, what=f"{account} being online", step_s=0.2)
        except TimeOver as late:
            raise LabError(f"{late}; the client says: {self.status(account)}") from None
        self.host.ip(f"link set vpn_{account} up")

    def disconnect(self, account: str) -> None:
        """End the session in order."""
        self.say(f"AccountDisconnect {account}")
        self._connected.remove(account)

    def online(self, account: str) -> bool:
        """True while the session is up."""
        return "Established" in self.status(account).get("Session Status", "")

    def status(self, account: str) -> dict[str, str]:
        """AccountStatusGet: what the client knows of its session; empty while not connected."""
        return self.items(f"AccountStatusGet {account}", check=False)

    def start(self) -> None:
        """Start it; cards it had get their addresses again, accounts that were connected connect again."""
        super().start()
        for account in self._cards:
            self._dress(account)
        for account in self._connected:
            self.connect(account)

    def _dress(self, account: str) -> None:
        interface = f"vpn_{account}"
        until(lambda: self.host.has_interface(interface), seconds=10.0, what=f"{interface} existing")
        for cidr in self._cards[account]:
            self.host.add_address(interface, cidr)
        self.host.ip(f"link set {interface} up")


def _tell(process: Process, number: int) -> bool:
    """A signal to the program's whole process group; False if none of it lives."""
    try:
        os.killpg(process.pid, number)  # `Host.spawn` makes each program the leader of a group
    except ProcessLookupError:
        return False
    return True


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _login(what: str, name: str, password: str | None, certificate: tuple[Path, Path] | None, *, plain: bool) -> str:
    """The command that says how an account or a cascade proves who it is."""
    if certificate is not None:
        return f"{what}CertSet {name} /LOADCERT:{certificate[0]} /LOADKEY:{certificate[1]}"
    if password is None:
        return f"{what}AnonymousSet {name}"
    return f"{what}PasswordSet {name} /PASSWORD:{password} /TYPE:{'radius' if plain else 'standard'}"


def version() -> str:
    """The installed version as Debian names it, for reports."""
    return run(["dpkg-query", "-W", "-f", "${Version}", PACKAGES["vpnserver"]])
