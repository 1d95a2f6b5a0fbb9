"""A program for tests: a supervised hub whose control process lets everybody into virtual hub LAN.

    python -m tests.hub.supervised '{"listen": [["127.0.0.1", 0]], "folder": "...", ...}'

Says what happens as JSON lines on standard output. On the admin socket each line is a question to the worker
(`{"what": "status"}`), or an order to control itself: `{"port": [interface, address, ...]}`, `{"crash": true}`.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from ukihashi.errors import UkihashiError
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import (
    Answered,
    Asked,
    Failed,
    HostPortGone,
    HostPortWanted,
    HubPut,
    LoginAnswered,
    LoginAsked,
    PeerLink,
    Ready,
    Stop,
)
from ukihashi.hub.pipes import AsyncPipe, PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.start import ControlStart, Supervisor
from ukihashi.hub.supervisor import run

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


class Control:
    def __init__(self, start: ControlStart) -> None:
        self.start = start
        self.pipe = AsyncPipe(start.worker)
        self.answers: dict[int, asyncio.Future[Answered]] = {}
        self.stop = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        self.start.supervisor.setblocking(False)
        asyncio.get_running_loop().add_reader(self.start.supervisor, self.on_supervisor)
        for sock in (self.start.web, self.start.admin):
            sock.setblocking(False)
        servers = [
            await asyncio.start_unix_server(self.on_page, sock=self.start.web),
            await asyncio.start_unix_server(self.on_command, sock=self.start.admin),
        ]
        self.tasks.append(asyncio.create_task(self.follow(self.pipe)))
        send_with_fd(self.start.supervisor, Ready("control"))
        await self.stop.wait()
        for server in servers:
            server.close()
        for task in self.tasks:
            task.cancel()
        say(control="stopped")
        return 0

    def on_supervisor(self) -> None:
        received = receive_with_fds(self.start.supervisor)
        if received is None or isinstance(received[0], Stop):
            self.stop.set()
        elif isinstance(received[0], PeerLink):
            self.pipe = AsyncPipe(socket.socket(fileno=received[1][0]))
            self.tasks.append(asyncio.create_task(self.follow(self.pipe)))

    async def follow(self, pipe: AsyncPipe) -> None:
        await pipe.send(HubPut("LAN"))
        async for message in pipe:
            if isinstance(message, LoginAsked):
                await pipe.send(LoginAnswered(message.ask, hub="LAN", user=message.user))
            elif isinstance(message, Answered):
                self.answers.pop(message.ask).set_result(message)

    async def on_page(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PAGE)
        writer.close()

    async def on_command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            if "crash" in order:
                os._exit(7)
            if "fail" in order:
                send_with_fd(self.start.supervisor, Failed("control", "the disk is full"))
                os._exit(3)
            rows: Any = []
            if "port" in order:
                interface, *addresses = order["port"]
                wish = HostPortWanted("LAN", interface, addresses) if interface else HostPortGone("LAN")
                send_with_fd(self.start.supervisor, wish)
            else:
                number = len(self.answers) + 1
                self.answers[number] = asyncio.get_running_loop().create_future()
                try:
                    await self.pipe.send(Asked(number, **order))
                    rows = (await asyncio.wait_for(self.answers[number], 1)).rows
                except (PipeBroken, TimeoutError):
                    rows = None
            writer.write(json.dumps(rows).encode() + b"\n")


def control(start: ControlStart) -> int:
    say(control=os.getpid(), uid=os.getuid(), folder=str(Path.cwd()), host_ports=start.host_ports)
    return asyncio.run(Control(start).run())


def main() -> int:
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    settings = Supervisor(
        listen=[(host, port) for host, port in given["listen"]],
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        certificate=Path(given["certificate"]),
        key=Path(given["key"]),
        limits=Limits(**given.get("limits", {})),
        tell=lambda sentence: say(told=sentence),
        ready=lambda endpoints: say(ready=endpoints),
    )
    try:
        return run(settings, control=control)
    except UkihashiError as error:
        say(error=str(error))
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
