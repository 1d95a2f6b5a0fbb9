"""Two ends of a session and the links between them, in memory: what the owners of the machines do, and no more.

Bytes are what would be inside TLS: real batches, real control records, real messages of the resume (a length stands in
for HTTP). A pipe may lose what it holds and swallow what comes after; it never leaves a hole, as TCP doesn't.
"""

import struct
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from ukihashi.ether.offload import SuperFrame
from ukihashi.session.machine import CARD_MOVES, HUB_MOVES, CannotResume, Ledger, Machine, Stale, State
from ukihashi.wire import messages
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import MAX_FRAME, Code
from ukihashi.wire.extension import Have, Numbers, Resume, encode_have, encode_have_keepalive
from ukihashi.wire.messages import AdditionalAnswer, AdditionalConnect, ErrorAnswer
from ukihashi.wire.pack import Pack

CARRYING: Final = (State.ONLINE, State.SUSPECT)
ALL: Final = 1 << 30  # bytes; more than ever wait
LEAST_SUPER: Final = 24  # bytes of a super-frame and its trailer

_LENGTH: Final = struct.Struct("!I")


def frame(number: int, size: int) -> bytes:
    """A frame that says which it is, of `size` bytes from 5 on: long ones and every third one are super-frames."""
    data = number.to_bytes(4, "big") + bytes([number % 251]) * (size - 4)
    return SuperFrame(data) if size > MAX_FRAME or (size >= LEAST_SUPER and number % 3 == 0) else data


def number_of(data: bytes) -> int:
    """Which frame it is; fails if it was changed on its way."""
    number = int.from_bytes(data[:4], "big")
    wanted = frame(number, len(data))
    assert (data, type(data)) == (wanted, type(wanted))
    return number


def decoder() -> BlockDecoder:
    """For a link that has just begun to carry the session."""
    return BlockDecoder(extended=True, super_frames=True)


@dataclass
class Pipe:
    """One direction of a link."""

    data: bytearray = field(default_factory=bytearray)
    open: bool = True

    def write(self, data: bytes) -> None:
        if self.open:
            self.data += data

    def read(self, size: int) -> bytes:
        data = bytes(self.data[:size])
        del self.data[:size]
        return data

    def cut(self) -> None:
        """What is under way is lost, and so is all that is written from now on."""
        self.data.clear()
        self.open = False


@dataclass
class Link:
    """A TCP connection; `to_hub` of a new one begins with the card's request."""

    number: int
    to_hub: Pipe = field(default_factory=Pipe)
    to_card: Pipe = field(default_factory=Pipe)
    request: bytearray | None = None  # what the hub has of it; None: it has been dealt with
    answer: bytearray | None = None  # the same at the card

    def cut(self) -> None:
        self.to_hub.cut()
        self.to_card.cut()


@dataclass
class End:
    """One end: its machine, what it was given to send, what it got."""

    machine: Machine
    decoder: BlockDecoder
    offered: int = 0  # frames given to this end, numbered from 0
    got: list[int] = field(default_factory=list)
    checked: int = 0  # of them
    full: int = 0  # frames that found no room
    earlier: list[Ledger] = field(default_factory=list)  # of sessions that ended (the hub's; a card's goes on)

    def total(self, name: str) -> int:
        """A ledger's field, earlier sessions included."""
        return sum(int(getattr(ledger, name)) for ledger in (*self.earlier, self.machine.ledger))

    def dropped(self) -> Counter[str]:
        return sum((ledger.dropped for ledger in (*self.earlier, self.machine.ledger)), Counter[str]())


class World:
    """A card, a hub, and every link there ever was."""

    def __init__(self, bound: int = ALL) -> None:
        """`bound`: bytes that each end keeps at most."""
        self.bound = bound
        self.seen = Counter[str]()  # what has happened, so that a test can tell that it tried it
        self.now = 0.0
        self.links: dict[int, Link] = {1: Link(1)}
        self.card = End(Machine(CARD_MOVES, 1), decoder())
        self.hub = End(Machine(HUB_MOVES, 1), decoder())
        self.key = bytes(20)  # of the session that both ends know
        self.lossy = False  # a session ended by losing something, so gaps are allowed

    # -- what the ends do -----------------------------------------------------------------------------------------

    def offer(self, end: End, sizes: list[int]) -> int:
        """Frames of `sizes` for `end` to send, as one batch; gives the bytes that it is held for."""
        machine = end.machine
        frames = [frame(end.offered + at, size) for at, size in enumerate(sizes)]
        end.offered += len(frames)
        data = encode_frames(frames)
        before = machine.out.bytes
        if before + len(data) > self.bound:
            end.full += len(frames)
            return 0
        machine.send(data, len(frames))
        return machine.out.bytes - before

    def write(self, end: End, limit: int = ALL) -> bytes:
        """One write of `end` to its link."""
        data = end.machine.take(limit)
        self._pipe_from(end).write(data)
        return data

    def write_all(self, end: End) -> None:
        while self.write(end, 65536):
            pass

    def ack(self, end: End) -> bool:
        """The acknowledgement if it is due."""
        if end.machine.state not in CARRYING or (have := end.machine.ack(self.now)) is None:
            return False
        self._pipe_from(end).write(encode_have(have))
        return True

    def keepalive(self, end: End, padding: int = 9) -> None:
        if end.machine.state in CARRYING:
            self._pipe_from(end).write(encode_have_keepalive(end.machine.acknowledge(), bytes(padding)))

    def greeted(self) -> Link | None:
        """A dial of the card's has come so far that it may ask."""
        number = max(self.links) + 1
        resume = self.card.machine.ask(number)
        if resume is None:
            return None
        link = self.links[number] = Link(number, request=bytearray(), answer=bytearray())
        link.to_hub.write(_message(AdditionalConnect(self.key, resume=resume).to_pack(b"pad")))
        return link

    def login(self) -> None:
        """The session is over at the card; a new one begins over a new link, and the hub ends the old one."""
        number = max(self.links) + 1
        self.links[number] = Link(number)
        self.card.machine = self.card.machine.succeed(number)
        self.hub.machine.lose("session ended")
        self.hub.machine.bye()
        self.hub.earlier.append(self.hub.machine.ledger)
        self.hub.machine = Machine(HUB_MOVES, number)
        self.card.decoder, self.hub.decoder = decoder(), decoder()
        self.key = number.to_bytes(20, "big")
        self.lossy = True

    def upgrade(self) -> None:
        """The hub's next process goes on with what this one hands over."""
        if self.hub.machine.link is not None:
            self.hub.machine.lost(self.hub.machine.link)
        self.hub.machine = Machine.restore(HUB_MOVES, self.hub.machine.save())

    # -- what arrives ---------------------------------------------------------------------------------------------

    def hub_reads(self, link: Link, size: int = ALL) -> None:
        data = link.to_hub.read(size)
        if link.request is not None:
            link.request += data
            message = _whole(link.request)
            if message is None:
                return
            data, link.request = message[1], None
            request = messages.read_request(message[0])
            assert isinstance(request, AdditionalConnect)
            assert request.resume is not None
            if request.session_key == self.key and self.hub.machine.state is not State.ENDED:
                self._resume(link, request.resume)
            else:
                self.seen["no such session"] += 1
                link.to_card.write(_message(ErrorAnswer(Code.SESSION_TIMEOUT).to_pack(b"")))
        if self.hub.machine.carries(link.number):
            self._feed(self.hub, data)
        else:
            self.seen["hub reads a replaced link"] += bool(data)

    def card_reads(self, link: Link, size: int = ALL) -> None:
        data, machine = link.to_card.read(size), self.card.machine
        if link.answer is not None:
            link.answer += data
            message = _whole(link.answer)
            if message is None:
                return
            data, link.answer = message[1], None
            answer = messages.read_additional_answer(message[0])
            if isinstance(answer, ErrorAnswer):
                if machine.refused(link.number):
                    assert answer.code == Code.SESSION_TIMEOUT, "the newest attempt was held to be overtaken"
                    self.seen["refused"] += 1
                    self.login()
                return
            assert isinstance(answer, AdditionalAnswer)
            assert answer.have is not None
            if machine.answered(link.number, answer.have) is None:
                self.seen["answer too late"] += 1
            else:
                self.seen["card goes on inside a batch"] += inside_a_batch(machine)
                self.card.decoder = decoder()
        if machine.carries(link.number):
            if data:
                self.seen["wrong suspicion"] += machine.heard()
            self._feed(self.card, data)
        else:
            self.seen["card reads a replaced link"] += bool(data)

    def _resume(self, link: Link, resume: Resume) -> None:
        machine = self.hub.machine
        try:
            machine.check(resume)
        except Stale:
            self.seen["stale"] += 1
            numbers = Numbers(machine.attempt, machine.have, machine.out.first, machine.out.high)
            link.to_card.write(_message(ErrorAnswer(Code.INVALID_PROTOCOL, numbers=numbers).to_pack(b"")))
            return
        except CannotResume as over:
            machine.bye()
            link.to_card.write(_message(ErrorAnswer(Code.SESSION_TIMEOUT, numbers=over.numbers).to_pack(b"")))
            return
        self.seen["hub had not noticed"] += machine.state is State.ONLINE
        have = machine.asked(link.number, resume)
        self.seen["hub goes on inside a batch"] += inside_a_batch(machine)
        self.hub.decoder = decoder()
        link.to_card.write(_message(AdditionalAnswer(have=have).to_pack(b"")))

    def _feed(self, end: End, data: bytes) -> None:
        frames = end.decoder.feed(data)
        end.machine.received(len(frames), len(data), self.now)
        end.got += map(number_of, frames)
        for control in end.decoder.controls:
            assert isinstance(control, Have)
            end.machine.acknowledged(control.number)
        end.decoder.controls.clear()

    def _pipe_from(self, end: End) -> Pipe:
        link = end.machine.link
        if link is None:
            return Pipe(open=False)
        return self.links[link].to_hub if end is self.card else self.links[link].to_card

    # -- all at once ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry everything over the link that both ends use, until nothing moves."""
        for _ in range(3):
            for end in (self.card, self.hub):
                self.write_all(end)
                self.keepalive(end)
            for link in list(self.links.values())[-2:]:
                self.hub_reads(link)
                self.card_reads(link)

    def reconnect(self) -> None:
        """One reconnect without trouble: the old link is given up, a new one resumes, all is carried."""
        if self.card.machine.state in CARRYING and self.card.machine.link is not None:
            self.card.machine.lost(self.card.machine.link)
        link = self.greeted()
        assert link is not None
        self.hub_reads(link)
        self.card_reads(link)
        self.settle()

    # -- what holds always ----------------------------------------------------------------------------------------

    def check(self) -> None:
        for end, peer in ((self.card, self.hub), (self.hub, self.card)):
            check_machine(end.machine)
            accounted = end.total("sent") + (end.machine.out.end - end.machine.out.high) + sum(end.dropped().values())
            assert end.offered == end.full + accounted
            assert peer.total("received") == len(peer.got)
            news = peer.got[max(peer.checked - 1, 0) :]
            assert all(first < second for first, second in pairwise(news)), "doubled or out of order"
            peer.checked = len(peer.got)
            if not self.lossy and not end.full:
                assert not news or news[-1] == len(peer.got) - 1, "a gap"
                assert len(peer.got) <= end.total("sent")
                assert end.total("acknowledged") <= len(peer.got)

    def check_all_arrived(self) -> None:
        """After everything was carried: what did not arrive is counted, and nothing waits."""
        self.check()
        assert self.card.machine.state is self.hub.machine.state is State.ONLINE
        for end, peer in ((self.card, self.hub), (self.hub, self.card)):
            out = end.machine.out
            assert (out.first, out.bytes, out.waiting) == (out.end, 0, 0)
            missing = end.offered - len(peer.got)
            counted = end.full + end.total("lost") + sum(end.dropped().values())
            if self.lossy:  # what is counted as lost may have arrived
                assert missing <= counted
            else:
                assert missing == counted == end.full


def inside_a_batch(machine: Machine) -> bool:
    """Begins the next link inside a batch?"""
    return machine.out.first > machine.out._start


def check_machine(machine: Machine) -> None:
    """The ledger's sums and the order of the buffer's numbers."""
    out, ledger = machine.out, machine.ledger
    assert out.first <= out.cursor <= out.high <= out.end
    assert ledger.sent == ledger.acknowledged + ledger.lost + (out.high - out.first)
    assert (out.end == out.first) <= (out.bytes == 0)
    assert (machine.link is None) == (machine.state in {State.CUT, State.ENDED})
    assert ledger.resumes <= ledger.cuts


def _message(pack: Pack) -> bytes:
    data = pack.encode()
    return _LENGTH.pack(len(data)) + data


def _whole(held: bytearray) -> tuple[Pack, bytes] | None:
    """The message at the start of `held` and what follows it; None while it is incomplete."""
    if len(held) < 4 or len(held) < 4 + (size := _LENGTH.unpack_from(held)[0]):
        return None
    return Pack.decode(bytes(held[4 : 4 + size])), bytes(held[4 + size :])
