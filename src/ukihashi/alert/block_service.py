"""The blocker at work: it follows the sensor's bus, and listens on a socket of its own for who confirms or undoes.

A request is one JSON object on a line, {"do": "list" | "confirm" | "undo", "number": N}; the answer is one, too. Only
the user who runs the blocker (root) may connect.
"""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ukihashi.alert.blocker import Block, Blocker, Notice
from ukihashi.alert.follow import follow
from ukihashi.alert.nftables import Match
from ukihashi.config import places
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError, UsageError

MODE: Final = 0o600
TICK_S: Final = 1.0
ANSWER_S: Final = 5.0
MAX_REQUEST: Final = 4096  # bytes
MAX_ANSWER: Final = 4 << 20  # bytes

Row = dict[str, Any]


def default_path() -> Path:
    """The socket of this machine's blocker."""
    return places.runtime_dir() / "alert-block.sock"


def _check_free(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise EnvironmentLacks(N_("a blocker runs already (it answers on {path})"), path=path)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """The blocker's socket, as long as it runs.

    Raises: EnvironmentLacks: a blocker runs already, or the socket can't be made.
    """
    _check_free(path)
    before = os.umask(0o777 & ~MODE)
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise EnvironmentLacks(
            N_("the socket {path} can't be made: {reason}"), path=path, reason=error.strerror or error
        ) from error
    finally:
        os.umask(before)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


async def serve(blocker: Blocker, bus: Path, listener: socket.socket, lost: Callable[[bool], None]) -> None:
    """Until cancelled. `lost` is told when the sensor's bus is gone (True) and when it is there again (False).

    Raises:
        EnvironmentLacks: the bus may not be read, or the kernel takes no more.
    """
    state = {"gone": False}

    def took(line: bytes) -> None:
        if state["gone"]:
            state["gone"] = False
            lost(False)
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                blocker.take(event, time.time())

    def ended() -> None:
        if not state["gone"]:
            state["gone"] = True
            lost(True)

    async def clock() -> None:
        while True:
            blocker.tick(time.time())
            await asyncio.sleep(TICK_S)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(json.dumps(_answer(blocker, await reader.readline())).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_unix_server(answer, sock=listener, limit=MAX_REQUEST):
        work = [asyncio.create_task(clock()), asyncio.create_task(follow(bus, took, ended))]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)


def _answer(blocker: Blocker, line: bytes) -> Row:
    try:
        request = json.loads(line)
        do, number = request.get("do"), int(request.get("number", 0))
    except (ValueError, TypeError, AttributeError):
        return {"error": "no request"}
    now = time.time()
    try:
        if do == "list":
            return {"blocks": [row(block) for block in blocker.blocks.values()]}
        if do in ("confirm", "undo"):
            return {"block": row((blocker.confirm if do == "confirm" else blocker.undo)(number, now))}
    except UkihashiError as error:
        return {"error": error.template, "values": {name: str(value) for name, value in error.values.items()}}
    return {"error": "no request"}


def ask(request: Row, path: Path) -> Row:
    """The running blocker's answer.

    Raises:
        DaemonUnreachable: none runs, or it may not be asked.
        UsageError: it says no.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            said = bytearray()
            while not said.endswith(b"\n") and len(said) <= MAX_ANSWER and (data := connection.recv(65536)):
                said += data
        answer = json.loads(said)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DaemonUnreachable(
            N_("no blocker answers on {path} ({reason}); start one: ukihashi alert block run"), path=path, reason=reason
        ) from error
    if not isinstance(answer, dict) or "error" in answer:
        raise UsageError(str(answer["error"]), **answer.get("values", {}))
    return answer


def row(block: Block) -> Row:
    """A block for programs; times in seconds since 1970."""
    client, server, port = block.key
    return {
        "number": block.number,
        "client": client,
        "server": server,
        "port": port,
        "family": block.family,
        "transport": block.transport,
        "begin": round(block.begin, 3),
        "until": round(block.until, 3),
        "trial_until": None if block.trial_until is None else round(block.trial_until, 3),
        "packets": block.packets,
        "matches": [_match(match) for match in block.matches],
    }


def event(notice: Notice) -> Row:
    """A notice for programs: one JSON object a line, `event_type` "block"."""
    client, server, port = notice.key
    return {
        "timestamp": round(notice.time, 3),
        "event_type": "block",
        "action": notice.action.value,
        "client": client,
        "server": server,
        "port": port,
        "family": notice.family,
        "transport": notice.transport,
        "number": notice.block.number if notice.block is not None else None,
        "until": round(notice.block.until, 3) if notice.block is not None else None,
        "trial_until": notice.block.trial_until if notice.block is not None else None,
        "packets": notice.block.packets if notice.block is not None else None,
        "matches": [_match(match) for match in notice.matches],
        "others": None if notice.others is None else [_match(match) for match in notice.others],
        "why": None if notice.why is None else str(notice.why),
    }


def _match(match: Match) -> Row:
    return {
        "client": match.client,
        "client_port": match.client_port or None,
        "server": match.server,
        "port": match.port,
    }
