"""TLS without a socket: bytes of the network in, bytes of the application out, and back (D9; protocol section 2).

One class for both ends and both loops (epoll and asyncio). `ssl` with memory BIOs costs less than `ssl.SSLSocket`,
because many records travel in one system call (docs/performance.md).
"""

import enum
import hashlib
import os
import ssl
import sys
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ukihashi.errors import N_, EnvironmentLacks, NotTrusted, PeerViolation
from ukihashi.net.openssl import make_context
from ukihashi.net.suites import MODERN, NO_PICK, Pick, default_tls13, security_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from ukihashi.net.tls_fast import FastContext

SWITCH: Final = "UKIHASHI_TLS"  # variable of the environment: `ssl` leaves the faster library alone
RECORD: Final = 16384  # bytes; the most plaintext of one TLS record, and all that one SSL_read gives
PIECE: Final = 65536  # bytes that go into the library at once: a memory BIO never gives back what it once grew to

# The group ffdhe3072 (RFC 7919, appendix A.2) for suites with DHE.
DH_GROUP: Final = b"""-----BEGIN DH PARAMETERS-----
MIIBiAKCAYEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3
7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32
nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZsYu
N///////////AgEC
-----END DH PARAMETERS-----
"""


_NOTHING: Final = memoryview(b"")


class TlsState(enum.Enum):
    """Where a channel stands."""

    HANDSHAKING = "handshaking"
    OPEN = "open"
    PEER_CLOSED = "peer closed"  # close_notify or end of stream came; we may still send
    FAILED = "failed"  # an alert may be waiting in `outgoing()`


class Context(ssl.SSLContext):
    """A context that knows which suites were picked by hand; none means the modern ones."""

    picked: frozenset[str] = frozenset()
    fast: "FastContext | None" = None  # the same in a faster library, where that may be used


def channel(context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> "TlsChannel":
    """A channel for frames: through the faster library where nothing speaks against it (`tls_fast.py`), else as usual.

    `server_name`: as `TlsChannel`. Raises: ValueError, it can't be a name.
    """
    fast = context.fast if isinstance(context, Context) and not context.picked else None
    if fast is not None and fast.server_side == server_side and context.verify_mode is ssl.CERT_NONE:
        return fast.channel(server_name)
    return TlsChannel(context, server_side=server_side, server_name=server_name)


def tls_library(context: ssl.SSLContext) -> str:
    """The name of what does a context's work, with its version: "OpenSSL 3.0.22"."""
    fast = context.fast if isinstance(context, Context) else None
    return " ".join((ssl.OPENSSL_VERSION if fast is None else fast.made_by).split()[:2])


class TlsChannel:
    """One TLS connection as a pure transformer. Not safe for two threads at once (trap T17).

    `receive` drains every plaintext byte before it returns: data left inside would raise no event any more. `send`
    never blocks: the caller bounds what it sends by looking at `backlog`.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        """`server_name` is the client's SNI and, with a verifying context, the name that must be in the certificate."""
        self._incoming = ssl.MemoryBIO()
        self._encrypted = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._encrypted, server_side=server_side, server_hostname=server_name
        )
        self._picked = context.picked if isinstance(context, Context) else frozenset[str]()
        self._begin()

    def _begin(self) -> None:
        self._unsent = _NOTHING  # ciphertext taken out of the BIO and not yet written to the network
        self._later = deque[bytes]()  # more of it, behind that
        self._later_bytes = 0
        self._closing = False
        self.state = TlsState.HANDSHAKING

    def start(self) -> None:
        """Queue the client's first flight; nothing to do for a server."""
        if not self._tls.server_side:
            self._handshake()

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take what one read of the network returned; give all plaintext it completed, b"" if none.

        Raises:
            PeerViolation: this isn't TLS we can speak. Write `outgoing()` (an alert), then close.
            NotTrusted: the context verifies certificates, and this one doesn't pass.
        """
        pieces: list[bytes] = []
        if len(data) <= PIECE:
            self._take(data, pieces)
        else:
            view = memoryview(data)
            for at in range(0, len(data), PIECE):
                self._take(view[at : at + PIECE], pieces)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def receive_end(self) -> None:
        """Note that the network stream ended, with or without close_notify before it."""
        self._incoming.write_eof()
        if self.state is not TlsState.FAILED:
            self.state = TlsState.PEER_CLOSED

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt `data` (any size; 64 to 256 KiB is best) behind what already waits in `outgoing()`.

        Raises:
            PeerViolation: the library refused, e.g. after a fatal alert of the peer.
        """
        if not data:
            return
        try:
            if len(data) <= PIECE:
                self._tls.write(data)
                return
            view = memoryview(data)
            for at in range(0, len(data), PIECE):
                self._tls.write(view[at : at + PIECE])
                self._later.append(self._encrypted.read())
                self._later_bytes += len(self._later[-1])
        except ssl.SSLError as error:
            raise self._failed(error) from error

    def outgoing(self) -> memoryview:
        """Ciphertext to write to the network now; empty if there is none. Tell `sent` how much of it went."""
        if not self._unsent:
            if self._later:
                self._unsent = memoryview(self._later.popleft())
                self._later_bytes -= len(self._unsent)
            elif self._encrypted.pending:
                self._unsent = memoryview(self._encrypted.read())
        return self._unsent

    def pieces(self) -> list[bytes | memoryview]:
        """As `outgoing`, but more of it, for one `sendmsg`. Tell `sent` how much of it all went."""
        first = self.outgoing()
        return [first, *self._later] if first else []

    def sent(self, count: int) -> None:
        """`count` bytes of the last `outgoing()` or `pieces()` were written."""
        while count > len(self._unsent):
            count -= len(self._unsent)
            self._unsent = memoryview(self._later.popleft())
            self._later_bytes -= len(self._unsent)
        self._unsent = self._unsent[count:] or _NOTHING  # an empty view would keep what it is a view of

    @property
    def backlog(self) -> int:
        """Bytes of ciphertext that wait for the network."""
        return len(self._unsent) + self._later_bytes + self._encrypted.pending

    def close(self) -> None:
        """Queue close_notify (trap T1), once; nothing before the handshake ended. Its answer needn't be waited for."""
        if self._closing or self.state in {TlsState.HANDSHAKING, TlsState.FAILED}:
            return
        self._closing = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # "want read": ours is queued, the peer's isn't here
            pass
        except OSError:  # the stream ended without the peer's; ours is queued all the same
            pass

    @property
    def version(self) -> str:
        """`TLSv1.3`; "" before the handshake ended."""
        return self._tls.version() or ""

    @property
    def cipher(self) -> str:
        """The suite's name in the library's words; "" before the handshake ended."""
        chosen = self._tls.cipher()
        return chosen[0] if chosen else ""

    def peer_certificate(self) -> bytes:
        """The peer's certificate, DER. Raises NotTrusted if it showed none."""
        certificate = self._tls.getpeercert(binary_form=True)
        if not certificate:
            raise NotTrusted(N_("the other end showed no certificate; is the hub really at this address?"))
        return certificate

    def _handshake(self) -> bool:
        """Go on with it; True: it ended well."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._failed(error) from error
        if self._picked and self.cipher not in self._picked:  # our own promise, whatever the library did (A11)
            self.state = TlsState.FAILED
            raise PeerViolation(
                N_("the connection came about with the cipher suite {cipher}, which was not picked; it was closed"),
                cipher=self.cipher,
            )
        self.state = TlsState.OPEN
        return True

    def _take(self, data: bytes | bytearray | memoryview, pieces: list[bytes]) -> None:
        """At most PIECE bytes from the network, and the plaintext behind what there is."""
        self._incoming.write(data)
        if self.state is TlsState.HANDSHAKING:
            self._handshake()
        if self.state is not TlsState.OPEN:
            return
        read, incoming = self._tls.read, self._incoming
        try:
            # one read takes a whole record, so nothing is left inside; an exception costs more than to ask
            while incoming.pending:
                piece = read(RECORD)
                if not piece:
                    self.state = TlsState.PEER_CLOSED
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.state = TlsState.PEER_CLOSED
        except ssl.SSLError as error:
            raise self._failed(error) from error

    def _failed(self, error: ssl.SSLError) -> PeerViolation | NotTrusted:
        self.state = TlsState.FAILED
        if isinstance(error, ssl.SSLCertVerificationError):
            return NotTrusted(
                N_("the certificate of the other end isn't trusted: {reason}"), reason=error.verify_message
            )
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return PeerViolation(N_("TLS with the other end failed: {reason}"), reason=reason)


def server_context(certificate: Path, key: Path, *, pick: Pick = NO_PICK) -> Context:
    """TLS 1.2 and 1.3 for the hub: no tickets, no client certificates, no ALPN (protocol section 2).

    Args:
        certificate, key: PEM files. pick: the only suites, and so the only versions, to speak; `check_key` was asked.
    Raises:
        EnvironmentLacks: a file is missing, unreadable, or the two don't belong together; or the library of this Python
            can't be told to use the TLS 1.3 suites picked.
    """
    context = _strict(ssl.PROTOCOL_TLS_SERVER, pick)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 0  # a ticket after the welcome would hurt peers that leave TLS there (section 2.1)
    _load_dh_group(context)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise EnvironmentLacks(
            N_("the certificate {certificate} with the key {key} can't be used: {reason}"),
            certificate=certificate,
            key=key,
            reason=error.strerror or error,
        ) from error
    context.fast = _faster(context, certificate, key)
    return context


def client_context(*, authorities: Path | None = None, system_trust: bool = False, pick: Pick = NO_PICK) -> Context:
    """TLS 1.2 and 1.3 for the card; with a `pick` only its suites, and so only their versions.

    Without `authorities` (a PEM file) and `system_trust` the handshake takes any certificate: the caller must compare
    `spki_pin(channel.peer_certificate())` with the pin it knows before it says anything secret.
    """
    context = _strict(ssl.PROTOCOL_TLS_CLIENT, pick)
    if authorities is None and not system_trust:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.fast = _faster(context)
        return context
    if system_trust:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            raise EnvironmentLacks(
                N_("the certificates in {path} can't be used: {reason}"),
                path=authorities,
                reason=error.strerror or error,
            ) from error
    return context


def _strict(protocol: int, pick: Pick) -> Context:
    context = _with_suites(protocol, pick)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    key_log = os.environ.get("SSLKEYLOGFILE")
    if (
        key_log and not sys.flags.ignore_environment
    ):  # as `ssl.create_default_context` does; for looking at one's own wire
        context.keylog_filename = key_log
    return context


def _with_suites(protocol: int, pick: Pick) -> Context:
    """Exactly the picked suites; a version of which none was picked is not spoken."""
    if not pick:
        try:
            context = make_context(Context, protocol, default_tls13())
        except EnvironmentLacks:  # nobody asked for this order; the library's own will do
            context = Context(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(MODERN)
        return context
    context = make_context(Context, protocol, pick.tls13) if pick.tls13 else Context(protocol)
    context.picked = pick.names
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if pick.tls12 else ssl.TLSVersion.TLSv1_3
    if not pick.tls13:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    level = security_level(pick, context.security_level)
    context.set_ciphers(f"{':'.join(pick.tls12) or MODERN}:@SECLEVEL={level}")
    return context


def preload() -> None:
    """Import the faster library now: a process that gives up its rights may not reach its files afterwards."""
    if os.environ.get(SWITCH) != "ssl":
        _fast_library()


def _faster(context: Context, *files: Path) -> "FastContext | None":
    """The same in the faster library, if that is there and may be used. `files`: a server's certificate and key."""
    if os.environ.get(SWITCH) == "ssl" or context.picked or context.keylog_filename:
        return None
    make = _fast_library()
    try:
        return make(context, files) if make else None
    except Exception:  # noqa: BLE001 - as `_fast_library`
        return None


@cache
def _fast_library() -> "Callable[[ssl.SSLContext, tuple[Path, ...]], FastContext] | None":
    try:
        from ukihashi.net import tls_fast

        tls_fast.check_itself()
    except Exception:  # noqa: BLE001 - what nobody promised may lack anything; then the usual one does the work
        return None
    return tls_fast.context


def _load_dh_group(context: ssl.SSLContext) -> None:
    """OpenSSL takes the group from a file only."""
    file = os.memfd_create("dh")
    try:
        os.write(file, DH_GROUP)
        context.load_dh_params(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def spki_pin(certificate: bytes) -> bytes:
    """SHA-256 (32 bytes) of the public key's SubjectPublicKeyInfo in a DER certificate: the pin of a join link (D9).

    Only the frame is read (RFC 5280, 4.1): a certificate library would refuse the odd serial numbers that standard
    servers have, and a data process need not carry one.

    Raises:
        NotTrusted: this is no certificate.
    """
    try:
        _issuer, _subject, at, end = _frame(certificate)
        return hashlib.sha256(certificate[at : _der(certificate, at, end, _SEQUENCE)[1]]).digest()
    except (IndexError, ValueError) as error:
        raise NotTrusted(N_("the other end's certificate can't be read")) from error


def issuer(certificate: bytes) -> str:
    """Who issued a DER certificate, in words that can be shown; "" if it did so itself, or can't be read."""
    try:
        said_by, said_of, _, _ = _frame(certificate)
        if said_by == said_of:
            return ""
        names = [_name(said_by, wanted) for wanted in (_COMMON_NAME, _ORGANIZATION)]
    except (IndexError, ValueError):
        return ""
    return ", ".join(dict.fromkeys(name for name in names if name)) or "?"


_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_INTEGER: Final = 0x02
_IDENTIFIER: Final = 0x06
_UTF_16: Final = 0x1E  # BMPString
_VERSION: Final = 0xA0
_COMMON_NAME: Final = b"\x55\x04\x03"  # RFC 5280, appendix A.1
_ORGANIZATION: Final = b"\x55\x04\x0a"
_NAME_MAX: Final = 64  # characters (the same)


def _frame(certificate: bytes) -> tuple[bytes, bytes, int, int]:
    """Issuer, subject, where the public key begins and where the part that is signed ends. Raises: as `_der`."""
    start, end = _der(certificate, 0, len(certificate), _SEQUENCE)
    at, end = _der(certificate, start, end, _SEQUENCE)  # tbsCertificate
    if certificate[at] == _VERSION:
        at = _der(certificate, at, end, _VERSION)[1]
    parts = []
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE):  # serial, algorithm, issuer, dates, subject
        start, at = at, _der(certificate, at, end, tag)[1]
        parts.append(certificate[start:at])
    return parts[2], parts[4], at, end


def _name(name: bytes, wanted: bytes) -> str:
    """The first attribute of that kind in a DER name; "" if there is none. Raises: as `_der`."""
    at, end = _der(name, 0, len(name), _SEQUENCE)
    while at < end:
        one, at = _der(name, at, end, _SET)
        start, stop = _der(name, one, at, _SEQUENCE)
        start, value = _der(name, start, stop, _IDENTIFIER)
        if name[start:value] == wanted:
            start, stop = _der(name, value, stop, name[value])
            text = name[start:stop].decode("utf-16-be" if name[value] == _UTF_16 else "utf-8", errors="replace")
            return "".join(character for character in text if character.isprintable())[:_NAME_MAX]
    return ""


def _der(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the contents of the DER value at `at` begin and end (ITU-T X.690, 8.1). Raises: ValueError, IndexError."""
    length = data[at + 1]
    start = at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 0 < size <= 4:
            raise ValueError("length")
        start += size
        length = int.from_bytes(data[at + 2 : start], "big")
    if data[at] != tag or start + length > end:
        raise ValueError("frame")
    return start, start + length
