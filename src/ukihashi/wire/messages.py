"""The messages of login as values, to and from PACK (protocol sections 7 to 11, 13, 16; ours: docs/protocol.md).

Every `to_pack` takes `pencore`: 0..999 random bytes from the caller, added last as size camouflage (section 6).
Every `from_pack` ignores elements it does not know and raises `MessageViolation` for what a correct peer never sends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, Self

from ukihashi.errors import N_, Refused
from ukihashi.wire.constants import (
    CHALLENGE_LENGTH,
    MAX_CERTIFICATE,
    MAX_CONNECTIONS,
    MAX_SIGNATURE,
    MAX_TEXT,
    NODE_ID_LENGTH,
    SESSION_KEY_LENGTH,
    TICKET_LENGTH,
    AuthType,
    Direction,
    sentence,
)
from ukihashi.wire.elements import MessageViolation, bounded, closed, exact, require, text
from ukihashi.wire.extension import Numbers, Resume
from ukihashi.wire.methods import AdminLogin, EnumHub, PasswordChange
from ukihashi.wire.pack import Pack, swapped
from ukihashi.wire.udp import UdpGrant, UdpOffer

_POLICY: Final = "policy:"


@dataclass(frozen=True, slots=True)
class Hello:
    """The server's first words on every connection (section 7)."""

    product: str
    version: int  # 100 * major + minor
    build: int
    random: bytes  # 20 bytes, fresh for this connection: the challenge

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_int("build", self.build)
        pack.add_str("hello", self.product)
        pack.add_data("random", self.random)
        pack.add_int("version", self.version)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        require(pack, "hello")
        return cls(
            product=text(pack, "hello"),
            version=pack.get_int("version"),
            build=pack.get_int("build"),
            random=exact(pack, "random", CHALLENGE_LENGTH),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """Who the client says it is (9.4), for the log; of the many elements only those that we fill or read."""

    host: str = ""
    system: str = ""
    server: str = ""  # host name of the server as the client knows it
    unique_id: bytes = b""  # 16 bytes, the same for every login from one installation
    ip: str = ""  # address of the client as it knows it; "" for one that is IPv6 or not said


@dataclass(frozen=True, slots=True)
class Login:
    """Method `login` (section 9). Secrets are left out of `repr`."""

    hub: str
    user: str
    authtype: int
    secure_password: bytes = field(default=b"", repr=False)
    plain_password: str = field(default="", repr=False)
    certificate: bytes = b""  # DER
    signature: bytes = b""  # RSA over the challenge
    ticket: bytes = field(default=b"", repr=False)
    client: str = ""  # product string; the words "server" or "bridge" in it would force bridge mode
    client_version: int = 0
    client_build: int = 0
    client_id: int = 0  # some hubs take only clients with theirs
    max_connection: int = 1
    use_encrypt: bool = True
    use_compress: bool = False
    half_connection: bool = False
    qos: bool = False
    bridge_mode: bool = False
    monitor_mode: bool = False
    unique_id: bytes = b""  # element `unique_id`, 20 bytes of a hash of the machine; not `node.unique_id`
    node: Node = Node()
    extension: int = 0  # newest ukihashi version spoken; 0 = none
    extension_oldest: int = 0
    resume: bool = False  # exact resume is offered
    super_frames: int = 0  # with exact resume: kinds of super-frames (`ether.offload.Kind`) that the card takes
    invite_token: str = field(default="", repr=False)
    invite_hash: bytes = field(default=b"", repr=False)
    udp: UdpOffer | None = None

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_str("method", "login")
        pack.add_str("hubname", self.hub)
        pack.add_str("username", self.user)
        pack.add_int("authtype", self.authtype)
        self._add_proof(pack)
        pack.add_str("client_str", self.client)
        pack.add_int("client_ver", self.client_version)
        pack.add_int("client_build", self.client_build)
        pack.add_int("client_id", self.client_id)
        pack.add_str("hello", self.client)
        pack.add_int("version", self.client_version)
        pack.add_int("build", self.client_build)
        pack.add_int("protocol", 0)
        pack.add_int("max_connection", self.max_connection)
        pack.add_int("use_encrypt", self.use_encrypt)
        pack.add_int("use_compress", self.use_compress)
        pack.add_int("half_connection", self.half_connection)
        pack.add_int("qos", self.qos)
        pack.add_int("require_bridge_routing_mode", self.bridge_mode)
        pack.add_int("require_monitor_mode", self.monitor_mode)
        if self.unique_id:
            pack.add_data("unique_id", self.unique_id)
        self._add_node(pack)
        if self.extension:
            pack.add_int("ukihashi_version", self.extension)
            pack.add_int("ukihashi_oldest", self.extension_oldest)
            pack.add_int("ukihashi_resume", self.resume)
            if self.super_frames:
                pack.add_int("ukihashi_superframe", self.super_frames)
        if self.invite_token:
            pack.add_str("ukihashi_invite", self.invite_token)
            pack.add_data("ukihashi_invite_hash", self.invite_hash)
        if self.udp is not None:
            self.udp.add_to(pack)
        return closed(pack, pencore)

    def _add_proof(self, pack: Pack) -> None:
        if self.authtype == AuthType.PASSWORD_HASH:
            pack.add_data("secure_password", self.secure_password)
        elif self.authtype == AuthType.PLAIN_PASSWORD:
            pack.add_str("plain_password", self.plain_password)
        elif self.authtype == AuthType.CERTIFICATE:
            pack.add_data("cert", self.certificate)
            pack.add_data("sign", self.signature)
        elif self.authtype == AuthType.TICKET:
            pack.add_data("ticket", self.ticket)

    def _add_node(self, pack: Pack) -> None:
        pack.add_str("ClientProductName", self.client)
        pack.add_int("ClientProductVer", swapped(self.client_version))
        pack.add_int("ClientProductBuild", swapped(self.client_build))
        pack.add_str("ClientHostname", self.node.host)
        pack.add_str("ClientOsName", self.node.system)
        pack.add_str("ServerHostname", self.node.server)
        if self.node.ip:
            pack.add_int("ClientIpAddress", int.from_bytes(IPv4Address(self.node.ip).packed, "little"))
        if self.node.unique_id:
            pack.add_data("UniqueId", self.node.unique_id)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        require(pack, "hubname", "username")
        node_id = pack.get_data("UniqueId")
        return cls(
            hub=text(pack, "hubname"),
            user=text(pack, "username"),
            authtype=pack.get_int("authtype"),
            secure_password=pack.get_data("secure_password"),
            plain_password=pack.get_str("plain_password"),
            certificate=bounded(pack, "cert", MAX_CERTIFICATE),
            signature=bounded(pack, "sign", MAX_SIGNATURE),
            ticket=bounded(pack, "ticket", TICKET_LENGTH),
            client=text(pack, "client_str"),
            client_version=pack.get_int("client_ver"),
            client_build=pack.get_int("client_build"),
            client_id=pack.get_int("client_id"),
            max_connection=min(max(pack.get_int("max_connection"), 1), MAX_CONNECTIONS),
            use_encrypt=pack.get_bool("use_encrypt"),  # left out means a plaintext tunnel (trap T3)
            use_compress=pack.get_bool("use_compress"),
            half_connection=pack.get_bool("half_connection"),
            qos=pack.get_bool("qos"),
            bridge_mode=pack.get_bool("require_bridge_routing_mode"),
            monitor_mode=pack.get_bool("require_monitor_mode"),
            unique_id=pack.get_data("unique_id"),
            node=Node(
                host=text(pack, "ClientHostname"),
                system=text(pack, "ClientOsName"),
                server=text(pack, "ServerHostname"),
                unique_id=node_id if len(node_id) == NODE_ID_LENGTH else b"",
                ip=_client_ip(pack),
            ),
            extension=pack.get_int("ukihashi_version"),
            extension_oldest=pack.get_int("ukihashi_oldest"),
            resume=pack.get_bool("ukihashi_resume"),
            super_frames=pack.get_int("ukihashi_superframe"),
            invite_token=text(pack, "ukihashi_invite"),
            invite_hash=pack.get_data("ukihashi_invite_hash"),
            udp=UdpOffer.read(pack),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server lets a login in (section 10). The next byte on the connection is the tunnel's."""

    session_name: str
    connection_name: str
    session_key: bytes = field(repr=False)  # 20 bytes, secret: whoever has it can add a connection
    max_connection: int = 1
    use_encrypt: bool = True
    use_compress: bool = False
    half_connection: bool = False
    qos: bool = False
    timeout_ms: int = 20_000
    policy: Mapping[str, int] = field(default_factory=dict)  # appendix B, names without "policy:"
    message: str = ""  # banner for the user
    vlan_id: int = 0  # that the session is in; 0 = none
    extension: int = 0  # the ukihashi version to speak; 0 = a standard session
    grace_s: int = 0  # exact resume is granted: seconds that the session waits for a cut card; 0 = not granted
    super_frames: int = 0  # with exact resume: kinds of super-frames that both ends take
    udp: UdpGrant | None = None

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_str("session_name", self.session_name)
        pack.add_str("connection_name", self.connection_name)
        pack.add_data("session_key", self.session_key)
        pack.add_int("max_connection", self.max_connection)
        pack.add_int("use_encrypt", self.use_encrypt)
        pack.add_int("use_compress", self.use_compress)
        pack.add_int("half_connection", self.half_connection)
        pack.add_int("qos", self.qos)
        pack.add_int("timeout", self.timeout_ms)
        pack.add_int("is_azure_session", 0)
        pack.add_int("vlan_id", self.vlan_id)
        pack.add_data("Msg", self.message.encode())
        for name, value in self.policy.items():
            pack.add_int(_POLICY + name, value)
        if self.extension:
            pack.add_int("ukihashi_version", self.extension)
        if self.grace_s:
            pack.add_int("ukihashi_resume", 1)
            pack.add_int("ukihashi_grace", self.grace_s)
            if self.super_frames:
                pack.add_int("ukihashi_superframe", self.super_frames)
        if self.udp is not None:
            self.udp.add_to(pack)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        require(pack, "session_name", "connection_name", "timeout")
        resumes = pack.get_bool("ukihashi_resume")
        timeout_ms = pack.get_int("timeout")
        if timeout_ms == 0:  # real clients drop such a session at once (trap T8)
            raise MessageViolation(N_("the welcome gives the session no time ({name} is 0)"), name="timeout")
        return cls(
            session_name=text(pack, "session_name"),
            connection_name=text(pack, "connection_name"),
            session_key=exact(pack, "session_key", SESSION_KEY_LENGTH),
            max_connection=min(max(pack.get_int("max_connection"), 1), MAX_CONNECTIONS),
            use_encrypt=pack.get_bool("use_encrypt"),
            use_compress=pack.get_bool("use_compress"),
            half_connection=pack.get_bool("half_connection"),
            qos=pack.get_bool("qos"),
            timeout_ms=timeout_ms,
            policy={
                name[len(_POLICY) :]: pack.get_int(name) for name in pack.names() if name.lower().startswith(_POLICY)
            },
            message=pack.get_data("Msg").decode("utf-8", "replace"),
            vlan_id=pack.get_int("vlan_id"),
            extension=pack.get_int("ukihashi_version"),
            grace_s=pack.get_int("ukihashi_grace") if resumes else 0,
            super_frames=pack.get_int("ukihashi_superframe") if resumes else 0,
            udp=UdpGrant.read(pack),
        )


@dataclass(frozen=True, slots=True)
class AdditionalConnect:
    """Method `additional_connect` (13.1): one more connection for a session that exists."""

    session_key: bytes = field(repr=False)
    client: str = ""
    client_version: int = 0
    client_build: int = 0
    resume: Resume | None = None  # ours: instead of the connection that carries the session now

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_str("method", "additional_connect")
        pack.add_data("session_key", self.session_key)
        pack.add_str("client_str", self.client)
        pack.add_int("client_ver", self.client_version)
        pack.add_int("client_build", self.client_build)
        if self.resume is not None:
            self.resume.add_to(pack)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        return cls(
            session_key=exact(pack, "session_key", SESSION_KEY_LENGTH),
            client=text(pack, "client_str"),
            client_version=pack.get_int("client_ver"),
            client_build=pack.get_int("client_build"),
            resume=Resume.read(pack),
        )


@dataclass(frozen=True, slots=True)
class AdditionalAnswer:
    """The server takes the additional connection."""

    direction: int = Direction.BOTH
    have: int | None = None  # ours, to a `Resume`: every record of the card's before this number has come

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_int("direction", self.direction)
        pack.add_int("error", 0)
        if self.have is not None:
            pack.add_int64("ukihashi_have", self.have)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        direction = pack.get_int("direction")
        if direction > Direction.TO_SERVER:
            raise MessageViolation(N_("the hub gave an unknown direction ({direction})"), direction=direction)
        return cls(direction, pack.get_int64("ukihashi_have") if "ukihashi_have" in pack else None)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The server refuses (section 11). `extension` and `extension_oldest` are the hub's, if it is one of ours."""

    code: int  # not 0
    no_save_password: bool = False
    extension: int = 0
    extension_oldest: int = 0
    numbers: Numbers | None = None  # of a refused `Resume`

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_int("error", self.code)
        pack.add_int("no_save_password", self.no_save_password)
        if self.extension:
            pack.add_int("ukihashi_version", self.extension)
            pack.add_int("ukihashi_oldest", self.extension_oldest)
        if self.numbers is not None:
            self.numbers.add_to(pack)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        return cls(
            code=pack.get_int("error"),
            no_save_password=pack.get_bool("no_save_password"),
            extension=pack.get_int("ukihashi_version"),
            extension_oldest=pack.get_int("ukihashi_oldest"),
            numbers=Numbers.read(pack),
        )

    def refusal(self) -> Refused:
        """The error to raise where a person will read it."""
        return Refused(sentence(self.code), code=self.code)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A cluster's controller sends the client to a member (section 16)."""

    ip: IPv4Address
    ports: tuple[int, ...]  # take the one already in use if it is among them, else the first
    ticket: bytes = field(repr=False)  # 20 bytes, for one login within 60 s
    certificate: bytes = b""  # DER of the member, to be met exactly
    message: str = ""

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_int("Redirect", 1)
        pack.add_int("Ip", int.from_bytes(self.ip.packed, "little"))
        pack.add_int("Port", *self.ports)
        pack.add_data("Ticket", self.ticket)
        if self.certificate:
            pack.add_data("Cert", self.certificate)
        pack.add_data("Msg", self.message.encode())
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        ip = pack.get_ip("Ip")
        ports = tuple(pack.get_int("Port", 0, index) for index in range(min(pack.count("Port"), MAX_TEXT)))
        if not isinstance(ip, IPv4Address) or not ports or not all(0 < port < 65536 for port in ports):
            raise MessageViolation(N_("the hub sent us on to another machine, but gave no usable address"))
        return cls(
            ip=ip,
            ports=ports,
            ticket=exact(pack, "Ticket", TICKET_LENGTH),
            certificate=bounded(pack, "Cert", MAX_CERTIFICATE),
            message=pack.get_data("Msg").decode("utf-8", "replace"),
        )


@dataclass(frozen=True, slots=True)
class Noop:
    """Nothing, to keep a waiting connection alive; an answer with it is to be skipped (section 6)."""

    value: int = 1

    def to_pack(self, pencore: bytes) -> Pack:
        """The client's no-op; `answer_pack` is the server's."""
        pack = Pack()
        pack.add_int("noop", self.value)
        return closed(pack, pencore)

    def answer_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_int("error", 0)
        pack.add_int("noop", self.value)
        return closed(pack, pencore)


@dataclass(frozen=True, slots=True)
class UnknownMethod:
    """A method that we do not serve: answer PROTOCOL_ERROR."""

    method: str


Request = Login | AdditionalConnect | EnumHub | PasswordChange | AdminLogin | Noop | UnknownMethod


def read_request(pack: Pack) -> Request:
    """What a client asks on the PACK target after the hello."""
    noop = pack.get_int("noop")
    if noop:
        return Noop(noop)
    method = pack.get_str("method").lower()
    if method == "login":
        return Login.from_pack(pack)
    if method == "additional_connect":
        return AdditionalConnect.from_pack(pack)
    if method == "enum_hub":
        return EnumHub()
    if method == "password":
        return PasswordChange.from_pack(pack)
    if method == "admin":
        return AdminLogin.from_pack(pack)
    return UnknownMethod(method[:MAX_TEXT])


def read_hello(pack: Pack) -> Hello | ErrorAnswer | Noop:
    """What a server answers to the signature; a 5.2 server may send no-ops first."""
    return _trouble(pack) or Hello.from_pack(pack)


def read_answer(pack: Pack) -> Welcome | Redirect | ErrorAnswer | Noop:
    """What a server answers to a login."""
    trouble = _trouble(pack)
    if trouble is not None:
        return trouble
    return Redirect.from_pack(pack) if pack.get_bool("Redirect") else Welcome.from_pack(pack)


def read_additional_answer(pack: Pack) -> AdditionalAnswer | ErrorAnswer | Noop:
    """What a server answers to an additional connect."""
    return _trouble(pack) or AdditionalAnswer.from_pack(pack)


def _client_ip(pack: Pack) -> str:
    ip = pack.get_ip("ClientIpAddress")
    return str(ip) if isinstance(ip, IPv4Address) and int(ip) else ""


def _trouble(pack: Pack) -> Noop | ErrorAnswer | None:
    noop = pack.get_int("noop")
    if noop:
        return Noop(noop)
    return ErrorAnswer.from_pack(pack) if pack.get_int("error") else None
