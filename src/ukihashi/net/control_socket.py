"""The local control socket of a daemon: JSON lines over a Unix stream socket, one answer to each request.

    -> {"do": "sessions", "hub": "LAN"}
    <- {"ok": true, "rows": [{...}, ...]}
    <- {"ok": false, "error": {"template": "...", "values": {...}, "exit_status": 2}}

An error travels as its English template and values, so that the asking face can say it in its reader's language.
A handler's parameters are its arguments: names and types of a request are checked against them. A handler with
`**fields: Unpack[SomeTypedDict]` gets those that the request names.
"""

import asyncio
import contextvars
import inspect
import json
import socket
import struct
import typing
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError, UsageError

Row = dict[str, Any]
Handler = Callable[..., Awaitable[list[Row]]]

MAX_REQUEST: Final = 1024 * 1024  # bytes of one line
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of one line
MAX_CLIENTS: Final = 32  # connections at once; more wait in the listening queue
IDLE_S: Final = 60.0  # a connection that asks nothing is closed
HANDLER_S: Final = 30.0  # seconds a handler may take

ABSENT: Final = N_("nothing answers on {path}; is the daemon running?")

asker: contextvars.ContextVar[str] = contextvars.ContextVar("asker", default="")
"""Who asks, for the log: `uid 0`, or what another front (the web page) sets."""


class Answered(UkihashiError):
    """An error that the daemon answered with; class-independent, so carries its own exit status."""

    def __init__(self, template: str, exit_status: int, values: Mapping[str, Any]) -> None:
        super().__init__(template, **values)
        self.exit_status = exit_status


# -- daemon's side ------------------------------------------------------------------------------------------------


class Verbs:
    """What a daemon can be asked, by name."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers: Final = MappingProxyType(dict(handlers))
        self._shapes: Final = {do: _shape(do, handler) for do, handler in handlers.items()}

    async def ask(self, do: str, **given: Any) -> list[Row]:
        """Carry out one request. Raises `UkihashiError` only; a fault of ours is logged and told as such."""
        handler = self._handlers.get(do)
        if handler is None:
            raise UsageError(N_("this daemon does not know the request “{do}”; is it an older version?"), do=do)
        try:
            arguments = msgspec.convert(given, self._shapes[do])
        except msgspec.ValidationError as error:
            raise UsageError(N_("request “{do}”: {problem}"), do=do, problem=error) from None
        try:
            async with asyncio.timeout(HANDLER_S):
                given = msgspec.structs.asdict(arguments)
                return await handler(**{name: value for name, value in given.items() if value is not msgspec.UNSET})
        except TimeoutError:
            raise EnvironmentLacks(
                N_("the daemon did not finish “{do}” within {seconds:g} s"), do=do, seconds=HANDLER_S
            ) from None
        except UkihashiError:
            raise
        except Exception:  # noqa: BLE001 - a fault in one request must not end the daemon
            import structlog  # here: a third of a second that commands which only ask need not pay

            await structlog.get_logger().aexception("internal_error", request=do)
            raise EnvironmentLacks(
                N_("the daemon failed inside while doing “{do}”; its log says more"), do=do
            ) from None


def _shape(do: str, handler: Handler) -> type[msgspec.Struct]:
    hints = typing.get_type_hints(handler)
    fields: list[Any] = []
    for name, parameter in inspect.signature(handler).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            (optional,) = typing.get_args(hints[name])
            known = typing.get_type_hints(optional).items()
            fields += [(field, hint | msgspec.UnsetType, msgspec.UNSET) for field, hint in known]
        elif parameter.default is inspect.Parameter.empty:
            fields.append((name, hints[name]))
        else:
            fields.append((name, hints[name], parameter.default))
    return msgspec.defstruct(f"Request_{do}", fields, kw_only=True, forbid_unknown_fields=True)


async def answer(verbs: Verbs, line: bytes) -> bytes:
    """The answer to one line, without its newline."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or not isinstance(do := request.pop("do", None), str):
            raise UsageError(N_("a request is a JSON object with a text “do”"))
        rows = await verbs.ask(do, **request)
    except (ValueError, RecursionError):
        return _failure(UsageError(N_("a request is one line of JSON")))
    except UkihashiError as error:
        return _failure(error)
    return json.dumps({"ok": True, "rows": rows}, ensure_ascii=False, default=str).encode()


def _failure(error: UkihashiError) -> bytes:
    values = {
        name: value if isinstance(value, int | float | str | None) else str(value)
        for name, value in error.values.items()
    }
    told = {"template": error.template, "values": values, "exit_status": error.exit_status}
    return json.dumps({"ok": False, "error": told}, ensure_ascii=False).encode()


async def serve(sock: socket.socket, verbs: Verbs) -> None:
    """Answer on a listening Unix socket until cancelled; then no connection is left open."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(MAX_CLIENTS)
    async with asyncio.TaskGroup() as group:
        while True:
            await room.acquire()
            connection, _ = await loop.sock_accept(sock)
            task = group.create_task(_converse(connection, verbs))
            task.add_done_callback(lambda _task: room.release())


async def _converse(connection: socket.socket, verbs: Verbs) -> None:
    asker.set(f"uid {_peer_uid(connection)}")
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_REQUEST)
    try:
        while True:
            async with asyncio.timeout(IDLE_S):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            writer.write(await answer(verbs, line) + b"\n")
            async with asyncio.timeout(IDLE_S):
                await writer.drain()
    except (OSError, TimeoutError, ValueError):  # gone, idle, or a line beyond the limit
        return
    finally:
        writer.close()


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


# -- the asking side ----------------------------------------------------------------------------------------------


class Client:
    """Asks a daemon from ordinary, blocking code. One connection per question: nothing to keep alive."""

    def __init__(self, path: Path, timeout_s: float = 5.0, *, absent: str = ABSENT) -> None:
        self.path = path
        self._timeout = timeout_s
        self._absent = absent  # template with {path}: said when no daemon is there

    def ask(self, do: str, **arguments: Any) -> list[Row]:
        """Rows of the answer.

        Raises:
            DaemonUnreachable: nobody answers.
            EnvironmentLacks: the socket is there but not for this user.
            UkihashiError: what the daemon said no with.
        """
        request = json.dumps({"do": do, **arguments}, ensure_ascii=False).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self.path))
                connection.sendall(request)
                line = _read_line(connection)
        except PermissionError:
            raise EnvironmentLacks(N_("you may not use {path}; run this as root (sudo)"), path=self.path) from None
        except TimeoutError:
            raise DaemonUnreachable(
                N_("the daemon at {path} did not answer within {seconds:g} s"), path=self.path, seconds=self._timeout
            ) from None
        except OSError:
            raise DaemonUnreachable(self._absent, path=self.path) from None
        return _rows(line, self.path)


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        part = connection.recv(1 << 16)
        if not part or len(line) > MAX_ANSWER:
            break
        line += part
    return bytes(line)


def _rows(line: bytes, path: Path) -> list[Row]:
    try:
        told = json.loads(line)
        if told["ok"]:
            return list(told["rows"])
        error = told["error"]
        failure = Answered(str(error["template"]), int(error["exit_status"]), dict(error["values"]))
    except (ValueError, KeyError, TypeError):
        raise DaemonUnreachable(N_("the daemon at {path} broke off its answer; its log says why"), path=path) from None
    raise failure
