"""The dialler's view of the data process: start it, pass it connections, hear from it (asyncio)."""

import asyncio
import contextlib
import socket
import sys
from typing import Final, Protocol

import msgspec

from ukihashi.card.messages import (
    MAX_MESSAGE,
    Apply,
    Ask,
    Asked,
    Connect,
    Counters,
    End,
    Failed,
    GiveUp,
    GoOn,
    Greeted,
    LoopFound,
    Lost,
    Message,
    Opened,
    Ready,
    Recovered,
    SentOn,
    Settings,
    Sign,
    Signed,
    Stop,
    Suspect,
    Trouble,
    decode,
    encode,
)
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.tap.frame_pipe import Cable

START_S: Final = 15.0  # seconds a new process may take to be ready
STOP_S: Final = 3.0  # seconds it may take to say goodbye to the hub
ANSWER_S: Final = 3.0
SPARE_S: Final = 2.0  # seconds added to an attempt's own deadline before the process counts as stuck
MAX_EVENTS: Final = 64  # waiting ones; more than a sane process ever has

Event = Opened | Failed | Lost | Greeted | Sign | SentOn | Suspect | Recovered | Asked | LoopFound


class Process(Protocol):
    """What is asked of a started process."""

    @property
    def pid(self) -> int:
        """Its number."""

    def kill(self) -> None:
        """End it now. Raises: ProcessLookupError: it has ended."""

    async def wait(self) -> int:
        """Wait for its end."""


class DataChild:
    """One running data process. `events` gives what it reports; `None` in it means that the process is gone."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._ready = asyncio.Event()
        self._counters: asyncio.Future[Counters] | None = None
        self.events: asyncio.Queue[Event | None] = asyncio.Queue(MAX_EVENTS)
        self.alive = True
        asyncio.get_running_loop().add_reader(control.fileno(), self._readable)

    @classmethod
    async def start(cls, tap: Cable) -> "DataChild":
        """Start the process and wait until it has given up its rights. Raises: EnvironmentLacks."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder we happen to be in
                "-m",
                "ukihashi.card.data_main",
                str(theirs.fileno()),
                str(tap.fd),
                tap.name,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), tap.fd),
            )
        return await cls.adopt(process, ours)

    @classmethod
    async def adopt(cls, process: Process, control: socket.socket) -> "DataChild":
        """Wait until a process that was started has given up its rights. Raises: EnvironmentLacks."""
        child = cls(process, control)
        try:
            async with asyncio.timeout(START_S):
                await child._ready.wait()
        except TimeoutError as error:
            await child.stop()
            raise EnvironmentLacks(
                N_("the card's data process did not start within {seconds:g} s"), seconds=START_S
            ) from error
        if not child.alive:
            await child.stop()
            raise EnvironmentLacks(N_("the card's data process ended at once; the log says why"))
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def connect(self, order: Connect, sock: socket.socket, udp: socket.socket | None = None) -> None:
        """Hand a connected socket over; it is closed here. `Opened` or `Failed` will be among the events.

        `udp`: a socket that a login shall offer to a standard hub; closed here too.
        """
        with sock, udp or contextlib.nullcontext():
            self._send(order, [sock.fileno()] if udp is None else [sock.fileno(), udp.fileno()])

    def give_up(self, attempt: int, error: UkihashiError) -> None:
        """Close the link of an attempt, whatever it does; `Failed` or `Lost` will be among the events, if it lived."""
        self._send(GiveUp(attempt, Trouble.of(error)))

    def go_on(self, attempt: int) -> None:
        """The answer to `Greeted`."""
        self._send(GoOn(attempt))

    def signed(self, attempt: int, signature: bytes) -> None:
        """The answer to `Sign`."""
        self._send(Signed(attempt, signature))

    def end(self, trouble: Trouble) -> None:
        """End the session in good order; a `Lost` with `over` will be among the events."""
        self._send(End(trouble))

    def apply(self, settings: Settings) -> None:
        """From now on these settings."""
        self._send(Apply(settings))

    def report(self, event: Event) -> None:
        """Put something of the dialler's own among the events, e.g. a dial that came to nothing."""
        if self.alive and not self.events.full():
            self.events.put_nowait(event)

    async def counters(self) -> Counters:
        """What it has counted so far; zeros from a process that does not answer."""
        return await self._answer() or Counters()

    async def answers(self) -> bool:
        """It turns; or it has ended, which is noticed anyway."""
        return await self._answer() is not None

    async def _answer(self) -> Counters | None:
        if self._counters is None or self._counters.done():
            self._counters = asyncio.get_running_loop().create_future()
            self._send(Ask())
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.shield(self._counters)
        except TimeoutError:
            return None

    async def next_event(self, seconds: float | None = None) -> Event | None:
        """The next event; None if the process is gone, or did not report within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.events.get()
        except TimeoutError:
            return None

    async def stop(self) -> None:
        """Let it say goodbye to the hub, then be sure that it is gone. A second call does nothing."""
        self._send(Stop())
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._gone()

    def _send(self, message: Message, descriptors: list[int] | None = None) -> None:
        if not self.alive:
            return
        try:
            socket.send_fds(self._control, [encode(message)], descriptors or [])
        except OSError:  # gone, or so stuck that its few messages do not fit any more
            self._gone()

    def _readable(self) -> None:
        try:
            data = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            message = decode(data)
        except msgspec.MsgspecError:  # also the end of the stream
            self._gone()
            return
        match message:
            case Ready():
                self._ready.set()
            case Counters():
                if self._counters is not None and not self._counters.done():
                    self._counters.set_result(message)
            case (
                Opened()
                | Failed()
                | Lost()
                | Greeted()
                | Sign()
                | SentOn()
                | Suspect()
                | Recovered()
                | Asked()
                | LoopFound()
            ):
                try:
                    self.events.put_nowait(message)
                except asyncio.QueueFull:
                    self._gone()
            case _:
                self._gone()

    def _gone(self) -> None:
        if not self.alive:
            return
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._ready.set()
        if self._counters is not None and not self._counters.done():
            self._counters.set_result(Counters())
        while self.events.full():
            self.events.get_nowait()
        self.events.put_nowait(None)
