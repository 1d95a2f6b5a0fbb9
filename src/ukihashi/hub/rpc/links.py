"""Calls about cascades: other hubs that a virtual hub joins as a bridge.

What a tool does not know of a cascade of ours stays as it is. Secrets go in and never out: zeros and nothing mean the
one that is kept.
"""

import hashlib
from typing import Any, Final

from ukihashi.config.hub import parse_public
from ukihashi.errors import N_, UsageError
from ukihashi.hub.rpc.method import Backing, Caller, Method, not_ours, refused
from ukihashi.net.control_socket import Row
from ukihashi.store import cascades
from ukihashi.store.cascades import Cascade
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import DIGEST_LENGTH, AuthType, Code
from ukihashi.wire.policy import DEFAULT, WIRE, Policy
from ukihashi.wire.rpc import POLICY, Values

METHODS: Final = {  # by kind of login
    "anonymous": AuthType.ANONYMOUS,
    "password": AuthType.PASSWORD_HASH,
    "plain": AuthType.PLAIN_PASSWORD,
    "certificate": AuthType.CERTIFICATE,
}
FOREVER: Final = 0xFFFFFFFF  # retries
RETRY_S: Final = 10
ESTABLISHED: Final = 3
UP: Final = ("online", "suspect")  # states of a card
HTTPS: Final = 443
FIRST_USE: Final = "first-use"  # how an account trusts unless told otherwise


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _Links(backing)
    return [
        Method("CreateLink", s.LINK, s.LINK, family.create, hub_field="HubName_Ex"),
        Method("SetLink", s.LINK, s.LINK, family.set, hub_field="HubName_Ex"),
        Method("GetLink", s.LINK, s.LINK, family.get, hub_field="HubName_Ex"),
        Method("EnumLink", s.HUB, s.LINKS, family.enum),
        Method("SetLinkOnline", s.LINK_NAME, s.LINK_NAME, family.online),
        Method("SetLinkOffline", s.LINK_NAME, s.LINK_NAME, family.offline),
        Method("DeleteLink", s.LINK_NAME, s.LINK_NAME, family.delete),
        Method("GetLinkStatus", s.LINK_STATUS, s.LINK_STATUS, family.status, hub_field="HubName_Ex"),
    ]


class _Links:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def create(self, caller: Caller, given: Values) -> Values:
        """A new one; it is joined when it is put online."""
        hub, name = await self._backing.hub(given["HubName_Ex"]), given["AccountName"]
        if await self._backing.storage.read(cascades.find, hub, name) is not None:
            raise refused(Code.LINK_ALREADY_EXISTS)
        options, hashed = _options(given, FIRST_USE)
        options.pop("hub.host"), options.pop("hub.port")
        method = str(options.pop("login.method"))
        await self._backing.do(
            "cascade_create",
            name=name,
            hub=hub.name,
            server=_server(given),
            remote_hub=options.pop("hub.hub"),
            user=options.pop("hub.user"),
            method=method,
            password=options.pop("login.password", ""),
            password_hash=hashed,
            options=options,
            policy=_policy(given, DEFAULT),
            offline=True,
        )
        return await self.get(caller, given)

    async def set(self, caller: Caller, given: Values) -> Values:
        """Everything of a cascade at once; one that is joined joins anew."""
        known = await self._find(given["HubName_Ex"], given["AccountName"])
        options, hashed = _options(given, known.account.get("trust", {}).get("mode", FIRST_USE))
        if not given["UseEncrypt"]:
            raise not_ours(N_("a cascade of this hub is always encrypted"))
        if options["login.method"] == known.account.get("login", {}).get("method", "password") and not hashed:
            options.pop("login.method")
        await self._backing.do(
            "cascade_set",
            name=known.name,
            hub=given["HubName_Ex"],
            password_hash=hashed,
            options=options,
            policy=_policy(given, known.policy or DEFAULT),
        )
        return await self.get(caller, given)

    async def get(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """One, without its secrets."""
        known = await self._find(given["HubName_Ex"], given["AccountName"])
        account: Row = known.account
        place, login, standard = account["hub"], account.get("login", {}), account.get("standard", {})
        trust = account.get("trust", {})
        auth = METHODS[login.get("method", "password")]
        secret: Values = {}
        if auth is AuthType.PASSWORD_HASH:
            secret = {"HashedPassword": bytes(DIGEST_LENGTH)}
        elif auth is AuthType.PLAIN_PASSWORD:
            secret = {"PlainPassword": ""}
        return {
            "HubName_Ex": given["HubName_Ex"],
            "Online": known.online,
            "CheckServerCert": trust.get("mode", FIRST_USE) != FIRST_USE,
            "AccountName": known.name,
            "Hostname": place["host"],
            "Port": place.get("port", HTTPS),
            "HubName": place["hub"],
            "NumRetry": FOREVER,
            "RetryInterval": RETRY_S,
            "MaxConnection": standard.get("max_connections", 1),
            "UseEncrypt": True,
            "UseCompress": standard.get("compression", False),
            "HalfConnection": standard.get("half_duplex", False),
            "NoRoutingTracking": True,
            "AdditionalConnectionInterval": 1,
            "DisableQoS": True,
            "NoUdpAcceleration": not standard.get("udp_acceleration", False),
            "RequireBridgeRoutingMode": True,
            "AuthType": int(auth),
            "Username": place["user"],
            **secret,
            POLICY: known.policy or DEFAULT,
        }

    async def enum(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """All of a hub."""
        hub = await self._backing.hub(given["HubName"])
        rows = await self._backing.do("cascades", hub=hub.name)
        return {"HubName": hub.name, "LinkList": [_row(row) for row in rows]}

    async def online(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Join."""
        return await self._switch(given, online=True)

    async def offline(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Leave."""
        return await self._switch(given, online=False)

    async def _switch(self, given: Values, *, online: bool) -> Values:
        known = await self._find(given["HubName"], given["AccountName"])
        await self._backing.do("cascade_set", name=known.name, hub=given["HubName"], online=online)
        return given

    async def delete(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Leave, and forget it."""
        known = await self._find(given["HubName"], given["AccountName"])
        await self._backing.do("cascade_delete", name=known.name, hub=given["HubName"])
        return given

    async def status(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """How one that is joined stands. Raises: Refused: it is not to be joined."""
        known = await self._find(given["HubName_Ex"], given["AccountName"])
        if not known.online:
            raise refused(Code.LINK_IS_OFFLINE)
        (row,) = await self._backing.do("cascade_show", name=known.name, hub=given["HubName_Ex"])
        place, up, since = known.account["hub"], row["state"] in UP, float(row.get("since") or 0.0)
        connections = int(row.get("connections") or up)
        return {
            "HubName_Ex": given["HubName_Ex"],
            "AccountName": known.name,
            "ServerName": place["host"],
            "ServerPort": place.get("port", HTTPS),
            "ServerProductName": str(row.get("product") or ""),
            "CipherName": str(row.get("cipher") or ""),
            "SessionName": str(row.get("session") or ""),
            "SessionKey": bytes(DIGEST_LENGTH),
            "Active": True,
            "Connected": up,
            "SessionStatus": ESTABLISHED if up else 1,
            "NumConnectionsEstablished": int(up),
            "MaxTcpConnections": known.account.get("standard", {}).get("max_connections", 1),
            "NumTcpConnections": connections,
            "NumTcpConnectionsUpload": connections,
            "NumTcpConnectionsDownload": connections,
            "UseEncrypt": True,
            "UnderlayProtocol": "Standard TCP/IP",
            "IsBridgeMode": True,
            "StartTime": since,
            "FirstConnectionEstablisiedTime": since,
            "CurrentConnectionEstablishTime": since,
            POLICY: known.policy or DEFAULT,
        }

    async def _find(self, hub: str, name: str) -> Cascade:
        found = await self._backing.storage.read(cascades.find, await self._backing.hub(hub), name)
        if found is None:
            raise refused(Code.OBJECT_NOT_FOUND)
        return found


def _row(row: Row) -> Values:
    up = row["state"] in UP
    return {
        "AccountName": row["name"],
        "Online": row["online"],
        "Connected": up,
        "LastError": int(Code.NONE if up or not row["online"] else row.get("code") or Code.CONNECT_FAILED),
        "ConnectedTime": float(row.get("since") or 0.0) if up else 0.0,
        "Hostname": parse_public(row["server"], HTTPS)[0],
        "ConnectedHubName": row["remote_hub"],
        "TargetHubName": row["remote_hub"],
    }


def _server(given: Values) -> str:
    host, port = given["Hostname"], given["Port"] or HTTPS
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(given: Values, trusts: str) -> tuple[dict[str, Any], str]:
    """The options of a card's account that a tool names, and a password's standard hash in hexadecimal.

    Args:
        trusts: how the account trusts so far, `trust.mode`.
    """
    if given["ProxyType"]:
        raise not_ours(N_("a cascade of this hub takes no proxy"))
    host, port = parse_public(_server(given), HTTPS)
    options: dict[str, Any] = {
        "hub.host": host,
        "hub.port": port,
        "hub.hub": given["HubName"],
        "hub.user": given["Username"],
        "standard.max_connections": min(max(given["MaxConnection"], 1), 32),
        "standard.half_duplex": given["HalfConnection"],
        "standard.compression": given["UseCompress"],
        "standard.udp_acceleration": not given["NoUdpAcceleration"],
    }
    method = {int(number): name for name, number in METHODS.items()}.get(given["AuthType"])
    if method is None:
        raise not_ours(N_("a cascade of this hub logs in by password, by certificate or without either"))
    options["login.method"] = method
    hashed = given.get("HashedPassword", b"")
    if method == "certificate" and given.get("ClientX") and given.get("ClientK"):
        options |= _certificate(given["ClientX"], given["ClientK"])
    if method == "plain" and given.get("PlainPassword"):
        options["login.password"] = given["PlainPassword"]
    if given["CheckServerCert"] and given.get("ServerCert"):
        options |= {"trust.mode": "pin", "trust.pin": _pin(given["ServerCert"])}
    elif given["CheckServerCert"] and trusts == FIRST_USE:
        options["trust.mode"] = "ca"
    elif not given["CheckServerCert"] and trusts != FIRST_USE:
        options |= {"trust.mode": FIRST_USE, "trust.pin": None}
    return options, hashed.hex() if method == "password" and len(hashed) == DIGEST_LENGTH and any(hashed) else ""


def _policy(given: Values, known: Policy) -> dict[str, Any]:
    """What is to change; whether logins are allowed says nothing here."""
    wanted = known if given[POLICY] is None else given[POLICY]
    changed = {name: getattr(wanted, name) for name in WIRE if getattr(wanted, name) != getattr(known, name)}
    return {name: value for name, value in changed.items() if name != "access"}


def _certificate(certificate: bytes, key: bytes) -> dict[str, str]:
    """Both as PEM. Raises: UsageError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_der_private_key,
    )

    try:
        read = load_der_private_key(key, None)
        return {
            "login.certificate": x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM).decode(),
            "login.key": read.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }
    except (ValueError, TypeError) as error:
        raise UsageError(N_("certificate and key of the cascade can't be read")) from error


def _pin(certificate: bytes) -> str:
    """The SHA-256 of the public key, as `trust.pin` wants it. Raises: UsageError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError as error:
        raise UsageError(N_("the certificate to compare with can't be read")) from error
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
