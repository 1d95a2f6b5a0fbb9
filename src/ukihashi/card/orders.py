"""What the dialler tells the data process to do with a connection: an account and a session as an order."""

import contextlib
import ipaddress
import platform
import socket
from pathlib import Path
from typing import NamedTuple

from ukihashi.auth.password import hash_password
from ukihashi.card.messages import Connect, Opened, SentOn, Settings, Standard
from ukihashi.config.card import CardConfig
from ukihashi.errors import N_, EnvironmentLacks, PeerViolation
from ukihashi.net.dial import direct


class Place(NamedTuple):
    """Where to dial."""

    host: str
    port: int


def member_of(sent_on: SentOn, port: int) -> Place:
    """The member of a cluster that a controller names; `port`: the one in use, which is taken if the member has it.

    It has come through the process that reads strangers' bytes. Raises: PeerViolation: no such place can be.
    """
    ports, address = sent_on.ports, sent_on.address
    if not ports or not all(0 < one < 65536 for one in ports) or not _is_ipv4(address):
        raise PeerViolation(N_("the hub sent us on to another machine, but gave no usable address"))
    return Place(address, port if port in ports else ports[0])


def login(config: CardConfig, attempt: int, ids: bytes, takes: int = 0) -> Connect:
    """Log in as the account says. Raises: EnvironmentLacks, UsageError: what it names can't be used.

    `takes`: kinds of super-frames that the interface can handle.
    """
    hub, own, trust = config.hub, config.login, config.trust
    certificate = b""
    if own.method == "certificate":
        from ukihashi.card import credentials  # here: the others need no such library

        certificate = credentials.load(own.certificate, own.key).certificate
    return Connect(
        attempt=attempt,
        location=direct.location(hub.host, hub.port),
        server_name=hub.host,
        hub=hub.hub,
        user=hub.user,
        trust=trust.mode,
        pin=config.pin,
        authorities=_read_authorities(trust.ca_file) if trust.mode == "ca" and trust.ca_file else "",
        method=own.method,
        password_hash=hash_password(hub.user, own.password) if own.method == "password" else b"",
        password=own.password if own.method == "plain" else "",
        own_certificate=certificate,
        invite=own.invite,
        standard=_standard(config),
        unique_id=ids[:20],
        node_id=ids[20:],
        host_name=socket.gethostname(),
        system=platform.system(),
        deadline=config.times.dial,
        ciphers=config.tls.ciphers,
        super_frames=takes if config.interface.offload else 0,
        settings=settings(config),
    )


def with_ticket(config: CardConfig, attempt: int, ids: bytes, sent_on: SentOn, member: Place) -> Connect:
    """Log in at a member of a cluster, which must show the very certificate that the controller named (D9)."""
    hub = config.hub
    return Connect(
        attempt=attempt,
        location=direct.location(*member),
        server_name=member.host,
        hub=hub.hub,
        user=hub.user,
        trust=config.trust.mode,
        certificate=sent_on.certificate,
        method="ticket",
        ticket=sent_on.ticket,
        standard=_standard(config),
        unique_id=ids[:20],
        node_id=ids[20:],
        host_name=socket.gethostname(),
        system=platform.system(),
        deadline=config.times.dial,
        ciphers=config.tls.ciphers,
        settings=settings(config),
    )


def further(config: CardConfig, attempt: int, session: Opened, place: Place, *, at_member: bool) -> Connect:
    """Another connection for a session: to resume it, or beside those it has."""
    hub, trust = config.hub, config.trust
    return Connect(
        attempt=attempt,
        location=direct.location(*place),
        server_name=place.host if at_member else hub.host,
        hub=hub.hub,
        user=hub.user,
        trust=trust.mode,
        certificate=session.terms.certificate if at_member else b"",
        pin=session.pin,
        authorities=_read_authorities(trust.ca_file) if trust.mode == "ca" and trust.ca_file else "",
        session_key=session.session_key,
        timeout_ms=session.timeout_ms,
        extension=session.extension,
        terms=session.terms,
        exact=session.grace_s > 0,
        deadline=config.times.dial,
        ciphers=config.tls.ciphers,
        settings=settings(config),
    )


def udp_socket(config: CardConfig, order: Connect, beside: socket.socket, mark: int) -> socket.socket | None:
    """What a login offers for UDP acceleration, if the account asks for it; marked as the packets of `beside` are."""
    if not config.standard.udp_acceleration or order.session_key:
        return None
    from ukihashi.net.udp import open_udp  # here: the others need no such library

    with contextlib.suppress(OSError):  # e.g. out of ports: TCP does without
        return open_udp(("::" if beside.family == socket.AF_INET6 else "0.0.0.0", 0), mark=mark)  # noqa: S104
    return None


def settings(config: CardConfig) -> Settings:
    """What rules between two ukihashi ends."""
    times = config.times
    return Settings(
        keepalive=times.keepalive,
        suspect=min(times.suspect, times.dead),
        dead=times.dead,
        buffer=config.resume.buffer_kib * 1024,
    )


def _standard(config: CardConfig) -> Standard:
    wanted = config.standard
    return Standard(
        connections=wanted.max_connections,
        half_duplex=wanted.half_duplex,
        compress=wanted.compression,
        plaintext=wanted.allow_plaintext,
        bridge=wanted.bridge or bool(config.interface.bridge),
        monitor=wanted.monitor,
    )


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _read_authorities(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentLacks(N_("{path} can't be read: {reason}"), path=path, reason=reason) from error
