"""Several workers of one hub without their processes: a `Field` for each, with real links between them."""

import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from tests.hub.cards import DEADLINE, Card, Field

from ukihashi.hub.handover import restore, save
from ukihashi.hub.limits import Limits
from ukihashi.hub.mesh import mesh_pair
from ukihashi.hub.messages import HubPut
from ukihashi.hub.neighbours import Neighbours
from ukihashi.hub.resumable import ResumableSession
from ukihashi.hub.session import Session
from ukihashi.hub.trunk import MeshedHub

PIECE: Final = 600  # bytes that a hesitant stream moves at once, at most
ROOM: Final = 6000  # bytes that it takes before they are read, about


class Hesitant(socket.socket):
    """A stream between workers that moves little at a time, or nothing, as chance will have it."""

    def __init__(self, sock: socket.socket, chance: random.Random) -> None:
        super().__init__(fileno=sock.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self._chance = chance

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self._chance.random() < 0.6:
            raise BlockingIOError
        return super().recv(min(size, self._chance.randint(1, PIECE)), flags)

    def sendmsg(self, pieces: Any, *rest: Any) -> int:
        if self._chance.random() < 0.3:
            raise BlockingIOError
        return super().sendmsg(pieces, *rest)


class Farm:
    """They turn one after the other, in an order drawn by chance if there is a seed.

    `hesitates`: each of their streams is as slow as it likes, and time passes.
    """

    def __init__(
        self, context: Any, limits: Limits, count: int, seed: int | None = None, *, hesitates: bool = False
    ) -> None:
        self.chance = random.Random(seed) if seed is not None else None
        self.hesitates = hesitates
        self.cards: list[Card] = []
        self._made = context, limits
        self._old: list[tuple[Field, Neighbours]] = []  # of the programs before
        self.fields: list[Field] = []
        self.neighbours: list[Neighbours] = []
        self._begins_later: list[Neighbours] = []  # of the new program
        self._begin(count)

    def _begin(self, count: int, *, now: float | None = None) -> None:
        """Workers of a new program; with `now` (the time) they wait for what those before leave to them."""
        self.fields, self.neighbours = [Field(*self._made) for _ in range(count)], []
        for number, field in enumerate(self.fields):
            field.sessions.remove_hub("LAN")
            field.sessions.worker, field.sessions.workers = number, count
            field.clock.now = now or field.clock.now
            made = Neighbours(number, field.sessions, field.tell, waits=now is not None)
            field.door.seek = made.seek
            self.neighbours.append(made)
            field.sessions.put_hub(HubPut("LAN"))
        for one in range(count):
            for other in range(one):
                self.join(one, other)

    def upgrade(self, count: int) -> None:
        """As `hub upgrade`: all sessions go to so many new workers. Old and new ones get their orders by and by."""
        assert self.chance is not None
        olds, states = list(zip(self.fields, self.neighbours, strict=True)), list[int]()
        self._old += olds
        self._begin(count, now=max(field.clock.now for field in self.fields))
        self.chance.shuffle(olds)

        def let_go(field: Field, neighbours: Neighbours) -> None:  # as `Worker` does it
            field.outbox.flush()
            neighbours.close()
            states.append(save(field.sessions))

        for field, neighbours in olds:
            self._turns(olds)
            field.door.close()
            for session in field.sessions:
                for tunnel in session.tunnels:
                    tunnel.connection.pause()
            field.outbox.flush()
            neighbours.part(partial(let_go, field, neighbours))
        while len(states) < len(olds):
            self._turns(olds)
        for number, state in enumerate(states):
            restore(self.fields[number % count].sessions, state)
            os.close(state)
        heirs = list(self.neighbours)
        self.chance.shuffle(heirs)
        for card in self.cards:
            if card.link is not None:
                card.cut()
        self._begins_later = heirs

    def serve(self) -> int:
        """One more of the new workers serves; its number."""
        neighbours = self._begins_later.pop()
        neighbours.begin()
        return neighbours.number

    def _turns(self, olds: Sequence[tuple[Field, Neighbours]]) -> None:
        assert self.chance is not None
        for _ in range(self.chance.randint(1, 20)):
            for field, _neighbours in olds:
                field.clock.now += 0.001
                if self.chance.random() < 0.5:
                    field.turn()

    def join(self, one: int, other: int, *, is_new: bool = False) -> None:
        """A stream between two; `is_new`: each takes the other for one that has just been started."""
        pair = mesh_pair()
        if self.hesitates:
            assert self.chance is not None
            pair = Hesitant(pair[0], self.chance), Hesitant(pair[1], self.chance)
        self.neighbours[one].add(other, pair[0], is_new=is_new)
        self.neighbours[other].add(one, pair[1], is_new=is_new)

    def close(self) -> None:
        for field, made in [*self._old, *zip(self.fields, self.neighbours, strict=True)]:
            made.close()
            field.close()

    def put_hub(self, settings: HubPut) -> None:
        for field in self.fields:
            field.sessions.put_hub(settings)

    def turn(self) -> None:
        fields = list(self.fields)
        if self.chance is not None:
            self.chance.shuffle(fields)
            fields = fields[: self.chance.randint(1, len(fields))]
        if self.hesitates:
            for field in self.fields:
                field.clock.now += 0.001
        for field in fields:
            field.turn()

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        end = time.monotonic() + DEADLINE
        while not (result := condition()):
            assert time.monotonic() < end, f"not in time: {what}"
            self.turn()
            for card in self.cards:
                card.pump()
        return result

    def quiet(self) -> None:
        """Turn for so long that whatever is under way has come."""
        for _ in range(40):
            for field in self.fields:
                field.turn()
            for card in self.cards:
                card.pump()

    def after(self, seconds: float) -> None:
        for field in self.fields:
            field.clock.now += seconds
        self.quiet()

    def card(self, worker: int, user: str, **login: Any) -> Card:
        field = self.fields[worker]
        card = Card(user, field.address, self.turn, field.clock)
        field.cards.append(card)  # it closes them
        self.cards.append(card)
        card.join(**login)
        return card

    def go_to(self, card: Card, worker: int) -> None:
        """The next connections of the card come to that worker."""
        card.address = self.fields[worker].address

    def where(self, card: Card) -> list[int]:
        """The workers that have its session."""
        name = card.welcome.session_name
        return [number for number, field in enumerate(self.fields) if field.sessions.named("", name) is not None]

    def session(self, card: Card) -> Session:
        found = self.fields[self.where(card)[0]].sessions.named("", card.welcome.session_name)
        assert found is not None
        return found

    def resumable(self, card: Card) -> ResumableSession:
        session = self.session(card)
        assert isinstance(session, ResumableSession)
        return session

    def hub(self, worker: int) -> MeshedHub:
        hub = self.fields[worker].sessions.hubs["lan"]
        assert isinstance(hub, MeshedHub)
        return hub

    def stations(self, worker: int) -> dict[int, str]:
        """What a worker lists: by a station's number."""
        return {int(row["mac"][-2:], 16): row["session"] for row in self.hub(worker).mac_rows(self.fields[0].clock.now)}

    def ports(self, worker: int) -> dict[int, str]:
        """What its switch knows."""
        hub, now = self.hub(worker), self.fields[worker].clock.now
        return {row.mac[5]: hub.ports[row.port].name for row in hub.switch.rows(now)}

    def lose(self, worker: int) -> None:
        """It is gone, as a process that was killed."""
        self.neighbours[worker].close()


def dead_end(farm: Farm, worker: int, number: int, *, is_new: bool = False) -> socket.socket:
    """Another worker that is there and says nothing; `is_new`: it has just been started."""
    pair = mesh_pair()
    farm.neighbours[worker].add(number, pair[0], is_new=is_new)
    return pair[1]


def numbers(frames: Sequence[bytes], by: int) -> list[int]:
    """Of the frames of one station."""
    return [int.from_bytes(one[14:18], "big") for one in frames if one[6:12] == b"\x02\0\0\0\0" + bytes([by])]
