"""One TCP connection to the hub, from the TLS handshake to its end: opening talk, then bytes of the tunnel.

Driven by the data process's loop: it says when the socket can be read or written and what time it is. Every method may
raise a `UkihashiError`: the link is then finished, and the error says why. What the tunnel's bytes mean is not known
here (`tunnel.py`, `session.py`).
"""

import hashlib
import random
import socket
import ssl
from typing import Final

import msgspec

from ukihashi.card.messages import Connect, Opened, SentOn
from ukihashi.card.opening import Opening, Outcome
from ukihashi.card.udp import CardLane, UdpOffered
from ukihashi.errors import N_, DialError, NotTrusted, PeerViolation, UsageError
from ukihashi.net.clear import ClearChannel, cut_records
from ukihashi.net.congestion import congestion_of
from ukihashi.net.link import is_stalled, unacknowledged
from ukihashi.net.suites import check_pick
from ukihashi.net.tls import TlsChannel, TlsState, client_context, issuer, spki_pin
from ukihashi.net.tls import channel as tls_channel
from ukihashi.wire.extension import Resume

READ: Final = 256 * 1024  # bytes of one read from the network
TLS_HANDSHAKE: Final = frozenset({0x14, 0x15, 0x16})  # first byte of a TLS record before data (RFC 8446, 5.1)

NOTHING_IN_COMMON: Final = ("alert handshake failure", "alert protocol version")  # ends of OpenSSL's words

_chance: Final = random.SystemRandom()
_room: Final = memoryview(bytearray(READ))  # one for all links: what is read is taken over before the next read


class Link:
    """The connection of one attempt. Whoever holds it closes it."""

    def __init__(self, order: Connect, sock: socket.socket, now: float, udp: UdpOffered | None = None) -> None:
        """`sock`: connected, non-blocking; it and `udp` belong to the link from now on."""
        self.order: Final = order
        self.number: Final = order.attempt  # that a session knows it by
        self.sock: Final = sock
        self.outcome: Outcome | None = None  # the tunnel is open
        self.heard_at = now  # when the last byte came
        self.late_at: Final = now + order.deadline  # when the opening must be done
        self.pin = b""  # of the key that the hub showed
        self.certificate = b""  # SHA-256 of what it showed
        self._channel: TlsChannel | ClearChannel = _channel(order)
        self._records: bytearray | None = None  # where the tunnel may leave TLS: the start of a record
        if order.standard.plaintext or not order.terms.encrypted:
            self._records = bytearray()
        self._udp = udp
        self._opening = Opening(order, random=_chance.randbytes, udp=udp.offer if udp else None)
        self._talking = False  # the opening talk has begun, so the hub's key was found right
        self._first = b""  # the first bytes that came, to tell what answers when it is not TLS
        self._is_flushed = False  # and nothing was written since: what is asked most often in a turn of the loop
        self._channel.start()

    # -- the loop's side ------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Write what waits; False while the socket is full."""
        channel, send = self._channel, self.sock.send
        try:
            while data := channel.outgoing():
                channel.sent(send(data))
        except BlockingIOError:
            self._is_flushed = False
            return False
        except OSError as error:
            raise self._cut(error) from error
        self._is_flushed = self.outcome is not None
        return True

    def read(self, now: float) -> bytes:
        """Take one read's worth from the socket; give what it held of the tunnel.

        All that TLS decrypted is taken out: plaintext left inside would wake nobody.
        """
        try:
            size = self.sock.recv_into(_room)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._cut(error) from error
        if size == 0:
            self._channel.receive_end()
            raise self._ended()
        self.heard_at = now
        if len(self._first) < 8:
            self._first += bytes(_room[: 8 - len(self._first)])
        if self.outcome is not None:
            return self._channel.receive(_room[:size])
        if self._records is not None:
            return self._open_by_records(self._records, _room[:size])
        return self._open(self._decrypt(_room[:size]))

    def check_end(self) -> None:
        """Raise if the hub has said its goodbye; ask after what came before it is delivered."""
        if self._channel.state is TlsState.PEER_CLOSED:
            raise self._ended()

    def write(self, data: bytes) -> None:
        """Queue bytes of the tunnel, best many at once; `flush` sends them."""
        self._is_flushed = False
        self._channel.send(data)

    def check_opening(self, now: float) -> None:
        """Raise if the opening takes too long."""
        if self.outcome is None and now >= self.late_at:
            raise self._late()

    @property
    def greeted(self) -> bool:
        """The hub waits to be asked for an exact resume, or for `go_on`."""
        return self._opening.greeted

    def go_on(self) -> None:
        """Log in, as the order says; ignored unless the hub waits for that."""
        if self._opening.greeted and not self.order.exact and (data := self._opening.go_on()):
            self._channel.send(data)

    def ask(self, resume: Resume) -> None:
        """Ask the hub to go on with the session over this link."""
        self._channel.send(self._opening.ask(resume))

    @property
    def challenge(self) -> bytes:
        """What the hub wants to have signed for a login by certificate; b"": nothing now."""
        return self._opening.challenge

    def sign(self, signature: bytes) -> None:
        """Log in with it; ignored unless there is a challenge."""
        if self._opening.challenge:
            self._channel.send(self._opening.sign(signature))

    @property
    def sent_on(self) -> SentOn | None:
        """The hub, a cluster's controller, wants this card at a member."""
        to = self._opening.sent_on
        if to is None:
            return None
        certificate = hashlib.sha256(to.certificate).digest()
        return SentOn(self.number, str(to.ip), list(to.ports), to.ticket, certificate, self.pin)

    def opened(self, *, lost: int, carried: int) -> Opened:
        """What to tell once there is an outcome; the numbers are of frames of the session before."""
        outcome = self.outcome
        assert outcome is not None
        return Opened(
            attempt=self.number,
            resumed=bool(self.order.session_key),
            session=outcome.session,
            session_key=outcome.session_key,
            timeout_ms=outcome.timeout_ms,
            extension=outcome.extension,
            tls=self.tls,
            cipher=self.cipher,
            congestion=congestion_of(self.sock),
            pin=self.pin,
            product=outcome.product,
            banner=outcome.banner[:1024],
            grace_s=outcome.grace_s,
            terms=msgspec.structs.replace(outcome.terms, certificate=self.certificate),
            direction=outcome.direction,
            auto_disconnect_s=outcome.auto_disconnect_s,
            no_bridge=outcome.no_bridge,
            lost=lost,
            carried=carried,
            super_frames=outcome.kinds.value,
        )

    def udp_path(self, now: float) -> CardLane | None:
        """What the hub has granted beside this link; belongs to the caller. Call once there is an outcome."""
        if self._udp is None or self.outcome is None or self.outcome.udp is None:
            return None
        return self._udp.granted(self.outcome.udp, self.sock.getpeername(), now)

    @property
    def backlog(self) -> int:
        """Bytes that wait for the network."""
        return 0 if self._is_flushed else self._channel.backlog

    @property
    def unsent(self) -> int:
        """Bytes that the hub's machine has not acknowledged, whether under way or waiting to be."""
        return self.backlog + unacknowledged(self.sock)

    @property
    def is_stalled(self) -> bool:
        """The network took nothing lately; ask while there is a backlog."""
        return is_stalled(self.sock)

    @property
    def tls(self) -> str:
        """`TLSv1.3`."""
        return self._channel.version

    @property
    def cipher(self) -> str:
        """The suite that is used."""
        return self._channel.cipher

    def finish(self) -> None:
        """Say goodbye (close_notify, trap T1) as far as the socket takes it now, and send no more.

        The caller reads and discards until the peer closes too, or for a moment: closing with unread bytes would make
        the kernel send a reset, which may overtake the goodbye.
        """
        if self._udp is not None:
            self._udp.close()
        self._channel.close()
        try:
            while data := self._channel.outgoing():
                self._channel.sent(self.sock.send(data))
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # full or gone: nothing more can be said

    # -- what came ------------------------------------------------------------------------------------------------

    def _decrypt(self, data: memoryview) -> bytes:
        channel = self._channel
        assert isinstance(channel, TlsChannel)
        shaking = channel.state is TlsState.HANDSHAKING
        try:
            plain = channel.receive(data)
        except PeerViolation as violation:
            if shaking:
                raise self._no_tls(violation) from violation
            raise
        if not self._talking and channel.state is not TlsState.HANDSHAKING:
            self._check_key(channel)
            self._talking = True
            channel.send(self._opening.start())
        return plain

    def _open(self, plain: bytes) -> bytes:
        """Go on with the opening talk; what is behind it is the tunnel's."""
        if not plain:
            return b""
        answer = self._opening.receive(plain)
        if answer:
            self._channel.send(answer)
        self.outcome = self._opening.outcome
        return self.outcome.rest if self.outcome is not None else b""

    def _open_by_records(self, records: bytearray, data: memoryview) -> bytes:
        """As `_open`, a TLS record at a time: behind the one that ends the opening plaintext may follow (2.1)."""
        records += data
        for record in cut_records(records):
            first = self._open(self._decrypt(memoryview(record)))
            if self.outcome is not None:
                if self.outcome.terms.encrypted:
                    return first + self._channel.receive(bytes(records))
                self._channel = ClearChannel()
                return first + bytes(records)
        return b""

    def _check_key(self, channel: TlsChannel) -> None:
        """The hub must show the key we know, before anything else is said to it (A9, D9)."""
        shown = channel.peer_certificate()
        self.pin, self.certificate = spki_pin(shown), hashlib.sha256(shown).digest()
        known, order = self.order.pin, self.order
        demanded = order.certificate or (order.terms.certificate if order.session_key and not order.exact else b"")
        if demanded and self.certificate != demanded:
            raise NotTrusted(
                N_(
                    "{address} shows another certificate than it must: expected SHA-256 {expected}, got {shown}."
                    " Nothing was sent to it"
                ),
                address=order.location,
                expected=fingerprint(demanded),
                shown=fingerprint(self.certificate),
            )
        if known and self.pin != known and (order.trust != "ca" or order.session_key):
            raise _another_key(order.location, known, self.pin, issuer(shown))

    # -- what went wrong ------------------------------------------------------------------------------------------

    def _no_tls(self, violation: PeerViolation) -> DialError:
        """TLS failed: say what answers there, if its first bytes tell."""
        first, address = self._first, self.order.location
        if first.startswith((b"HTTP/", b"<")):
            return DialError(
                N_("{address} answers in plain HTTP; a hub's port speaks HTTPS. Check the port"), address=address
            )
        if first.startswith(b"SSH-"):
            return DialError(N_("{address} is an SSH server, not a hub; check address and port"), address=address)
        if first and first[0] not in TLS_HANDSHAKE:
            return DialError(
                N_("{address} speaks something other than TLS, so it is no hub; check address and port"),
                address=address,
            )
        reason = violation.values.get("reason", violation)
        if str(reason).endswith(NOTHING_IN_COMMON):
            return DialError(
                N_(
                    "{address} and this card have no TLS version or cipher suite in common ({reason}); compare"
                    " tls.ciphers of both. `ukihashi card ciphers` lists what this card can"
                ),
                address=address,
                reason=reason,
            )
        return DialError(
            N_("no TLS connection to {address} came about ({reason}); is this a hub's HTTPS port?"),
            address=address,
            reason=reason,
        )

    def _ended(self) -> DialError:
        if self.outcome is not None:
            return DialError(N_("the hub closed the connection"))
        if self._talking:
            return self._opening.end()
        if self._first and self._first[0] not in TLS_HANDSHAKE:
            return self._no_tls(PeerViolation(N_("the other end closed")))
        return DialError(
            N_("{address} closed the connection instead of answering TLS; is this a hub's HTTPS port?"),
            address=self.order.location,
        )

    def _cut(self, error: OSError) -> DialError:
        if self.outcome is None and not self._talking:
            return DialError(
                N_("the connection to {address} broke before TLS was up ({reason}); is this a hub's HTTPS port?"),
                address=self.order.location,
                reason=error.strerror,
            )
        return DialError(N_("the connection to the hub broke: {reason}"), reason=error.strerror)

    def _late(self) -> DialError:
        if self._talking:
            return self._opening.late(self.order.deadline)
        return DialError(
            N_("{address} took the connection but did not speak TLS within {seconds:g} s; is this a hub's HTTPS port?"),
            address=self.order.location,
            seconds=self.order.deadline,
        )


def fingerprint(pin: bytes) -> str:
    """A pin as people compare it: `AB:CD:…`, the form in which the hub prints its own."""
    return pin.hex(":").upper()


def _another_key(address: str, known: bytes, shown: bytes, issued_by: str) -> NotTrusted:
    """`issued_by`: who vouches for the key in place of itself; a hub's own certificate is self-issued."""
    values = {"address": address, "expected": fingerprint(known), "shown": fingerprint(shown)}
    if issued_by:
        return NotTrusted(
            N_(
                "{address} shows another key than the one this account trusts, in a certificate issued by “{issuer}”:"
                " it seems that a proxy or a firewall on the way inspects TLS. Nothing was sent to it. Ask its"
                " administrator to let connections to the hub pass uninspected; if the hub's admin says the key"
                " changed, ask for a new link. Expected SHA-256 {expected}, got {shown}"
            ),
            issuer=issued_by,
            **values,
        )
    return NotTrusted(
        N_(
            "{address} shows another key than the one this account trusts. Expected SHA-256 {expected}, got "
            "{shown}. Nothing was sent to it. If the hub's admin says the key changed, ask for a new link "
            "(or put the new fingerprint into the account); otherwise somebody may be listening"
        ),
        **values,
    )


def _channel(order: Connect) -> TlsChannel:
    """TLS towards the hub, verifying against authorities where the account says so."""
    with_ca = order.trust == "ca" and not order.certificate
    context = client_context(system_trust=with_ca and not order.authorities, pick=check_pick(order.ciphers))
    if with_ca and order.authorities:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        try:
            context.load_verify_locations(cadata=order.authorities)
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(N_("the certificates in trust.ca_file can't be used: {reason}"), reason=error) from error
    try:
        return tls_channel(context, server_side=False, server_name=order.server_name)
    except ValueError as error:
        raise UsageError(N_("“{host}” is neither a host name nor an address"), host=order.server_name) from error
