"""What is told of hubs, groups and users: rows of plain values."""

from typing import Any

import msgspec

from ukihashi.auth import certificate
from ukihashi.hub.addresses import HOST_PORT_NUMBER, addresses
from ukihashi.net.control_socket import Row
from ukihashi.store.groups import Group
from ukihashi.store.hubs import Hub
from ukihashi.store.users import DAY_S, User
from ukihashi.wire.policy import WIRE, Policy


def user_row(hub: Hub, user: User, now: float) -> Row:
    """One user in a list."""
    began, used = user.period(now)
    return {
        "hub": hub.name,
        "name": user.name,
        "login": user.login,
        "group": user.group,
        "addresses": list(addresses(hub, user.number)) if user.number else [],
        "real_name": user.real_name,
        "note": user.note,
        "created_at": user.created_at,
        "expires_at": user.expires_at or None,
        "last_login_at": user.last_login_at or None,
        "logins": user.logins,
        "frames_in": user.frames_in,
        "bytes_in": user.bytes_in,
        "frames_out": user.frames_out,
        "bytes_out": user.bytes_out,
        "quota_bytes": user.quota_bytes or None,
        "quota_used": used if user.quota_bytes else None,
        "quota_days": user.quota_days if user.quota_bytes else None,
        "quota_until": began + user.quota_days * DAY_S if user.quota_bytes else None,
        "barred": barred(user, now),
    }


def user_details(hub: Hub, user: User, now: float) -> Row:
    """One user, with what is too long for a list."""
    shown: dict[str, Any] = {
        "policy_of": "user" if user.policy else "group" if user.group_policy else "new user",
        "policy": policy_row(user.effective_policy),
    }
    if user.certificate:
        shown["certificate"] = certificate.described(user.certificate)
    if user.kind == "issued":
        shown |= {"common_name": user.common_name or None, "serial": user.serial.hex() or None}
    return user_row(hub, user, now) | shown


def barred(user: User, now: float) -> str | None:
    """Why this user may not enter now, in a word: `policy`, `expired`, `quota`; None: it may."""
    if not user.effective_policy.access:
        return "policy"
    if user.expired(now):
        return "expired"
    return "quota" if user.spent(now) else None


def group_row(hub: Hub, group: Group, members: int) -> Row:
    """One group."""
    return {
        "hub": hub.name,
        "name": group.name,
        "real_name": group.real_name,
        "note": group.note,
        "users": members,
        "policy_of": "group" if group.policy else "new user",
        "policy": policy_row(group.policy or Policy()),
    }


def hub_row(hub: Hub) -> Row:
    """One virtual hub."""
    return {
        "name": hub.name,
        "online": hub.online,
        "subnet4": hub.subnet4,
        "subnet6": hub.subnet6,
        "host_port": hub.host_port or None,
        "host_port_addresses": list(addresses(hub, HOST_PORT_NUMBER)) if hub.host_port else [],
        "created_at": hub.created_at,
        "max_sessions": hub.max_sessions or None,
        "listed": hub.listed,
        "banner": hub.banner,
        "rules": msgspec.structs.asdict(hub.rules),
        "logins": hub.logins,
        "last_login_at": hub.last_login_at or None,
    }


def policy_row(policy: Policy) -> Row:
    """All values of a policy by our names."""
    return {field: getattr(policy, field) for field in WIRE}
