"""The hub's database: SQLite in WAL mode, numbered migrations, one connection used by one thread at a time.

Queries take fractions of a millisecond, but a commit waits for the disk: an event loop calls from its own store thread.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ukihashi.errors import N_, EnvironmentLacks

BUSY_S: Final = 5.0  # how long to wait for another process (a backup) that holds the database


class Database:
    """An open, migrated database. Used by any thread, but only by one at a time."""

    def __init__(self, path: Path) -> None:
        """Open `path`, making it if absent (its folder must exist), and bring it to the newest form.

        Raises:
            EnvironmentLacks: no right, no room, not a database, or made by a newer version.
        """
        self.path: Final = path
        with self._told():
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(
                    "PRAGMA synchronous = FULL"
                )  # an answered password change survives a power cut
                self._connection.execute("PRAGMA secure_delete = ON")  # no old password hashes in free pages
                self._migrate()  # before the next line: a table that is made anew must not take others' rows with it
                self._connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Let go of the file. A second call does nothing."""
        self._connection.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """All changes inside happen together or not at all. Nothing inside may wait."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._told():
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        found = self.rows(query, values)
        return found[0] if found else None

    def do(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Carry out one statement; the number of rows it changed. `sqlite3.IntegrityError` passes through."""
        with self._told():
            return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Carry out one INSERT; the new row's id. `sqlite3.IntegrityError` passes through."""
        with self._told():
            return self._connection.execute(statement, values).lastrowid or 0

    def _migrate(self) -> None:
        have = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        _check_form(self.path, have)
        for number, script in enumerate(migrations()[have:], have + 1):
            self._connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error


def check_form(path: Path) -> None:
    """Refuse a database of a newer version, without touching it; an absent one is well. Raises: EnvironmentLacks."""
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)) as connection:
            _check_form(path, int(connection.execute("PRAGMA user_version").fetchone()[0]))
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _check_form(path: Path, have: int) -> None:
    if have > len(migrations()):
        raise EnvironmentLacks(
            N_("{path} has form {have}, this ukihashi knows up to {known}; upgrade ukihashi, or restore a backup"),
            path=path,
            have=have,
            known=len(migrations()),
        )


def _unusable(path: Path, error: sqlite3.Error) -> EnvironmentLacks:
    return EnvironmentLacks(N_("the database {path} can't be used: {reason}"), path=path, reason=error)


def migrations() -> list[str]:
    """The scripts in order; number n is at n - 1."""
    folder = resources.files("ukihashi.store") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1)), "migrations are numbered without a gap"
    return [(folder / name).read_text(encoding="utf-8") for name in names]
