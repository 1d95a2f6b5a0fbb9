"""Cards with exact resume, made of the session machine and TLS without a thread, and a hub that turns when it is told.

`Field` is the hub's worker without its processes: front door, sessions, loop, all real, on real TCP, with a clock that
a test moves. Whatever has to wait for the network turns both until it is there.
"""

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ukihashi.errors import PeerViolation, Refused
from ukihashi.hub.connection import Wiring
from ukihashi.hub.front import FrontDoor
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import READ, Loop
from ukihashi.hub.messages import (
    AdminAsked,
    HubPut,
    LoginAnswered,
    LoginAsked,
    LoginRefused,
    Message,
    PasswordAsked,
    RpcAsked,
)
from ukihashi.hub.ports import Outbox
from ukihashi.hub.resumable import ResumableSession
from ukihashi.hub.sessions import Sessions
from ukihashi.net.link import tune
from ukihashi.net.listen import listen_tcp
from ukihashi.net.tls import TlsChannel, TlsState, client_context
from ukihashi.session.machine import CARD_MOVES, Machine
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.extension import Blocked, Bye, Have, PeerOptions, Resume, encode_have
from ukihashi.wire.http import ClientSide, Response, pack_request, read_pack, signature_request
from ukihashi.wire.messages import (
    AdditionalAnswer,
    AdditionalConnect,
    ErrorAnswer,
    Hello,
    Login,
    Welcome,
    read_additional_answer,
    read_answer,
    read_hello,
)
from ukihashi.wire.pack import Pack

DEADLINE: Final = 20.0  # seconds; for what is expected to come at once
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by reset

CONTEXT: Final = client_context()

Address = tuple[str, int]


def frame(to: int, by: int, number: int = 0, size: int = 18) -> bytes:
    """An Ethernet frame between stations known by a number (0: broadcast), itself numbered."""
    address = b"\xff" * 6 if to == 0 else b"\x02\0\0\0\0" + bytes([to])
    return (address + b"\x02\0\0\0\0" + bytes([by]) + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(size, b".")


def number_of(data: bytes) -> int:
    return int.from_bytes(data[14:18], "big")


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


QUICK = Limits(linger_s=0.2)


class Field:
    """See the module. Lets everybody in."""

    def __init__(self, context: Any, limits: Limits) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.told: list[Message] = []
        self.asked: list[Message] = []
        self.answers: dict[str, Any] = {}  # of `LoginAnswered`, in place of what is asked for
        self.outbox = Outbox()
        self.wiring = Wiring(self.loop, context, limits)
        self.sessions = Sessions(self.loop, limits, self.outbox, self.tell)
        self.sessions.put_hub(HubPut("LAN"))
        self.door = FrontDoor(self.wiring, self.sessions, pages=self, control=self)  # type: ignore[arg-type]
        self._listener = listen_tcp("127.0.0.1", 0)
        self.address: Address = self._listener.getsockname()
        self.loop.watch(self._listener.fileno(), READ, self._on_listener)
        self.loop.at_turn_end(self.outbox.flush)
        self.cards: list[Card] = []

    def close(self) -> None:
        for card in self.cards:
            for link in card.links:
                link.sock.close()
        for session in self.sessions:
            session.close("the test is over")
        self.door.close()
        for connection in self.wiring.lingering.items():
            connection.abort("the test is over")
        self.loop.close()
        self._listener.close()
        assert self.loop.faults == 0

    def turn(self) -> None:
        self.loop.turn(0.0)

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Turn the hub and pump the cards until `condition` is true."""
        end = time.monotonic() + DEADLINE
        while not (result := condition()):
            assert time.monotonic() < end, f"not in time: {what}"
            self.turn()
            for card in self.cards:
                card.pump()
        return result

    def quiet(self) -> None:
        """Turn until nothing moves any more: what was sent has come and been answered (loopback keeps nothing)."""
        still = 0
        while still < 3:
            before = self._moved()
            self.turn()
            for card in self.cards:
                card.pump()
            still = still + 1 if self._moved() == before else 0

    def after(self, seconds: float) -> None:
        """Time passes; nothing but the hub's timers happens at its end."""
        self.clock.now += seconds
        self.turn()

    def card(self, user: str = "a", *, joined: bool = True, **login: Any) -> "Card":
        card = Card(user, self.address, self.turn, self.clock)
        self.cards.append(card)
        if joined:
            card.join(**login)
        return card

    def cut(self, card: "Card", *, reset: bool = False) -> None:
        """Cut its link, and let the hub notice."""
        session = self.session(card)
        card.cut(reset=reset)
        self.until(lambda: not session.tunnels, "the cut")

    def session(self, card: "Card") -> ResumableSession:
        session = self.sessions.named("", card.welcome.session_name)
        assert isinstance(session, ResumableSession)
        return session

    def events(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]

    # the way to control
    is_crowded = False
    away = False
    unanswered = ""  # a user of whom control says nothing

    def tell(self, message: Message) -> bool:
        self.told.append(message)
        return True

    def ask(self, asked: LoginAsked | PasswordAsked | AdminAsked | RpcAsked) -> bool:
        self.asked.append(asked)
        if self.away:
            return False
        user = "" if isinstance(asked, AdminAsked | RpcAsked) else asked.user
        if isinstance(asked, RpcAsked) or (user and user == self.unanswered):
            return True
        answer = LoginAnswered(asked.ask, **{"hub": asked.hub, "user": user, **self.answers})
        self.loop.at(self.loop.now, lambda: self.door.answered(answer))
        return True

    def _on_listener(self, _events: int) -> None:
        self.door.accept(self._listener)

    def refused(self, message: LoginRefused) -> None:
        self.told.append(message)

    def _moved(self) -> tuple[int, ...]:
        counts = [session.count for session in self.sessions]
        return (
            sum(count.bytes_in + count.tls_writes for count in counts),
            sum(len(link.plain) + link.came for card in self.cards for link in card.links),
            len(self.wiring.lingering),
        )


class Link:
    """One TLS connection of a card's; what it brings is kept until somebody takes it."""

    def __init__(self, number: int, address: Address, wait: Callable[[], object], source: str = "") -> None:
        self.number = number
        self.wait = wait
        self.sock = socket.create_connection(address, source_address=(source, 0) if source else None)
        tune(self.sock)  # no Nagle: what is sent is there at once
        self.tls = TlsChannel(CONTEXT, server_side=False)
        self.http = ClientSide("hub.example")
        self.decoder = BlockDecoder(extended=True)
        self.plain = b""
        self.came = 0  # bytes so far
        self.ended = ""  # "close_notify", "end without close_notify" or "reset"
        self.tls.start()
        self.flush()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + DEADLINE
        while not (result := condition()):
            assert time.monotonic() < end, f"not in time: {what}"
            self.wait()
            self.read()
        return result

    def write(self, plain: bytes) -> None:
        """Everything, whatever it takes."""
        self.tls.send(plain)
        self.flush()
        while self.tls.backlog and not self.ended:
            self.wait()
            self.read()
            self.flush()

    def flush(self) -> None:
        try:
            while data := self.tls.outgoing():
                self.tls.sent(self.sock.send(data))
        except BlockingIOError:
            pass
        except OSError:
            self.ended = self.ended or "reset"

    def read(self) -> None:
        """Whatever is there."""
        while not self.ended:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                self.ended = "reset"
                return
            if not data:
                self.ended = "end without close_notify"
                return
            plain = self.tls.receive(data)
            self.plain += plain
            self.came += len(plain)
            self.flush()
            if self.tls.state is TlsState.PEER_CLOSED:
                self.ended = "close_notify"

    def take(self) -> bytes:
        plain, self.plain = self.plain, b""
        return plain

    def exchange(self, request: bytes) -> Response:
        self.write(request)

        return self.answer()

    def answer(self) -> Response:
        """Read until an HTTP answer is whole."""

        def read() -> Response | None:
            return self.http.receive(self.take()) if self.plain else (self.http.end() if self.ended else None)

        response: Response = self.until(read, "an answer")
        return response

    def pack(self, pack: Pack) -> Pack:
        answer = read_pack(self.exchange(pack_request(self.http, pack)))
        assert answer is not None
        return answer

    def hello(self) -> None:
        self.until(lambda: self.tls.state is TlsState.OPEN, "TLS")
        pack = read_pack(self.exchange(signature_request(self.http)))
        assert pack is not None
        assert isinstance(read_hello(pack), Hello)

    def drop(self, *, reset: bool = False) -> None:
        """Gone without a word, with all that was not read."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()
        self.ended = "dropped"


@dataclass(eq=False)
class Card:
    """One end of a session: offers numbered frames, keeps what it gets."""

    user: str
    address: Address
    wait: Callable[[], object]
    clock: Callable[[], float]
    links: list[Link] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    byes: list[Bye] = field(default_factory=list)
    blocked: list[str | None] = field(default_factory=list)  # because of which port, as the hub said
    options: list[PeerOptions] = field(default_factory=list)
    key: bytes = b""

    def dial(self) -> Link:
        """A link that has come as far as the hello."""
        link = Link(len(self.links) + 1, self.address, self.wait)
        self.links.append(link)
        link.hello()
        return link

    def join(self, **login: Any) -> None:
        link = self.dial()
        values = {"extension": 1, "extension_oldest": 1, "resume": True, "client": "test card", **login}
        answer = read_answer(
            link.pack(Login("LAN", self.user, 2, plain_password="correct horse", **values).to_pack(b""))
        )
        if isinstance(answer, ErrorAnswer):
            raise answer.refusal()
        assert isinstance(answer, Welcome)
        self.welcome = answer
        self.machine = Machine(CARD_MOVES, link.number)
        link.decoder = self.decoder()
        link.plain = link.http.take_over() + link.take()

    def decoder(self) -> BlockDecoder:
        """For a link that begins to carry the session."""
        return BlockDecoder(extended=bool(self.welcome.grace_s), super_frames=bool(self.welcome.super_frames))

    @property
    def link(self) -> Link | None:
        """The one that carries the session, or is asked to."""
        return self.links[self.machine.link - 1] if self.machine.link else None

    def cut(self, *, reset: bool = False) -> None:
        """The link that carries the session goes, with all that was not read."""
        assert self.link is not None
        self.link.drop(reset=reset)
        self.machine.lost(self.link.number)

    def ask(self, link: Link) -> None:
        """Ask for a resume, and read no answer. What the old link brings is nobody's from here on."""
        resume = self.machine.ask(link.number)
        assert resume is not None
        link.write(pack_request(link.http, self.request(resume)))

    def request(self, resume: Resume | None) -> Pack:
        return AdditionalConnect(self.key or self.welcome.session_key, resume=resume).to_pack(b"")

    def answered(self, link: Link) -> int:
        """Read the answer to `ask`; how many records the hub gets once more. Raises: Refused."""
        pack = read_pack(link.answer())
        assert pack is not None
        answer = read_additional_answer(pack)
        if isinstance(answer, ErrorAnswer):
            self.refusal = answer
            self.machine.refused(link.number)
            raise answer.refusal()
        assert isinstance(answer, AdditionalAnswer)
        assert answer.have is not None
        again = self.machine.answered(link.number, answer.have)
        assert again is not None
        link.decoder = self.decoder()
        link.plain = link.http.take_over() + link.take()
        self.flush()
        return again

    def resume(self) -> int:
        """Go on over a new link; gives how many records the hub gets once more."""
        link = self.dial()
        self.ask(link)
        return self.answered(link)

    def send(self, *frames: bytes) -> None:
        self.machine.send(encode_frames(frames), len(frames))
        self.flush()

    def flush(self) -> None:
        link = self.link
        while link is not None and not link.ended and (data := self.machine.take(65536)):
            link.write(data)

    def flush_part(self, part: float) -> None:
        """Only a part of the next write gets through before the link goes."""
        link = self.link
        data = self.machine.take(65536)
        if link is not None and not link.ended:
            link.write(data[: int(len(data) * part)])
        if link is not None:
            self.cut()

    def pump(self) -> None:
        """Take what has come, acknowledge what is due."""
        link = self.link
        if link is None or not self.machine.carries(link.number):
            return
        link.read()
        self.feed(link)
        have = self.machine.ack(self.clock())
        if have is not None and not link.ended:
            link.write(encode_have(have))
        if link.ended:
            self.machine.lost(link.number)

    def feed(self, link: Link) -> None:
        data = link.take()
        if not data:
            return
        frames = link.decoder.feed(data)
        if self.welcome.grace_s:
            self.machine.received(len(frames), len(data), self.clock())
        self.got += frames
        controls, link.decoder.controls = link.decoder.controls, []
        for control in controls:
            if isinstance(control, Have):
                self.machine.acknowledged(control.number)
            elif isinstance(control, Bye):
                self.byes.append(control)
                self.machine.bye()
            elif isinstance(control, Blocked):
                self.blocked.append(control.because)
            else:
                self.options.append(control)

    def say(self, batch: bytes) -> None:
        """Control records or anything else, beside the machine."""
        assert self.link is not None
        self.link.write(batch)

    @property
    def numbers(self) -> list[int]:
        return [number_of(data) for data in self.got]


__all__ = ["Card", "Field", "Link", "PeerViolation", "Refused", "frame", "number_of"]
