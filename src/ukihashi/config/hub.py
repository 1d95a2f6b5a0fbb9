"""`hub.toml`: what the administrator of a hub machine decides before it starts.

Virtual hubs and users are in the store. Options of `ukihashi hub serve` win over the file.
"""

import contextlib
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, get_args

import msgspec

from ukihashi.auth.link import is_host
from ukihashi.auth.names import check_hub_name, name_key
from ukihashi.config.load import load
from ukihashi.errors import N_, ConfigError, UsageError
from ukihashi.wire.constants import MAX_CONNECTIONS

DEFAULT_PORT: Final = 443
DEFAULT_LISTEN: Final = ("443",)
MAX_WORKERS: Final = 16
INTERFACE_MAX: Final = 15  # bytes; what Linux takes

LogFormat = Literal["text", "json"]
LOG_FORMATS: Final[tuple[str, ...]] = get_args(LogFormat)

Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Congestion = Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{0,15}$")]  # as Linux names it


class Endpoint(NamedTuple):
    """One listening address."""

    address: str  # IPv4 or IPv6, no brackets
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hub's side of TLS. With neither path given the hub makes its own key and certificate."""

    certificate: str = ""  # path of a PEM file, the hub's own certificate first
    key: str = ""  # path of a PEM file
    ciphers: tuple[str, ...] = ()  # suites by their OpenSSL names, the first liked best; () = modern ones


class Times(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Between two ukihashi ends (D7)."""

    keepalive_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0  # of our own silence, then a keep-alive
    dead_s: Annotated[float, msgspec.Meta(ge=0.3, le=600)] = 15.0  # of the card's silence, then the link is given up


class Resume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a session whose link is cut (D8)."""

    grace_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 300.0  # then the session ends
    buffer_kib: Annotated[int, msgspec.Meta(ge=512, le=1_048_576)] = 8192  # toward one card; beyond it newest drop
    memory_mib: Annotated[int, msgspec.Meta(ge=0, le=1_048_576)] = 0  # of all sessions together; 0 = an eighth of RAM


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds against strangers and mistakes."""

    opening_s: Seconds = 15.0  # from TCP accept to a login that is let in
    half_open: Count = 4096  # connections that are not yet in; beyond it the oldest is closed


class Front(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands between the hub and the Internet."""

    proxies: tuple[str, ...] = ()  # networks of load balancers: "10.0.0.0/8", "192.0.2.7", "2001:db8::/32"


class Web(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What else is at the hub's address, for browsers."""

    upstream: str = ""  # "http://127.0.0.1:8080": a web server that answers what the hub does not know; "" = none

    def origin(self) -> tuple[str, int] | None:
        """Host and port of `upstream`; None if there is none. Raises: UsageError."""
        if not self.upstream:
            return None
        scheme, _, place = self.upstream.partition("://")
        if scheme == "http":
            with contextlib.suppress(UsageError):
                return parse_public(place.removesuffix("/"), 80)
        raise UsageError(
            N_("web.upstream takes an address such as http://127.0.0.1:8080, not “{given}”"), given=self.upstream
        )


class Standard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What official clients get of what they ask for. Between two ukihashi ends nothing of it is needed."""

    max_connections: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONNECTIONS)] = MAX_CONNECTIONS  # TCP, of one session
    half_duplex: bool = True
    compression: bool = True
    udp_acceleration: bool = True
    udp_ports: str = "40000-44999"  # the first free one of these
    allow_plaintext: bool = False

    def udp_range(self) -> tuple[int, int]:
        """First and last port of `udp_ports`. Raises: UsageError."""
        first, dash, last = self.udp_ports.replace(" ", "").partition("-")
        ports = [int(digits[:6]) if digits.isascii() and digits.isdecimal() else 0 for digits in (first, last or first)]
        if bool(dash) != bool(last) or not 0 < ports[0] <= ports[1] < 65536:
            raise UsageError(
                N_("standard.udp_ports takes two ports, the lower first, as in 40000-44999; not “{given}”"),
                given=self.udp_ports,
            )
        return ports[0], ports[1]


class HubConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `hub.toml`."""

    listen: tuple[str, ...] = DEFAULT_LISTEN  # "443", "0.0.0.0:443", "[::]:443"; a bare port means IPv4 and IPv6
    public_address: str = ""  # "hub.example.jp" or "hub.example.jp:443": what join links name; "" = found out
    page_dir: str = ""  # a folder served in place of the built-in page
    log_format: LogFormat = "text"
    session_timeout_s: Annotated[float, msgspec.Meta(ge=5, le=60)] = 20.0  # protocol section 9.2
    mac_ageing_s: Annotated[float, msgspec.Meta(ge=10, le=86_400)] = 600.0
    workers: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = 1  # processes that carry frames
    super_frames: bool = True  # for cards of ours that offer them
    congestion: Congestion = ""  # of the connections that cards and clients open; "" = the machine's own
    bridges: dict[str, tuple[str, ...]] = {}  # virtual hub -> Ethernets of this machine that are joined to it
    bridge_addresses: tuple[str, ...] = ()  # of those: whose addresses and routes may move to the bridge
    uplink: tuple[str, ...] = ()  # "LAN": members get out by this machine's default routes; "LAN:eth1": by eth1
    tls: Tls = Tls()
    times: Times = Times()
    resume: Resume = Resume()
    limits: Limits = Limits()
    front: Front = Front()
    web: Web = Web()
    standard: Standard = Standard()

    def endpoints(self) -> list[Endpoint]:
        """The listening addresses, each once."""
        return parse_listen(self.listen)

    def bridged(self) -> dict[str, str]:
        """Interface -> virtual hub, of `bridges`. Raises: UsageError."""
        found: dict[str, str] = {}
        for hub, interfaces in self.bridges.items():
            for interface in map(check_bridged, interfaces):
                if interface in found:
                    raise UsageError(
                        N_("bridges: {interface} is joined to {hub} and to {other}; it can be a part of one only"),
                        interface=interface,
                        hub=found[interface],
                        other=hub,
                    )
                found[interface] = check_hub_name(hub)
        return found

    def uplinks(self) -> dict[str, frozenset[str]]:
        """Virtual hub (by `name_key`) -> the interfaces that are its way out; none: those of the default routes."""
        found: dict[str, frozenset[str]] = {}
        for text in self.uplink:
            hub, interface = split_uplink(text)
            found[name_key(hub)] = found.get(name_key(hub), frozenset()) | ({interface} if interface else set())
        return found


def load_hub(path: Path) -> HubConfig:
    """Read `hub.toml`; an absent file means all defaults.

    Raises:
        ConfigError: names the file and the place.
    """
    config = load(path, HubConfig, missing_ok=True)
    try:
        check(config)
    except UsageError as error:
        raise ConfigError(N_("{path}: {problem}"), path=path, problem=error) from None
    return config


def check(config: HubConfig) -> None:
    """What types alone can't say. Raises: UsageError."""
    config.endpoints()
    config.standard.udp_range()
    config.bridged()
    config.uplinks()
    check_networks(config.front.proxies)
    if config.web.origin() is not None and config.page_dir:
        raise UsageError(N_("page_dir and web.upstream both take the front page's place; give one of them"))
    if config.public_address:
        parse_public(config.public_address, DEFAULT_PORT)
    if config.times.keepalive_s >= config.times.dead_s:
        raise UsageError(N_("times.keepalive_s must be below times.dead_s"))
    if bool(config.tls.certificate) != bool(config.tls.key):
        raise UsageError(N_("tls.certificate and tls.key go together; give both or neither"))
    if config.page_dir and not Path(config.page_dir).is_dir():
        raise UsageError(N_("page_dir: {folder} is not a folder"), folder=config.page_dir)
    if config.tls.ciphers:
        from ukihashi.net.suites import check_pick

        check_pick(config.tls.ciphers)


def check_bridged(interface: str) -> str:
    """The name of an interface that shall be bridged. Raises: UsageError."""
    if not 0 < len(interface.encode()) <= INTERFACE_MAX or any(c in "/:%" or c.isspace() for c in interface):
        raise UsageError(N_("bridges: “{name}” can't name a network interface"), name=interface)
    return interface


def split_uplink(text: str) -> tuple[str, str]:
    """Virtual hub and interface ("": none named) of an entry of `uplink`. Raises: UsageError."""
    hub, colon, interface = text.partition(":")
    if bool(colon) != bool(interface) or len(interface.encode()) > INTERFACE_MAX or set(interface) & set('/: "\\'):
        raise UsageError(N_("uplink: “{text}” is neither HUB nor HUB:INTERFACE"), text=text)
    return check_hub_name(hub), interface


def parse_listen(texts: Iterable[str]) -> list[Endpoint]:
    """Listening addresses: `443` (IPv4 and IPv6), `:443` (the same), `192.0.2.1:443`, `[2001:db8::1]:443`.

    Raises:
        UsageError: names the part that is wrong.
    """
    endpoints: list[Endpoint] = []
    for text in texts:
        host, _, port_text = text.strip().rpartition(":")
        port = _port(port_text, text)
        bare = host.removeprefix("[").removesuffix("]")
        if host in ("", "*"):
            found = [Endpoint("0.0.0.0", port), Endpoint("::", port)]  # noqa: S104 - a server's default
        else:
            try:
                address = ipaddress.ip_address(bare)
            except ValueError:
                raise UsageError(
                    N_("listen “{text}”: {host} is no address; write 443, 192.0.2.1:443 or [2001:db8::1]:443"),
                    text=text,
                    host=host,
                ) from None
            if address.version == 6 and bare == host:
                raise UsageError(
                    N_("listen “{text}”: put the IPv6 address in brackets, as in [2001:db8::1]:443"), text=text
                )
            found = [Endpoint(str(address), port)]
        endpoints += [one for one in found if one not in endpoints]
    if not endpoints:
        raise UsageError(N_("listen is empty; name at least one port, such as 443"))
    return endpoints


def check_networks(texts: Iterable[str]) -> None:
    """Networks and addresses of `front.proxies`. Raises: UsageError."""
    for text in texts:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise UsageError(
                N_("front.proxies: “{text}” is no network; write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"), text=text
            ) from None
        if network.prefixlen == 0:
            raise UsageError(
                N_("front.proxies: “{text}” is everybody, and everybody could claim any address"), text=text
            )


def parse_public(text: str, default_port: int) -> tuple[str, int]:
    """Host and port from `hub.example.jp`, `hub.example.jp:8443`, `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]:443`."""
    text = text.strip()
    if is_host(text.removeprefix("[").removesuffix("]")):
        return text.removeprefix("[").removesuffix("]"), default_port
    host, _, port_text = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not is_host(host):
        raise UsageError(
            N_("“{text}” is no public address; write a name or an address, with :PORT if it is not the listening one"),
            text=text,
        )
    return host, _port(port_text, text)


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
        raise UsageError(N_("“{text}”: {digits} is no TCP port; use 1 to 65535"), text=text, digits=digits or "“”")
    return int(digits)
