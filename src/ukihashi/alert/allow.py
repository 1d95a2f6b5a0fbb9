"""Tunnels that are known: each entry of `allow.toml` has an owner, a reason and a last day.

[[allow]]
id = "3fa29c"
client = "10.1.2.0/24"      # an address or a prefix
server = "203.0.113.9"      # the same; "" = any
port = 443                  # 0 = any
family = "softether"        # or "ukihashi"; "" = any
owner = "Ann Mori, branch office"
reason = "approved on 2026-11-02, ticket 4711"
expires = 2027-03-31        # the last day it holds, in this machine's time zone
"""

import datetime as dt
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ukihashi.config import places
from ukihashi.config.load import load, parse
from ukihashi.detect.record import Allowed, Family, Finding
from ukihashi.errors import N_, ConfigError, EnvironmentLacks, UkihashiError, UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

FAMILIES: Final = tuple(family.name.lower() for family in Family)
_Words = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One tunnel, or several, that somebody answers for."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,32}$")]
    client: str
    server: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    family: str = ""
    owner: _Words
    reason: _Words
    expires: dt.date

    @cached_property
    def _client(self) -> IPv4Network | IPv6Network:
        return ip_network(self.client, strict=False)

    @cached_property
    def _server(self) -> IPv4Network | IPv6Network | None:
        return ip_network(self.server, strict=False) if self.server else None

    def check(self, path: Path) -> None:
        """Raises: ConfigError: an address or a family that can't be."""
        for name, value in (("client", self.client), ("server", self.server)):
            if value or name == "client":
                try:
                    ip_network(value, strict=False)
                except ValueError:
                    raise ConfigError(
                        N_("{path}: entry {id}: {name} must be an address or a prefix, not “{value}”"),
                        path=path,
                        id=self.id,
                        name=name,
                        value=value,
                    ) from None
        if self.family not in ("", *FAMILIES):
            raise ConfigError(
                N_("{path}: entry {id}: family must be one of {known}, not “{value}”"),
                path=path,
                id=self.id,
                known=", ".join(FAMILIES),
                value=self.family,
            )

    def holds(self, now: float) -> bool:
        """Is it not expired yet?"""
        return dt.datetime.fromtimestamp(now).astimezone().date() <= self.expires

    def fits(self, finding: Finding) -> bool:
        """Is the finding what this entry is about, expired or not?"""
        return (
            ip_address(finding.client.address) in self._client
            and (self._server is None or ip_address(finding.server.address) in self._server)
            and self.port in (0, finding.server.port)
            and self.family in ("", finding.family.name.lower())
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allow: tuple[Entry, ...] = ()


class AllowList:
    """The entries of one file, read again when it has changed."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises: ConfigError: the file can't be used."""
        self.path: Final = path or default_path()
        self._stamp = _stamp(self.path)
        self.entries = read(self.path)
        self._told: dict[str, dt.date] = {}

    def match(self, finding: Finding, now: float) -> Entry | None:
        """The first entry that holds `now` (seconds since 1970) and is about the finding."""
        return next((entry for entry in self.entries if entry.fits(finding) and entry.holds(now)), None)

    def refresh(self, tell: Callable[[UkihashiError], None]) -> None:
        """Read the file if it was changed. One that is wrong is told; the old entries stay."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.entries = read(self.path)
        except ConfigError as error:
            tell(ConfigError(N_("{error}; the allow list stays as it was"), error=error))

    def expired(self, now: float) -> Iterator[UkihashiError]:
        """A sentence for each expired entry, once a day."""
        today = dt.datetime.fromtimestamp(now).astimezone().date()
        for entry in self.entries:
            if entry.expires < today and self._told.get(entry.id) != today:
                self._told[entry.id] = today
                yield EnvironmentLacks(
                    N_("entry {id} of the allow list ({owner}) expired on {day}; what it allowed is reported again"),
                    id=entry.id,
                    owner=entry.owner,
                    day=entry.expires.isoformat(),
                )


def allowed(entry: Entry) -> Allowed:
    """What a finding says of the entry that it matches."""
    return Allowed(entry.id, entry.owner, entry.reason, entry.expires.isoformat())


def default_path() -> Path:
    """Beside `alert.toml`."""
    return places.config_dir() / "allow.toml"


def read(path: Path) -> tuple[Entry, ...]:
    """All entries; none if there is no file. Raises: ConfigError."""
    entries = load(path, _File, missing_ok=True).allow
    _check(path, entries)
    return entries


def add(
    path: Path,
    *,
    client: str,
    owner: str,
    reason: str,
    expires: dt.date,
    server: str = "",
    port: int = 0,
    family: str = "",
) -> Entry:
    """Write one more entry behind the others.

    Raises:
        UsageError: a value that can't be. ConfigError: the file is wrong as it is. EnvironmentLacks: can't be written.
    """
    if expires < dt.datetime.now().astimezone().date():
        raise UsageError(N_("{day} is over; an entry needs a last day that is to come"), day=expires.isoformat())
    fields: dict[str, Any] = {
        "id": secrets.token_hex(3),
        "client": _network("client", client),
        "server": _network("server", server) if server else "",
        "port": port,
        "family": family,
        "owner": owner.strip(),
        "reason": reason.strip(),
        "expires": expires,
    }
    for name in ("owner", "reason"):
        if not fields[name]:
            raise UsageError(N_("an entry of the allow list needs {name}"), name=name)
    import tomlkit  # a sensor only reads

    with _locked(path):
        taken = {entry.id for entry in read(path)}
        while fields["id"] in taken:
            fields["id"] = secrets.token_hex(3)
        document = _document(path)
        table = tomlkit.table()
        table.update(fields)
        tables = document.setdefault("allow", tomlkit.aot())
        tables.append(table)
        entries = _write(path, document)
    return next(entry for entry in entries if entry.id == fields["id"])


def remove(path: Path, identity: str) -> Entry:
    """Take an entry out. Raises: UsageError: there is none of that id; else as `add`."""
    from tomlkit.items import AoT

    with _locked(path):
        entries = read(path)
        for place, entry in enumerate(entries):
            if entry.id == identity:
                document = _document(path)
                tables = document["allow"]
                assert isinstance(tables, AoT)
                del tables[place]
                if not tables:  # an empty list would be written as a value, and stand before the comments
                    del document["allow"]
                _write(path, document)
                return entry
    raise UsageError(N_("the allow list has no entry {id}; `ukihashi alert allow list` shows them"), id=identity)


def _network(name: str, value: str) -> str:
    """As it is written: a prefix without host bits, an address without a length."""
    try:
        network = ip_network(value.strip(), strict=False)
    except ValueError:
        raise UsageError(N_("{name} must be an address or a prefix, not “{value}”"), name=name, value=value) from None
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _check(path: Path, entries: tuple[Entry, ...]) -> None:
    seen = set[str]()
    for entry in entries:
        entry.check(path)
        if entry.id in seen:
            raise ConfigError(N_("{path}: two entries have the id {id}"), path=path, id=entry.id)
        seen.add(entry.id)


def _document(path: Path) -> "TOMLDocument":
    import tomlkit

    try:
        return tomlkit.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return tomlkit.document()


def _write(path: Path, document: "TOMLDocument") -> tuple[Entry, ...]:
    import tomlkit

    from ukihashi.config.edit import put

    text = tomlkit.dumps(document)
    entries = parse(path, text.encode(), _File).allow
    _check(path, entries)
    put(path, text)
    return entries


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the lock is on the folder, as the file itself is replaced."""
    from ukihashi.config.edit import not_written

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise not_written(path, error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
