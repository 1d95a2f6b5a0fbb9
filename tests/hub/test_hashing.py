import asyncio

from argon2 import PasswordHasher

from ukihashi.hub.hashing import DEFAULT, Busy, Hasher
from ukihashi.wire.constants import Code

QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def test_a_hash_is_argon2id_and_checks() -> None:
    async def run() -> None:
        hasher = Hasher(hasher=QUICK)
        stored = await hasher.make("浮橋の合言葉")
        assert stored.startswith("$argon2id$")
        assert await hasher.check(stored, "浮橋の合言葉")
        assert not await hasher.check(stored, "other")
        assert not await hasher.check("", "no user has this")
        assert not await hasher.check("damaged", "x")
        assert not await hasher.check(stored, "\ud800")
        hasher.close()

    asyncio.run(run())


def test_beyond_the_line_is_busy_and_the_line_empties() -> None:
    async def run() -> None:
        hasher = Hasher(at_once=1, waiting=2, hasher=PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1))
        results = await asyncio.gather(*(hasher.check("", "x") for _ in range(5)), return_exceptions=True)
        assert [isinstance(result, Busy) for result in results] == [False] * 3 + [True] * 2
        refused = results[-1]
        assert isinstance(refused, Busy)
        assert refused.code == Code.HUB_IS_BUSY
        assert await hasher.check("", "x") is False
        hasher.close()

    asyncio.run(run())


def test_the_default_cost_is_of_rfc_9106() -> None:
    assert (DEFAULT.memory_cost, DEFAULT.time_cost) == (65536, 3)
