"""A small proxy in front of a hub that waits for the card's first word, as one behind TLS does."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from tests.net.dial.fakes import Fake, standing


class Proxy(Fake):
    """Answers before the target says anything, as real ones do."""

    hangs_up = False  # once the tunnel is open

    async def _on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        yes: bytes,
        no: Callable[[int], bytes],
    ) -> None:
        self.asked.append((host, port))
        try:
            there, thither = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            writer.write(no(5))
            return
        try:
            writer.write(yes)
            if not self.hangs_up:
                await asyncio.gather(_carry(reader, thither), _carry(there, writer))
        finally:
            thither.close()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        sink.write(piece)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


@contextlib.contextmanager
def beside(fake: Fake) -> Iterator[int]:
    """The fake in a thread of its own; its port."""
    told: list[int] = []
    up, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with standing(fake) as port:
            told.append(port)
            up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="proxy", daemon=True)
    thread.start()
    try:
        assert up.wait(10)
        yield told[0]
    finally:
        over.set()
        thread.join(10)
