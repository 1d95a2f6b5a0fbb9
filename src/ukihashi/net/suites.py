"""Cipher suites: what the linked library has, what of it we offer, what may be picked by hand and why not (A11, D9).

Nothing here is secret or changes anything; `tls.py` makes contexts out of a `Pick`.
"""

import difflib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.net.openssl import TLS13, known_suites, tls13_of, usual_suites

TLS12: Final = "TLSv1.2"
ALL: Final = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"

# TLS 1.2 by default, in this order: AES-128-GCM first (measured fastest), authenticated encryption and forward secrecy
# always. TLS 1.3 suites are put in the same order of liking.
MODERN: Final = "ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AES128+AESGCM:DHE+AESGCM:DHE+CHACHA20:!aDSS"
FAVOURITE: Final = "TLS_AES_128_GCM_SHA256"

# Why a suite of the library, or one that people know by name, can't be picked.
RC4: Final = N_("RC4 is broken, and RFC 7465 forbids it")
MD5: Final = N_("MD5 is broken, and RFC 6151 warns against it")
NO_ENCRYPTION: Final = N_("it encrypts nothing: everybody on the way could read the virtual LAN")
NO_AUTHENTICATION: Final = N_("it does not prove who the hub is: anybody on the way could play it")
NEEDS_PSK: Final = N_("it needs a pre-shared key; a hub proves itself by a certificate")
NEEDS_SRP: Final = N_("it needs an SRP password; a hub proves itself by a certificate")
NEEDS_DSS: Final = N_("it needs a DSA certificate, which nobody issues any more")
NEEDS_OTHER: Final = N_("it needs a kind of certificate or key that a hub can't have")

# What to know of one that can be picked but is not among the modern ones.
NO_FORWARD_SECRECY: Final = N_("no forward secrecy: whoever gets the hub's key can read what was recorded before")
CBC: Final = N_("CBC mode: open to padding attacks")
SHORT_TAG: Final = N_("short tag: weaker against forgery")

KeyKind = Literal["RSA", "ECDSA"]

# RC4 and MD5 suites by their OpenSSL names: key exchange, authentication, cipher, bits, MAC. Libraries drop them one by
# one, but people still ask for them by name.
_RETIRED: Final = """
RC4-MD5 RSA RSA RC4 128 MD5
RC4-SHA RSA RSA RC4 128 SHA1
ECDHE-RSA-RC4-SHA ECDHE RSA RC4 128 SHA1
ECDHE-ECDSA-RC4-SHA ECDHE ECDSA RC4 128 SHA1
ECDH-RSA-RC4-SHA ECDH RSA RC4 128 SHA1
ECDH-ECDSA-RC4-SHA ECDH ECDSA RC4 128 SHA1
DHE-DSS-RC4-SHA DHE DSS RC4 128 SHA1
ADH-RC4-MD5 DHE none RC4 128 MD5
AECDH-RC4-SHA ECDHE none RC4 128 SHA1
PSK-RC4-SHA PSK PSK RC4 128 SHA1
RSA-PSK-RC4-SHA RSA-PSK RSA RC4 128 SHA1
DHE-PSK-RC4-SHA DHE-PSK PSK RC4 128 SHA1
ECDHE-PSK-RC4-SHA ECDHE-PSK PSK RC4 128 SHA1
KRB5-RC4-SHA KRB5 KRB5 RC4 128 SHA1
KRB5-RC4-MD5 KRB5 KRB5 RC4 128 MD5
KRB5-IDEA-CBC-MD5 KRB5 KRB5 IDEA-CBC 128 MD5
KRB5-DES-CBC3-MD5 KRB5 KRB5 3DES-CBC 112 MD5
KRB5-DES-CBC-MD5 KRB5 KRB5 DES-CBC 56 MD5
EXP-RC4-MD5 RSA RSA RC4 40 MD5
EXP-RC2-CBC-MD5 RSA RSA RC2-CBC 40 MD5
EXP-ADH-RC4-MD5 DHE none RC4 40 MD5
EXP-KRB5-RC4-SHA KRB5 KRB5 RC4 40 SHA1
EXP-KRB5-RC4-MD5 KRB5 KRB5 RC4 40 MD5
EXP-KRB5-RC2-CBC-MD5 KRB5 KRB5 RC2-CBC 40 MD5
EXP-KRB5-DES-CBC-MD5 KRB5 KRB5 DES-CBC 40 MD5
EXP1024-RC4-SHA RSA RSA RC4 56 SHA1
NULL-MD5 RSA RSA none 0 MD5
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """One cipher suite."""

    name: str  # OpenSSL's
    protocol: str  # "TLSv1.3" or "TLSv1.2", the version we would speak it with
    key_exchange: str  # "ECDHE", "DHE", "RSA"; "any" in TLS 1.3, where it is agreed apart
    authentication: str  # kind of the hub's key: "RSA", "ECDSA"; "any" in TLS 1.3
    encryption: str  # "AES-128-GCM"
    bits: int  # of the key
    mac: str = ""  # hash that guards the records; "" where the encryption does
    offered: bool = False  # with no pick
    usable: bool = True  # may be picked
    reason: str = ""  # template: why not
    remarks: tuple[str, ...] = ()  # templates: what to know before picking it


@dataclass(frozen=True, slots=True)
class Pick:
    """Suites chosen by hand, the first liked best. Empty means the modern default."""

    tls13: tuple[str, ...] = ()
    tls12: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tls13 or self.tls12)

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.tls13 + self.tls12)


NO_PICK: Final = Pick()


@cache
def available() -> tuple[Suite, ...]:
    """Every suite of the library, and the retired ones: first what is offered, then what can be picked, then others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(MODERN)
    modern = [one["name"] for one in context.get_ciphers() if one["protocol"] != TLS13]
    ranks = {name: rank for rank, name in enumerate([*default_tls13(), *modern])}
    found = [_tls13(name) for name in known_suites()]
    context.set_ciphers(ALL)
    usual = tls13_of(context)
    found += [_suite(raw, offered=raw["name"] in ranks) for raw in context.get_ciphers() if raw["name"] not in usual]
    known = {suite.name for suite in found}
    retired = [_retired(line) for line in _RETIRED.split("\n") if line]
    found += [suite for suite in retired if suite.name not in known]
    return tuple(sorted(found, key=lambda suite: (not suite.usable, ranks.get(suite.name, len(ranks)))))


def default_tls13() -> tuple[str, ...]:
    """What the library offers of TLS 1.3, the favourite first."""
    return tuple(sorted(usual_suites(), key=lambda name: name != FAVOURITE))


def usual_names() -> tuple[str, ...]:
    """What is offered without a pick, the first liked best."""
    return tuple(suite.name for suite in available() if suite.offered)


def check_pick(names: Iterable[str]) -> Pick:
    """Sort names by TLS version, in the given order; each must be one that can be had.

    Raises:
        UsageError: names the suite and says why not.
    """
    known = {suite.name: suite for suite in available()}
    picked: list[Suite] = []
    for name in dict.fromkeys(names):
        suite = known.get(name)
        if suite is None:
            raise _unknown(name, known)
        if not suite.usable:
            raise UsageError(
                N_("the cipher suite {name} can't be picked: {reason}. `ukihashi hub ciphers` lists those that can"),
                name=name,
                reason=UkihashiError(suite.reason),
            )
        picked.append(suite)
    return Pick(
        tuple(suite.name for suite in picked if suite.protocol == TLS13),
        tuple(suite.name for suite in picked if suite.protocol != TLS13),
    )


def check_key(pick: Pick, kind: KeyKind) -> None:
    """A hub whose key is of that kind can use every picked suite. Raises: UsageError."""
    kinds = {suite.name: suite.authentication for suite in available()}
    for name in pick.tls12:
        if kinds[name] != kind:
            raise UsageError(
                N_(
                    "the cipher suite {name} needs a hub with an {wanted} key, and this hub's key is {kind}; pick"
                    " others. `ukihashi hub ciphers` lists them"
                ),
                name=name,
                wanted=kinds[name],
                kind=kind,
            )


def security_level(pick: Pick, usual: int) -> int:
    """OpenSSL's level that lets every picked suite through: the usual one, or lower as far as their keys are short."""
    least = min((suite.bits for suite in available() if suite.name in pick.names), default=256)
    return min(usual, 2 if least >= 112 else 1 if least >= 80 else 0)  # SSL_CTX_set_security_level(3)


def _unknown(name: str, known: Mapping[str, Suite]) -> UsageError:
    usable = [suite.name for suite in known.values() if suite.usable]
    if near := difflib.get_close_matches(name, usable, 1):
        return UsageError(
            N_(
                "the TLS library of this machine has no cipher suite “{name}”; did you mean {near}?"
                " `ukihashi hub ciphers` lists all"
            ),
            name=name,
            near=near[0],
        )
    return UsageError(
        N_("the TLS library of this machine has no cipher suite “{name}”; `ukihashi hub ciphers` lists all"), name=name
    )


def _tls13(name: str) -> Suite:
    """From the name, which says it all (RFC 8446, section B.4): TLS_AES_128_CCM_8_SHA256."""
    encryption = name.removeprefix("TLS_").rpartition("_")[0].replace("_", "-")
    null = encryption in {"SHA256", "SHA384"}  # RFC 9150: TLS_SHA256_SHA256
    offered = name in usual_suites()
    return Suite(
        name=name,
        protocol=TLS13,
        key_exchange="any",
        authentication="any",
        encryption="none" if null else encryption,
        bits=0 if null else 128 if "-128-" in encryption else 256,
        offered=offered and not null,
        usable=not null,
        reason=NO_ENCRYPTION if null else "",
        remarks=(SHORT_TAG,) if encryption.endswith("CCM-8") else (),
    )


def _suite(raw: Mapping[str, Any], *, offered: bool) -> Suite:
    """From what the library says of it."""
    name = raw["name"]
    exchange = str(raw["kea"]).removeprefix("kx-").upper()
    authentication = {"null": "none"}.get(kind := str(raw["auth"]).removeprefix("auth-"), kind.upper())
    encryption = str(raw["symmetric"] or "none").upper().replace("NONE", "none")
    if "CCM8" in name:
        encryption += "-8"
    return _judged(name, exchange, authentication, encryption, raw["strength_bits"], raw["digest"] or "", offered)


def _retired(line: str) -> Suite:
    name, exchange, authentication, encryption, bits, mac = line.split()
    return _judged(name, exchange, authentication, encryption, int(bits), mac, offered=False)


def _judged(
    name: str, exchange: str, authentication: str, encryption: str, bits: int, mac: str, offered: bool
) -> Suite:
    mac = mac.upper()
    reasons = {
        RC4: encryption.startswith("RC4"),
        MD5: mac == "MD5",
        NO_ENCRYPTION: encryption == "none",
        NO_AUTHENTICATION: authentication == "none",
        NEEDS_PSK: "PSK" in exchange,
        NEEDS_SRP: "SRP" in exchange,
        NEEDS_DSS: authentication == "DSS",
        NEEDS_OTHER: exchange not in {"ECDHE", "DHE", "RSA"} or authentication not in {"RSA", "ECDSA"},
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    remarks = {
        NO_FORWARD_SECRECY: exchange == "RSA",
        CBC: encryption.endswith("-CBC"),
        SHORT_TAG: encryption.endswith("-8"),
    }
    return Suite(
        name=name,
        protocol=TLS12,
        key_exchange=exchange,
        authentication=authentication,
        encryption=encryption,
        bits=bits,
        mac=mac,
        offered=offered and not reason,
        usable=not reason,
        reason=reason,
        remarks=() if reason else tuple(remark for remark, holds in remarks.items() if holds),
    )
