"""What a login that control has let in gets: a place and its settings, or a refusal (protocol sections 8.3 to 9.3)."""

import secrets
import time
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from ukihashi.ether.offload import ALL, common
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import LoginAnswered
from ukihashi.hub.ports import VirtualHub
from ukihashi.hub.saved import BRIDGE, MONITOR, Member
from ukihashi.hub.session import Session
from ukihashi.wire.constants import MAX_SESSION_TIMEOUT_S, MIN_SESSION_TIMEOUT_S, SESSION_KEY_LENGTH, Code
from ukihashi.wire.messages import Login, Welcome
from ukihashi.wire.policy import DEFAULT, Policy
from ukihashi.wire.udp import UdpGrant

BRIDGE_WORDS: Final = ("server", "bridge")  # in a client's name: it bridges (section 9.1, trap T18)
CLIENT_WORD: Final = "client"  # in a client's name: the hub's rules about clients are for it


def refusal(login: Login, answer: LoginAnswered, hub: VirtualHub, there: Sequence[Session]) -> Code:
    """Why the login becomes no session beside those that are `there`; NONE if it does."""
    rules, policy = hub.settings.rules, answer.policy
    if CLIENT_WORD in login.client.lower():
        if login.client_build < rules.least_client_build:
            return Code.VERSION_INVALID
        if rules.required_client_id and login.client_id != rules.required_client_id:
            return Code.CLIENT_ID_REQUIRED
    if not policy.access:
        return Code.ACCESS_DENIED
    if login.monitor_mode and not policy.monitor_port:
        return Code.MONITOR_MODE_DENIED
    if _bridges(login) and policy.no_bridge and policy.no_routing:
        return Code.BRIDGE_MODE_DENIED
    if policy.multi_logins and sum(_counts(one, answer.user, login) for one in there) >= policy.multi_logins:
        return Code.TOO_MANY_USER_SESSION
    if answer.max_sessions and len(there) >= answer.max_sessions:
        return Code.HUB_IS_BUSY
    return Code.NONE


def _counts(session: Session, user: str, login: Login) -> bool:
    """It is the user's, and not what the same machine has left behind (9.3)."""
    ghost = login.node.unique_id.strip(b"\0") and login.node.unique_id == session.member.node.unique_id
    return session.member.user == user and not ghost


def member(
    hub: VirtualHub, login: Login, answer: LoginAnswered, extension: int, peer: str, connection: str, limits: Limits
) -> Member:
    """What is settled for a login that becomes a session.

    Exact resume counts on one stream of records that nobody but TLS has changed: one connection, both directions, no
    compression.
    """
    resumes, number = bool(extension and login.resume), hub.next_session()
    half_duplex = login.half_connection and limits.half_duplex and not resumes
    most = 1 if resumes else min(limits.max_connections, answer.policy.max_connection or limits.max_connections)
    connections = max(min(login.max_connection, most), 2 if half_duplex else 1)
    mode = MONITOR if login.monitor_mode else BRIDGE if _bridges(login) else ""
    timeout_s = _timeout_s(hub, answer.policy)
    return Member(
        session=f"SID-{answer.user.upper()}-{number}",
        connection=connection,
        key=secrets.token_bytes(SESSION_KEY_LENGTH),
        user=answer.user,
        peer=peer,
        client=login.client,
        extension=extension,
        timeout_s=timeout_s,
        max_connections=connections,
        since=time.time(),
        mode=mode,
        group=answer.group,
        policy=replace(
            answer.policy,
            no_bridge=answer.policy.no_bridge or mode != BRIDGE,
            no_routing=answer.policy.no_routing or not (mode == BRIDGE or extension),  # a card of ours may route
            monitor_port=mode == MONITOR,
            no_qos=True,  # two classes of frames are never granted
            max_connection=connections,
            timeout_s=int(timeout_s),
        ),
        half_duplex=half_duplex,
        compression=login.use_compress and limits.compression and not resumes,
        encrypted=login.use_encrypt or bool(extension) or not limits.allow_plaintext,
        client_version=login.client_version,
        client_build=login.client_build,
        node=login.node,
        super_frames=common(ALL, login.super_frames).value if resumes and limits.super_frames else 0,
    )


def welcome(session: Session, udp: UdpGrant | None) -> Welcome:
    """What the member is told of it."""
    member = session.member
    return Welcome(
        session_name=session.name,
        connection_name=member.connection,
        session_key=member.key,
        max_connection=member.max_connections,
        use_encrypt=member.encrypted,
        use_compress=member.compression,
        half_connection=member.half_duplex,
        timeout_ms=int(member.timeout_s * 1000),
        policy=member.policy.to_wire(),
        message=session.hub.settings.banner,
        vlan_id=member.policy.vlan_id,
        extension=member.extension,
        grace_s=session.granted_s,
        super_frames=member.super_frames,
        udp=udp,
    )


def _bridges(login: Login) -> bool:
    return login.bridge_mode or any(word in login.client.lower() for word in BRIDGE_WORDS)


def _timeout_s(hub: VirtualHub, policy: Policy) -> float:
    """T: the policy's; one that says nothing of its own (0, or what every policy begins with) leaves it to the hub."""
    own = policy.timeout_s if policy.timeout_s != DEFAULT.timeout_s else 0
    return min(max(own or hub.settings.session_timeout_s, MIN_SESSION_TIMEOUT_S), MAX_SESSION_TIMEOUT_S)
