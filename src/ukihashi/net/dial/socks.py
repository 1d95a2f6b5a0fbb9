"""The client's side of SOCKS 4, 4a (Ying-Da Lee's memos) and 5 (RFC 1928) with user and password (RFC 1929).

Each talk gets a stream to the server and returns when the tunnel is open: the next byte is the tunnel's.
"""

import ipaddress
from typing import Final

from ukihashi.errors import N_
from ukihashi.net.dial.direct import location
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.stream import Stream, StreamEnded
from ukihashi.net.dial.via import USER_MAX, Via

NAME_MAX: Final = 255  # bytes of a name in a request
UNSET: Final = b"\0\0\0\1"  # 4a: "a name follows"; 0.0.0.x with x not 0

# Who else begins to talk like that; two bytes may be all that has been read.
_OTHERS: Final = (
    (b"HT", "HTTP"),
    (b"SS", "SSH"),
    (b"\x15\x03", "TLS"),
    (b"\x16\x03", "TLS"),
    (b"22", "FTP, SMTP"),
    (b"\5", "SOCKS 5"),
    (b"\0", "SOCKS 4"),
)

_NO_AUTH, _PASSWORD, _NOTHING_SUITS = 0, 2, 255
_IPV4, _NAME, _IPV6 = 1, 3, 4

_REFUSED = N_("{via} says that {target} refused the connection; does a hub listen at that port?")
_FORBIDDEN = N_(
    "{via} does not allow connections to {target} (its answer: {code}); ask its administrator to allow that port"
)
# SOCKS 5 replies (RFC 1928, section 6)
_REPLIES: Final[dict[int, tuple[Failure, str]]] = {
    1: (
        Failure.PROXY_BROKEN,
        N_("{via} could not connect to {target} and does not say why (its answer: {code}); its log may"),
    ),
    2: (Failure.FORBIDDEN, _FORBIDDEN),
    3: (Failure.TARGET_UNREACHABLE, N_("{via} has no way to the network of {target}; is that address right?")),
    4: (
        Failure.TARGET_UNREACHABLE,
        N_("{via} can't reach {target}; is the name right, as that machine sees it, and is the hub on?"),
    ),
    5: (Failure.TARGET_REFUSED, _REFUSED),
    6: (Failure.TARGET_UNREACHABLE, N_("{via} got no answer from {target} in its time; is a firewall between them?")),
    7: (Failure.FORBIDDEN, N_("{via} makes no connections for clients at all (its answer: {code})")),
    8: (
        Failure.TARGET_UNSUPPORTED,
        N_("{via} does not know that kind of address: {target}; try the hub's name, or its IPv4 address"),
    ),
}


async def connect4(stream: Stream, via: Via, host: str, port: int, *, remote_names: bool) -> None:
    """SOCKS 4, or 4a with `remote_names`; only 4a takes a name. Raises: PathRefused, and what a stream raises."""
    target, name = location(host, port), b""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not remote_names:
            raise _unsupported(via, target) from None
        name, packed = name_bytes(host, via, target) + b"\0", UNSET
    else:
        if address.version != 4:
            raise _unsupported(via, target)
        packed = address.packed
    await stream.send(b"\4\1" + port.to_bytes(2, "big") + packed + via.user.encode() + b"\0" + name)
    version, code = await _two(stream, via)
    if version != 0 or not 0x5A <= code <= 0x5D:
        raise not_a_proxy(via, bytes((version, code)))
    await stream.exactly(6)
    if code == 0x5A:
        return
    if code == 0x5B:
        raise PathRefused(
            Failure.PROXY_BROKEN,
            N_(
                "{via} refused to connect to {target}, or could not (its answer: {code}); ask its administrator whether"
                " that port is allowed"
            ),
            via=via,
            target=target,
            code=code,
        )
    raise PathRefused(
        Failure.CREDENTIALS_REFUSED,
        N_("{via} asks this machine who its user is (identd) and was not content (its answer: {code}); use socks5"),
        via=via,
        code=code,
    )


async def connect5(stream: Stream, via: Via, host: str, port: int, secret: str | None) -> None:
    """SOCKS 5; names are left to the server. Raises: PathRefused, and what a stream raises."""
    target = location(host, port)
    await stream.send(bytes((5, 2, _NO_AUTH, _PASSWORD) if secret is not None else (5, 1, _NO_AUTH)))
    version, method = await _two(stream, via)
    if version != 5:
        raise not_a_proxy(via, bytes((version, method)))
    if method == _PASSWORD and secret is not None:
        await _log_in(stream, via, secret)
    elif method == _NOTHING_SUITS and secret is None:
        raise PathRefused(
            Failure.CREDENTIALS_WANTED,
            N_("{via} lets in only who has a user's name and password; ask its administrator for them"),
            via=via,
        )
    elif method != _NO_AUTH:
        raise PathRefused(
            Failure.SCHEME_UNKNOWN,
            N_("{via} wants a kind of login that is not known here (its answer: {code}); ask for a user and password"),
            via=via,
            code=method,
        )
    await stream.send(b"\5\1\0" + _address(host, via, target) + port.to_bytes(2, "big"))
    version, code, _reserved, kind = await stream.exactly(4)
    if version != 5 or (not code and kind not in {_IPV4, _NAME, _IPV6}):
        raise not_a_proxy(via, bytes((version, code)))
    if code:
        failure, template = _REPLIES.get(code, _REPLIES[1])
        raise PathRefused(failure, template, via=via, target=target, code=code)
    length = {_IPV4: 4, _IPV6: 16}.get(kind)
    await stream.exactly((await stream.exactly(1))[0] if length is None else length)
    await stream.exactly(2)


def not_a_proxy(via: Via, begin: bytes) -> PathRefused:
    """Something else answers there: what, as far as its first bytes tell."""
    seen = next((name for first, name in _OTHERS if begin.startswith(first)), begin[:8].hex(" "))
    return PathRefused(
        Failure.NOT_A_PROXY,
        N_("what answers at {via} is no such proxy (it looks like {protocol}); are kind and port of the path right?"),
        via=via,
        protocol=seen,
    )


def name_bytes(host: str, via: Via, target: str) -> bytes:
    """A name as it crosses the wire (IDNA). Raises: PathRefused: no name can be so."""
    try:
        name = host.encode("ascii") if host.isascii() else host.encode("idna")
    except UnicodeError:
        raise _unsupported(via, target) from None
    if not 0 < len(name) <= NAME_MAX or b"\0" in name:
        raise _unsupported(via, target)
    return name


async def _log_in(stream: Stream, via: Via, secret: str) -> None:
    user, password = via.user.encode(), secret.encode()
    if len(password) > USER_MAX:
        raise PathRefused(
            Failure.CREDENTIALS_REFUSED, N_("a password for {via} has at most {most} bytes"), via=via, most=USER_MAX
        )
    await stream.send(bytes((1, len(user))) + user + bytes((len(password),)) + password)
    try:
        _version, status = await stream.exactly(2)
    except StreamEnded:
        status = -1  # it must close after a refusal (RFC 1929, section 2); some don't say why before
    if status:
        raise PathRefused(
            Failure.CREDENTIALS_REFUSED,
            N_("{via} did not take the user's name or the password; are both right?"),
            via=via,
        )


async def _two(stream: Stream, via: Via) -> bytes:
    """The first two bytes of an answer."""
    try:
        return await stream.exactly(2)
    except StreamEnded as ended:
        if ended.so_far:
            raise not_a_proxy(via, ended.so_far) from ended
        raise


def _address(host: str, via: Via, target: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = name_bytes(host, via, target)
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed


def _unsupported(via: Via, target: str) -> PathRefused:
    return PathRefused(
        Failure.TARGET_UNSUPPORTED,
        N_("{via} can't be asked for {target}: SOCKS 4 knows IPv4 only, 4a also names; use socks5 or socks5h"),
        via=via,
        target=target,
    )
