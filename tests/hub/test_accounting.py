import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ukihashi.errors import EnvironmentLacks
from ukihashi.hub import accounting
from ukihashi.hub.accounting import EXPIRED, QUOTA, Accounting
from ukihashi.hub.messages import Message, SessionOpened, Traffic
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Row
from ukihashi.store import hubs, users
from ukihashi.store.db import Database
from ukihashi.store.users import DAY_S, User

START = 1_800_000_000.0


class Live:
    """A worker with one session of each user, until it is ended."""

    def __init__(self) -> None:
        self.users = ["HANAKO", "taro"]
        self.ended: list[tuple[str, str]] = []
        self.asked = 0
        self.here = True

    async def ask_worker(self, what: str, *, hub: str = "", name: str = "", reason: str = "") -> list[Row]:
        self.asked += 1
        if not self.here:
            raise EnvironmentLacks("no worker")
        if what == "disconnect":
            self.ended.append((name, reason))
            self.users.remove(name.removeprefix("SID-"))
            return [{"session": name, "hub": hub}]
        return [{"session": f"SID-{user}", "hub": hub, "user": user} for user in self.users]

    async def tell_worker(self, message: Message) -> None:
        raise NotImplementedError

    async def tell_supervisor(self, message: Message) -> None:
        raise NotImplementedError

    async def wish(self, what: str, *, key: str = "", value: str = "") -> list[Row]:
        raise NotImplementedError


class Books:
    """A hub with hanako and taro, their accounting, and a clock that is set by hand."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path / "hub.db")
        self.storage = Storage(self.database)
        self.live = Live()
        self.now = START
        self.hub = hubs.create(self.database, "LAN", subnet4="4", subnet6="6", now=1.0)
        for name in ("hanako", "taro"):
            users.create(self.database, self.hub, name, now=1.0)
        self.accounting = Accounting(self.storage, self.live, clock=lambda: self.now)

    def put(self, name: str, **fields: object) -> None:
        users.put(self.database, replace(self.user(name), **fields), self.now)  # type: ignore[arg-type]

    def user(self, name: str) -> User:
        return users.get(self.database, self.hub, name)

    def moved(self, user: str, bytes_in: int, bytes_out: int = 0, hub: str = "LAN") -> None:
        self.accounting.add(Traffic("SID-1", hub, user, 1, bytes_in, 2, bytes_out))

    def write(self) -> None:
        asyncio.run(self.accounting.write())

    def check(self) -> None:
        asyncio.run(self.accounting.check())


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    made.storage.close()


def test_traffic_is_added_up_for_each_user(books: Books) -> None:
    books.moved("hanako", 10, 20)
    books.moved("HANAKO", 1, 2, hub="lan")
    books.moved("taro", 5)
    assert books.user("hanako").bytes_in == 0  # gathered first
    books.write()
    books.write()  # nothing is counted twice
    user = books.user("hanako")
    assert (user.frames_in, user.bytes_in, user.frames_out, user.bytes_out) == (2, 11, 4, 22)
    assert books.user("taro").bytes_in == 5
    assert books.live.asked == 0


def test_traffic_of_nobody_is_no_harm(books: Books) -> None:
    books.moved("administrator", 10)
    books.moved("hanako", 10, hub="gone")
    books.moved("taro", 7)
    books.write()
    assert (books.user("hanako").bytes_in, books.user("taro").bytes_in) == (0, 7)


def test_a_used_up_quota_ends_the_sessions_and_the_next_period_begins_anew(books: Books) -> None:
    books.put("hanako", quota_bytes=100, quota_days=2, period_began_at=START)
    books.moved("hanako", 60, 39)
    books.write()
    assert books.live.ended == []
    books.moved("hanako", 1)
    books.moved("taro", 1000)  # has no quota
    books.write()
    assert books.live.ended == [("SID-HANAKO", QUOTA)]
    books.moved("hanako", 5)  # the session's last words
    books.write()
    assert len(books.live.ended) == 1
    assert books.user("hanako").spent(books.now)
    books.now += 2 * DAY_S
    assert not books.user("hanako").spent(books.now)
    books.live.users.append("HANAKO")
    books.moved("hanako", 99)
    books.write()
    assert (len(books.live.ended), books.user("hanako").period_bytes) == (1, 99)


def test_a_user_whose_time_is_over_is_put_out_once(books: Books) -> None:
    books.put("hanako", expires_at=START + 10)
    books.check()
    assert books.live.asked == 0  # who has no end costs the worker nothing
    books.now += 10
    books.check()
    assert books.live.ended == [("SID-HANAKO", EXPIRED)]
    asked = books.live.asked
    books.check()
    assert books.live.asked == asked


def test_a_login_is_counted_for_user_and_hub(books: Books) -> None:
    for name in ("hanako", "administrator"):
        asyncio.run(books.accounting.opened(SessionOpened("SID-1", "LAN", name, "p", "c", 0, 77.0)))
    assert (books.user("hanako").logins, books.user("hanako").last_login_at) == (1, 77.0)
    home = hubs.get(books.database, "LAN")
    assert (home.logins, home.last_login_at) == (2, 77.0)


def test_without_a_worker_or_a_database_it_goes_on(books: Books) -> None:
    books.put("hanako", quota_bytes=1, period_began_at=START, expires_at=START)
    books.live.here = False
    books.moved("hanako", 10)
    books.write()
    books.check()
    books.database.close()
    books.moved("hanako", 10)
    books.write()
    books.check()
    asyncio.run(books.accounting.opened(SessionOpened("SID-1", "LAN", "hanako", "p", "c", 0, 77.0)))


def test_it_all_happens_by_itself(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "WRITE_S", 0.05)
    monkeypatch.setattr(accounting, "CHECK_S", 0.05)
    books.put("hanako", quota_bytes=10, period_began_at=START)
    books.put("taro", expires_at=START)

    async def live() -> None:
        task = asyncio.create_task(books.accounting.run())
        books.moved("taro", 1 << 80)  # no database holds that, and no hub may end of it
        async with asyncio.timeout(10):
            while books.accounting._gathered:
                await asyncio.sleep(0.01)
        books.moved("hanako", 10)
        async with asyncio.timeout(10):
            while len(books.live.ended) < 2:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    assert sorted(books.live.ended) == [("SID-HANAKO", QUOTA), ("SID-taro", EXPIRED)]
