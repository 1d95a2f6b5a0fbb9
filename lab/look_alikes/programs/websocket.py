"""Both ends of a WebSocket over TLS: websocket.py serve CHAIN ADDRESS PORT DOES | join ROOT ADDRESS PORT DOES."""

import asyncio
import contextlib
import random
import ssl
import sys
from typing import Any

import websockets

role, pem, address, port, does = sys.argv[1:]
BEAT_S = 5.0


async def fixed(link: Any) -> None:
    """Nothing beside the library's own pings."""
    await link.wait_closed()


async def padded(link: Any) -> None:
    """A heart-beat of random period and size, each end by its own clock."""
    while True:
        await asyncio.sleep(random.uniform(2, 10))
        await link.send(random.randbytes(8 + random.randrange(512)))


async def chat(link: Any) -> None:
    """Short messages in bursts."""
    while True:
        await asyncio.sleep(random.expovariate(1 / 6))
        for _ in range(random.randrange(1, 4)):
            await link.send("x" * random.randrange(20, 300))


async def login(link: Any) -> None:
    """A token and a state first, then a padded heart-beat."""
    if role == "join":
        await link.send("t" * random.randrange(1400, 3000))
        await link.recv()
        await link.send("s" * random.randrange(2300, 3200))
    else:
        await link.recv()
        await link.send("c" * random.randrange(300, 1300))
        await link.recv()
        await link.send("w" * random.randrange(1800, 2800))
    await padded(link)


async def drain(link: Any) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        async for _ in link:
            pass


async def both(link: Any) -> None:
    work = {"fixed": fixed, "padded": padded, "chat": chat, "login": login}[does]
    if does == "login":
        await work(link)
    else:
        await asyncio.gather(work(link), drain(link))


async def main() -> None:
    ping = BEAT_S if does == "fixed" else None
    if role == "serve":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        async with websockets.serve(both, address, int(port), ssl=context, ping_interval=ping):
            await asyncio.Future()
    context = ssl.create_default_context(cafile=pem)
    async with websockets.connect(f"wss://{address}:{port}", ssl=context, ping_interval=ping) as link:
        await both(link)


asyncio.run(main())
