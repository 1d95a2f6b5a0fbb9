"""Several workers of one hub without their processes: a `Field` for each, with real links between them."""

import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.hub.cards import DEADLINE, Card, Field

from ukihashi.hub.limits import Limits
from ukihashi.hub.mesh import mesh_pair
from ukihashi.hub.messages import HubPut
from ukihashi.hub.neighbours import Neighbours
from ukihashi.hub.resumable import ResumableSession
from ukihashi.hub.session import Session
from ukihashi.hub.trunk import MeshedHub


class Farm:
    """They turn one after the other, in an order drawn by chance if there is a seed."""

    def __init__(self, context: Any, limits: Limits, count: int, seed: int | None = None) -> None:
        self.chance = random.Random(seed) if seed is not None else None
        self.fields = [Field(context, limits) for _ in range(count)]
        self.neighbours: list[Neighbours] = []
        for number, field in enumerate(self.fields):
            field.sessions.remove_hub("LAN")
            field.sessions.worker, field.sessions.workers = number, count
            made = Neighbours(number, field.sessions, field.tell)
            field.door.seek = made.seek
            self.neighbours.append(made)
            field.sessions.put_hub(HubPut("LAN"))
        for one in range(count):
            for other in range(one):
                self.join(one, other)
        self.cards: list[Card] = []

    def join(self, one: int, other: int) -> None:
        pair = mesh_pair()
        self.neighbours[one].add(other, pair[0])
        self.neighbours[other].add(one, pair[1])

    def close(self) -> None:
        for made in self.neighbours:
            made.close()
        for field in self.fields:
            field.close()

    def put_hub(self, settings: HubPut) -> None:
        for field in self.fields:
            field.sessions.put_hub(settings)

    def turn(self) -> None:
        fields = list(self.fields)
        if self.chance is not None:
            self.chance.shuffle(fields)
            fields = fields[: self.chance.randint(1, len(fields))]
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


def dead_end(farm: Farm, worker: int, number: int) -> socket.socket:
    """Another worker that is there and says nothing."""
    pair = mesh_pair()
    farm.neighbours[worker].add(number, pair[0])
    return pair[1]


def numbers(frames: Sequence[bytes], by: int) -> list[int]:
    """Of the frames of one station."""
    return [int.from_bytes(one[14:18], "big") for one in frames if one[6:12] == b"\x02\0\0\0\0" + bytes([by])]
