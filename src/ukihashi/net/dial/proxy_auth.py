"""How a client proves to an HTTP proxy who it is: Basic (RFC 7617), Digest (RFC 7616), NTLM and Negotiate (RFC 4559).

A proxy names its schemes in `Proxy-Authenticate`; the best that both ends can is taken. NTLM and Negotiate are
pyspnego's business (extra `sso-proxy`), imported only when a proxy wants nothing else or we have no password.
"""

import base64
import binascii
import hashlib
import re
import secrets
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from ukihashi.errors import N_
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.via import Via

CHALLENGES_MAX: Final = 16  # schemes and realms of one answer that are looked at
SSO: Final = frozenset({"negotiate", "ntlm"})

# Digest algorithms, the best first (RFC 7616, section 3.2); `-sess` may follow each
HASHES: Final = {"sha-512-256": "sha512_256", "sha-256": "sha256", "md5": "md5"}

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PART: Final = re.compile(
    rf'\s*(?:,\s*)*(?:(?P<name>{_WORD})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_WORD}))(?=\s*(?:,|$))'
    rf"|(?P<scheme>{_WORD})(?:\s+(?P<token68>[A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?(?=\s|,|$))"
)


class Challenge(NamedTuple):
    """One scheme that a proxy offers."""

    scheme: str  # lower case
    token: str  # NTLM, Negotiate: base64
    fields: dict[str, str]  # names in lower case


class Proof(Protocol):
    """A proof of who we are, made anew for each request."""

    scheme: str
    bound: bool  # to the connection it began on (NTLM, Negotiate)

    def header(self, target: str) -> str:
        """The value of `Proxy-Authorization` for a CONNECT to `target`."""

    def goes_on(self, challenges: Sequence[Challenge]) -> bool:
        """After another 407: is it part of the talk? False: it was a no."""


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """What the values of `Proxy-Authenticate` offer (RFC 9110, section 11.6.1); what can't be read is left out."""
    found: list[Challenge] = []
    for value in values:
        at, current = 0, None
        while (part := _PART.match(value, at)) and part.end() > at and len(found) < CHALLENGES_MAX:
            at = part.end()
            if part["scheme"]:
                current = Challenge(part["scheme"].lower(), part["token68"] or "", {})
                found.append(current)
            elif current is not None:
                text = re.sub(r"\\(.)", r"\1", part["quoted"]) if part["plain"] is None else part["plain"]
                current.fields.setdefault(part["name"].lower(), text)
    return found


def choose(challenges: Sequence[Challenge], via: Via, secret: str | None) -> Proof:
    """The best proof we can give. Raises: PathRefused: none; the sentence says what the proxy takes."""
    offered = {challenge.scheme for challenge in challenges}
    shown = ", ".join(dict.fromkeys(scheme_name(challenge.scheme) for challenge in challenges)) or "-"
    if secret is not None:
        digests = [challenge for challenge in challenges if challenge.scheme == "digest" and _algorithm(challenge)]
        if digests:
            return Digest(min(digests, key=_rank), via.user, secret)
    if offered & SSO and (secret is not None or "negotiate" in offered):
        try:
            return _Sso("negotiate" if "negotiate" in offered else "ntlm", via, secret)
        except ImportError as error:
            if secret is None or "basic" not in offered:
                raise PathRefused(
                    Failure.SSO_MISSING,
                    N_("the proxy {via} takes {schemes}, which needs a part that isn't installed: pip install {part}"),
                    via=via,
                    schemes=shown,
                    part="'ukihashi[sso-proxy]'",
                ) from error
        except PathRefused:
            if secret is not None:
                raise
    if secret is not None and "basic" in offered:
        return Basic(via.user, secret)
    if secret is None and offered & {"basic", "digest", "ntlm", "negotiate"}:
        raise PathRefused(
            Failure.CREDENTIALS_WANTED,
            N_(
                "the proxy {via} lets in only who has a user's name and password (it takes {schemes}); ask its"
                " administrator for them"
            ),
            via=via,
            schemes=shown,
        )
    raise PathRefused(
        Failure.SCHEME_UNKNOWN,
        N_("the proxy {via} wants a kind of login that is not known here: {schemes}; ask for Digest or Basic"),
        via=via,
        schemes=shown,
    )


def scheme_name(scheme: str) -> str:
    """As people write it."""
    return "NTLM" if scheme == "ntlm" else scheme.capitalize()


def as_text(data: bytes) -> str:
    """A header's value; what is no UTF-8 comes back as it was by `as_bytes`."""
    return data.decode("utf-8", "surrogateescape")


def as_bytes(text: str) -> bytes:
    """The other way."""
    return text.encode("utf-8", "surrogateescape")


class Basic:
    """User and password as they are: who reads along has them."""

    scheme = "basic"
    bound = False

    def __init__(self, user: str, secret: str) -> None:
        self._pair = base64.b64encode(f"{user}:{secret}".encode()).decode()

    def header(self, target: str) -> str:
        """The same for every target."""
        del target
        return f"Basic {self._pair}"

    def goes_on(self, challenges: Sequence[Challenge]) -> bool:
        """Never: a second question is a no."""
        del challenges
        return False


class Digest:
    """A hash over the password and the proxy's nonce."""

    scheme = "digest"
    bound = False

    def __init__(self, challenge: Challenge, user: str, secret: str) -> None:
        self._user, self._secret = user, secret
        self._challenge, self._count = challenge, 0
        self._fresh = True

    def header(self, target: str, *, cnonce: str = "") -> str:
        """RFC 7616, section 3.4, without `qop` as RFC 2069 had it."""
        fields, algorithm = self._challenge.fields, _algorithm(self._challenge)
        realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
        cnonce, self._count = cnonce or secrets.token_hex(16), self._count + 1
        offered = [word.strip().lower() for word in fields.get("qop", "").split(",") if word.strip()]
        qop = ("auth" if "auth" in offered else offered[0]) if offered else ""
        name = algorithm.removesuffix("-sess")

        def digest(text: str) -> str:
            return hashlib.new(HASHES[name], as_bytes(text), usedforsecurity=False).hexdigest()

        first = digest(f"{self._user}:{realm}:{self._secret}")
        if algorithm != name:
            first = digest(f"{first}:{nonce}:{cnonce}")
        second = digest(f"CONNECT:{target}" + (f":{digest('')}" if qop == "auth-int" else ""))
        middle = f"{self._count:08x}:{cnonce}:{qop}:" if qop else ""
        user = self._user
        hashed = fields.get("userhash", "").lower() == "true"
        if hashed:
            user = digest(f"{user}:{realm}")
        parts = [f"username={_quoted(user)}" if user.isascii() else f"username*=UTF-8''{_extended(user)}"]
        parts += [f"realm={_quoted(realm)}", f"nonce={_quoted(nonce)}", f"uri={_quoted(target)}"]
        parts.append(f'response="{digest(f"{first}:{nonce}:{middle}{second}")}"')
        if "algorithm" in fields:
            parts.append(f"algorithm={fields['algorithm']}")
        if "opaque" in fields:
            parts.append(f"opaque={_quoted(fields['opaque'])}")
        if qop or algorithm != name:
            parts.append(f'cnonce="{cnonce}"')
        if qop:
            parts += [f"qop={qop}", f"nc={self._count:08x}"]
        if hashed:
            parts.append("userhash=true")
        return "Digest " + ", ".join(parts)

    def goes_on(self, challenges: Sequence[Challenge]) -> bool:
        """Once, if only the nonce was too old."""
        again = [one for one in challenges if one.scheme == "digest" and _algorithm(one) == _algorithm(self._challenge)]
        if not self._fresh or not again or again[0].fields.get("stale", "").lower() != "true":
            return False
        self._challenge, self._count, self._fresh = again[0], 0, False
        return True


class _Sso:
    """NTLM or Negotiate by pyspnego. Raises: ImportError, if it isn't there; PathRefused."""

    bound = True

    def __init__(self, scheme: str, via: Via, secret: str | None) -> None:
        import spnego
        from spnego.exceptions import SpnegoError

        self._error: Final = SpnegoError
        self._via, self.scheme = via, scheme
        try:
            self._context = spnego.client(via.user or None, secret, hostname=via.host, service="HTTP", protocol=scheme)
            self._token = self._context.step() or b""
        except SpnegoError as error:
            raise self._failed(error) from error

    def header(self, target: str) -> str:
        """The next token."""
        del target
        return f"{scheme_name(self.scheme)} {base64.b64encode(self._token).decode()}"

    def goes_on(self, challenges: Sequence[Challenge]) -> bool:
        """While the proxy has something to answer with."""
        token = next((one.token for one in challenges if one.scheme == self.scheme), "")
        if not token or self._context.complete:
            return False
        try:
            self._token = self._context.step(base64.b64decode(token, validate=True)) or b""
        except (self._error, binascii.Error, ValueError, TypeError, IndexError, struct.error) as error:
            raise self._failed(error) from error
        return True

    def _failed(self, error: Exception) -> PathRefused:
        return PathRefused(
            Failure.CREDENTIALS_REFUSED,
            N_("the login at the proxy {via} by {scheme} failed on this machine: {reason}"),
            via=self._via,
            scheme=scheme_name(self.scheme),
            reason=error,
        )


def _algorithm(challenge: Challenge) -> str:
    """In lower case; "" if it is none that we know."""
    name = challenge.fields.get("algorithm", "md5").lower()
    known = HASHES.get(name.removesuffix("-sess"))
    qop = challenge.fields.get("qop", "auth").lower().replace(" ", "").split(",")
    if known is None or known not in hashlib.algorithms_available or not set(qop) & {"auth", "auth-int"}:
        return ""
    return name


def _rank(challenge: Challenge) -> int:
    return list(HASHES).index(_algorithm(challenge).removesuffix("-sess"))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _extended(text: str) -> str:
    """RFC 8187."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())
