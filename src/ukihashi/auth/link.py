"""The join link: one line of text that carries all a card needs for its first login.

Described in docs/protocol.md, "Joining by a link".

    ukihashi://HOST:PORT/PAYLOAD

`PAYLOAD` is base64url without padding of a MessagePack map followed by its CRC-32 (big-endian) over `host:port` (host
in lower case), a zero byte and the map, so that a link cut or altered on its way is told from a wrong one. Keys of the
map are single letters and unknown ones are ignored: a later version may add some without a new `v`. The payload has
letters, digits, `-` and `_` only, so no shell touches it.
"""

import base64
import binascii
import ipaddress
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import msgspec

from ukihashi.auth.names import check_hub_name, check_user_name
from ukihashi.errors import N_, UsageError

SCHEME: Final = "ukihashi"
VERSION: Final = 1
MAX_LINK: Final = 8192  # characters
VIA_MAX: Final = 8  # paths that are taken from a link
VIA_BYTES: Final = 4096  # of all of them, so that the link stays below `MAX_LINK`
PIN_SIZE: Final = 32  # bytes, SHA-256 of the server's SubjectPublicKeyInfo in DER

_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[^\W_](?:[\w-]*[^\W])?(?:\.[^\W_](?:[\w-]*[^\W])?)*\.?", re.UNICODE)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_WHOLE: Final = re.compile(r"ukihashi://(\[[^\]/]+\]|[^:/\[\]]+):(\d{1,5})/([A-Za-z0-9_-]+)", re.IGNORECASE)


class _Payload(msgspec.Struct, omit_defaults=True):
    h: str  # hub
    u: str  # user
    t: str  # token
    p: bytes  # pin
    a: list[str] = []  # addresses
    v: int = VERSION
    w: list[str] = []  # ways to the hub besides direct (proxy, SSH), best first


@dataclass(frozen=True, slots=True)
class Link:
    """What a join link says."""

    host: str  # name or address, IPv6 without brackets
    port: int
    hub: str
    user: str
    token: str  # one-use secret
    pin: bytes  # 32 bytes, SHA-256 of the server's SubjectPublicKeyInfo in DER
    addresses: tuple[str, ...] = ()  # the card's own, "10.181.7.2/24", "fd3c:...::2/64"
    via: tuple[str, ...] = ()  # paths to the hub besides direct, best first; kinds not known here are skipped

    def __post_init__(self) -> None:
        if not is_host(self.host):
            raise UsageError(N_("“{host}” is neither a host name nor an address"), host=self.host)
        if not 0 < self.port < 65536:
            raise UsageError(N_("{port} is no TCP port; use 1 to 65535"), port=self.port)
        if len(self.pin) != PIN_SIZE or not _TOKEN.fullmatch(self.token):
            raise _damaged()
        for address in self.addresses:
            try:
                ipaddress.ip_interface(address)
            except ValueError:
                raise _damaged() from None

    @property
    def location(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def text(self) -> str:
        """The link as a person passes it on."""
        body = msgspec.msgpack.encode(
            _Payload(self.hub, self.user, self.token, self.pin, list(self.addresses), w=list(self.via))
        )
        sealed = body + _check_sum(self.location, body)
        payload = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
        return f"{SCHEME}://{self.location}/{payload}"

    @classmethod
    def parse(cls, text: str) -> "Link":
        """Read a link, forgiving what mail and chat do to it: line breaks, quotes, angle brackets, upper-case scheme.

        Raises:
            UsageError: not a link, cut or altered, or made by a newer version; the sentence says what to do.
        """
        bare = "".join(text.split()).strip("<>\"'“”「」`")
        if not bare:
            raise UsageError(N_("the join link is empty; paste the whole line that begins with ukihashi://"))
        if not bare.lower().startswith(f"{SCHEME}://"):
            raise UsageError(N_("this is not a join link; a join link begins with ukihashi://"))
        parts = _WHOLE.fullmatch(bare) if len(bare) <= MAX_LINK else None
        if parts is None:
            raise _damaged()
        host, port, payload = parts.groups()
        host = host.strip("[]")
        try:
            sealed = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        except (binascii.Error, ValueError):
            raise _damaged() from None
        body, given_sum = sealed[:-4], sealed[-4:]
        location = f"[{host}]:{int(port)}" if ":" in host else f"{host}:{int(port)}"
        if _check_sum(location, body) != given_sum:
            raise _damaged()
        try:
            if (version := msgspec.msgpack.decode(body, type=_Version).v) != VERSION:
                raise UsageError(
                    N_("this join link has form {version}, this ukihashi reads form {ours}; upgrade ukihashi here"),
                    version=version,
                    ours=VERSION,
                )
            fields = msgspec.msgpack.decode(body, type=_Payload)
        except msgspec.DecodeError:
            raise _damaged() from None
        return cls(
            host=host,
            port=int(port),
            hub=check_hub_name(fields.h),
            user=check_user_name(fields.u),
            token=fields.t,
            pin=fields.p,
            addresses=tuple(fields.a),
            via=tuple(fields.w),
        )


class _Version(msgspec.Struct):
    v: int = VERSION


def is_host(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address (no brackets) or could be a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_HOST_NAME.fullmatch(text))
    return True


def _check_sum(location: str, body: bytes) -> bytes:
    return struct.pack("!I", zlib.crc32(location.lower().encode() + b"\0" + body))


def _damaged() -> UsageError:
    return UsageError(
        N_("the join link is damaged (a part is missing or altered); copy it whole, or ask for the link again")
    )
