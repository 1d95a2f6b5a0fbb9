"""The database behind an event loop: one thread does all its work, in order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, Final, ParamSpec, TypeVar

from ukihashi.store.db import Database

P = ParamSpec("P")
T = TypeVar("T")


class Storage:
    """Runs functions of `store` on their own thread."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def read(self, work: Callable[Concatenate[Database, P], T], *args: P.args, **more: P.kwargs) -> T:
        """`work(database, ...)`."""
        call = partial(work, self._database, *args, **more)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def change(self, work: Callable[Concatenate[Database, P], T], *args: P.args, **more: P.kwargs) -> T:
        """`work(database, ...)`; what it changes happens as a whole or not at all."""

        def whole() -> T:
            with self._database.change():
                return work(self._database, *args, **more)

        return await asyncio.get_running_loop().run_in_executor(self._thread, whole)

    def close(self) -> None:
        """Finish what was begun, then let go of the file."""
        self._thread.shutdown()
        self._database.close()
