"""The ends of the matrix's sessions (lab/matrix.py): real programs and ours, behind the same few words.

    near ------ wire ------ far        near joins; far answers; each has an address inside, on the virtual LAN

Session timeouts are the least there are (5 s), because a standard session says no goodbye: its other end notices by
that time.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final, NamedTuple

from lab import peers
from lab.keys import make_certificate, only_version
from lab.matrix import Variant
from lab.net import Host, LabError
from lab.plain import Plain, Seat
from lab.ukihashi import Card, Hub
from lab.wait import until
from ukihashi.wire.constants import Code

TIMEOUT_S: Final = 5
UP_S: Final = 45.0  # until a session is carried as wanted: seven more connections, 1 s apart; UDP is stable after 10 s
USER: Final = "taro"
GUEST: Final = "visitor"
SAID: Final[Mapping[int, str]] = {  # by our card, of refusals
    Code.AUTH_FAILED: "the name or the password is wrong",
    Code.HUB_NOT_FOUND: "there is no virtual hub",
    Code.ACCESS_DENIED: "this user may not enter now",
    Code.HUB_IS_BUSY: "full",
}
TLS12_SUITE: Final = "ECDHE-RSA-AES128-GCM-SHA256"
TLS13_SUITE: Final = "TLS_AES_128_GCM_SHA256"


class Carried(NamedTuple):
    """How a session is carried, as one of its ends says."""

    connections: int
    half: bool
    compress: bool
    udp: bool  # frames go that way now
    tls: str  # "" = this end does not say

    def is_as(self, variant: Variant) -> bool:
        """As the row of the matrix names it."""
        wanted = (variant.connections, variant.half, variant.compress, variant.udp)
        return self[:4] == wanted and self.tls in ("", variant.tls or self.tls)


@dataclass(frozen=True)
class Login:
    """Where to join, and as whom."""

    address: str
    port: int
    hub: str
    password: str | None = None
    certificate: tuple[Path, Path] | None = None  # PEM files: certificate, key
    user: str = USER


# -- the end that answers ---------------------------------------------------------------------------------------------


class Far(ABC):
    """A hub with one user and a place of its own on its virtual LAN."""

    port = 443
    hub = ""
    inside = ""  # its own address and prefix length on the virtual LAN
    password = ""

    def __init__(self, host: Host, variant: Variant) -> None:
        self.host: Final = host
        self.variant: Final = variant
        self.files: tuple[Path, Path] | None = make_certificate(host, USER) if variant.certificate else None

    def login(self) -> Login:
        """One that is let in."""
        address = self.host.ipv6 if self.variant.ipv6 else self.host.ipv4
        password = None if self.files else self.password
        return Login(address, self.port, self.hub, password, self.files)

    def free_address(self) -> str:
        """An address on the virtual LAN for the other end."""
        own = ip_interface(self.inside)
        return f"{own.network[200]}/{own.network.prefixlen}"

    @abstractmethod
    def start(self) -> None:
        """Serve."""

    @abstractmethod
    def restart(self) -> None:
        """End in order, and serve again."""

    def fill(self) -> None:
        """No room for another session: a guest has the only place."""
        self.add_guest()
        self._seat = Seat(Plain(self.host, self.host.ipv4, hub=self.hub, user=GUEST))
        self.limit(1)

    def make_room(self) -> None:
        """There is room again."""
        self.limit(0)
        self._seat.close()

    @abstractmethod
    def add_guest(self) -> None:
        """An anonymous user."""

    @abstractmethod
    def limit(self, sessions: int) -> None:
        """So many may be there at once; 0 = any number."""

    @abstractmethod
    def deny(self, denied: bool) -> None:
        """Set the policy of the user: access or none."""

    @abstractmethod
    def carried(self) -> Carried | None:
        """The user's session; None if there is none."""

    def flaps(self) -> bool:
        """The session gets one connection after another: what a poisoned official program does."""
        return False


class OurHub(Far):
    """`ukihashi hub serve`."""

    hub = "LAN"

    def start(self) -> None:
        self.program = Hub(self.host)
        settings: dict[str, Any] = {
            "session_timeout_s": TIMEOUT_S,
            "standard": {"udp_acceleration": self.variant.udp},
        }
        if self.variant.tls:
            settings["tls"] = {"ciphers": [TLS12_SUITE if self.variant.tls == "TLSv1.2" else TLS13_SUITE]}
        self.program.configure(settings)
        self.program.start()
        row = self.program.tell("list")[0]
        self.inside = str(ip_interface(f"{ip_interface(row['subnet4']).network[1]}/24"))
        if self.files is None:
            self.password = self.program.tell("user_create", name=USER, hub=self.hub)[0]["password"]
        else:
            self.program.create_certificate_user(USER, self.files[0], hub=self.hub)

    def restart(self) -> None:
        self.program.stop()
        self.program.start()

    def add_guest(self) -> None:
        self.program.tell("user_create", name=GUEST, hub=self.hub, anonymous=True)

    def limit(self, sessions: int) -> None:
        self.program.tell("hub_set", name=self.hub, max_sessions=sessions)

    def deny(self, denied: bool) -> None:
        self.program.set_policy(USER, {"Access": not denied}, hub=self.hub)

    def carried(self) -> Carried | None:
        found = [row for row in self.program.tell("sessions", hub=self.hub) if row["user"].casefold() == USER]
        if not found:
            return None
        row = found[-1]
        how = row["connections"], row["half_duplex"], row["compression"], row["udp"], row["tls_version"]
        return Carried(*how)

    def flaps(self) -> bool:
        return len(re.findall(rf"a session began .* user={USER} ", self.program.log())) >= 3


class RealServer(Far):
    """`vpnserver`."""

    hub = "FAR"
    inside = "10.99.0.1/24"
    password = "wonderland"

    def start(self) -> None:
        self.program = peers.Server(self.host)
        if self.variant.tls:
            self.program.env["OPENSSL_CONF"] = str(only_version(self.host, self.variant.tls))
        self.program.start()
        self.program.create_hub(self.hub)
        if self.files is None:
            self.program.create_user(self.hub, USER, self.password)
        else:
            self.program.create_certificate_user(self.hub, USER, self.files[0])
        self.program.set_policy(self.hub, USER, {"TimeOut": TIMEOUT_S})
        self.program.bridge(self.hub, "far", cidrs=[self.inside])

    def restart(self) -> None:
        self.program.restart()
        until(lambda: self.host.has_interface("tap_far"), seconds=20, what="the bridge being there")
        self.host.add_address("tap_far", self.inside)
        self.host.ip("link set tap_far up")

    def add_guest(self) -> None:
        self.program.create_user(self.hub, GUEST)

    def limit(self, sessions: int) -> None:
        self.program.say(f"Hub {self.hub}", f"SetMaxSession {sessions}")

    def deny(self, denied: bool) -> None:
        self.program.set_policy(self.hub, USER, {"Access": not denied})

    def carried(self) -> Carried | None:
        found = [row for row in self.program.sessions(self.hub) if row["User Name"].casefold() == USER]
        return read_status(self.program.session(self.hub, found[-1]["Session Name"])) if found else None


# -- the end that joins -----------------------------------------------------------------------------------------------


class Near(ABC):
    """What joins."""

    official = False  # a program of others, to be restarted when it is poisoned

    def __init__(self, host: Host, variant: Variant, inside: str) -> None:
        self.host: Final = host
        self.variant: Final = variant
        self.inside: Final = inside  # its address on the virtual LAN, with prefix length

    @abstractmethod
    def start(self) -> None:
        """Make ready."""

    @abstractmethod
    def join(self, login: Login) -> None:
        """Join; returns when the session is up."""

    @abstractmethod
    def refused(self, login: Login) -> int:
        """Join in vain; the code that this end reports. Nothing of the attempt is left."""

    @abstractmethod
    def leave(self) -> None:
        """End the session in order."""

    def carried(self) -> Carried | None:
        """How this end says that its session is carried; None if it does not say."""
        return None

    def revive(self) -> None:
        """Start the program anew, because it did not come back by itself."""
        raise LabError("ours did not come back by itself")


class OfficialClient(Near):
    """`vpnclient`."""

    official = True

    def start(self) -> None:
        self.program = peers.Client(self.host)
        self.program.start()
        self._number = 0

    def _account(self, login: Login, cidrs: list[str]) -> str:
        self._number += 1
        variant = self.variant
        self.program.create_account(
            f"v{self._number}", server=login.address, port=login.port, hub=login.hub, user=login.user,
            password=login.password, certificate=login.certificate, cidrs=cidrs, max_tcp=variant.connections,
            half=variant.half, compress=variant.compress, udp=variant.udp,
        )  # fmt: skip
        return f"v{self._number}"

    def join(self, login: Login) -> None:
        self.account = self._account(login, [self.inside])
        self.program.connect(self.account, seconds=UP_S)

    def refused(self, login: Login) -> int:
        account = self._account(login, [])
        before = len(self.program.logged())
        self.program.say(f"AccountConnect {account}")
        code = logged_code(lambda: self.program.logged()[before:])
        self.program.say(f"AccountDisconnect {account}")
        return code

    def leave(self) -> None:
        self.program.disconnect(self.account)

    def carried(self) -> Carried | None:
        return read_status(self.program.status(self.account))

    def revive(self) -> None:
        self.program.restart()


class OurCard(Near):
    """`ukihashi card up`."""

    def start(self) -> None:
        self.program = Card(self.host)

    def _account(self, login: Login, name: str) -> None:
        variant = self.variant
        proof: dict[str, Any] = {"method": "password", "password": login.password}
        if login.certificate is not None:
            proof = dict(zip(("certificate", "key"), map(str, login.certificate), strict=True))
            proof["method"] = "certificate"
        standard = {
            "max_connections": variant.connections,
            "half_duplex": variant.half,
            "compression": variant.compress,
            "udp_acceleration": variant.udp,
        }
        self.program.create(
            name,
            {
                "hub": {"host": login.address, "port": login.port, "hub": login.hub, "user": login.user},
                "trust": {"mode": "first-use"},
                "login": proof,
                "interface": {"name": f"uk{name}", "mac": "02:00:00:00:77:01", "addresses": [self.inside]},
                "standard": standard,
            },
        )

    def join(self, login: Login) -> None:
        self._account(login, "far")
        self.program.up("far", seconds=UP_S)

    def refused(self, login: Login) -> int:
        self._account(login, "no")
        done = self.program.ask("card", "up", "no", timeout_s=UP_S)
        if done.returncode == 0:
            self.program.leave("no")
        return next((code for code, words in SAID.items() if words in done.stderr), 0)

    def leave(self) -> None:
        self.program.leave("far")

    def carried(self) -> Carried | None:
        row = self.program.tell("far")[0]
        how = row["connections"], row["half_duplex"], row["compression"], row["udp"], row["tls"]
        return Carried(*how)


class RealCascade(Near):
    """A hub of a `vpnserver` joins as a bridge."""

    official = True
    hub = "NEAR"

    def start(self) -> None:
        self.program = peers.Server(self.host)
        self.program.start()
        self.program.create_hub(self.hub)
        self.program.bridge(self.hub, "near", cidrs=[self.inside])
        self._number = 0

    def _make(self, login: Login) -> str:
        self._number += 1
        self.name = f"c{self._number}"
        variant = self.variant
        self.program.create_cascade(
            self.hub, self.name, server=login.address, port=login.port, far_hub=login.hub, user=login.user,
            password=login.password, certificate=login.certificate, max_tcp=variant.connections, half=variant.half,
            compress=variant.compress,
        )  # fmt: skip
        self.program.cascade(self.hub, self.name)
        return self.name

    def join(self, login: Login) -> None:
        name = self._make(login)
        until(lambda: self.carried() is not None, seconds=UP_S, what=f"cascade {name} being up", step_s=0.3)

    def refused(self, login: Login) -> int:
        before = len(self.program.logged())
        name = self._make(login)
        code = logged_code(lambda: self.program.logged()[before:])
        self.program.cascade(self.hub, name, online=False)
        return code

    def leave(self) -> None:
        self.program.cascade(self.hub, self.name, online=False)

    def carried(self) -> Carried | None:
        status = self.program.cascade_status(self.hub, self.name)
        return read_status(status) if "Established" in status.get("Session Status", "") else None

    def revive(self) -> None:
        self.program.restart()
        until(lambda: self.host.has_interface("tap_near"), seconds=20, what="the bridge being there")
        self.host.add_address("tap_near", self.inside)
        self.host.ip("link set tap_near up")


class OurCascade(Near):
    """Our hub joins as a bridge."""

    hub = "LAN"

    def start(self) -> None:
        self.program = Hub(self.host)
        self.program.start()
        port = self.program.tell("list")[0]["host_port"]
        self.host.add_address(port, self.inside)

    def _make(self, name: str, login: Login) -> None:
        variant = self.variant
        options: dict[str, Any] = {
            "standard.max_connections": variant.connections,
            "standard.half_duplex": variant.half,
            "standard.compression": variant.compress,
            "standard.udp_acceleration": variant.udp,
        }
        if login.certificate is not None:
            names = ("login.certificate", "login.key")
            options |= {option: path.read_text() for option, path in zip(names, login.certificate, strict=True)}
        server = f"[{login.address}]:{login.port}" if ":" in login.address else f"{login.address}:{login.port}"
        self.program.tell(
            "cascade_create", name=name, hub=self.hub, server=server, remote_hub=login.hub, user=login.user,
            method="password" if login.certificate is None else "certificate", password=login.password or "",
            options=options,
        )  # fmt: skip

    def _row(self, name: str) -> dict[str, Any]:
        return next((row for row in self.program.tell("cascades", hub=self.hub) if row["name"] == name), {})

    def join(self, login: Login) -> None:
        self._make("far", login)
        until(lambda: self.carried() is not None, seconds=UP_S, what="the cascade being up", step_s=0.2)

    def refused(self, login: Login) -> int:
        self._make("no", login)

        def look() -> int:
            reason = self._row("no").get("reason") or {}
            return int(reason.get("code", 0))

        code = until(look, seconds=UP_S, what="the cascade being refused", step_s=0.2)
        self.program.tell("cascade_delete", name="no", hub=self.hub)
        return code

    def leave(self) -> None:
        self.program.tell("cascade_delete", name="far", hub=self.hub)

    def carried(self) -> Carried | None:
        row = self._row("far")
        if row.get("state") != "online":
            return None
        return Carried(row["connections"], row["half_duplex"], row["compression"], row["udp"], row["tls"])


# -- reading what others say ------------------------------------------------------------------------------------------


def read_status(items: dict[str, str]) -> Carried | None:
    """From the items that vpncmd prints of a session, at either end; None while there is no session."""
    if "Number of TCP Connections" not in items:
        return None
    cipher = items.get("Encryption", "")
    return Carried(
        connections=int(items["Number of TCP Connections"]),
        half=items["Half Duplex TCP Connection Mode"].startswith("Yes"),
        compress=items["Use of Compression"].startswith("Yes"),
        udp=items.get("UDP Acceleration is Active", "").startswith("Yes"),
        tls=("TLSv1.3" if "TLS_" in cipher else "TLSv1.2") if cipher.startswith("Enabled") else "",
    )


def logged_code(look: Callable[[], str]) -> int:
    """The error code that an official program's log gives for its connection, waited for."""

    def found() -> re.Match[str] | None:
        return re.search(r"^.*(?:Cascade|VPN) Connection.*code[: ]+([1-9]\d*)", look(), re.MULTILINE)

    return int(until(found, seconds=UP_S, what="a refusal in the log", step_s=0.3)[1])
