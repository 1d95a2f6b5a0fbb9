"""A fake hub as official servers are: no exact resume, but several connections, half duplex, compression, plaintext,
certificates, and clusters whose controller sends cards on."""

import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lab.fake_hub import WAIT_S, Conversation, FakeHub
from ukihashi.wire.blocks import BlockDecoder, compress, decompress, encode_frames, encode_keepalive
from ukihashi.wire.constants import AuthType, Code, Direction
from ukihashi.wire.messages import AdditionalAnswer, AdditionalConnect, ErrorAnswer, Login, Redirect, Welcome


@dataclass(eq=False)
class Strand:
    """One connection of a session."""

    talk: Conversation
    key: bytes
    direction: int
    keepalives: int = 0


class StandardHub(FakeHub):
    """One session at a time is looked at: `strands` are the connections of all, the oldest first."""

    def __init__(self, certificate: Path, key: Path, *, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(certificate, key, address=address, port=port)
        self.extension = 0
        self.max_connections = 32
        self.allow_plaintext = False
        self.drops_encryption = False  # whatever was asked
        self.policy: dict[str, int] = {}
        self.banner = ""
        self.certificates: dict[str, bytes] = {}  # user -> DER
        self.tickets: set[bytes] = set()
        self.redirect: Redirect | None = None  # what every login gets
        self.full = 0  # answers to so many additional connections that there are enough
        self.one_way: int | None = None  # give every additional connection this direction
        self.strands: list[Strand] = []
        self.came_over: list[tuple[int, bytes]] = []  # number of the strand at that moment, frame
        self._welcomes: dict[bytes, Welcome] = {}
        self._coming: dict[Conversation, Strand] = {}

    # -- what a test does -----------------------------------------------------------------------------------------

    def wait_for(self, count: int) -> list[Strand]:
        """The strands, once there are so many."""
        with self._linked:
            assert self._linked.wait_for(lambda: len(self.strands) == count, WAIT_S), f"{len(self.strands)} strands"
            return list(self.strands)

    def send(self, frames: Sequence[bytes], over: int = -1) -> None:
        """Give frames to the card over one strand."""
        strand = self.strands[over]
        self.write(frames, strand, packed=self._welcomes[strand.key].use_compress)

    def write(self, frames: Sequence[bytes], strand: Strand, *, packed: bool) -> None:
        """Frames as they are, or compressed one by one."""
        strand.talk.write(encode_frames([compress(frame) for frame in frames] if packed else frames))

    def end(self, *numbers: int, reset: bool = False) -> None:
        """End some strands, or all."""
        strands = list(self.strands)
        for number in numbers or range(len(strands)):
            talk = strands[number].talk
            talk.is_cut = True
            if reset:
                talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                talk.sock.shutdown(socket.SHUT_RD)
            else:
                talk.goodbye()

    # -- what a card asks -----------------------------------------------------------------------------------------

    def _judge(self, talk: Conversation, login: Login, challenge: bytes) -> Welcome | Redirect | ErrorAnswer:
        answer = super()._judge(talk, login, challenge)
        if not isinstance(answer, Welcome):
            return answer
        if self.redirect is not None:
            return self.redirect
        least = 2 if login.half_connection else 1
        answer = replace(
            answer,
            max_connection=max(least, min(login.max_connection, self.max_connections)),
            use_encrypt=not self.drops_encryption and (login.use_encrypt or not self.allow_plaintext),
            use_compress=login.use_compress,
            half_connection=login.half_connection,
            policy=self.policy,
            message=self.banner,
        )
        self._welcomes[answer.session_key] = answer
        direction = Direction.TO_SERVER if login.half_connection else Direction.BOTH
        self._coming[talk] = Strand(talk, answer.session_key, direction)
        return answer

    def _lets_in(self, login: Login, challenge: bytes) -> bool:
        if login.authtype == AuthType.TICKET:
            if login.ticket not in self.tickets:
                return False
            self.tickets.remove(login.ticket)
            return True
        if login.authtype == AuthType.CERTIFICATE:
            if login.certificate != self.certificates.get(login.user):
                return False
            key = x509.load_der_x509_certificate(login.certificate).public_key()
            assert isinstance(key, rsa.RSAPublicKey)
            try:
                key.verify(login.signature, challenge, padding.PKCS1v15(), hashes.SHA1())
            except InvalidSignature:
                return False
            return True
        return super()._lets_in(login, challenge)

    def _resume(self, talk: Conversation, message: AdditionalConnect) -> AdditionalAnswer | ErrorAnswer:
        answer = super()._resume(talk, message)
        if isinstance(answer, ErrorAnswer):
            return answer
        if self.full:
            self.full -= 1
            return ErrorAnswer(Code.TOO_MANY_CONNECTION)
        welcome = self._welcomes[message.session_key]
        known = [strand.direction for strand in self.strands if strand.key == message.session_key]
        direction = int(Direction.BOTH)
        if self.one_way is not None:
            direction = self.one_way
        elif welcome.half_connection:  # as section 13.3 counts them
            more_in = known.count(Direction.TO_CLIENT) > known.count(Direction.TO_SERVER)
            direction = Direction.TO_SERVER if more_in else Direction.TO_CLIENT
        self._coming[talk] = Strand(talk, message.session_key, direction)
        return AdditionalAnswer(direction)

    def _tunnel(self, talk: Conversation, data: bytes) -> None:
        strand = self._coming.pop(talk)
        welcome = self._welcomes[strand.key]
        if not welcome.use_encrypt:
            talk.leave_tls()
        if strand.direction != Direction.TO_SERVER:
            talk.write(encode_keepalive(b""))
        decoder = BlockDecoder()
        with self._linked:
            self.strands.append(strand)
            self._link = talk
            self._linked.notify_all()
        try:
            while True:
                for block in decoder.feed(data):
                    frame = decompress(block) if welcome.use_compress else block
                    assert frame is not None
                    self.came_over.append((self.strands.index(strand), frame))
                    self.frames.put(frame)
                strand.keepalives = decoder.keepalives
                self._heed(talk)
                data = talk.read()
                if not data:
                    self.goodbyes += 1
                    return
        finally:
            with self._linked, contextlib.suppress(ValueError):
                self.strands.remove(strand)
                self._linked.notify_all()
