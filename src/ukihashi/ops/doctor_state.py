"""What `doctor` asks of our own files and daemons: settings, keys, database, disk, what runs and what is left."""

import contextlib
import datetime as dt
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ukihashi.card import control, journal, routes
from ukihashi.config import places
from ukihashi.config.hub import HubConfig
from ukihashi.errors import N_, DaemonUnreachable, UkihashiError
from ukihashi.net.control_socket import Client
from ukihashi.ops.doctor import Answer, Check, Look, fail, ok, skip, warn
from ukihashi.pki import ca
from ukihashi.store.db import check_form
from ukihashi.tap import netlink

MIB: Final = 1 << 20
LITTLE_DISK: Final = 200 * MIB
NO_DISK: Final = 10 * MIB
DATABASE_S: Final = 3.0  # seconds of looking through the database
STEPS: Final = 10_000  # of SQLite's machine between two looks at the clock
SOON_DAYS: Final = 30
RECENT_S: Final = 7 * 86_400.0
ASK_S: Final = 2.0
REPORTS: Final = "ukihashi-report-*.txt"  # `ops.report`
OFTEN: Final = 3  # starts of a unit by systemd that are more than chance
UNITS: Final = ("ukihashi-hub.service", "ukihashi-card@*.service", "ukihashi-alert@*.service")


def settings(look: Look) -> Iterator[Answer]:
    """`hub.toml`."""
    path = places.hub_config()
    if not isinstance(look.hub, HubConfig):
        yield fail(N_("{problem}"), problem=look.hub)
    elif path.exists():
        yield ok(N_("{path} is right"), path=path)
    else:
        yield ok(N_("{path} does not exist: a hub here has its defaults"), path=path)


def accounts(look: Look) -> Iterator[Answer]:
    """The card's accounts."""
    folder = places.config_dir() / "card.d"
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        yield skip(N_("only root may see {path}"), path=folder)
        return
    if not look.accounts:
        yield skip(N_("no card has an account here"))
        return
    bad = False
    for name, config in look.accounts.items():
        path = places.card_config(name)
        if not os.access(path, os.R_OK):
            yield skip(N_("only root may see {path}"), path=path)
        elif isinstance(config, UkihashiError):
            yield fail(N_("{problem}"), problem=config)
        elif path.stat().st_mode & 0o077:
            yield warn(N_("{path} holds a secret and others may read it; chmod 600 {path}"), path=path)
        else:
            continue
        bad = True
    if not bad:
        yield ok(N_("{count} accounts, all right: {names}"), count=len(look.accounts), names=", ".join(look.accounts))


def certificate(look: Look) -> Iterator[Answer]:
    """The hub's key and certificate; nothing is made or renewed."""
    given = look.hub_config.tls.certificate
    folder = places.state_dir() / "pki"
    cert = Path(given) if given else folder / "hub.crt"
    key = Path(look.hub_config.tls.key) if given else folder / "hub.key"
    try:
        if not given and not cert.exists() and not key.exists():
            yield skip(N_("no hub has made its key here yet"))
            return
        if key.stat().st_mode & 0o077:
            yield fail(N_("others may read the hub's key; chmod 600 {path}"), path=key)
    except PermissionError:
        yield skip(N_("only root may see {path}"), path=key)
        return
    if not os.access(key, os.R_OK):
        yield skip(N_("only root may see {path}"), path=key)
        return
    identity = ca.load_given(cert, key)
    left = identity.not_after - dt.datetime.now(dt.UTC)
    values = {"path": cert, "date": identity.not_after.date()}
    if left.total_seconds() < 0:
        yield fail(N_("the certificate {path} ended on {date}; renew it, then: ukihashi hub reload"), **values)
    elif left.days < SOON_DAYS and given:
        yield warn(N_("the certificate {path} ends on {date}; renew it, then: ukihashi hub reload"), **values)
    else:
        yield ok(N_("the certificate {path} is valid until {date}"), **values)


def database(look: Look) -> Iterator[Answer]:
    """SQLite's own quick check; read only, the running hub does not notice."""
    path = look.database
    try:
        if not path.exists():
            yield skip(N_("no hub has made its database here yet"))
            return
        check_form(path)
        with contextlib.closing(open_readonly(path)) as connection:
            end = time.monotonic() + DATABASE_S
            connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
            problem = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except PermissionError:
        yield skip(N_("only root may see {path}"), path=path)
        return
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            yield skip(N_("{path} is so large that looking through it was given up"), path=path)
        else:
            yield fail(N_("the database {path} can't be used: {reason}"), path=path, reason=error)
        return
    except sqlite3.Error as error:
        problem = str(error)
    except UkihashiError as error:
        yield fail(N_("{problem}"), problem=error)
        return
    if problem != "ok":
        yield fail(N_("the database {path} is damaged ({reason}); restore a backup"), path=path, reason=problem)
    else:
        yield ok(N_("the database {path} is sound"), path=path)


def open_readonly(path: Path) -> sqlite3.Connection:
    """Without a trace: beside a running hub by SQLite's locks, else as a file that nobody changes."""
    live = path.with_name(path.name + "-wal").exists() and path.with_name(path.name + "-shm").exists()
    return sqlite3.connect(f"file:{quote(str(path))}?{'mode=ro' if live else 'immutable=1'}", uri=True, timeout=1.0)


def disk(_look: Look) -> Iterator[Answer]:
    """Room where state is kept."""
    folder = places.state_dir()
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    values = {"free": free // MIB, "folder": folder}
    if found.f_flag & os.ST_RDONLY:
        yield fail(N_("{folder} can't be written: its file system is read-only"), **values)
    elif free < NO_DISK or (found.f_files and not found.f_favail):
        yield fail(N_("the disk with {folder} is full; nothing can be kept"), **values)
    elif free < LITTLE_DISK:
        yield warn(N_("{free} MiB are free where {folder} is; logs and database will fill it"), **values)
    else:
        yield ok(N_("{free} MiB are free where {folder} is"), **values)


def daemons(look: Look) -> Iterator[Answer]:
    """Does what has a control socket answer on it?"""
    running: list[str] = []
    if places.hub_socket().exists():
        try:
            Client(places.hub_socket(), ASK_S).ask("status")
            running.append("hub")
        except DaemonUnreachable:
            yield fail(
                N_("{path} is there and no hub answers on it: it hangs or was killed; start it again"),
                path=places.hub_socket(),
            )
        except UkihashiError as error:
            yield skip(N_("could not be looked at: {reason}"), reason=error)
    for name in look.accounts:
        if not places.card_socket(name).exists():
            continue
        try:
            control.client(name).ask("status")
            running.append(f"card {name}")
        except DaemonUnreachable:
            yield warn(
                N_("the card {name} was killed or hangs; ukihashi card clean, then ukihashi card up {name}"), name=name
            )
        except UkihashiError as error:
            yield skip(N_("could not be looked at: {reason}"), reason=error)
    if running:
        yield ok(N_("running and answering: {names}"), names=", ".join(running))
    else:
        yield ok(N_("neither hub nor card is running"))


def leftovers(look: Look) -> Iterator[Answer]:
    """What cards that were killed left behind."""
    names = [name for name in journal.accounts() if not journal.in_use(name)]
    if not names and look.root:
        used = netlink.tables_with_routes()
        names = sorted(str(rule) for rule in netlink.own_rules() if routes.table_of(rule) not in used)
    if names:
        yield warn(
            N_("killed cards left rules or settings behind ({names}); take them back: ukihashi card clean"),
            names=", ".join(names),
        )
    else:
        yield ok(N_("nothing of killed cards is left"))


def units(look: Look) -> Iterator[Answer]:
    """What systemd says of our services."""
    systemctl = look.program("systemctl")
    if not systemctl or not (look.run / "systemd/system").is_dir():
        yield skip(N_("systemd does not run here; nothing starts hub or card at boot but what you set up"))
        return
    told = look.ask([systemctl, "show", "--property=Id,ActiveState,NRestarts,NeedDaemonReload,UnitFileState", *UNITS])
    found: list[str] = []
    for block in told.split("\n\n"):
        row = dict(line.partition("=")[::2] for line in block.splitlines())
        name, state = row.get("Id", ""), row.get("ActiveState", "")
        if not name or (state == "inactive" and not row.get("UnitFileState")):
            continue
        found.append(f"{name} {state}")
        if state == "failed":
            yield fail(N_("{name} has failed; see: journalctl -u {name}"), name=name)
        elif int(row.get("NRestarts") or 0) > OFTEN:
            yield warn(
                N_("{name} was started again {count} times; see: journalctl -u {name}"),
                name=name,
                count=row["NRestarts"],
            )
        if row.get("NeedDaemonReload") == "yes":
            yield warn(N_("the unit of {name} has changed; systemctl daemon-reload"), name=name)
    if found:
        yield ok(N_("systemd: {names}"), names=", ".join(found))
    else:
        yield skip(N_("systemd runs none of our services"))


def reports(_look: Look) -> Iterator[Answer]:
    """Faults of ours in the last week."""
    found: list[tuple[float, Path]] = []
    for path in Path(tempfile.gettempdir()).glob(REPORTS):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime, path))
    recent = sorted(one for one in found if one[0] > time.time() - RECENT_S)
    if recent:
        yield warn(
            N_("ukihashi failed inside {count} times in the last week; please send us the newest report, {path}"),
            count=len(recent),
            path=recent[-1][1],
        )
    else:
        yield ok(N_("no fault of ours was reported in the last week"))


CHECKS: Final[dict[str, Check]] = {
    "settings": settings,
    "accounts": accounts,
    "certificate": certificate,
    "database": database,
    "disk": disk,
    "daemons": daemons,
    "leftovers": leftovers,
    "units": units,
    "reports": reports,
}
