"""Cascades: the hub's verbs about other hubs that a virtual hub joins as a bridge, and control's side of those joined.

An account is a card's account, option for option, without what is about an interface. What is secret in it, or would
be a file, is kept apart in the database and goes to the cascade's process alone, over a link of its own
(`config.cascade`).
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec
import structlog

from ukihashi.auth.link import Link
from ukihashi.auth.names import check_hub_name, check_user_name
from ukihashi.config import options as card_options
from ukihashi.config.card import CardConfig, Interface, Login, Trust, check_account_name, parse_pin
from ukihashi.config.card import Hub as Place
from ukihashi.config.cascade import MAX_MESSAGE, Begin, Standing, decode_standing, encode
from ukihashi.config.hub import parse_public
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.hub.backstage import Live, pick_hub
from ukihashi.hub.changes import Values, changed_policy
from ukihashi.hub.messages import CascadeGone, CascadeUp, CascadeWanted
from ukihashi.hub.storage import Storage
from ukihashi.net.control_socket import Handler, Row, asker
from ukihashi.store import cascades, hubs
from ukihashi.store.cascades import Cascade
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import DEFAULT

DEFAULT_PORT: Final = 443
PASSWORD_BYTES: Final = 24  # of a password we make for a join link
ID_BYTES: Final = 36  # that other hubs know a cascade by
MAX_FILE: Final = 32_768  # characters; all of them together go in one packet

NOWHERE: Final = Interface(name="cascade", mac="02:00:00:00:00:01")  # the structure wants one; there is none
NOT_HERE: Final = ("interface.", "echo_guard.")  # options that say nothing of a cascade
FILES: Final = ("login.certificate", "login.key", "trust.ca_file")  # options that name files: kept as what is in them
KEPT: Final = "kept"  # their value in an account
IDS: Final = "ids"  # among the secrets, as PASSWORD_HASH: no options
PASSWORD_HASH: Final = "password_hash"  # noqa: S105 - its name

Method = Literal["password", "plain", "anonymous", "certificate"]

_log = structlog.get_logger()


@dataclass(eq=False)
class _Joined:
    """One that is to be joined."""

    cascade: Cascade
    hub: str
    sock: socket.socket | None = None  # to its process
    standing: Standing | None = None


@dataclass(slots=True)
class _Tasks:
    """Tasks that nobody waits for, held until they are done."""

    running: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)


class Cascades:
    """See the module."""

    def __init__(self, storage: Storage, live: Live, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._live = live
        self._clock = clock
        self._joined: dict[int, _Joined] = {}
        self._tasks = _Tasks()
        self._refreshing = asyncio.Lock()

    def verbs(self) -> dict[str, Handler]:
        """Every verb by its name on the control socket."""
        return {
            "cascades": self.cascades,
            "cascade_show": self.cascade_show,
            "cascade_create": self.cascade_create,
            "cascade_set": self.cascade_set,
            "cascade_delete": self.cascade_delete,
        }

    # -- verbs ----------------------------------------------------------------------------------------------------

    async def cascades(self, hub: str = "") -> list[Row]:
        """Cascades of one hub, or of all."""
        home = await pick_hub(self._storage, hub) if hub else None
        return await self._rows(await self._storage.read(cascades.all_cascades, home))

    async def cascade_show(self, name: str, hub: str = "") -> list[Row]:
        """One cascade, with its options."""
        home = await pick_hub(self._storage, hub)
        one = await self._storage.read(cascades.get, home, name)
        [row] = await self._rows([one])
        policy = msgspec.to_builtins(one.policy or DEFAULT)
        return [row | {"options": _visible(one), "policy": policy}]

    async def cascade_create(
        self,
        name: str,
        *,
        hub: str = "",
        link: str = "",
        server: str = "",
        remote_hub: str = "",
        user: str = "",
        method: Method = "password",
        password: str = "",
        password_hash: str = "",
        pin: str = "",
        options: dict[str, Any] | None = None,
        policy: Values | None = None,
        offline: bool = False,
    ) -> list[Row]:
        """Make a cascade, by a join link or by hand; it is joined at once unless `offline`.

        Args:
            password_hash: in place of `password`: its standard form, 40 hexadecimal digits.
            options: of a card's account, by their names; those that name files say what is in them.
        """
        home = await pick_hub(self._storage, hub)
        name = check_account_name(name)
        if link:
            if server or remote_hub or user or password or password_hash or pin:
                raise UsageError(N_("a join link says where and as whom; leave the other options out"))
            config = _by_link(Link.parse(link))
        else:
            config = _by_hand(server, remote_hub, user, method, password or (KEPT if password_hash else ""), pin)
        account, hidden = _taken_apart(config, options or {})
        if password_hash:
            hidden[PASSWORD_HASH] = _hash(password_hash).hex()
        hidden[IDS] = secrets.token_hex(ID_BYTES)
        made = await self._storage.change(
            cascades.create,
            home,
            name,
            account=account,
            secrets=hidden,
            policy=changed_policy(DEFAULT, policy) if policy else None,
            online=not offline,
            now=self._clock(),
        )
        _log.info("cascade_created", hub=home.name, cascade=made.name, by=asker.get())
        await self.refresh()
        return await self._rows([made])

    async def cascade_set(
        self,
        name: str,
        *,
        hub: str = "",
        online: bool | None = None,
        password_hash: str = "",
        options: dict[str, Any] | None = None,
        policy: Values | None = None,
    ) -> list[Row]:
        """Change what is named; a cascade that is joined joins anew with it. `password_hash`: as `cascade_create`."""
        home = await pick_hub(self._storage, hub)
        hashed = {PASSWORD_HASH: _hash(password_hash).hex()} if password_hash else {}
        if hashed:
            options = {**(options or {}), "login.method": "password", "login.password": KEPT}

        def put(db: Database) -> Cascade:
            known = cascades.get(db, home, name)
            account, hidden = known.account, known.secrets
            if options:
                account, changed = _taken_apart(_whole(known), options)
                over = {*options, PASSWORD_HASH} if "login.password" in options else {*options}
                kept = {IDS, PASSWORD_HASH, *FILES} - over
                hidden = {key: value for key, value in hidden.items() if key in kept} | changed | hashed
            wanted = replace(
                known,
                online=known.online if online is None else online,
                account=account,
                secrets=hidden,
                policy=changed_policy(known.policy or DEFAULT, policy) if policy else known.policy,
            )
            cascades.put(db, wanted)
            return wanted

        wanted = await self._storage.change(put)
        changed = sorted([*(options or {}), *(policy or {})])
        _log.info(
            "cascade_changed", hub=home.name, cascade=wanted.name, online=wanted.online, changed=changed, by=asker.get()
        )
        await self.refresh()
        return await self._rows([wanted])

    async def cascade_delete(self, name: str, hub: str = "") -> list[Row]:
        """Leave the other hub and forget the account."""
        home = await pick_hub(self._storage, hub)
        known = await self._storage.read(cascades.get, home, name)
        [row] = await self._rows([known])
        await self._storage.change(cascades.delete, known)
        _log.info("cascade_deleted", hub=home.name, cascade=known.name, by=asker.get())
        await self.refresh()
        return [row]

    # -- what is to be joined -------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Join what is to be joined, with what it is to be joined with, and leave the rest."""
        async with self._refreshing:
            names = {one.id: one.name for one in await self._storage.read(hubs.all_hubs) if one.online}
            known = await self._storage.read(cascades.all_cascades)
            wanted = {one.id: one for one in known if one.online and one.hub_id in names}
            for number, joined in list(self._joined.items()):
                one = wanted.get(number)
                if one != joined.cascade or names.get(one.hub_id) != joined.hub:
                    await self._leave(number)
            for number, one in wanted.items():
                if number not in self._joined:
                    self._joined[number] = joined = _Joined(one, names[one.hub_id])
                    await self._live.tell_supervisor(CascadeWanted(number, joined.hub, one.name, one.policy or DEFAULT))

    async def tell_worker(self) -> None:
        """It is a new one."""
        for number, joined in self._joined.items():
            await self._live.tell_worker(CascadeUp(number, joined.standing is not None and joined.standing.up))

    def linked(self, number: int, sock: socket.socket) -> None:
        """The supervisor has started the process of a cascade, or tells a new control process of it."""
        joined = self._joined.get(number)
        if joined is None:
            sock.close()
            return
        self._unlink(joined)
        joined.sock = sock
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._heard, joined)
        try:
            sock.send(encode(_begin(joined)))
        except OSError:  # it has ended already: that is read in a moment
            return

    def close(self) -> None:
        """Let go of all; the supervisor ends them, or keeps them for the next control process."""
        for joined in self._joined.values():
            self._unlink(joined)

    async def _leave(self, number: int) -> None:
        joined = self._joined.pop(number)
        self._unlink(joined)
        await self._live.tell_worker(CascadeUp(number, up=False))
        await self._live.tell_supervisor(CascadeGone(number))

    def _unlink(self, joined: _Joined) -> None:
        if joined.sock is not None:
            asyncio.get_running_loop().remove_reader(joined.sock.fileno())
            joined.sock.close()
            joined.sock = None

    def _heard(self, joined: _Joined) -> None:
        assert joined.sock is not None
        try:
            standing: Standing | None = decode_standing(joined.sock.recv(MAX_MESSAGE))
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):  # also the end of the stream: it is started anew
            self._unlink(joined)
            standing = None
        was_up = joined.standing is not None and joined.standing.up
        is_up = standing is not None and standing.up
        joined.standing = standing
        if is_up != was_up:
            self._tasks.start(self._live.tell_worker(CascadeUp(joined.cascade.id, is_up)))
        if standing is not None and standing.row.get("state") == "online":
            changes = _learned(joined.cascade, standing.row)
            if changes:
                self._tasks.start(self._learn(joined, changes))

    async def _learn(self, joined: _Joined, changes: dict[str, Any]) -> None:
        """What the first login settled: the key that was trusted, the invitation that is spent."""
        home, name = joined.hub, joined.cascade.name

        def put(db: Database) -> Cascade:
            known = cascades.get(db, hubs.get(db, home), name)
            account, hidden = _taken_apart(_whole(known), changes)
            wanted = replace(known, account=account, secrets=known.secrets | {"login.invite": ""} | hidden)
            cascades.put(db, wanted)
            return wanted

        before = joined.cascade
        try:
            after = await self._storage.change(put)
        except UkihashiError as error:  # deleted meanwhile, or a full disk
            _log.warning("internal_error", reason=str(error))
            return
        if joined.cascade is before:
            joined.cascade = after

    # -- rows -----------------------------------------------------------------------------------------------------

    async def _rows(self, known: list[Cascade]) -> list[Row]:
        names = {one.id: one for one in await self._storage.read(hubs.all_hubs)}
        try:
            ports = {int(row["cascade"]): row for row in await self._live.ask_worker("cascades")}
        except UkihashiError:
            ports = {}
        return [self._row(one, names[one.hub_id], ports.get(one.id, {})) for one in known if one.hub_id in names]

    def _row(self, one: Cascade, hub: Hub, port: Mapping[str, Any]) -> Row:
        joined = self._joined.get(one.id)
        standing = joined.standing.row if joined is not None and joined.standing is not None else {}
        state = "starting" if joined is not None else "offline" if not one.online else "hub_offline"
        place = one.account["hub"]
        host, number = place["host"], place.get("port", DEFAULT_PORT)
        return {
            "hub": hub.name,
            "name": one.name,
            "online": one.online,
            "server": f"[{host}]:{number}" if ":" in host else f"{host}:{number}",
            "remote_hub": place["hub"],
            "user": place["user"],
            "method": one.account.get("login", {}).get("method", "password"),
            "created_at": one.created_at,
            "loop": "",
            **{key: value for key, value in standing.items() if key not in {"hub", "user", "address"}},
            "state": standing.get("state", state),
            **{key: value for key, value in port.items() if key != "cascade"},
        }


def _by_link(link: Link) -> CardConfig:
    return CardConfig(
        hub=Place(host=link.host, port=link.port, hub=link.hub, user=link.user),
        trust=Trust(mode="pin", pin=link.pin.hex()),
        login=Login(method="password", password=secrets.token_hex(PASSWORD_BYTES), invite=link.token),
        interface=NOWHERE,
    )


def _by_hand(server: str, remote_hub: str, user: str, method: Method, password: str, pin: str) -> CardConfig:
    if not (server and remote_hub and user):
        raise UsageError(N_("say where to join: a join link, or server, hub and user there"))
    host, port = parse_public(server, DEFAULT_PORT)
    files = {"certificate": KEPT, "key": KEPT} if method == "certificate" else {}
    return CardConfig(
        hub=Place(host=host, port=port, hub=check_hub_name(remote_hub), user=check_user_name(user)),
        trust=Trust(mode="pin", pin=parse_pin(pin).hex()) if pin else Trust(),
        login=Login(method=method, password=password if method in {"password", "plain"} else "", **files),
        interface=NOWHERE,
    )


def _taken_apart(config: CardConfig, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The account with some options changed, as plain values without secrets; and the secrets. Raises: UsageError."""
    values, contents = {}, {}
    for key, value in changes.items():
        if key.startswith(NOT_HERE):
            raise UsageError(N_("a cascade has no interface, so “{key}” says nothing of it"), key=key)
        if key in FILES and value:
            if len(str(value)) > MAX_FILE:
                raise UsageError(N_("{key}: a file of at most {most} characters is taken"), key=key, most=MAX_FILE)
            contents[key] = str(value)
            values[key] = KEPT if value != KEPT else value
        else:
            values[key] = card_options.parse("card", key, value) if isinstance(value, str) else value
    config = card_options.applied(config, values)
    account: dict[str, Any] = msgspec.to_builtins(config)
    hidden: dict[str, Any] = {}
    for one in card_options.options("card"):
        section, _, name = one.key.rpartition(".")
        if one.secret and account[section][name]:
            hidden[one.key] = account[section][name]
            account[section][name] = ""
    return account, hidden | contents


def _whole(one: Cascade) -> CardConfig:
    """The account with its secrets; the files are not in it."""
    account = msgspec.convert(one.account, CardConfig)
    known = {option.key for option in card_options.options("card")} - set(FILES)
    return card_options.applied(account, {key: value for key, value in one.secrets.items() if key in known})


def _begin(joined: _Joined) -> Begin:
    one = joined.cascade
    return Begin(
        name=f"{joined.hub}/{one.name}",
        account=_whole(one),
        files={key: one.secrets[key] for key in FILES if key in one.secrets},
        ids=bytes.fromhex(one.secrets[IDS]),
        password_hash=bytes.fromhex(one.secrets.get(PASSWORD_HASH, "")),
    )


def _learned(one: Cascade, row: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if one.secrets.get("login.invite"):
        changes["login.invite"] = None
    trust = one.account.get("trust", {})
    if trust.get("mode", "first-use") == "first-use" and not trust.get("pin") and row.get("pin"):
        changes["trust.pin"] = parse_pin(str(row["pin"])).hex()
    return changes


def _visible(one: Cascade) -> dict[str, Any]:
    """Its options that are no secret and differ from the default."""
    config = msgspec.convert(one.account, CardConfig)
    values = card_options.values(config)
    return {
        option.key: values[option.key]
        for option in card_options.options("card")
        if not option.secret and not option.key.startswith(NOT_HERE) and values[option.key] != option.default
    }


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 20:
        raise UsageError(N_("a standard hash has 40 hexadecimal digits"))
    return digest
