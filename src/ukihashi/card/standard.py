"""The tunnel to a hub that can't resume exactly: a standard one, or one of ours before it could (protocol 12, 13).

Frames have no numbers: what is under way when a link is cut may be lost, and over several links they may arrive out of
order, as at the protocol's own ends. A batch goes out on the newest link that is free; all links are read alike. The
session lives as long as any of them delivers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ukihashi.card.link import Link
from ukihashi.card.messages import Settings
from ukihashi.card.opening import Outcome
from ukihashi.card.tally import Tally
from ukihashi.card.tunnel import chance, silence
from ukihashi.session.timers import KeepAlive, KeepAliveLaw, Liveness, StandardKeepAlive
from ukihashi.wire.blocks import BlockDecoder, compress, decompress, encode_frames, encode_keepalive
from ukihashi.wire.constants import SENT_KEEPALIVE, Direction

if TYPE_CHECKING:
    from ukihashi.card.udp import CardLane

NEVER: Final = float("inf")


class StandardLane:
    """One connection: what it may carry, when to speak over it, and when it is dead."""

    def __init__(
        self,
        link: Link,
        tally: Tally,
        *,
        timeout: float,
        settings: Settings | None,
        now: float,
        session: Liveness | None = None,
        direction: int = Direction.BOTH,
        compressed: bool = False,
    ) -> None:
        """
        Args:
            settings: of a hub of ours. None: a standard one, where only the session's `timeout` counts.
            session: what all its links together have heard; a link that only sends ends with it.
        """
        self.link: Final = link
        self.direction: Final = direction
        self.sends: Final = direction != Direction.TO_CLIENT
        self._compressed = compressed
        self._tally = tally
        self._decoder = BlockDecoder()
        self._keepalive: KeepAliveLaw
        if settings is None:
            self._keepalive = StandardKeepAlive(now, timeout=timeout)
        else:
            self._keepalive = KeepAlive(now, interval=settings.keepalive)
        alone = Liveness(now, dead=timeout if settings is None else settings.dead)
        self._session = session or alone
        self._liveness = alone if direction != Direction.TO_SERVER else self._session

    @property
    def free(self) -> bool:
        """It takes a batch."""
        return self.sends and not self.link.backlog

    @property
    def pending(self) -> bool:
        return False

    @property
    def due_at(self) -> float:
        return min(self._keepalive.due_at, self.silent_at) if self.sends else self.silent_at

    @property
    def silent_at(self) -> float:
        return self._liveness.dead_at

    def send(self, frames: Sequence[bytes], now: float) -> None:
        self.link.write(encode_frames([compress(frame) for frame in frames] if self._compressed else frames))
        self._tally.written(len(frames))
        self._keepalive.sent(now, chance.random())

    def pump(self, now: float) -> None:
        """All is with the link already."""

    def heard(self, now: float) -> None:
        self._liveness.heard(now)
        self._session.heard(now)

    def receive(self, plain: bytes, now: float) -> list[bytes]:  # noqa: ARG002 - as every lane
        decoder = self._decoder
        before = decoder.keepalives
        frames = decoder.feed(plain)
        self._tally.keepalives_in += decoder.keepalives - before
        if self._compressed:
            inflated = [frame for frame in map(decompress, frames) if frame is not None]
            self._tally.garbled += len(frames) - len(inflated)
            frames = inflated
        return self._tally.inward(frames)

    def obey(self, now: float) -> None:
        """Nothing comes beside frames."""

    def apply(self, settings: Settings, now: float) -> None:
        """Other times than so far, with a hub of ours."""
        self._keepalive = KeepAlive(now, interval=settings.keepalive)
        self._liveness = self._session = Liveness(now - self._liveness.silent_for(now), dead=settings.dead)

    def looks_silent(self, now: float) -> bool:
        return self._liveness.is_dead(now)

    def tick(self, now: float) -> None:
        if self.looks_silent(now):
            raise silence(self._liveness.silent_for(now))
        if self.sends and self._keepalive.is_due(now):
            if not self.link.backlog:  # else the hub hears from us as soon as anything gets through
                self.link.write(encode_keepalive(chance.randbytes(chance.randrange(SENT_KEEPALIVE + 1))))
                self._tally.keepalives_out += 1
            self._keepalive.sent(now, chance.random())


class StandardTunnel:
    """All connections of one session; see `tunnel.Tunnel` for what the loop calls."""

    def __init__(self, outcome: Outcome, tally: Tally, settings: Settings) -> None:
        """`outcome`: of the first link, which is still to be added. `settings`: they rule with a hub of ours only."""
        self.key: Final = outcome.session_key
        self.path: CardLane | None = None
        self._tally = tally
        self._compressed = outcome.terms.compressed
        self._timeout = outcome.timeout_ms / 1000
        self._settings = settings if outcome.extension else None
        self._heard: Liveness | None = None  # over any link
        self._lanes: dict[Link, StandardLane] = {}  # the oldest first
        self._newest_first: list[StandardLane] = []

    def add(self, link: Link, direction: int, now: float) -> None:
        """`link` carries the session too."""
        if self._heard is None or not self._lanes:
            self._heard = Liveness(now, dead=self._timeout if self._settings is None else self._settings.dead)
        self._lanes[link] = StandardLane(
            link,
            self._tally,
            timeout=self._timeout,
            settings=self._settings,
            now=now,
            session=self._heard,
            direction=direction,
            compressed=self._compressed,
        )
        self._sort()

    def lost(self, link: Link) -> None:
        """`link` is gone."""
        self._lanes.pop(link, None)
        self._sort()

    @property
    def links(self) -> Sequence[Link]:
        return list(self._lanes)

    @property
    def directions(self) -> list[int]:
        """Of its links, the oldest first."""
        return [lane.direction for lane in self._lanes.values()]

    def lane(self, link: Link) -> StandardLane | None:
        return self._lanes.get(link)

    @property
    def hungry(self) -> bool:
        return any(lane.free for lane in self._newest_first) or (self.path is not None and self.path.is_ready)

    @property
    def due_at(self) -> float:
        due = min((lane.due_at for lane in self._lanes.values()), default=NEVER)
        return due if self.path is None else min(due, self.path.due_at)

    @property
    def silent_at(self) -> float:
        return min((lane.silent_at for lane in self._lanes.values()), default=NEVER)

    def send(self, frames: Sequence[bytes], now: float) -> Link | None:
        if self.path is not None and self.path.is_ready:
            frames = self.path.send(frames, now)
        lane = next((lane for lane in self._newest_first if lane.free), None) if frames else None
        if lane is None:
            self._tally.crowded += len(frames)  # back from the path while every link is full
            return None
        lane.send(frames, now)
        return lane.link

    def apply(self, settings: Settings, now: float) -> None:
        """A standard hub's own times rule whatever is set here."""
        if self._settings is not None:  # a hub of ours that doesn't resume; its only link carries both directions
            self._settings = settings
            for lane in self._lanes.values():
                lane.apply(settings, now)

    def counted(self) -> dict[str, Any]:
        udp = {} if self.path is None else self.path.counted()
        return {"directions": self.directions, **udp}

    def leave(self) -> None:
        """The goodbye of its links is close_notify; its path has none."""
        if self.path is not None:
            self.path.close()
            self.path = None

    def _sort(self) -> None:
        self._newest_first = list(reversed(self._lanes.values()))
