"""One TCP connection to the hub, from the TLS handshake to its end: opening talk, then the tunnel.

Driven by the data process's loop: it says when the socket can be read or written and what time it is. Every method may
raise a `UkihashiError`: the link is then finished, and the error says why.
"""

import random
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from ukihashi.card.messages import Connect, Counters, Opened
from ukihashi.card.opening import Opening, Outcome
from ukihashi.errors import N_, DialError, NotTrusted, PeerViolation, UsageError
from ukihashi.net.suites import check_pick
from ukihashi.net.tls import TlsChannel, TlsState, client_context, spki_pin
from ukihashi.session.timers import KeepAlive, KeepAliveLaw, Liveness, StandardKeepAlive
from ukihashi.wire.blocks import BlockDecoder, encode_frames, encode_keepalive
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME, SENT_KEEPALIVE

READ: Final = 256 * 1024  # bytes of one read from the network
TLS_HANDSHAKE: Final = frozenset({0x14, 0x15, 0x16})  # first byte of a TLS record before data (RFC 8446, 5.1)

NOTHING_IN_COMMON: Final = ("alert handshake failure", "alert protocol version")  # ends of OpenSSL's words

_chance: Final = random.SystemRandom()
_room: Final = memoryview(bytearray(READ))  # one for all links: what is read is taken over before the next read


@dataclass(slots=True)
class Tally:
    """Counters of the process; fields as in `Counters`."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    tls_writes: int = 0
    frames_written: int = 0
    keepalives_in: int = 0
    keepalives_out: int = 0
    oversized: int = 0

    def message(self, *, refused: int, backlog: int) -> Counters:
        """The counters as they travel."""
        return Counters(
            refused=refused, backlog=backlog, **{field.name: getattr(self, field.name) for field in fields(self)}
        )


class Link:
    """The connection of one attempt. Whoever holds it closes it."""

    def __init__(self, order: Connect, sock: socket.socket, tally: Tally, now: float) -> None:
        """`sock`: connected, non-blocking; it belongs to the link from now on."""
        self.order: Final = order
        self.sock: Final = sock
        self.opened: Opened | None = None
        self._tally = tally
        self._channel = _channel(order)
        self._opening = Opening(order, random=_chance.randbytes)
        self._greeted = False  # the opening talk has begun, so the hub's key was found right
        self._pin = b""
        self._first = b""  # the first bytes that came, to tell what answers when it is not TLS
        self._late_at = now + order.deadline
        self._decoder = BlockDecoder()
        self._keepalive: KeepAliveLaw = KeepAlive(now)
        self._liveness = Liveness(now)
        self._channel.start()

    # -- the loop's side ------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Write what waits; False while the socket is full."""
        channel, send = self._channel, self.sock.send
        try:
            while data := channel.outgoing():
                channel.sent(send(data))
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._cut(error) from error
        return True

    def read(self, now: float) -> list[bytes]:
        """Take one read's worth from the socket; give the frames it completed.

        All that TLS decrypted is taken out: plaintext left inside would wake nobody.
        """
        try:
            size = self.sock.recv_into(_room)
        except BlockingIOError:
            return []
        except OSError as error:
            raise self._cut(error) from error
        if size == 0:
            self._channel.receive_end()
            raise self._ended()
        if len(self._first) < 8:
            self._first += bytes(_room[: 8 - len(self._first)])
        return self._take(self._decrypt(_room[:size]), now)

    def check_end(self) -> None:
        """Raise if the hub has said its goodbye; ask after the frames that came before it are delivered."""
        if self._channel.state is TlsState.PEER_CLOSED:
            raise self._ended()

    def send(self, frames: Sequence[bytes], now: float) -> None:
        """Queue one batch of frames: one TLS write. Call only while `flush` gives True, so that nothing piles up."""
        tally = self._tally
        longest, shortest = len(max(frames, key=len)), len(min(frames, key=len))
        if longest > MAX_FRAME or shortest < MIN_FRAME:
            fitting = [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME]
            tally.oversized += len(frames) - len(fitting)
            frames = fitting
            if not frames:
                return
        data = encode_frames(frames)
        self._channel.send(data)
        self._keepalive.sent(now, random.random())  # noqa: S311 - spreads keep-alives, hides nothing
        count = len(frames)
        tally.frames_out += count
        tally.bytes_out += len(data) - 4 * count - 4
        tally.tls_writes += 1
        tally.frames_written += count

    def tick(self, now: float) -> None:
        """Do what is due: a keep-alive; or find that it is too late for the other end."""
        if self.opened is None:
            if now >= self._late_at:
                raise self._late()
            return
        if self._liveness.is_dead(now):
            raise DialError(
                N_("nothing came from the hub for {seconds:.0f} s; the connection is held to be cut"),
                seconds=self._liveness.silent_for(now),
            )
        if self._keepalive.is_due(now):
            self._channel.send(encode_keepalive(_chance.randbytes(_chance.randrange(SENT_KEEPALIVE + 1))))
            self._keepalive.sent(now, _chance.random())
            self._tally.keepalives_out += 1

    @property
    def due_at(self) -> float:
        """When `tick` is wanted next."""
        if self.opened is None:
            return self._late_at
        return min(self._keepalive.due_at, self._liveness.dead_at)

    @property
    def backlog(self) -> int:
        """Bytes that wait for the network."""
        return self._channel.backlog

    def finish(self) -> None:
        """Say goodbye (close_notify, trap T1) as far as the socket takes it now, and send no more.

        The caller reads and discards until the peer closes too, or for a moment: closing with unread bytes would make
        the kernel send a reset, which may overtake the goodbye.
        """
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
        shaking = channel.state is TlsState.HANDSHAKING
        try:
            plain = channel.receive(data)
        except PeerViolation as violation:
            if shaking:
                raise self._no_tls(violation) from violation
            raise
        if not self._greeted and channel.state is not TlsState.HANDSHAKING:
            self._check_key()
            self._greeted = True
            channel.send(self._opening.start())
        return plain

    def _take(self, plain: bytes, now: float) -> list[bytes]:
        if not plain:
            return []
        if self.opened is None:
            answer = self._opening.receive(plain)
            if answer:
                self._channel.send(answer)
            outcome = self._opening.outcome
            if outcome is None:
                return []
            self._open(outcome, now)
            plain = outcome.rest
        decoder, tally = self._decoder, self._tally
        before = decoder.keepalives
        frames = decoder.feed(plain)
        if frames or decoder.keepalives != before:
            self._liveness.heard(now)
            tally.keepalives_in += decoder.keepalives - before
        if frames:
            if len(max(frames, key=len)) > MAX_FRAME:
                fitting = [frame for frame in frames if len(frame) <= MAX_FRAME]
                tally.oversized += len(frames) - len(fitting)
                frames = fitting
            tally.frames_in += len(frames)
            tally.bytes_in += sum(map(len, frames))
        return frames

    def _open(self, outcome: Outcome, now: float) -> None:
        order, channel = self.order, self._channel
        if outcome.extension:
            self._keepalive = KeepAlive(now, interval=order.keepalive)
            self._liveness = Liveness(now, dead=order.dead)
        else:
            timeout = outcome.timeout_ms / 1000
            self._keepalive = StandardKeepAlive(now, timeout=timeout)
            self._liveness = Liveness(now, dead=timeout)
        self.opened = Opened(
            attempt=order.attempt,
            resumed=bool(order.session_key),
            session=outcome.session,
            session_key=outcome.session_key,
            timeout_ms=outcome.timeout_ms,
            extension=outcome.extension,
            tls=channel.version,
            cipher=channel.cipher,
            pin=self._pin,
            product=outcome.product,
            banner=outcome.banner[:1024],
        )

    def _check_key(self) -> None:
        """The hub must show the key we know, before anything else is said to it (A9, D9)."""
        self._pin = spki_pin(self._channel.peer_certificate())
        known = self.order.pin
        if self.order.trust != "ca" and known and self._pin != known:
            raise NotTrusted(
                N_(
                    "{address} shows another key than the one this account trusts. Expected SHA-256 {expected}, got "
                    "{shown}. Nothing was sent to it. If the hub's admin says the key changed, ask for a new link "
                    "(or put the new fingerprint into the account); otherwise somebody may be listening"
                ),
                address=self.order.location,
                expected=fingerprint(known),
                shown=fingerprint(self._pin),
            )

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
        if self.opened is not None:
            return DialError(N_("the hub closed the connection"))
        if self._greeted:
            return self._opening.end()
        if self._first and self._first[0] not in TLS_HANDSHAKE:
            return self._no_tls(PeerViolation(N_("the other end closed")))
        return DialError(
            N_("{address} closed the connection instead of answering TLS; is this a hub's HTTPS port?"),
            address=self.order.location,
        )

    def _cut(self, error: OSError) -> DialError:
        if self.opened is None and not self._greeted:
            return DialError(
                N_("the connection to {address} broke before TLS was up ({reason}); is this a hub's HTTPS port?"),
                address=self.order.location,
                reason=error.strerror,
            )
        return DialError(N_("the connection to the hub broke: {reason}"), reason=error.strerror)

    def _late(self) -> DialError:
        if self._greeted:
            return self._opening.late(self.order.deadline)
        return DialError(
            N_("{address} took the connection but did not speak TLS within {seconds:g} s; is this a hub's HTTPS port?"),
            address=self.order.location,
            seconds=self.order.deadline,
        )


def fingerprint(pin: bytes) -> str:
    """A pin as people compare it: `AB:CD:…`, the form in which the hub prints its own."""
    return pin.hex(":").upper()


def _channel(order: Connect) -> TlsChannel:
    """TLS towards the hub, verifying against authorities where the account says so."""
    with_ca = order.trust == "ca"
    context = client_context(system_trust=with_ca and not order.authorities, pick=check_pick(order.ciphers))
    if with_ca and order.authorities:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        try:
            context.load_verify_locations(cadata=order.authorities)
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(N_("the certificates in trust.ca_file can't be used: {reason}"), reason=error) from error
    try:
        return TlsChannel(context, server_side=False, server_name=order.server_name)
    except ValueError as error:
        raise UsageError(N_("“{host}” is neither a host name nor an address"), host=order.server_name) from error
