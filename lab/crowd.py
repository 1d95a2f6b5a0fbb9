"""Very many members at once: light cards of our own wire, hundreds in one process, none with an interface.

    with Crowd(host, hub.host.ipv4, users=["crowd"], hub="LAN", cards=1000, processes=4) as crowd:
        crowd.join()
        assert crowd.ask(crowd.stations) == set(crowd.stations)  # one frame to each station, one answer of each
        assert crowd.ask([BROADCAST]) == set(crowd.stations)  # one frame to all

A light card has its session as any card has (exact resume granted, keep-alives that acknowledge), but never resumes. It
answers what it is asked: a frame of EtherType 0x88B5 that begins with "?" goes back to its sender with "!" instead.

    with BusyPair(host, hub.host.ipv4, user="crowd", hub="LAN", first=5000) as busy:
        moved = busy.talk(3.0)  # bytes of frames, one way
"""

import contextlib
import json
import secrets
import select
import socket
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final, Self

from lab.net import Host, LabError, Process
from ukihashi.errors import UkihashiError
from ukihashi.net.link import tune
from ukihashi.net.tls import TlsChannel, client_context
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import AuthType
from ukihashi.wire.extension import encode_have, encode_have_keepalive
from ukihashi.wire.http import ClientSide, Response, pack_request, read_pack, signature_request
from ukihashi.wire.messages import ErrorAnswer, Hello, Login, Node, Welcome, read_answer, read_hello

BROADCAST: Final = b"\xff" * 6
TYPE: Final = b"\x88\xb5"
ASKS, ANSWERS = b"?", b"!"
JOINED: Final = "joined"  # printed when all of a process are
KEEPALIVE_S: Final = 5.0
AT_ONCE: Final = 16  # openings under way in one process
PATIENCE_S: Final = 400.0  # for all to join, or to answer: two cores, shared with much else
READ: Final = 1 << 16
TALK_FRAME: Final = 500  # bytes of a frame of a busy pair
TALK_BATCH: Final = 64  # of them in one write
TALK_WINDOW: Final = 256 * 1024  # bytes under way between two busy ones: less than a queue, so that nothing is dropped


def station(number: int) -> bytes:
    """The MAC address of card `number`."""
    return b"\x02\x00\x5e" + number.to_bytes(3, "big")


class LightCard:
    """One session over one connection. Raises `UkihashiError` or OSError where the hub says no or is gone."""

    def __init__(self, place: tuple[str, int], login: Login, number: int, greets: bytes, context: Any) -> None:
        """`greets`: a station that is told of ours, so that the switch knows it; if it knows that one, nobody else."""
        self.station: Final = station(number)
        self._greets = greets
        self.got: list[bytes] = []  # answers; whoever reads them empties it
        self.joined = False
        self.said_at = 0.0  # when something was sent last
        self._have = 0  # records that came
        self._http = ClientSide(place[0])
        self._decoder = BlockDecoder(extended=True)
        self._tls = TlsChannel(context, server_side=False)
        self._sock = socket.create_connection(place, PATIENCE_S)
        tune(self._sock)
        self._opening = self._open(login)
        self._begun = False
        self._tls.start()
        self._flush()

    def fileno(self) -> int:
        """Of the connection."""
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up with close_notify, and no goodbye: the hub keeps the session for its grace."""
        self._tls.close()
        with contextlib.suppress(OSError):
            self._flush()
        self._sock.close()

    def send(self, *frames: bytes) -> None:
        """One batch."""
        self._write(encode_frames(frames))

    def send_batch(self, batch: bytes) -> bool:
        """Encoded frames; False: the connection takes nothing at the moment, and nothing was done."""
        if self._tls.outgoing():
            self._send_some()
            if self._tls.outgoing():
                return False
        self._tls.send(batch)
        self.said_at = time.monotonic()
        self._send_some()
        return True

    def count(self) -> int:
        """Read once, acknowledge it; how many frames came, whatever they are."""
        try:
            plain = self._tls.receive(self._sock.recv(4 * READ))
        except BlockingIOError:
            return 0
        frames = self._decoder.feed(plain)
        self._decoder.controls.clear()
        if frames:
            self._have += len(frames)
            self._write(encode_have(self._have))
        return len(frames)

    def keep_alive(self, now: float) -> None:
        """Say something if nothing was said for long."""
        if self.joined and now - self.said_at >= KEEPALIVE_S:
            self._write(encode_have_keepalive(self._have, secrets.token_bytes(secrets.randbelow(200))))

    def read(self) -> None:
        """Take what is there."""
        while True:
            try:
                data = self._sock.recv(READ)
            except BlockingIOError:
                return
            if not data:
                raise LabError("the hub closed the connection")
            plain = self._tls.receive(data)
            if not self._begun and self._tls.version:
                self._begun = True
                self._write(next(self._opening))
            if plain:
                self._take(plain) if self.joined else self._go_on(plain)
            self._flush()

    def _open(self, login: Login) -> Generator[bytes, Response, None]:
        """Requests out, answers in."""
        pack = read_pack((yield signature_request(self._http)))
        if pack is None or not isinstance(read_hello(pack), Hello):
            raise LabError("no hello")
        pack = read_pack((yield pack_request(self._http, login.to_pack(b""))))
        answer = read_answer(pack) if pack is not None else None
        if isinstance(answer, ErrorAnswer):
            raise answer.refusal()
        if not isinstance(answer, Welcome) or not answer.grace_s:
            raise LabError(f"no welcome with exact resume: {answer}")

    def _go_on(self, plain: bytes) -> None:
        response = self._http.receive(plain)
        if response is None:
            return
        try:
            self._write(self._opening.send(response))
        except StopIteration:
            self.joined = True
            self.send((self._greets + self.station + TYPE).ljust(60, b"\0"))
            rest = self._http.take_over()
            if rest:
                self._take(rest)

    def _take(self, plain: bytes) -> None:
        frames = self._decoder.feed(plain)
        self._decoder.controls.clear()
        self._have += len(frames)
        ours = (self.station, BROADCAST)
        asked = [frame for frame in frames if frame[12:15] == TYPE + ASKS and frame[:6] in ours]
        if asked:
            self.send(*(frame[6:12] + self.station + TYPE + ANSWERS + frame[15:] for frame in asked))
        self.got += [frame for frame in frames if frame[12:15] == TYPE + ANSWERS]

    def _write(self, plain: bytes) -> None:
        self._tls.send(plain)
        self.said_at = time.monotonic()
        self._flush()

    def _send_some(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self._tls.outgoing():
                self._tls.sent(self._sock.send(data))

    def _flush(self) -> None:
        while data := self._tls.outgoing():
            try:
                self._tls.sent(self._sock.send(data))
            except BlockingIOError:  # so little is never too much for long
                select.select([], [self._sock], [], PATIENCE_S)


class Cards:
    """Light cards in one loop."""

    made: type[LightCard] = LightCard

    def __init__(self, place: tuple[str, int], users: Sequence[str], hub: str, greets: bytes) -> None:
        self._place = place
        self._greets = greets
        self._users = users
        self._hub = hub
        self._context = client_context()
        self._poll = select.epoll()
        self._cards: dict[int, LightCard] = {}
        self._kept_at = 0.0

    def __len__(self) -> int:
        return len(self._cards)

    def join(self, numbers: Iterable[int], *, seconds: float = PATIENCE_S) -> list[LightCard]:
        """Cards `numbers`, a few at a time."""
        cards: list[LightCard] = []
        coming = list(reversed(list(numbers)))
        end = time.monotonic() + seconds
        while coming or not all(card.joined for card in cards):
            under_way = sum(not card.joined for card in cards)
            cards += [self._dial(coming.pop()) for _ in range(min(AT_ONCE - under_way, len(coming)))]
            self.turn(1.0)
            if time.monotonic() > end:
                raise LabError(f"{sum(card.joined for card in cards)} of the cards had joined in {seconds:g} s")
        return cards

    def _dial(self, number: int) -> LightCard:
        user = self._users[number % len(self._users)]
        login = Login(
            self._hub,
            user,
            AuthType.ANONYMOUS,
            client="lab light card",
            node=Node(host=f"light{number}", system="Linux"),
            extension=1,
            extension_oldest=1,
            resume=True,
        )
        card = self.made(self._place, login, number, self._greets, self._context)
        self._cards[card.fileno()] = card
        self._poll.register(card.fileno(), select.EPOLLIN)
        return card

    def turn(self, longest_s: float) -> None:
        """Read what is there, answer, keep alive."""
        for fd, _events in self._poll.poll(longest_s):
            try:
                self._cards[fd].read()
            except (UkihashiError, LabError):  # it is no card any more
                self._poll.unregister(fd)
                self._cards.pop(fd).close()
                raise
        now = time.monotonic()
        if now - self._kept_at > KEEPALIVE_S / 10:
            self._kept_at = now
            for card in self._cards.values():
                card.keep_alive(now)

    def close(self) -> None:
        """All of them."""
        for card in self._cards.values():
            card.close()
        self._cards.clear()
        self._poll.close()


class Crowd:
    """`cards` light cards on `host`, in some processes, and one more in this process that asks them."""

    def __init__(
        self, host: Host, address: str, *, users: Sequence[str], hub: str, cards: int, processes: int, port: int = 443
    ) -> None:
        self._host = host
        self._place = (address, port)
        self._users = list(users)
        self._hub = hub
        self._parts = [range(first, cards, processes) for first in range(processes)]
        self._processes: list[Process] = []
        with host.inside():
            self._own = Cards(self._place, self._users, hub, BROADCAST)
            (self._asker,) = self._own.join([cards])
        self._round = 0
        self.stations: Final = [station(number) for number in range(cards)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()
        for process in self._processes:
            process.stop()

    def join(self, *, seconds: float = PATIENCE_S) -> None:
        """All of them; returns when all have. Raises: LabError."""
        for part in self._parts:
            what = {
                "place": self._place,
                "users": self._users,
                "hub": self._hub,
                "greets": self._asker.station.hex(),
                "numbers": list(part),
            }
            argv = [sys.executable, "-m", "lab.crowd", json.dumps(what)]
            self._processes.append(self._host.spawn(argv, log=f"crowd{part.start}"))
        end = time.monotonic() + seconds
        while not all(JOINED in process.output() for process in self._processes):
            self.wait(0.1)
            if not self.is_whole or time.monotonic() > end:
                raise LabError("the crowd did not join: " + "".join(process.output() for process in self._processes))

    @property
    def is_whole(self) -> bool:
        """Nobody has lost the session: a process ends when one of its cards has."""
        return all(process.running for process in self._processes)

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._own.turn(min(left, 0.5))

    def ask(self, stations: Sequence[bytes], *, seconds: float = PATIENCE_S) -> set[bytes]:
        """Ask each of `stations`, once; who has answered when all of the crowd have, or when the time is over."""
        self._round += 1
        token = self._round.to_bytes(4, "big")
        for at in range(0, len(stations), 64):
            self._asker.send(*(self._question(to, token) for to in stations[at : at + 64]))
            self._own.turn(0.0)
        answered: set[bytes] = set()
        end = time.monotonic() + seconds
        while len(answered) < len(self.stations) and time.monotonic() < end:
            self._own.turn(0.2)
            answered |= {frame[6:12] for frame in self._asker.got if frame[15:19] == token}
            self._asker.got.clear()
        return answered

    def _question(self, to: bytes, token: bytes) -> bytes:
        return (to + self._asker.station + TYPE + ASKS + token).ljust(60, b"\0")


class BusyPair:
    """Two more cards: one sends to the other as fast as the hub takes it and the other acknowledges it."""

    def __init__(self, host: Host, address: str, *, user: str, hub: str, first: int, port: int = 443) -> None:
        """`first`: number of the first card; the other has the next."""
        with host.inside():
            self._cards = Cards((address, port), [user], hub, BROADCAST)
            self._one, self._other = self._cards.join([first, first + 1])
        self._cards.turn(0.5)  # what they said as they came
        frame = (self._other.station + self._one.station + TYPE).ljust(TALK_FRAME, b".")
        self._batch = encode_frames([frame] * TALK_BATCH)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cards.close()

    def rest(self) -> None:
        """Keep alive, while others talk."""
        self._cards.turn(0.0)

    def talk(self, seconds: float) -> int:
        """Send for so long; bytes of frames that came."""
        sent = came = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end or came < sent:
            if time.monotonic() > end + PATIENCE_S:
                raise LabError(f"{sent - came} of {sent} frames of a busy pair did not come")
            wants = time.monotonic() < end and (sent - came) * TALK_FRAME < TALK_WINDOW
            readable, writable, _ = select.select([self._one, self._other], [self._one] if wants else [], [], 0.5)
            if writable and self._one.send_batch(self._batch):
                sent += TALK_BATCH
            if self._other in readable:
                came += self._other.count()
            if self._one in readable:
                self._one.count()
        return came * TALK_FRAME


def main() -> int:
    """Some cards, until the process is told to end."""
    what = json.loads(sys.argv[1])
    cards = Cards(tuple(what["place"]), what["users"], what["hub"], bytes.fromhex(what["greets"]))
    try:
        cards.join(what["numbers"])
        print(JOINED, flush=True)
        while True:
            cards.turn(1.0)
    except (UkihashiError, LabError, OSError) as error:
        print("ended:", error, flush=True)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
