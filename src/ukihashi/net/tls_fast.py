"""TLS through the OpenSSL inside the package `cryptography`, for about half of what Python's `ssl` costs (D9).

That library is newer than many systems' (from 3.1 on AES-GCM uses the processor's wide instructions), and its calls
read and write one buffer, where `ssl` gives each record as an object. What is called here is the binding that pyOpenSSL
stands on. Nobody promises it to us, so nobody depends on it: `tls.py` asks here for a context, and whatever is missing,
older or different than thought means that the usual one does the work. `check_itself` is asked once, before the first.

Only what needs no judgement of certificates by authorities comes here, no suite picked by hand and no log of keys.
"""

import base64
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding

from ukihashi.errors import N_, NotTrusted, PeerViolation
from ukihashi.net.openssl import tls13_of
from ukihashi.net.suites import MODERN
from ukihashi.net.tls import DH_GROUP, RECORD, TlsChannel, TlsState

OLDEST: Final = 0x30100000  # OpenSSL 3.1: older ones win nothing
PLAIN: Final = 256 * 1024  # bytes of plaintext that are collected before they become an object
PIECE: Final = 256 * 1024  # bytes of plaintext that go into the library at once
SEALED: Final = PIECE + 4 * RECORD  # what one piece becomes, with room to spare
BUSY: Final = 16 * 1024  # bytes a call from which on a channel keeps its memory for the next one
QUIET: Final = 16  # calls with less, one after another, that make it give the memory back

_lib: Any = Binding.lib
_ffi: Any = Binding.ffi
_NULL: Final = _ffi.NULL
# Looked up once, for the calls of each turn; what the binding lacks is found out here.
_read, _write, _do_handshake, _why = _lib.SSL_read, _lib.SSL_write, _lib.SSL_do_handshake, _lib.SSL_get_error
_bio_read, _bio_write, _bio_info = _lib.BIO_read, _lib.BIO_write, _lib.BIO_get_mem_data
_bio_over, _bio_goes_on, _set_bio = _lib.BIO_new_mem_buf, _lib.BIO_set_mem_eof_return, _lib.SSL_set_bio
_forget_errors, _next_error = _lib.ERR_clear_error, _lib.ERR_get_error
_version, _group, _set_options = _lib.SSL_version, _lib.SSL_get0_group_name, _lib.SSL_set_options
_from_buffer, _release = _ffi.from_buffer, _ffi.release
_WANT_READ: Final = _lib.SSL_ERROR_WANT_READ
_CLOSED: Final = _lib.SSL_ERROR_ZERO_RETURN
_VERSIONS: Final = {
    ssl.TLSVersion.TLSv1_2: _lib.TLS1_2_VERSION,
    ssl.TLSVersion.TLSv1_3: _lib.TLS1_3_VERSION,
    ssl.TLSVersion.MAXIMUM_SUPPORTED: 0,  # SSL_CTX_set_max_proto_version(3)
}


class _Room(threading.local):
    """What the library writes into, one for all channels of a thread: nothing stays in it when a call returns."""

    def __init__(self) -> None:
        plain, sealed = bytearray(PLAIN + RECORD), bytearray(SEALED)
        self.plain, self.sealed = memoryview(plain), memoryview(sealed)
        self.plain_at, self.sealed_at = _from_buffer("char[]", plain), _from_buffer("char[]", sealed)


_room: Final = _Room()


@_ffi.callback("int (*)(SSL *, int *, void *)")  # type: ignore[untyped-decorator]
def _no_ticket(connection: object, _alert: object, _argument: object) -> int:
    """Runs for each ClientHello, and is the one way that the binding leaves to send no ticket in TLS 1.3.

    The library gives up tickets for a connection whose option changes while it asks for the server's name (RFC 6066, 3;
    it asks in any case). It would take them up again for a second ClientHello: so nothing changes for a first one that
    has no key share we can use, which is when a second is demanded (RFC 8446, 4.1.4).
    """
    if _version(connection) != _lib.TLS1_3_VERSION or _group(connection) != _NULL:
        _set_options(connection, _lib.SSL_OP_NO_TICKET)
    return int(_lib.SSL_TLSEXT_ERR_OK)


class Unfit(Exception):
    """The library would do something else than the usual one."""


class FastContext:
    """What connections of one end have in common, to the letter as in a context of `ssl`."""

    def __init__(self, like: ssl.SSLContext, *, server_side: bool) -> None:
        """Raises: Unfit, and whatever a binding may raise that is not the one we know."""
        self.server_side = server_side
        method = _lib.TLS_server_method() if server_side else _lib.TLS_client_method()
        self.handle = _ffi.gc(_lib.SSL_CTX_new(method), _lib.SSL_CTX_free)
        tls13, every = tls13_of(like), [suite["name"] for suite in like.get_ciphers()]
        tls12 = ":".join(name for name in every if name not in tls13)
        options = _lib.SSL_OP_NO_COMPRESSION | _lib.SSL_OP_NO_RENEGOTIATION
        if server_side:
            options |= _lib.SSL_OP_CIPHER_SERVER_PREFERENCE | _lib.SSL_OP_SINGLE_ECDH_USE
        else:
            options |= _lib.SSL_OP_NO_TICKET
        _lib.SSL_CTX_set_options(self.handle, options)
        _lib.SSL_CTX_set_mode(self.handle, _lib.SSL_MODE_RELEASE_BUFFERS)
        _lib.SSL_CTX_clear_mode(self.handle, _lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        _lib.SSL_CTX_set_session_cache_mode(self.handle, _lib.SSL_SESS_CACHE_OFF)
        self._must(_lib.SSL_CTX_set_min_proto_version(self.handle, _VERSIONS[like.minimum_version]))
        self._must(_lib.SSL_CTX_set_max_proto_version(self.handle, _VERSIONS[like.maximum_version]))
        self._must(_lib.SSL_CTX_set_cipher_list(self.handle, f"{tls12}:@SECLEVEL={like.security_level}".encode()))
        self._must(_lib.SSL_CTX_set_ciphersuites(self.handle, ":".join(tls13).encode()))
        if self._suites() != every:
            raise Unfit("suites")
        if server_side:
            _lib.SSL_CTX_set_tlsext_servername_callback(self.handle, _no_ticket)
            self._take_group()

    @property
    def made_by(self) -> str:
        """Name, version and date of the library."""
        return str(_ffi.string(_lib.OpenSSL_version(_lib.OPENSSL_VERSION)).decode())

    def load(self, certificate: Path, key: Path) -> None:
        """Prove ourselves by these PEM files. Raises: Unfit."""
        handle, pem = self.handle, _lib.SSL_FILETYPE_PEM
        self._must(_lib.SSL_CTX_use_certificate_chain_file(handle, os.fsencode(certificate)))
        self._must(_lib.SSL_CTX_use_PrivateKey_file(handle, os.fsencode(key), pem))
        self._must(_lib.SSL_CTX_check_private_key(handle))

    def load_der(self, certificate: bytes, key: bytes) -> None:
        """The same from memory. Raises: Unfit."""
        with_certificate, with_key = (_ffi.gc(_lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_free) for _ in range(2))
        _bio_write(with_certificate, certificate, len(certificate))
        _bio_write(with_key, key, len(key))
        made = _ffi.gc(_lib.d2i_X509_bio(with_certificate, _NULL), _lib.X509_free)
        its_key = _ffi.gc(_lib.d2i_PrivateKey_bio(with_key, _NULL), _lib.EVP_PKEY_free)
        self._must(_lib.SSL_CTX_use_certificate(self.handle, made))
        self._must(_lib.SSL_CTX_use_PrivateKey(self.handle, its_key))

    def channel(self, server_name: str | None) -> "FastChannel":
        """As `FastChannel`."""
        return FastChannel(self, server_name=server_name)

    def _take_group(self) -> None:
        text = _ffi.gc(_lib.BIO_new_mem_buf(DH_GROUP, len(DH_GROUP)), _lib.BIO_free)
        group = _ffi.gc(_lib.PEM_read_bio_DHparams(text, _NULL, _NULL, _NULL), _lib.DH_free)
        self._must(_lib.SSL_CTX_set_tmp_dh(self.handle, group))

    def _suites(self) -> list[str]:
        connection = _ffi.gc(_lib.SSL_new(self.handle), _lib.SSL_free)
        names = list[str]()
        while (name := _lib.SSL_get_cipher_list(connection, len(names))) != _NULL:
            names.append(_ffi.string(name).decode())
        return names

    def _must(self, done: int) -> None:
        if done != 1:
            raise Unfit(_first_error())


class FastChannel(TlsChannel):
    """As its base, whose words hold here too."""

    def __init__(self, context: FastContext, *, server_name: str | None = None) -> None:
        """`server_name`: as `TlsChannel`; the certificate is not looked at. Raises: ValueError, it can't be a name."""
        self._server_side = context.server_side
        self._connection = connection = _ffi.gc(_lib.SSL_new(context.handle), _lib.SSL_free)
        self._network_in, self._network_out = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
        _set_bio(connection, self._network_in, self._network_out)  # they are its own now, and end with it
        self._busy = False  # it keeps memory for what comes next
        self._quiet = 0  # calls with little, since one with much
        if context.server_side:
            _lib.SSL_set_accept_state(connection)
        else:
            _lib.SSL_set_connect_state(connection)
            if server_name is not None and (name := _indication(server_name)):
                _lib.SSL_set_tlsext_host_name(connection, name)
        self._inside = 0  # bytes of ciphertext that the library still has
        self._begin()

    def start(self) -> None:
        if not self._server_side:
            self._handshake()

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        if self.state is not TlsState.OPEN and self.state is not TlsState.HANDSHAKING:
            return b""
        room, connection, size = _room, self._connection, len(data)
        plain, plain_at = room.plain, room.plain_at
        pieces: list[bytes] = []
        count = 0
        if size >= BUSY or self._busy:
            self._weigh(size)
        _forget_errors()
        source = _from_buffer(data)
        try:
            # The library reads the caller's bytes where they are; what is behind the last whole record it keeps itself.
            self._network_in = _bio_over(source, size)
            _bio_goes_on(self._network_in, -1)
            _set_bio(connection, self._network_in, self._network_out)
            if self.state is TlsState.OPEN or self._handshake():
                while (got := _read(connection, plain_at + count, RECORD)) > 0:
                    count += got
                    if count > PLAIN:
                        pieces.append(bytes(plain[:count]))
                        count = 0
                if (why := _why(connection, got)) != _WANT_READ:
                    if why != _CLOSED:
                        raise self._broken()
                    self.state = TlsState.PEER_CLOSED
        finally:
            _release(source)  # or an error's traceback would keep the caller's buffer from growing
            self._inside = _bio_info(self._network_out, _NULL)  # an alert, or the answer to new keys
        if not pieces:
            return bytes(plain[:count])
        pieces.append(bytes(plain[:count]))
        return b"".join(pieces)

    def receive_end(self) -> None:
        if self.state is not TlsState.FAILED:
            self.state = TlsState.PEER_CLOSED

    def send(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            return
        connection, size, at = self._connection, len(data), 0
        if size >= BUSY or self._busy:
            self._weigh(size)
        _forget_errors()
        source = _from_buffer(data)
        try:
            while at < size:
                step = min(PIECE, size - at)
                if _write(connection, source + at, step) != step:
                    raise self._broken()
                at += step
                if size > PIECE:
                    self._collect()
        finally:
            _release(source)
            self._inside = _bio_info(self._network_out, _NULL)

    def outgoing(self) -> memoryview:
        if not self._unsent:
            if not self._later and self._inside:
                self._collect()
                self._inside = 0
            if self._later:
                self._unsent = memoryview(self._later.popleft())
                self._later_bytes -= len(self._unsent)
        return self._unsent

    @property
    def backlog(self) -> int:
        return len(self._unsent) + self._later_bytes + self._inside

    def close(self) -> None:
        if self._closing or self.state in {TlsState.HANDSHAKING, TlsState.FAILED}:
            return
        self._closing = True
        _lib.SSL_shutdown(self._connection)
        _forget_errors()
        self._inside = _bio_info(self._network_out, _NULL)

    @property
    def version(self) -> str:
        if self.state is TlsState.HANDSHAKING:
            return ""
        return str(_ffi.string(_lib.SSL_get_version(self._connection)).decode())

    @property
    def cipher(self) -> str:
        chosen = _lib.SSL_get_current_cipher(self._connection)
        return "" if chosen == _NULL else str(_ffi.string(_lib.SSL_CIPHER_get_name(chosen)).decode())

    def peer_certificate(self) -> bytes:
        shown = _ffi.gc(_lib.SSL_get_peer_certificate(self._connection), _lib.X509_free)
        if shown == _NULL:
            raise NotTrusted(N_("the other end showed no certificate; is the hub really at this address?"))
        text = _ffi.gc(_lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_free)
        _lib.i2d_X509_bio(text, shown)
        certificate = bytearray(_bio_info(text, _NULL))
        _bio_read(text, _from_buffer(certificate), len(certificate))
        return bytes(certificate)

    def _handshake(self) -> bool:
        """Go on with it; True: it ended well."""
        _forget_errors()
        result = _do_handshake(self._connection)
        self._inside = _bio_info(self._network_out, _NULL)
        if result == 1:
            self.state = TlsState.OPEN
            return True
        if _why(self._connection, result) != _WANT_READ:
            raise self._broken()
        return False

    def _collect(self) -> None:
        """Take the ciphertext out of the library, behind what waits."""
        room = _room
        while (count := _bio_read(self._network_out, room.sealed_at, SEALED)) > 0:
            self._later.append(bytes(room.sealed[:count]))
            self._later_bytes += count

    def _weigh(self, size: int) -> None:
        """Memory kept from call to call is faster; a channel that has become quiet gives it back."""
        if size >= BUSY:
            self._quiet = 0
            if not self._busy:
                self._busy = True
                _lib.SSL_clear_mode(self._connection, _lib.SSL_MODE_RELEASE_BUFFERS)
            return
        self._quiet += 1
        if self._quiet >= QUIET and not _bio_info(self._network_out, _NULL):
            self._busy = False
            _lib.SSL_set_mode(self._connection, _lib.SSL_MODE_RELEASE_BUFFERS)
            self._network_out = _lib.BIO_new(_lib.BIO_s_mem())  # a BIO never gets smaller
            _set_bio(self._connection, self._network_in, self._network_out)

    def _broken(self) -> PeerViolation:
        self.state = TlsState.FAILED
        return PeerViolation(N_("TLS with the other end failed: {reason}"), reason=_first_error() or "closed")


def context(like: ssl.SSLContext, files: tuple[Path, ...]) -> FastContext:
    """What does the same as the context of `ssl`; with certificate and key the hub's, without them the card's.

    Raises: as `FastContext`.
    """
    made = FastContext(like, server_side=bool(files))
    if files:
        made.load(*files)
    return made


def check_itself() -> None:
    """Shake hands with ourselves, carry bytes both ways and part; so every call above has been made once.

    Raises: Unfit, or whatever a binding raises that is not the one we know.
    """
    if _lib.OpenSSL_version_num() < OLDEST:
        raise Unfit("old")
    like = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    like.minimum_version = ssl.TLSVersion.TLSv1_2
    like.set_ciphers(MODERN)
    known_to_all = FastContext(like, server_side=True)
    known_to_all.load_der(base64.b64decode(_CERTIFICATE), base64.b64decode(_KEY))
    hub, card = FastChannel(known_to_all), FastChannel(context(like, ()), server_name="hub.example")
    card.start()
    _pour(card, hub), _pour(hub, card), _pour(card, hub)
    if hub.state is not TlsState.OPEN or hub.backlog:  # of TLS 1.3 nothing is left to say but tickets
        raise Unfit("ticket")
    said = bytes(range(256)) * 1024
    hub.send(said)
    card.send(memoryview(said)[1:])
    heard = _pour(card, hub), _pour(hub, card)
    shown = base64.b64encode(card.peer_certificate()).decode()
    hub.close()
    _pour(hub, card)
    if heard != (said[1:], said) or shown != _CERTIFICATE or card.state is not TlsState.PEER_CLOSED:
        raise Unfit("itself")
    if (hub.version, hub.cipher) != (card.version, card.cipher) or not hub.cipher:
        raise Unfit("names")


def _pour(source: TlsChannel, sink: TlsChannel) -> bytes:
    plain = b""
    while piece := source.outgoing():
        plain += sink.receive(piece)
        source.sent(len(piece))
    return plain


def _first_error() -> str:
    """What the library found wrong, in its words; "" if nothing. What stands behind it are the consequences."""
    words = _lib.ERR_reason_error_string(_next_error())
    _forget_errors()
    return "" if words == _NULL else _ffi.string(words).decode(errors="replace").replace("_", " ").lower()


def _indication(name: str) -> bytes:
    """What a client says of the server's name (RFC 6066, 3): nothing of an address. Raises: ValueError."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except OSError:
            continue
        return b""
    encoded = name.encode("idna")
    if not encoded or encoded.startswith(b".") or b"\0" in encoded or len(encoded) > 255:
        raise ValueError("name")
    return encoded


# For the test of ourselves and nothing else: a key that everybody knows proves nothing.
_CERTIFICATE: Final = (
    "MIIBFDCBu6ADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCXNlbGYtdGVzdDAeFw0yNjAxMDEwMDAwMDBaFw0yNjAxMDEwMDAwMDBaMBQx"
    "EjAQBgNVBAMMCXNlbGYtdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABB04JVs3Gn/3t688LHxL37lzG2s3XTzV/h+UfPFAU+cHXTGrkdzt"
    "4SfKpx1CtCmLziGxbdrBdEHMEDFv6CaiCfMwCgYIKoZIzj0EAwIDSAAwRQIgMDQefUCQWFuAUSDrY7IdIET+xZr90ol+ocrVq5gnXdYCIQD6m/zg"
    "/5LQCTqd6ctcYqbbtekbG5b2ZZw+rolW+IiVng=="
)
_KEY: Final = (
    "MHcCAQEEIGFNErjw5JXpK3CnDnjJ+d/uJMLl0MdKXfLokY8J+AEUoAoGCCqGSM49AwEHoUQDQgAEHTglWzcaf/e3rzwsfEvfuXMbazddPNX+H5R8"
    "8UBT5wddMauR3O3hJ8qnHUK0KYvOIbFt2sF0QcwQMW/oJqIJ8w=="
)
