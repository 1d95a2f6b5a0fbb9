"""A connection that carries a session with exact resume: its blocks are counted records, with control records between
them (docs/protocol.md, "Exact resume").
"""

from typing import TYPE_CHECKING

from ukihashi.hub.connection import Connection
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.tunnel import Tunnel
from ukihashi.session.timers import KEEPALIVE_S
from ukihashi.wire.blocks import BlockDecoder
from ukihashi.wire.extension import Bye, ControlRecord, Have, PeerOptions, encode_options

if TYPE_CHECKING:
    from ukihashi.hub.resumable import ResumableSession


class RecordTunnel(Tunnel):
    """The stage of the connection that carries a session with exact resume."""

    __slots__ = ("_interval", "_peer_interval", "link")

    _session: "ResumableSession"

    def __init__(
        self, session: "ResumableSession", connection: Connection, loop: Loop, limits: Limits, link: int
    ) -> None:
        self._interval = KEEPALIVE_S  # of our keep-alives, as the card knows it
        self._peer_interval = KEEPALIVE_S  # of the card's, unless it has told another
        self.link = link
        super().__init__(session, connection, loop, limits)
        self._decoder = BlockDecoder(extended=True, super_frames=bool(session.member.super_frames))

    def start(self) -> None:
        super().start()
        self._tell_interval()

    def set_limits(self, limits: Limits) -> None:
        super().set_limits(limits)
        self._tell_interval()

    def write(self, batch: bytes, now: float) -> None:
        self._law.sent(now)
        self.connection.send(batch)

    def received(self, plain: bytes, now: float) -> None:
        """Records of the card, split anywhere."""
        session = self._session
        if not session.carries(self.link):
            return
        self._heard(now)
        session.heard_first()
        decoder = self._decoder
        before = decoder.super_frames
        frames = decoder.feed(plain)
        if frames:
            session.arrived(frames, len(plain), now, super_frames=decoder.super_frames != before)
        if decoder.controls:
            controls, decoder.controls = decoder.controls, []
            for control in controls:
                if session.carries(self.link):  # a goodbye ends it
                    self._obey(control)

    def _obey(self, control: ControlRecord) -> None:
        if isinstance(control, Have):
            self._session.acknowledged(control.number)
        elif isinstance(control, PeerOptions):
            self._peer_interval = control.keepalive_ms / 1000
            self._set_dead(self._session.limits.dead_s, self._loop.now)
            self._arm()
        elif isinstance(control, Bye):
            self._session.left(control)

    def _set_dead(self, after_s: float, heard: float) -> None:
        """A card that says less often that it lives is given more time."""
        super()._set_dead(max(after_s, 3 * self._peer_interval), heard)

    def _tell_interval(self) -> None:
        interval = self._session.limits.idle_s
        if interval != self._interval and self.connection.is_open:
            self._interval = interval
            self.write(encode_options(PeerOptions(round(interval * 1000))), self._loop.now)

    def _keepalive(self) -> bytes:
        return self._session.keepalive()
