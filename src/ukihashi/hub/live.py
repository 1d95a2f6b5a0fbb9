"""Control's links to the worker and to the supervisor."""

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog

from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.hub.messages import (
    Answered,
    AnyMessage,
    Asked,
    CascadeLink,
    Granted,
    Message,
    OptionsPut,
    PeerLink,
    Stop,
    Upgraded,
    Wish,
)
from ukihashi.hub.pipes import AsyncPipe, PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.upgrade import CHECK_S
from ukihashi.net import control_socket
from ukihashi.net.control_socket import Row

WISH_S: Final = CHECK_S + 2.0  # seconds the supervisor may take: an upgrade tries out the new program first
ANSWER_S: Final = 4.0  # seconds the worker may take; less than a command waits for us
MAX_ASKS: Final = 256  # questions under way at once

_log = structlog.get_logger()


class Links:
    """Sends to the other processes, matches answers to questions, follows the worker when it is started anew."""

    def __init__(self, supervisor: socket.socket, worker: socket.socket) -> None:
        self._supervisor: Final = supervisor
        self._pipe: AsyncPipe | None = AsyncPipe(worker)
        self._numbers: Final = itertools.count(1)
        self._asked: Final[dict[int, asyncio.Future[Answered]]] = {}
        self._wished: Final[dict[int, asyncio.Future[Granted]]] = {}
        self._replaced: Final = asyncio.Event()
        self.stopping: Final = asyncio.Event()  # set when the supervisor says so or is gone
        self.worker_ended: Final = asyncio.Event()  # its stream has been read to the end
        self.worker_stays = False  # the supervisor replaces us, not the worker
        self.on_cascade: Callable[[int, socket.socket], None] | None = None  # the process of a cascade was started

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[Row]:
        """Rows of the worker's answer. Raises EnvironmentLacks when there is none."""
        if self._pipe is None or len(self._asked) >= MAX_ASKS:
            raise _no_worker()
        number = next(self._numbers)
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._pipe.send(Asked(number, what, hub=hub, name=name, reason=reason))
                answered = await answer
        except (TimeoutError, PipeBroken):
            raise _no_worker() from None
        finally:
            del self._asked[number]
        if answered.error:
            raise EnvironmentLacks(
                N_("the switch worker could not answer “{what}”: {reason}"), what=what, reason=answered.error
            )
        return answered.rows

    async def tell_worker(self, message: Message) -> None:
        """Send a setting or an answer; nothing while there is no worker: a new one gets every setting."""
        if self._pipe is not None:
            try:
                await self._pipe.send(message)
            except PipeBroken as error:
                _log.warning("worker_lost", reason=str(error))

    async def tell_supervisor(self, message: Message) -> None:
        """Send a wish. A supervisor that is gone takes us along soon."""
        try:
            send_with_fd(self._supervisor, message)
        except PipeBroken as error:
            _log.warning("supervisor_lost", reason=str(error))
            self.stopping.set()

    async def wish(self, what: str, *, key: str = "", value: str = "") -> list[Row]:
        """Ask the supervisor to do something. Raises: UkihashiError: its no; EnvironmentLacks: no answer."""
        number = next(self._numbers)
        answer: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()
        self._wished[number] = answer
        try:
            async with asyncio.timeout(WISH_S):
                await self.tell_supervisor(Wish(number, what, key=key, value=value))
                granted = await answer
        except TimeoutError:
            raise EnvironmentLacks(N_("the hub's supervisor does not answer; the hub's log says why")) from None
        finally:
            del self._wished[number]
        if granted.template:
            raise control_socket.Answered(granted.template, granted.exit_status, granted.values)
        return granted.rows

    async def follow_worker(self, handle: Callable[[AnyMessage], None], on_new: Callable[[], Awaitable[None]]) -> None:
        """Pass every message of the worker on, for ever; `on_new` after each new worker took the old one's place."""
        while True:
            pipe = self._pipe
            if pipe is not None:
                try:
                    async for message in pipe:
                        self._receive(message, handle)
                except PipeBroken as error:
                    _log.warning("worker_lost", reason=str(error))
                pipe.close()
                if self._pipe is pipe:
                    self._pipe = None
                    self.worker_ended.set()
                self._give_up_asks()
            await self._replaced.wait()
            self._replaced.clear()
            _log.warning("worker_replaced")
            await on_new()

    async def follow_supervisor(self, handle: Callable[[OptionsPut | Upgraded], Awaitable[None]]) -> None:
        """Obey the supervisor until it says stop or is gone; `handle` gets what is not for us."""
        loop = asyncio.get_running_loop()
        self._supervisor.setblocking(False)
        readable = asyncio.Event()
        loop.add_reader(self._supervisor.fileno(), readable.set)
        try:
            while not self.stopping.is_set():
                await readable.wait()
                readable.clear()
                for message in self._obey():
                    await handle(message)
        finally:
            loop.remove_reader(self._supervisor.fileno())

    def close(self) -> None:
        """Let go of the worker's stream."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _receive(self, message: AnyMessage, handle: Callable[[AnyMessage], None]) -> None:
        if isinstance(message, Answered):
            waiting = self._asked.get(message.ask)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        else:
            handle(message)

    def _give_up_asks(self) -> None:
        for number, waiting in self._asked.items():
            if not waiting.done():
                waiting.set_result(Answered(number, error="the worker ended"))

    def _obey(self) -> Iterator[OptionsPut | Upgraded]:
        """Everything that is here."""
        while True:
            try:
                received = receive_with_fds(self._supervisor)
            except BlockingIOError:
                return
            if received is None:
                self.stopping.set()
                return
            message, descriptors = received
            if isinstance(message, PeerLink) and descriptors:
                # the old stream has ended or is about to: `follow_worker` goes on with this one after reading its rest
                self._pipe = AsyncPipe(socket.socket(fileno=descriptors.pop()))
                self.worker_ended.clear()
                self._replaced.set()
            elif isinstance(message, CascadeLink) and descriptors and self.on_cascade is not None:
                self.on_cascade(message.cascade, socket.socket(fileno=descriptors.pop()))
            elif isinstance(message, Granted):
                waiting = self._wished.get(message.ask)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            elif isinstance(message, OptionsPut | Upgraded):
                yield message
            elif isinstance(message, Stop):
                self.worker_stays = message.worker_stays
                self.stopping.set()
            for descriptor in descriptors:
                os.close(descriptor)


def _no_worker() -> EnvironmentLacks:
    return EnvironmentLacks(N_("the switch worker does not answer; the hub's log says why"))
