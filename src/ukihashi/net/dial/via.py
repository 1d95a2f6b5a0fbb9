"""A path to a hub as one URL: directly, through a proxy, through an SSH server. Typed, frozen, and free of secrets.

    direct:                    http://proxy.example:3128      https://taro@proxy.example:3129
    socks4://10.0.0.1          socks4a://10.0.0.1:1080        socks5://10.0.0.1      socks5h://taro@10.0.0.1
    ssh://taro@gate.example    ssh://gate.example:2222        http://[fd00::1]:3128

`socks4` and `socks5` look the hub's name up on this machine, `socks4a` and `socks5h` leave that to the proxy.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from ukihashi.auth.link import is_host
from ukihashi.errors import N_, UsageError

LONGEST: Final = 1024  # characters of a URL
USER_MAX: Final = 255  # bytes; what SOCKS can carry (RFC 1929, section 2)
SOCKS_PORT: Final = 1080  # registered for SOCKS
EXAMPLES: Final = "direct:, http://proxy.example:3128, socks5h://proxy.example:1080, ssh://user@gate.example"


class Kind(enum.Enum):
    """What is spoken to the first machine on the way."""

    DIRECT = "direct"
    HTTP = "http"
    HTTPS = "https"
    SOCKS4 = "socks4"
    SOCKS4A = "socks4a"
    SOCKS5 = "socks5"
    SOCKS5H = "socks5h"
    SSH = "ssh"


_KINDS: Final = frozenset(kind.value for kind in Kind)
_SHAPE: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)", re.DOTALL)
_PLACE: Final = re.compile(r"(?:\[(?P<literal>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[^:]*))?")
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Via:
    """A path. Its text is the URL, always without a secret."""

    kind: Kind = Kind.DIRECT
    host: str = ""  # IPv6 without brackets; for ssh also an alias of its configuration
    port: int = 0  # 0: none (direct), or as ssh's configuration says
    user: str = ""

    def __str__(self) -> str:
        if self.kind is Kind.DIRECT:
            return "direct:"
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return f"{self.kind.value}://{user}{host}" + (f":{self.port}" if self.port else "")


DIRECT: Final = Via()


def parse(text: str) -> Via:
    """A path as it is given on a command line or in a file. Raises: UsageError, also for a password in it."""
    via, secret = split(text)
    if secret is not None:
        raise UsageError(
            N_(
                "a password in a URL is seen by everybody on this machine and stays in the shell's history; write"
                " {url} and give the password when asked, in a file or by the keyring"
            ),
            url=via,
        )
    return via


def split(text: str) -> tuple[Via, str | None]:
    """The same where a password may stand in it (an environment variable): the path, and its password if it has one.

    Raises: UsageError: no such path can be; the sentence says why and never repeats a password.
    """
    text = text.strip()
    shape = _SHAPE.fullmatch(text)
    scheme = shape["scheme"].lower() if shape else ""
    if shape is None or scheme not in _KINDS:
        raise _wrong(N_("it begins with none of the known kinds of path"), _hidden(text))
    rest, kind = shape["rest"], Kind(scheme)
    if len(text) > LONGEST or any(character <= " " or character == "\x7f" for character in text):
        raise _wrong(N_("it is too long, or has blanks or control characters in it"), _hidden(text)[:LONGEST])
    if kind is Kind.DIRECT:
        if rest not in {"", "//"}:
            raise _wrong(N_("a direct path names no machine"), _hidden(text))
        return DIRECT, None
    if not rest.startswith("//"):
        raise _wrong(N_("two slashes are missing after the colon"), _hidden(text))
    authority, slash, behind = rest[2:].partition("/")
    if behind or "?" in authority or "#" in authority:
        raise _wrong(N_("nothing may follow the machine and its port; write / ? # in a name as %2F %3F %23"), scheme)
    login, at, place = authority.rpartition("@")
    user, colon, secret = login.partition(":")
    via = _via(kind, _decoded(user, scheme), place, _hidden(f"{scheme}://{authority}{slash}"))
    if at and not user:
        raise _wrong(N_("the user's name is missing before the @"), str(via))
    return via, _decoded(secret, scheme) if colon else None


def _via(kind: Kind, user: str, place: str, shown: str) -> Via:
    found = _PLACE.fullmatch(place)
    if found is None:
        raise _wrong(N_("an IPv6 address must stand in brackets, as in http://[fd00::1]:3128"), shown)
    literal = found["literal"] is not None
    host = _decoded(found["literal"] if literal else found["name"], shown).lower()
    if not host:
        raise _wrong(N_("the machine's name is missing"), shown)
    if not is_host(host.partition("%")[0] if literal else host) or literal != (":" in host) or host.startswith("-"):
        raise _wrong(N_("that is neither a host name nor an address"), shown)
    port = found["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise _wrong(N_("its port must be a number from 1 to 65535"), shown)
    if port is None and kind in {Kind.HTTP, Kind.HTTPS}:
        raise _wrong(N_("the proxy's port is missing; usual ones are 3128 and 8080"), shown)
    if len(user.encode()) > USER_MAX or user.startswith("-") or not user.isprintable():
        raise _wrong(N_("such a user's name can't be used"), shown)
    usual = 0 if kind is Kind.SSH else SOCKS_PORT
    return Via(kind, host, int(port) if port is not None else usual, user)


def _decoded(text: str, shown: str) -> str:
    if _PERCENT.search(text):
        raise _wrong(N_("a % must be followed by two hexadecimal digits; the sign itself is written %25"), shown)
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise _wrong(N_("what is written with % is no UTF-8 text"), shown) from None


def _hidden(text: str) -> str:
    """The text without what may be a password: whatever stands before the last @."""
    before, at, place = text.rpartition("@")
    return f"{before.partition(':')[0]}:…@{place}" if at else text


def _wrong(problem: str, shown: str) -> UsageError:
    return UsageError(
        N_("“{url}” is no path to a hub: {problem}. Examples: {examples}"),
        url=shown,
        problem=UsageError(problem),
        examples=EXAMPLES,
    )
