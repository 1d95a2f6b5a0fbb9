"""The account of a virtual LAN card: `card.d/NAME.toml`. One file says where a card joins, as whom, and with what.

The file holds the account's secret, so it is kept readable for its owner only (`card/account.py`).
"""

import ipaddress
import re
import shlex
import zlib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from ukihashi.auth.link import is_host
from ukihashi.auth.names import check_hub_name, check_user_name
from ukihashi.config.hub import Congestion, check_bridged
from ukihashi.config.load import load
from ukihashi.errors import N_, ConfigError, UkihashiError, UsageError
from ukihashi.net.dial import via
from ukihashi.tap.netlink import check_route

PIN_BYTES: Final = 32  # SHA-256 of the hub's SubjectPublicKeyInfo in DER
AUTO: Final = "auto"  # of `path.via`: find it out
NAME_MAX: Final = 32  # characters of an account's name
INTERFACE_MAX: Final = 15  # bytes; what Linux takes

DOMAIN_MAX: Final = 253  # characters
_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Hub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to join."""

    host: str  # name or address, IPv6 without brackets
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 443
    hub: str  # the virtual hub's name
    user: str


class Trust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the hub proves that it is the right one, before anything secret is said to it."""

    mode: Literal["pin", "ca", "first-use"] = "first-use"
    pin: str = ""  # SHA-256 of the hub's public key, 64 hexadecimal digits; filled in by the first use
    ca_file: str = ""  # mode "ca": PEM file; "" = the system's authorities


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this card proves who it is."""

    method: Literal["password", "plain", "anonymous", "certificate"] = "password"  # plain: inside TLS, for chosen ones
    password: str = ""
    certificate: str = ""  # method "certificate": PEM file
    key: str = ""  # method "certificate": PEM file with its RSA key, without a passphrase
    invite: str = ""  # one-use token of a join link; taken out after the first login


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network that is reached through the card."""

    to: str  # "10.8.0.0/16", "fd00:8::/48"
    via: str = ""  # gateway on the virtual LAN; "" = directly
    metric: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0  # 0 = the kernel's default


class PathToHub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the hub is reached: directly, through a proxy, through an SSH server (A20 to A22)."""

    via: str = AUTO  # "auto", or one path as a URL (`net.dial.via`), "direct:" for none
    known: list[str] = []  # "auto": paths that are tried too, the best first; a join link brings them
    password: str = ""  # of the user in `via`
    secrets: str = ""  # file with passwords (`card.path_secrets`); "" = paths.secret beside card.d, if there is one
    authorities: str = ""  # PEM file: who may certify an https:// proxy; "" = the system's authorities
    ssh_config: str = ""  # instead of ssh's own configuration; "" = that


class Connection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The TCP connections to the hub."""

    congestion: Congestion = ""  # TCP congestion control, "" = the machine's own


class Interface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network interface that the card makes."""

    name: str
    mac: str  # locally administered, drawn once, so that the hub's other members know this station again
    addresses: list[str] = []  # "10.181.7.2/24", "fd3c::2/64"
    routes: list[Route] = []
    mtu: Annotated[int, msgspec.Meta(ge=576, le=1500)] = 1500  # bytes
    queue: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500  # frames the kernel holds while the line is full
    offload: bool = True  # super-frames, where the hub takes them
    bridge: str = ""  # an Ethernet of this machine that is joined to the virtual LAN; "": this machine joins
    bridge_addresses: bool = False  # its addresses and routes may move to the bridge
    dhcp: Literal["auto", "on", "off"] = "auto"  # "auto": ask for an address if there is none, else for the rest
    accept: list[Literal["dns", "routes", "default"]] = []  # of what the hub offers, what is applied
    dns_domains: list[str] = []  # besides the offered one: whose names the offered servers are asked for
    kill_switch: bool = False  # nothing leaves this machine but by its cards
    kill_switch_allow: list[str] = []  # networks that stay reachable beside: "192.168.1.0/24"


class Times(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deadlines and periods, in seconds. The first four rule between two ukihashi ends only (D7)."""

    keepalive: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0  # of our own silence, then a keep-alive
    suspect: Annotated[float, msgspec.Meta(ge=0.2, le=600)] = 10.0  # of the hub's, then dials beside; at most `dead`
    dead: Annotated[float, msgspec.Meta(ge=0.3, le=600)] = 15.0  # of the hub's silence, then the link is given up
    redial: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 2.0  # between dials for a session that lacks a link
    dial: Annotated[float, msgspec.Meta(ge=1, le=120)] = 15.0  # TCP connection; the same again for TLS and login
    retry_most: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 5.0  # longest pause between two logins
    refused: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 60.0  # pause after a refusal that will hardly change


class Resume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept while the link is cut (D8)."""

    buffer_kib: Annotated[int, msgspec.Meta(ge=512, le=1_048_576)] = 8192  # toward the hub; beyond it the TAP waits


class EchoGuard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Small ICMP Echos on the virtual LAN, so that routes through it are never held to be dead (A30 to A32, D13)."""

    enabled: bool = True
    target: str = "auto"  # name or address, IPv4 or IPv6; "auto" = the virtual LAN's gateway
    period: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 30.0  # seconds


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The card's side of TLS."""

    ciphers: list[str] = []  # suites by their OpenSSL names, the first liked best; [] = modern ones


class Standard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a hub that can't resume exactly, as official servers can't."""

    max_connections: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1  # TCP connections; a second apart, if granted
    half_duplex: bool = False  # each of them carries frames one way only; two at least
    compression: bool = False
    udp_acceleration: bool = False
    allow_plaintext: bool = False  # asks for a tunnel outside TLS
    bridge: bool = False  # asks to be a bridge: any number of stations behind the card
    monitor: bool = False  # asks for a copy of every frame of the virtual hub


class Hooks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Programs of the administrator's that run when the card has come up, and before it goes."""

    up: str = ""  # a command line, split as a shell would, run without one
    down: str = ""


# written only when changed
OPTIONAL_SECTIONS: Final = frozenset(
    {"path", "connection", "times", "resume", "echo_guard", "tls", "standard", "hooks"}
)


class CardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `card.d/NAME.toml`."""

    hub: Hub
    trust: Trust = Trust()
    login: Login = Login()
    path: PathToHub = PathToHub()
    connection: Connection = Connection()
    interface: Interface
    times: Times = Times()
    resume: Resume = Resume()
    echo_guard: EchoGuard = EchoGuard()
    tls: Tls = Tls()
    standard: Standard = Standard()
    hooks: Hooks = Hooks()

    @property
    def pin(self) -> bytes:
        """The pinned key, 32 bytes, or b""."""
        return parse_pin(self.trust.pin) if self.trust.pin else b""

    @property
    def mac(self) -> bytes:
        """The interface's MAC address, 6 bytes."""
        return bytes.fromhex(self.interface.mac.replace(":", ""))


def load_card(path: Path) -> CardConfig:
    """Read an account's file. Raises: ConfigError: names the file and the place."""
    config = load(path, CardConfig)
    try:
        check(config)
    except UkihashiError as error:
        raise ConfigError(N_("{path}: {problem}"), path=path, problem=error) from None
    return config


def check(config: CardConfig) -> None:
    """What types alone can't say. Raises: UsageError."""
    hub, login, interface = config.hub, config.login, config.interface
    if not is_host(hub.host):
        raise UsageError(N_("“{host}” is neither a host name nor an address"), host=hub.host)
    check_hub_name(hub.hub)
    check_user_name(hub.user)
    for url in (*config.path.known, *([] if config.path.via == AUTO else [config.path.via])):
        via.parse(url)
    if config.trust.pin:
        parse_pin(config.trust.pin)
    if config.trust.mode == "pin" and not config.trust.pin:
        raise UsageError(N_("trust.mode “pin” needs trust.pin, the SHA-256 of the hub's public key"))
    if login.method == "certificate" and not (login.certificate and login.key):
        raise UsageError(N_("login.method “certificate” needs login.certificate and login.key, two PEM files"))
    if login.method in {"password", "plain"} and not login.password:
        raise UsageError(N_("login.password is missing; an anonymous account says login.method = “anonymous”"))
    times = config.times
    if times.keepalive >= min(times.suspect, times.dead):
        raise UsageError(
            N_("times.keepalive ({keepalive:g}) must be below times.suspect ({suspect:g}) and times.dead ({dead:g})"),
            keepalive=times.keepalive,
            suspect=times.suspect,
            dead=times.dead,
        )
    mac = interface.mac
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise UsageError(
            N_("interface.mac “{mac}” is no MAC address of one station; an example: {example}"),
            mac=mac,
            example="02:1a:2b:3c:4d:5e",
        )
    if not 0 < len(interface.name.encode()) <= INTERFACE_MAX:
        raise UsageError(N_("interface.name “{name}” must have 1 to 15 characters"), name=interface.name)
    if interface.bridge and check_bridged(interface.bridge) == interface.name:
        raise UsageError(N_("interface.bridge names the card's own interface; name an Ethernet of this machine"))
    if config.tls.ciphers:
        from ukihashi.net.suites import check_pick

        check_pick(config.tls.ciphers)
    for text in interface.addresses:
        try:
            ipaddress.ip_interface(text)
        except ValueError:
            raise UsageError(
                N_("{text!r} is no address with prefix length; write for example 10.8.0.2/24 or fd00:8::2/64"),
                text=text,
            ) from None
    for route in interface.routes:
        check_route(route.to, route.via)
    for domain in interface.dns_domains:
        if not is_domain(domain):
            raise UsageError(N_("“{text}” is no domain name; write for example corp.example"), text=domain)
    for event in ("up", "down"):
        try:
            shlex.split(getattr(config.hooks, event))
        except ValueError:
            raise UsageError(N_("hooks.{event}: a quotation mark is not closed"), event=event) from None
    if interface.kill_switch and interface.bridge:
        raise UsageError(
            N_(
                "interface.kill_switch and interface.bridge don't go together: what this machine sends leaves by the"
                " bridge, and all of it would be stopped"
            )
        )
    for text in interface.kill_switch_allow:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise UsageError(
                N_("interface.kill_switch_allow: “{text}” is no network; write for example 192.168.1.0/24"), text=text
            ) from None
    target = config.echo_guard.target
    if target != "auto" and not is_host(target):
        raise UsageError(N_("echo_guard.target “{target}” is no host name, no address and not “auto”"), target=target)


def is_domain(text: str) -> bool:
    """A name of the DNS such as `corp.example`, in its ASCII form, a point at the end allowed."""
    return len(text) <= DOMAIN_MAX and bool(_DOMAIN.fullmatch(text))


def check_account_name(name: str) -> str:
    """An account's name: a file and a socket are called after it. Raises: UsageError."""
    fits = 0 < len(name) <= NAME_MAX and name[0].isalnum() and all(c.isalnum() or c in "-_." for c in name)
    if not fits or len(name.encode()) > 2 * NAME_MAX:
        raise UsageError(
            N_("“{name}” can't name an account: 1 to 32 letters, digits, - . or _, a letter or digit first"),
            name=name,
        )
    return name


def account_name_for(hub: str) -> str:
    """The name an account gets when nobody chose one: the virtual hub's in lower case, odd characters as `-`."""
    letters = "".join(c if c.isalnum() or c in "-_." else "-" for c in hub.lower())[:NAME_MAX]
    name = letters.lstrip("-_.") or "hub"
    while len(name.encode()) > 2 * NAME_MAX:
        name = name[:-1]
    return name


def interface_name_for(account: str) -> str:
    """The interface an account gets unless chosen: `uklan` for `lan`; long or non-ASCII names end in a check sum."""
    if account.isascii() and len(account) <= INTERFACE_MAX - 2:
        return f"uk{account}"
    plain = "".join(c for c in account if c.isascii() and c.isalnum())[:8]
    return f"uk{plain}{zlib.crc32(account.encode()) & 0xFFFFF:05x}"


def parse_pin(text: str) -> bytes:
    """32 bytes from 64 hexadecimal digits, colons and a leading `sha256:` allowed. Raises: UsageError."""
    bare = text.strip().lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    try:
        pin = bytes.fromhex(bare)
    except ValueError:
        pin = b""
    if len(pin) != PIN_BYTES:
        raise UsageError(N_("“{text}” is no key fingerprint: 64 hexadecimal digits (SHA-256) are wanted"), text=text)
    return pin


def plain(config: CardConfig) -> dict[str, Any]:
    """The account as plain values without what holds its default, for writing."""
    whole: dict[str, Any] = msgspec.to_builtins(config)
    bare = CardConfig(hub=config.hub, interface=Interface(name=config.interface.name, mac=config.interface.mac))
    usual: dict[str, Any] = msgspec.to_builtins(bare)
    kept: dict[str, Any] = {}
    for section, fields in whole.items():
        always = {"hub", "user", "host", "port", "name", "mac", "mode", "method"}
        chosen = {name: value for name, value in fields.items() if name in always or value != usual[section][name]}
        if section not in OPTIONAL_SECTIONS or chosen:
            kept[section] = chosen
    return kept
