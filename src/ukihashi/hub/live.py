"""Control's links to the workers and to the supervisor."""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import structlog

from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.hub.merged import merged_status
from ukihashi.hub.messages import (
    Answered,
    AnyMessage,
    Asked,
    CascadeLink,
    Granted,
    Message,
    OptionsPut,
    PeerLink,
    Ping,
    Pong,
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
MAX_ASKS: Final = 1024  # questions to a worker that are under way at once
LISTED: Final = ("sessions", "connections")  # with the worker that has them

_log = structlog.get_logger()


class Links:
    """Sends to the other processes, matches answers to questions, follows each worker when it is started anew."""

    def __init__(self, supervisor: socket.socket, workers: Mapping[int, socket.socket]) -> None:
        self._supervisor: Final = supervisor
        self._pipes: Final = {number: AsyncPipe(worker) for number, worker in workers.items()}
        self._numbers: Final = itertools.count(1)
        self._asked: Final[dict[tuple[int, int], asyncio.Future[Answered | None]]] = {}  # by question and worker
        self._wished: Final[dict[int, asyncio.Future[Granted]]] = {}
        self._new: Final[asyncio.Queue[int]] = asyncio.Queue()  # workers whose stream has come
        self.stopping: Final = asyncio.Event()  # set when the supervisor says so or is gone
        self.worker_ended: Final = asyncio.Event()  # the streams of all have been read to the end
        self.worker_stays = False  # the supervisor replaces us, not the worker
        self.on_cascade: Callable[[int, socket.socket], None] | None = None  # the process of a cascade was started

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[Row]:
        """Rows of all workers' answers; "status" is one. Raises EnvironmentLacks when nobody answers."""
        pipes = dict(self._pipes)
        if not pipes or len(self._asked) + len(pipes) > MAX_ASKS:
            raise _no_worker()
        number, loop = next(self._numbers), asyncio.get_running_loop()
        asked: dict[int, asyncio.Future[Answered | None]] = {worker: loop.create_future() for worker in pipes}
        self._asked.update({(number, worker): answer for worker, answer in asked.items()})
        try:
            async with asyncio.timeout(ANSWER_S):
                for pipe in pipes.values():
                    with contextlib.suppress(PipeBroken):  # its end is told to `follow`
                        await pipe.send(Asked(number, what, hub=hub, name=name, reason=reason))
                await asyncio.gather(*asked.values())
        except TimeoutError:
            pass  # of those that have answered we can tell
        finally:
            for worker in pipes:
                del self._asked[number, worker]
        answers = {worker: one.result() for worker, one in asked.items() if one.done() and not one.cancelled()}
        return _rows(what, {worker: answer for worker, answer in answers.items() if answer is not None})

    async def tell_worker(self, message: Message, worker: int | None = None) -> None:
        """Send a setting to all, or an answer to one; nothing to who is away: a new one gets every setting."""
        pipes = list(self._pipes.items()) if worker is None else [(worker, self._pipes.get(worker))]
        for _number, pipe in pipes:
            if pipe is not None:
                try:
                    await pipe.send(message)
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

    async def follow_workers(
        self,
        handle: Callable[[int, AnyMessage], None],
        on_new: Callable[[], Awaitable[None]],
        on_gone: Callable[[int], None],
    ) -> None:
        """Pass every message of the workers on, for ever; `on_new` after each that is new, `on_gone` when one ends."""
        async with asyncio.TaskGroup() as group:
            following = {
                number: group.create_task(self._follow(number, pipe, handle, on_gone))
                for number, pipe in self._pipes.items()
            }
            while True:
                number = await self._new.get()
                before, pipe = following.get(number), self._pipes.get(number)
                if before is not None:
                    await asyncio.wait([before])  # the old stream has ended or is about to
                if pipe is not None and self._pipes.get(number) is pipe:
                    following[number] = group.create_task(self._follow(number, pipe, handle, on_gone))
                    _log.warning("worker_replaced")
                    await on_new()

    async def _follow(
        self, number: int, pipe: AsyncPipe, handle: Callable[[int, AnyMessage], None], on_gone: Callable[[int], None]
    ) -> None:
        try:
            async for message in pipe:
                self._receive(number, message, handle)
        except PipeBroken as error:
            _log.warning("worker_lost", reason=str(error))
        pipe.close()
        on_gone(number)
        if self._pipes.get(number) is pipe:
            del self._pipes[number]
            if not self._pipes:
                self.worker_ended.set()
        for (_ask, worker), waiting in self._asked.items():
            if worker == number and not waiting.done():
                waiting.set_result(None)

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
        """Let go of the workers' streams."""
        for pipe in self._pipes.values():
            pipe.close()
        self._pipes.clear()

    def _receive(self, worker: int, message: AnyMessage, handle: Callable[[int, AnyMessage], None]) -> None:
        if isinstance(message, Answered):
            waiting = self._asked.get((message.ask, worker))
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        else:
            handle(worker, message)

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
                # `follow_workers` goes on with this one after reading the rest of the one before
                self._pipes[message.number] = AsyncPipe(socket.socket(fileno=descriptors.pop()))
                self.worker_ended.clear()
                self._new.put_nowait(message.number)
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
            elif isinstance(message, Ping):
                with contextlib.suppress(PipeBroken):  # a supervisor that is gone is noticed by reading
                    send_with_fd(self._supervisor, Pong())
            for descriptor in descriptors:
                os.close(descriptor)


def _rows(what: str, answers: Mapping[int, Answered]) -> list[Row]:
    """Of all that could answer, or why nobody could."""
    good = {worker: answer.rows for worker, answer in answers.items() if not answer.error}
    if not good:
        for answer in answers.values():
            raise EnvironmentLacks(
                N_("the switch worker could not answer “{what}”: {reason}"), what=what, reason=answer.error
            )
        raise _no_worker()
    if what == "status":
        return [merged_status(good)]
    if what in LISTED:
        return [{**row, "worker": worker} for worker, rows in good.items() for row in rows]
    return [row for rows in good.values() for row in rows]


def _no_worker() -> EnvironmentLacks:
    return EnvironmentLacks(N_("the switch worker does not answer; the hub's log says why"))
