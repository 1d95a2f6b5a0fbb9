"""What a card changed on this machine that would outlive it: written down before it is done (`RUNTIME/card-NAME.undo`).

Interface, addresses and routes go with the process that holds the TAP. Routing rules, kernel settings and the file that
says who answers for names stay when a card is killed; the next `card up` of the account, or `card clean`, takes them
back.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from ukihashi.card import resolver, routes
from ukihashi.config import places
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.tap import netlink, reverse_path
from ukihashi.tap.netlink import Rule

_START: Final = "card-"
_END: Final = ".undo"


class Journal(msgspec.Struct, kw_only=True):
    """What is set."""

    interface: str = ""  # the card's; it exists as long as the card lives
    rules: list[Rule] = []
    loosened: dict[str, int] = {}  # rp_filter by interface, as it was before
    names: resolver.Changed | None = None


def write(account: str, journal: Journal) -> None:
    """Keep it; an empty one is removed. Raises: EnvironmentLacks."""
    path = _path(account)
    try:
        if journal == Journal(interface=journal.interface):
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + "-new")
        new.write_bytes(msgspec.json.encode(journal))
        new.replace(path)
    except OSError as error:
        raise EnvironmentLacks(
            N_("{path} can't be written: {reason}; run this as root (sudo)"), path=path, reason=error.strerror
        ) from error


def in_use(account: str) -> bool:
    """Does the card that wrote this still live, if only frozen?"""
    interface = _read(account).interface
    return bool(interface) and netlink.exists(interface)


Left = Callable[[UkihashiError], object]


def clean(account: str, left: Left = lambda _error: None) -> list[str]:
    """Take back what a card of this account left behind when it was killed; what was removed. Raises: EnvironmentLacks.

    Only while no card of the account lives, but the one that asks. `left`: hears of what somebody else has changed
    since, which is left as it is.
    """
    done = take_back(_read(account), left)
    write(account, Journal())
    return done


def take_back(journal: Journal, left: Left = lambda _error: None) -> list[str]:
    """Undo it, the newest first; what was really there. Raises: EnvironmentLacks."""
    done: list[str] = []
    if journal.names is not None:
        try:
            done += filter(None, [resolver.undo(journal.names)])
        except resolver.Meddled as error:
            left(error)
    done += [str(rule) for rule in reversed(journal.rules) if netlink.remove_rule(rule)]
    for interface, before in journal.loosened.items():
        if reverse_path.read(interface) == reverse_path.LOOSE:  # nobody else has changed it since
            with contextlib.suppress(OSError):
                reverse_path.write(interface, before)
                done.append(f"net.ipv4.conf.{interface}.rp_filter={before}")
    return done


def clean_names_of_the_dead(left: Left = lambda _error: None) -> list[str]:
    """Put back how names were looked up before a card that was killed. Raises: EnvironmentLacks."""
    done: list[str] = []
    for account in accounts():
        journal = _read(account)
        if journal.names is not None and not in_use(account):
            done += take_back(Journal(names=journal.names), left)
            journal.names = None
            write(account, journal)
    return done


def clean_orphans() -> list[str]:
    """Remove rules of ours that no running card uses, whether written down or not. Raises: EnvironmentLacks."""
    present = netlink.own_rules()
    if not present:
        return []
    used = netlink.tables_with_routes()  # a card that runs, of whatever account and folder, has its route there
    for account in accounts():
        if in_use(account):
            used |= {routes.table_of(rule) for rule in _read(account).rules}
    orphans = sorted((rule for rule in present if routes.table_of(rule) not in used), key=lambda rule: rule.priority)
    return [str(rule) for rule in reversed(orphans) if netlink.remove_rule(rule)]


def accounts() -> list[str]:
    """Accounts with something written down."""
    names = (path.name for path in places.runtime_dir().glob(f"{_START}*{_END}"))
    return sorted(name.removeprefix(_START).removesuffix(_END) for name in names)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other card looks for a free table meanwhile."""
    path = places.runtime_dir() / "card-rules.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentLacks(
            N_("{path} can't be written: {reason}; run this as root (sudo)"), path=path, reason=error.strerror
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read(account: str) -> Journal:
    try:
        return msgspec.json.decode(_path(account).read_bytes(), type=Journal)
    except (OSError, msgspec.MsgspecError):  # none; or cut short: then `clean_orphans` finds what was set
        return Journal()


def _path(account: str) -> Path:
    return places.runtime_dir() / f"{_START}{account}{_END}"
