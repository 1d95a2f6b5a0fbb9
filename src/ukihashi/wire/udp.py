"""UDP acceleration, version 2: what login and welcome say about it, and its datagrams (protocol section 15).

    encrypted := IV (12) | ChaCha20-Poly1305 of INNER | tag (16)        each end seals with its own key
    plain     := INNER                                                  only for sessions without encryption
    INNER     := u32 cookie | u64 sender's tick | u64 echoed tick | u16 size | u8 flag | frame | zeros (0..31)

Version 1 (RC4) is neither offered nor taken. Its key is sent all the same, because peers read no offer without it.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ukihashi.wire.blocks import decompress
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.pack import Pack

VERSION: Final = 2
KEY_LENGTH: Final = 128  # bytes of a version 2 key on the wire
USED_KEY: Final = 32  # of them
OLD_KEY_LENGTH: Final = 20  # bytes of a version 1 key
IV_LENGTH: Final = 12
TAG_LENGTH: Final = 16
MAX_PADDING: Final = 31  # bytes
MAX_DATAGRAM: Final = 2048  # bytes that a receiver takes
OUTER_MTU: Final = 1454  # bytes of an IP packet that passes PPPoE too: no datagram of ours is made larger
UDP_HEADER: Final = 8
IP_HEADER: Final = {4: 20, 6: 40}
RAW: Final = 0  # flag: the frame itself
COMPRESSED: Final = 1  # flag: a zlib stream

_INNER: Final = struct.Struct("!IQQHB")
_INNER_SIZE: Final = _INNER.size  # 23 bytes
_ANY: Final = IPv4Address(0)  # "the address that my TCP connection comes from"; also tells nobody an inner address
_ZEROS: Final = bytes(MAX_PADDING)


@dataclass(frozen=True, slots=True)
class UdpOffer:
    """In a login: the client has a socket. The address it may name is not read (docs, section 15.1)."""

    port: int
    key: bytes = field(repr=False)  # what the client seals with
    old_key: bytes = field(default=bytes(OLD_KEY_LENGTH), repr=False, compare=False)  # sent, never read
    fast: bool = True  # fast detection of a dead path is offered

    @classmethod
    def fresh(cls, port: int, random: Callable[[int], bytes]) -> Self:
        """With new keys; `random(n)` gives n random bytes."""
        return cls(port, random(KEY_LENGTH), random(OLD_KEY_LENGTH))

    def add_to(self, pack: Pack) -> None:
        """Put it into a login."""
        pack.add_int("use_udp_acceleration", 1)
        pack.add_int("udp_acceleration_version", 1)
        pack.add_int("udp_acceleration_max_version", VERSION)
        pack.add_ip("udp_acceleration_client_ip", _ANY)
        pack.add_int("udp_acceleration_client_port", self.port)
        pack.add_data("udp_acceleration_client_key", self.old_key)
        pack.add_data("udp_acceleration_client_key_v2", self.key)
        pack.add_int("support_udp_accel_fast_disconnect_detect", self.fast)

    @classmethod
    def read(cls, pack: Pack) -> Self | None:
        """The offer in a login; None without a usable one, so also for a client that knows version 1 only."""
        port, key = pack.get_int("udp_acceleration_client_port"), pack.get_data("udp_acceleration_client_key_v2")
        knows = pack.get_int("udp_acceleration_max_version", 1) >= VERSION
        if not pack.get_bool("use_udp_acceleration") or not knows or not 0 < port < 65536 or len(key) != KEY_LENGTH:
            return None
        return cls(port, key, fast=pack.get_bool("support_udp_accel_fast_disconnect_detect"))


@dataclass(frozen=True, slots=True)
class UdpGrant:
    """In a welcome: the server has a socket for this session too."""

    port: int
    key: bytes = field(repr=False)  # what the server seals with
    to_server: int = field(repr=False)  # cookie of the client's datagrams; not 0
    to_client: int = field(repr=False)  # cookie of the server's
    old_key: bytes = field(default=bytes(OLD_KEY_LENGTH), repr=False, compare=False)
    encrypted: bool = True
    fast: bool = True

    @classmethod
    def fresh(cls, port: int, random: Callable[[int], bytes], *, encrypted: bool, fast: bool) -> Self:
        """With new keys and cookies; `random(n)` gives n random bytes."""
        to_server, to_client = (int.from_bytes(random(4), "big") or 1 for _ in range(2))
        return cls(port, random(KEY_LENGTH), to_server, to_client, random(OLD_KEY_LENGTH), encrypted, fast)

    def add_to(self, pack: Pack) -> None:
        """Put it into a welcome."""
        pack.add_int("use_udp_acceleration", 1)
        pack.add_int("udp_acceleration_version", VERSION)
        pack.add_ip("udp_acceleration_server_ip", _ANY)
        pack.add_int("udp_acceleration_server_port", self.port)
        pack.add_data("udp_acceleration_server_key", self.old_key)
        pack.add_data("udp_acceleration_server_key_v2", self.key)
        pack.add_int("udp_acceleration_server_cookie", self.to_server)
        pack.add_int("udp_acceleration_client_cookie", self.to_client)
        pack.add_int("udp_acceleration_use_encryption", self.encrypted)
        pack.add_int("udp_accel_fast_disconnect_detect", self.fast)

    @classmethod
    def read(cls, pack: Pack) -> Self | None:
        """The grant in a welcome; None without a usable one, so also for a server that grants version 1."""
        port, key = pack.get_int("udp_acceleration_server_port"), pack.get_data("udp_acceleration_server_key_v2")
        to_server, to_client = (pack.get_int(f"udp_acceleration_{end}_cookie") for end in ("server", "client"))
        if not pack.get_bool("use_udp_acceleration") or pack.get_int("udp_acceleration_version", 1) != VERSION:
            return None
        if not 0 < port < 65536 or len(key) != KEY_LENGTH or not to_server or not to_client:
            return None
        return cls(
            port,
            key,
            to_server,
            to_client,
            encrypted=pack.get_bool("udp_acceleration_use_encryption"),
            fast=pack.get_bool("udp_accel_fast_disconnect_detect"),
        )


@dataclass(frozen=True, slots=True)
class UdpEnd:
    """What one end knows once login and welcome are exchanged."""

    own_key: bytes = field(repr=False)
    peer_key: bytes = field(repr=False)
    own_cookie: int = field(repr=False)  # the peer's datagrams carry it
    peer_cookie: int = field(repr=False)  # ours do
    encrypted: bool
    fast: bool

    @classmethod
    def server(cls, offer: UdpOffer, grant: UdpGrant) -> Self:
        """The end that granted."""
        return cls(grant.key, offer.key, grant.to_server, grant.to_client, grant.encrypted, grant.fast)

    @classmethod
    def client(cls, offer: UdpOffer, grant: UdpGrant) -> Self:
        """The end that offered."""
        return cls(offer.key, grant.key, grant.to_client, grant.to_server, grant.encrypted, grant.fast)


class Datagram(NamedTuple):
    """What an authentic datagram says."""

    tick: int  # milliseconds of the sender's clock, never 0
    echo: int  # the newest tick that the sender has from us; 0 = none yet
    frame: bytes  # b"": a keep-alive
    flag: int  # RAW or COMPRESSED


class UdpCodec:
    """One end's datagrams of one session. An IV is the start of the ciphertext before it, as peers do it."""

    __slots__ = ("_iv", "_open", "_own_cookie", "_peer_cookie", "_room", "_seal")

    def __init__(self, end: UdpEnd, *, ip_version: int, first_iv: bytes) -> None:
        """`first_iv`: 12 random bytes, others for each codec of the same end."""
        self._own_cookie = end.own_cookie
        self._peer_cookie = end.peer_cookie
        self._seal = ChaCha20Poly1305(end.own_key[:USED_KEY]).encrypt if end.encrypted else None
        self._open = ChaCha20Poly1305(end.peer_key[:USED_KEY]).decrypt if end.encrypted else None
        self._iv = first_iv
        self._room = longest_frame(ip_version, encrypted=end.encrypted)

    @property
    def longest_frame(self) -> int:
        """A longer one would be cut into fragments, which many firewalls drop: it goes by TCP."""
        return self._room

    def encode(self, tick: int, echo: int, frame: bytes, chance: float) -> bytes:
        """One datagram. `frame`: at most `longest_frame` bytes; b"" is a keep-alive. `chance`: random in [0, 1)."""
        head = _INNER.pack(self._peer_cookie, tick, echo, len(frame), RAW)
        if self._seal is None:
            return head + frame
        iv, padding = self._iv, min(int(chance * (MAX_PADDING + 1)), self._room - len(frame))
        sealed = self._seal(iv, head + frame + _ZEROS[:padding], None)
        self._iv = sealed[:IV_LENGTH]
        return iv + sealed

    def decode(self, data: bytes) -> Datagram | None:
        """What came; None if it is not from our peer, to us, whole. Nothing changes here, whatever came."""
        if self._open is not None:
            try:
                inner = self._open(data[:IV_LENGTH], data[IV_LENGTH:], None)
            except (InvalidTag, ValueError):  # ValueError: shorter than an IV
                return None
        else:
            inner = data
        if len(inner) < _INNER_SIZE:
            return None
        cookie, tick, echo, size, flag = _INNER.unpack_from(inner)
        end = _INNER_SIZE + size
        if cookie != self._own_cookie or not tick or size > MAX_FRAME or end > len(inner) or flag > COMPRESSED:
            return None
        return Datagram(tick, echo, inner[_INNER_SIZE:end], flag)


def frame_of(datagram: Datagram) -> bytes | None:
    """Its frame; None if that can't be unpacked."""
    return decompress(datagram.frame) if datagram.flag == COMPRESSED else datagram.frame


def longest_frame(ip_version: int, *, encrypted: bool) -> int:
    """Bytes of the longest frame for a datagram that passes everywhere in one piece."""
    room = OUTER_MTU - IP_HEADER[ip_version] - UDP_HEADER - _INNER_SIZE
    return room - IV_LENGTH - TAG_LENGTH if encrypted else room


def mss(ip_version: int, *, encrypted: bool) -> int:
    """The TCP segment size that members are told, so that their frames fit (15.4). `ip_version`: of the datagrams.

    Reckoned with the overhead of version 1, which is larger, as every peer does.
    """
    overhead = 20 + 20 if encrypted else 0
    return OUTER_MTU - IP_HEADER[ip_version] - UDP_HEADER - overhead - _INNER_SIZE - 14 - 20 - 20
