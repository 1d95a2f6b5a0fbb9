"""What an administrator can set about users, groups and hubs, and how it is put on top of what holds now.

Each `...Fields` is what a verb takes: what is left out stays. Values are plain, for they come as JSON.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypedDict

import msgspec

from ukihashi.auth import certificate
from ukihashi.errors import N_, UsageError
from ukihashi.store import groups
from ukihashi.store.db import Database
from ukihashi.store.groups import Group
from ukihashi.store.hubs import Hub
from ukihashi.store.users import Kind, User
from ukihashi.switch.rules import HubRules
from ukihashi.wire.policy import FLAGS, MAX_VALUE, WIRE, Policy, checked

MAX_TEXT: Final = 1000  # characters of a note, a person's name, a common name
MAX_BANNER: Final = 4000  # characters
MAX_QUOTA: Final = 1 << 60  # bytes
MAX_DAYS: Final = 3660  # of a quota's period
LAST_MOMENT: Final = 253_370_764_800.0  # seconds since 1970: the year 9999

FIELDS: Final[Mapping[str, str]] = {wire.casefold(): field for field, wire in WIRE.items()} | {
    field.casefold(): field for field in WIRE
}
"""Field of `Policy` by either of its names, casefolded."""

Values = dict[str, int | bool]


class GroupFields(TypedDict, total=False):
    """Of a group."""

    real_name: str
    note: str
    policy: Values  # some values, on top of what holds now
    own_policy: bool  # False: none of its own any more


class UserFields(GroupFields, total=False):
    """Of a user. At most one new proof: a hash, a certificate, or `kind`."""

    group: str  # "" = in none
    expires_at: float  # seconds since 1970; 0 = never
    quota_bytes: int  # of both directions in a period; 0 = no limit
    quota_days: int
    kind: Kind
    password_hash: str  # standard form (section 8.2), 40 hexadecimal digits
    certificate: str  # PEM, or base64 of DER
    common_name: str  # of kind `issued`; "" = any
    serial: str  # of kind `issued`, hexadecimal; "" = any


PROOFS: Final = frozenset({"kind", "password_hash", "certificate", "common_name", "serial"})
"""Those of `UserFields` that say how a user logs in."""


class HubFields(TypedDict, total=False):
    """Of a hub."""

    online: bool
    max_sessions: int  # 0 = no limit
    listed: bool
    banner: str
    rules: Values  # some of `HubRules`


def changed_user(db: Database, hub: Hub, user: User, fields: UserFields, now: float) -> User:
    """The user as it is to be kept. Raises UsageError for what can't be."""
    if "group" in fields:
        group = groups.get(db, hub, fields["group"]) if fields["group"] else None
        user = replace(
            user,
            group_id=group.id if group else 0,
            group=group.name if group else "",
            group_policy=group.policy if group else None,
        )
    user = replace(
        _proven(user, fields),
        real_name=_text(fields.get("real_name", user.real_name)),
        note=_text(fields.get("note", user.note)),
        policy=_policy(user.policy, user.effective_policy, fields),
        expires_at=_moment(fields.get("expires_at", user.expires_at)),
    )
    if "quota_bytes" in fields or "quota_days" in fields:
        used = user.period(now)
        if not user.quota_bytes or user.quota_days != fields.get("quota_days", user.quota_days):
            used = (now, 0)  # another period
        user = replace(
            user,
            quota_bytes=_in_range("quota_bytes", fields.get("quota_bytes", user.quota_bytes), 0, MAX_QUOTA),
            quota_days=_in_range("quota_days", fields.get("quota_days", user.quota_days), 1, MAX_DAYS),
            period_began_at=used[0],
            period_bytes=used[1],
        )
    return user


def changed_group(group: Group, fields: GroupFields) -> Group:
    """The group as it is to be kept. Raises UsageError for what can't be."""
    return replace(
        group,
        real_name=_text(fields.get("real_name", group.real_name)),
        note=_text(fields.get("note", group.note)),
        policy=_policy(group.policy, group.policy or Policy(), fields),
    )


def changed_hub(hub: Hub, fields: HubFields) -> Hub:
    """The hub as it is to be kept. Raises UsageError for what can't be."""
    return replace(
        hub,
        online=fields.get("online", hub.online),
        max_sessions=_in_range("max_sessions", fields.get("max_sessions", hub.max_sessions), 0, MAX_VALUE),
        listed=fields.get("listed", hub.listed),
        banner=_text(fields.get("banner", hub.banner), MAX_BANNER),
        rules=_rules(hub.rules, fields.get("rules", {})),
    )


def changed_policy(policy: Policy, values: Values) -> Policy:
    """Some values on top of a policy, by our names or the wire's, in any case. Raises UsageError."""
    wanted: dict[str, int | bool] = {}
    for name, value in values.items():
        field = FIELDS.get(name.casefold())
        if field is None:
            raise UsageError(N_("there is no policy value “{name}”; `ukihashi hub policies` lists them"), name=name)
        if field in FLAGS:
            wanted[field] = bool(_in_range(name, value, 0, 1))
        else:
            wanted[field] = _in_range(name, value, 0, MAX_VALUE)
    return checked(msgspec.structs.replace(policy, **wanted))


def _policy(own: Policy | None, base: Policy, fields: GroupFields) -> Policy | None:
    if not fields.get("own_policy", True):
        if fields.get("policy"):
            raise UsageError(N_("give policy values, or take the own policy away, not both"))
        return None
    return changed_policy(base, fields["policy"]) if "policy" in fields else own


def _rules(rules: HubRules, values: Values) -> HubRules:
    kinds = {field.name: field.type for field in msgspec.structs.fields(HubRules)}
    wanted: dict[str, int | bool] = {}
    for name, value in values.items():
        if name not in kinds:
            raise UsageError(N_("a hub has no rule “{name}”; there are: {names}"), name=name, names=", ".join(kinds))
        if kinds[name] is bool:
            wanted[name] = bool(_in_range(name, value, 0, 1))
        else:
            wanted[name] = _in_range(name, value, 0, MAX_VALUE)
    return msgspec.structs.replace(rules, **wanted)


def _proven(user: User, fields: UserFields) -> User:
    """How the user proves to be that user from now on; of other kinds of proof nothing is left."""
    implied: list[Kind] = []
    if "password_hash" in fields:
        implied.append("password")
    if "certificate" in fields:
        implied.append("certificate")
    if fields.get("common_name") or fields.get("serial"):
        implied.append("issued")
    kind = fields.get("kind") or (implied[0] if implied else user.kind)
    if any(one != kind for one in implied):
        raise UsageError(
            N_("a user has one kind of login: give a password, a certificate, or what is asked of issued ones")
        )
    same = kind == user.kind
    changed = replace(
        user,
        kind=kind,
        sha0=user.sha0 if same else b"",
        argon2=user.argon2 if same else "",
        certificate=user.certificate if same else b"",
        common_name=user.common_name if same else "",
        serial=user.serial if same else b"",
    )
    if "password_hash" in fields:
        changed = replace(changed, sha0=_hash(fields["password_hash"]), argon2="")
    if "certificate" in fields:
        changed = replace(changed, certificate=certificate.read(fields["certificate"]))
    if kind == "certificate" and not changed.certificate:
        raise UsageError(N_("a user who logs in by certificate needs one; give its file"))
    if "common_name" in fields:
        changed = replace(changed, common_name=_text(fields["common_name"]))
    if "serial" in fields:
        changed = replace(changed, serial=certificate.read_serial(fields["serial"]) if fields["serial"] else b"")
    return changed


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 20:
        raise UsageError(N_("a standard hash has 40 hexadecimal digits"))
    return digest


def _text(text: str, most: int = MAX_TEXT) -> str:
    if len(text) > most:
        raise UsageError(
            N_("a text here has at most {most} characters; this one has {length}"), most=most, length=len(text)
        )
    return text


def _moment(at: float) -> float:
    if not math.isfinite(at) or not 0 <= at <= LAST_MOMENT:
        raise UsageError(N_("{at} is no moment in seconds since 1970"), at=at)
    return at


def _in_range(name: str, value: int | bool, least: int, most: int) -> int:
    if not least <= value <= most:
        raise UsageError(
            N_("{name}: {value} is out of range; use {least} to {most}"), name=name, value=value, least=least, most=most
        )
    return int(value)
