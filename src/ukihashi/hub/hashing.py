"""argon2id beside an event loop: at most two at once, a bounded line of others (D10).

One check costs 64 MiB and about a tenth of a second on purpose, so strangers must not make us do many at once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ukihashi.errors import N_, Refused
from ukihashi.wire.constants import Code

T = TypeVar("T")

AT_ONCE: Final = 2
WAITING: Final = 128

# RFC 9106, section 4, second recommendation, with one lane: two checks then use two cores.
DEFAULT: Final = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)


class Busy(Refused):
    """Too many checks wait already."""

    def __init__(self) -> None:
        super().__init__(
            N_("the hub checks too many passwords at this moment; try again in a few seconds"), code=Code.HUB_IS_BUSY
        )


class Hasher:
    """Makes and checks argon2id hashes in threads."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING, hasher: PasswordHasher = DEFAULT) -> None:
        self._hasher: Final = hasher
        self._threads: Final = ThreadPoolExecutor(at_once, thread_name_prefix="argon2")
        self._room: Final = at_once + waiting
        self._running = 0
        self._dummy: Final = self._threads.submit(self._hasher.hash, "no user has this")

    async def make(self, password: str) -> str:
        """The hash to store. Raises Busy."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def check(self, stored: str, password: str) -> bool:
        """Whether `password` belongs to `stored`; takes as long when `stored` is "" (then False). Raises Busy."""
        return await self._run(lambda: self._check(stored, password))

    def close(self) -> None:
        """Let waiting checks go, wait for running ones."""
        self._threads.shutdown(cancel_futures=True)

    def _check(self, stored: str, password: str) -> bool:
        try:
            self._hasher.verify(stored or self._dummy.result(), _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return bool(stored)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._running >= self._room:
            raise Busy
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._running -= 1


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")
