"""TLS without a socket: bytes of the network in, bytes of the application out, and back (D9; protocol section 2).

One class for both ends and both loops (epoll and asyncio). `ssl` with memory BIOs costs less than `ssl.SSLSocket`,
because many records travel in one system call (docs/performance.md).
"""

import enum
import hashlib
import os
import ssl
import sys
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks, NotTrusted, PeerViolation

RECORD: Final = 16384  # bytes; the most plaintext of one TLS record, and all that one SSL_read gives

# TLS 1.2, ours to order: AES-128-GCM first (measured fastest), forward secrecy always. The order of the TLS 1.3 suites
# belongs to the linked library: Python 3.11 has no call for it.
CIPHERS: Final = "ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AES128+AESGCM:DHE+AESGCM:DHE+CHACHA20"


class TlsState(enum.Enum):
    """Where a channel stands."""

    HANDSHAKING = "handshaking"
    OPEN = "open"
    PEER_CLOSED = "peer closed"  # close_notify or end of stream came; we may still send
    FAILED = "failed"  # an alert may be waiting in `outgoing()`


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
        self._unsent = memoryview(b"")  # ciphertext taken out of the BIO and not yet written to the network
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
        self._incoming.write(data)
        if self.state is TlsState.HANDSHAKING:
            self._handshake()
        if self.state is not TlsState.OPEN:
            return b""
        return self._drain()

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
            self._tls.write(data)
        except ssl.SSLError as error:
            raise self._failed(error) from error

    def outgoing(self) -> memoryview:
        """Ciphertext to write to the network now; empty if there is none. Tell `sent` how much of it went."""
        if not self._unsent and self._encrypted.pending:
            self._unsent = memoryview(self._encrypted.read())
        return self._unsent

    def sent(self, count: int) -> None:
        """`count` bytes of the last `outgoing()` were written."""
        self._unsent = self._unsent[count:]

    @property
    def backlog(self) -> int:
        """Bytes of ciphertext that wait for the network."""
        return len(self._unsent) + self._encrypted.pending

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

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise self._failed(error) from error
        self.state = TlsState.OPEN

    def _drain(self) -> bytes:
        pieces: list[bytes] = []
        read = self._tls.read
        try:
            while piece := read(RECORD):
                pieces.append(piece)
            self.state = TlsState.PEER_CLOSED
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.state = TlsState.PEER_CLOSED
        except ssl.SSLError as error:
            raise self._failed(error) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _failed(self, error: ssl.SSLError) -> PeerViolation | NotTrusted:
        self.state = TlsState.FAILED
        if isinstance(error, ssl.SSLCertVerificationError):
            return NotTrusted(
                N_("the certificate of the other end isn't trusted: {reason}"), reason=error.verify_message
            )
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return PeerViolation(N_("TLS with the other end failed: {reason}"), reason=reason)


def server_context(certificate: Path, key: Path, *, ciphers: str = CIPHERS) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 for the hub: no tickets, no client certificates, no ALPN (protocol section 2).

    Args:
        certificate, key: PEM files. ciphers: TLS 1.2 suites in the library's own syntax.
    Raises:
        EnvironmentLacks: a file is missing, unreadable, or the two don't belong together.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ciphers)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 0  # a ticket after the welcome would hurt peers that leave TLS there (section 2.1)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise EnvironmentLacks(
            N_("the certificate {certificate} with the key {key} can't be used: {reason}"),
            certificate=certificate,
            key=key,
            reason=error.strerror or error,
        ) from error
    return context


def client_context(
    *, authorities: Path | None = None, system_trust: bool = False, ciphers: str = CIPHERS
) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 for the card.

    Without `authorities` (a PEM file) and `system_trust` the handshake takes any certificate: the caller must compare
    `spki_pin(channel.peer_certificate())` with the pin it knows before it says anything secret.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ciphers)
    if authorities is None and not system_trust:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
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


def _strict(context: ssl.SSLContext, ciphers: str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(ciphers)
    key_log = os.environ.get("SSLKEYLOGFILE")
    if (
        key_log and not sys.flags.ignore_environment
    ):  # as `ssl.create_default_context` does; for looking at one's own wire
        context.keylog_filename = key_log
    return context


def spki_pin(certificate: bytes) -> bytes:
    """SHA-256 (32 bytes) of the public key's SubjectPublicKeyInfo in a DER certificate: the pin of a join link (D9).

    Only the frame is read (RFC 5280, 4.1): a certificate library would refuse the odd serial numbers that standard
    servers have, and a data process need not carry one.

    Raises:
        NotTrusted: this is no certificate.
    """
    try:
        start, end = _der(certificate, 0, len(certificate), _SEQUENCE)
        at, end = _der(certificate, start, end, _SEQUENCE)  # tbsCertificate
        if certificate[at] == _VERSION:
            at = _der(certificate, at, end, _VERSION)[1]
        for tag in (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE):  # serial, algorithm, issuer, dates, subject
            at = _der(certificate, at, end, tag)[1]
        return hashlib.sha256(certificate[at : _der(certificate, at, end, _SEQUENCE)[1]]).digest()
    except (IndexError, ValueError) as error:
        raise NotTrusted(N_("the other end's certificate can't be read")) from error


_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_VERSION: Final = 0xA0


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
