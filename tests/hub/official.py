"""An official client without its program: any number of connections, half duplex, compression, with and without TLS.

It talks to a `Field`, whose hub turns whenever the client waits, by a clock that stands still.
"""

from collections.abc import Callable
from typing import Any

from tests.hub.cards import Address, Field, Link

from ukihashi.errors import Refused
from ukihashi.net.clear import ClearChannel, cut_records
from ukihashi.wire.blocks import BlockDecoder, compress, decompress, encode_frames
from ukihashi.wire.constants import Direction
from ukihashi.wire.http import pack_request, read_pack
from ukihashi.wire.messages import (
    AdditionalAnswer,
    AdditionalConnect,
    ErrorAnswer,
    Login,
    Welcome,
    read_additional_answer,
    read_answer,
)
from ukihashi.wire.pack import Pack


class Lane(Link):
    """One connection. It takes one TLS record at a time, as what follows the last may be no TLS."""

    def __init__(self, address: Address, wait: Callable[[], object], source: str = "") -> None:
        self.raw = bytearray()  # has come, not looked at
        super().__init__(1, address, wait, source)
        self.decoder = BlockDecoder()
        self.frames: list[bytes] = []
        self.direction = Direction.BOTH

    def read(self) -> None:
        over = ""
        while not self.ended and not over:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                over = "reset"
            else:
                over = "" if data else "end without close_notify"
                self.raw += data
        before = len(self.raw)
        self._take()
        if len(self.raw) == before:  # nothing is left that could say goodbye
            self.ended = self.ended or over

    def _take(self) -> None:
        if isinstance(self.tls, ClearChannel):
            self.plain += bytes(self.raw)
            self.raw.clear()
            return
        for record in cut_records(self.raw):
            plain = self.tls.receive(record)
            self.plain += plain
            self.flush()
            if self.tls.state.name == "PEER_CLOSED":
                self.ended = "close_notify"
            if plain:  # perhaps the end of an answer
                return

    def leave_tls(self) -> None:
        self.tls = ClearChannel()  # type: ignore[assignment]

    def into_tunnel(self, *, clear: bool = False) -> None:
        """The opening is over: what has come beyond it is the tunnel's."""
        if clear:
            self.leave_tls()
        self.plain = self.http.take_over() + self.plain


class Client:
    """See the module. What `join` takes are fields of `wire.messages.Login`."""

    def __init__(self, field: Field, source: str = "") -> None:
        """`source`: the address it has, one of 127.0.0.0/8."""
        self.field = field
        self.source = source
        self.lanes: list[Lane] = []

    def join(self, user: str = "a", **login: Any) -> None:
        """Raises: Refused."""
        lane = self.dial()
        answer = read_answer(lane.pack(self.request(user, **login)))
        if isinstance(answer, ErrorAnswer):
            self.refusal = answer
            raise answer.refusal()
        assert isinstance(answer, Welcome)
        self.welcome = answer
        if answer.half_connection:
            lane.direction = Direction.TO_SERVER
        lane.into_tunnel(clear=not answer.use_encrypt)

    @staticmethod
    def request(user: str, **login: Any) -> Pack:
        values = {"client": "test client", "client_build": 9000, **login}
        return Login("LAN", user, 2, plain_password="x", **values).to_pack(b"")

    def dial(self) -> Lane:
        """A connection that has come as far as the hello."""
        lane = Lane(self.field.address, self.field.turn, self.source)
        self.lanes.append(lane)
        lane.hello()
        return lane

    def more(self) -> Lane:
        """One more connection. Raises: Refused."""
        lane = self.dial()
        answer = read_additional_answer(lane.pack(AdditionalConnect(self.welcome.session_key).to_pack(b"")))
        if isinstance(answer, ErrorAnswer):
            raise answer.refusal()
        assert isinstance(answer, AdditionalAnswer)
        lane.direction = Direction(answer.direction)
        lane.into_tunnel(clear=not self.welcome.use_encrypt)
        return lane

    def send(self, *frames: bytes, over: Lane | None = None) -> None:
        lane = over or next(one for one in self.lanes if one.direction != Direction.TO_CLIENT)
        blocks = [compress(frame) for frame in frames] if self.welcome.use_compress else frames
        lane.write(encode_frames(blocks))

    def came(self) -> list[bytes]:
        """All frames so far, by connection."""
        for lane in self.lanes:
            lane.read()
            while lane.plain or lane.raw:
                before = len(lane.plain), len(lane.raw)
                blocks = lane.decoder.feed(lane.take())
                lane.frames += [decompress(block) or b"" for block in blocks] if self.welcome.use_compress else blocks
                lane._take()
                if (len(lane.plain), len(lane.raw)) == before:
                    break
        return [frame for lane in self.lanes for frame in lane.frames]

    def receive(self, count: int) -> list[bytes]:
        """Wait for `count` frames in all, and take them."""
        self.field.until(lambda: len(self.came()) >= count, f"{count} frames, not {self.came()}")
        frames = self.came()
        for lane in self.lanes:
            lane.frames = []
        return frames

    @property
    def keepalives(self) -> list[int]:
        """That came, on each connection."""
        self.came()
        return [lane.decoder.keepalives for lane in self.lanes]

    @property
    def session(self) -> Any:
        return self.field.sessions.named("", self.welcome.session_name)

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = self.session.row(self.field.loop.now)
        return row

    def close(self) -> None:
        for lane in self.lanes:
            lane.sock.close()


def ask(lane: Lane, pack: Pack) -> Pack:
    """A PACK's answer."""
    answer = read_pack(lane.exchange(pack_request(lane.http, pack)))
    assert answer is not None
    return answer


__all__ = ["Client", "Lane", "Refused", "ask"]
