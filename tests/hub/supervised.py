"""A program for tests: a supervised hub whose control process lets everybody into virtual hub LAN.

    python -m tests.hub.supervised '{"listen": [["127.0.0.1", 0]], "folder": "...", ...}'

Says what happens as JSON lines on standard output. On the admin socket each line is a question to the worker
(`{"what": "status"}`), or an order to control itself: `{"port": [interface, address, ...]}`, `{"crash": true}`, or a
wish for the supervisor: `{"wish": "set_option", "key": "times.dead_s", "value": "20"}`.

It can be upgraded, to itself; a file `broken` in its folder makes that fail: at the check, or where its text says.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from ukihashi.config.hub import load_hub
from ukihashi.errors import EnvironmentLacks, UkihashiError
from ukihashi.hub import succession, worker
from ukihashi.hub.handover import FORM
from ukihashi.hub.limits import Limits
from ukihashi.hub.live_options import LiveOptions
from ukihashi.hub.messages import (
    Answered,
    Asked,
    Failed,
    Granted,
    HostPortGone,
    HostPortWanted,
    HubPut,
    LoginAnswered,
    LoginAsked,
    OptionsPut,
    PeerLink,
    Ping,
    Pong,
    Ready,
    Stop,
    Upgraded,
    Wish,
)
from ukihashi.hub.pipes import AsyncPipe, PipeBroken, receive_with_fds, send_with_fd
from ukihashi.hub.start import ControlStart, Supervisor
from ukihashi.hub.supervisor import run
from ukihashi.hub.upgrade import INHERITED
from ukihashi.pki import ca

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"


def say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")  # in one piece also without a buffer (PYTHONUNBUFFERED), unlike `print`
    sys.stdout.flush()


class Control:
    def __init__(self, start: ControlStart) -> None:
        self.start = start
        self.pipe = AsyncPipe(start.workers[0])
        self.answers: dict[int, asyncio.Future[Answered]] = {}
        self.granted: asyncio.Queue[Granted] = asyncio.Queue()
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
        elif isinstance(received[0], Ping):
            send_with_fd(self.start.supervisor, Pong())
        elif isinstance(received[0], Granted):
            self.granted.put_nowait(received[0])
        elif isinstance(received[0], Upgraded):
            say(upgraded=[received[0].number, received[0].sessions, received[0].pause_s])
        elif isinstance(received[0], OptionsPut):
            say(options=[received[0].public_address, received[0].session_timeout_s, received[0].mac_ageing_s])
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
            elif "wish" in order:
                asked = Wish(1, order["wish"], key=order.get("key", ""), value=order.get("value", ""))
                send_with_fd(self.start.supervisor, asked)
                granted = await self.granted.get()
                rows = {"no": granted.template.format(**granted.values)} if granted.template else granted.rows
            else:
                number = len(self.answers) + 1
                self.answers[number] = asyncio.get_running_loop().create_future()
                try:
                    await self.pipe.send(Asked(number, **order))
                    rows = (await asyncio.wait_for(self.answers[number], 5)).rows
                except (PipeBroken, TimeoutError):
                    rows = None
            writer.write(json.dumps(rows).encode() + b"\n")


def control(start: ControlStart) -> int:
    say(control=os.getpid(), uid=os.getuid(), folder=str(Path.cwd()), host_ports=start.host_ports)
    return asyncio.run(Control(start).run())


def broken_at(folder: Path) -> str:
    """Where the test wants it to fail: "check", "restore" or nowhere."""
    flaw = folder / "broken"
    return flaw.read_text() if flaw.exists() else ""


def break_(*_: Any) -> float:
    raise RuntimeError("broken on purpose")


def options(folder: Path, certificate: Path, key: Path) -> LiveOptions:
    identity = ca.load_given(certificate, key)
    path = folder / "hub.toml"
    return LiveOptions(path, load_hub(path), identity, lambda: ca.load_given(certificate, key))


def main() -> int:
    given = json.loads(sys.argv[1])
    folder, certificate, key = Path(given["folder"]), Path(given["certificate"]), Path(given["key"])
    if "--check" in sys.argv:
        try:
            if broken_at(folder) == "check":
                raise EnvironmentLacks("broken on purpose")
            pin = options(folder, certificate, key).identity.pin.hex()
        except UkihashiError as error:
            print("ukihashi:", error, file=sys.stderr)
            return error.exit_status
        say(version="new", form=FORM, pin=pin)
        return 0
    if broken_at(folder) == "restore":
        vars(worker)["restore"] = break_
    vars(succession)["HANDOVER_S"] = given.get("handover_s", succession.HANDOVER_S)
    listen = given["listen"]
    if INHERITED in os.environ and "also" in given:  # from the first upgrade on
        listen = [*listen, given["also"]]
    settings = Supervisor(
        listen=[(host, port) for host, port in listen],
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        certificate=certificate,
        key=key,
        program=given.get("program") or [sys.executable, *sys.orig_argv[1:]],
        options=options(folder, certificate, key) if certificate.exists() else None,
        limits=Limits(**given.get("limits", {})),
        congestion=given.get("congestion", ""),
        workers=given.get("workers", 1),
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
