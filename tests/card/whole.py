"""A whole card (both processes, a real TAP) beside a scenario of the test, in a network of the test's own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from lab.fake_hub import FakeHub
from ukihashi.auth.link import Link
from ukihashi.card import account
from ukihashi.card.dialler import Card
from ukihashi.config.card import CardConfig
from ukihashi.errors import UkihashiError

FRAME = bytes.fromhex("ffffffffffff 020000000001 88b5") + b"x" * 60
Scenario = Callable[[Card], Coroutine[Any, Any, None]]


def config_for(hub: FakeHub, **changes: Any) -> CardConfig:
    token = "t" * 22
    link = Link(hub.address, hub.port, "LAN", "alice", token, hub.pin, ("10.9.0.2/24", "fd09::2/64"))
    made = account.from_link(link, "lan")
    hub.invites[token] = b""
    changed = msgspec.structs.replace(made, **changes)
    account.write("lan", changed)
    return changed


def run(config: CardConfig, scenario: Scenario, **options: Any) -> list[UkihashiError | None]:
    """Bring a card up, run the scenario beside it, leave; what it reported first."""
    told: list[UkihashiError | None] = []

    async def together() -> None:
        card = Card("lan", config, report=told.append, **options)
        life = asyncio.create_task(card.run())
        try:
            async with asyncio.timeout(40):
                play = asyncio.create_task(scenario(card))
                await asyncio.wait({life, play}, return_when=asyncio.FIRST_COMPLETED)
                if life.done():
                    play.cancel()
                else:
                    await play
        finally:
            await card.leave()
            await life

    asyncio.run(together())
    return told


async def until(look: Callable[[dict[str, Any]], bool], card: Card) -> dict[str, Any]:
    """Poll the card's status; the run as a whole has the deadline."""
    while True:
        row = (await card.status())[0]
        if look(row):
            return row
        await asyncio.sleep(0.02)


def online(row: dict[str, Any]) -> bool:
    return bool(row["state"] == "online")


@asynccontextmanager
async def kernel_side(interface: str) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as raw:
        raw.bind((interface, 0))
        raw.setblocking(False)
        yield raw


async def received(raw: socket.socket) -> bytes:
    """The next frame that came from the hub's side."""
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(raw, 2000)


async def arrived(hub: FakeHub) -> bytes:
    while True:  # among what the kernel says by itself (router solicitations, ...)
        frame = await asyncio.to_thread(hub.frames.get, timeout=10)
        if frame[12:14] == b"\x88\xb5":
            return frame
