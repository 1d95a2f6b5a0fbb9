"""Accounts on disk: made from a join link or by hand, listed, edited, removed.

A file is written whole beside the old one and put in its place (an interrupted write leaves the old), readable for its
owner only. Edits keep the admin's comments.
"""

import contextlib
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import tomlkit

from ukihashi.auth.link import VIA_MAX, Link
from ukihashi.config import edit as config_edit
from ukihashi.config import places
from ukihashi.config.card import (
    CardConfig,
    Hub,
    Interface,
    Login,
    PathToHub,
    Trust,
    check,
    check_account_name,
    interface_name_for,
    load_card,
    plain,
)
from ukihashi.config.edit import not_written, put
from ukihashi.errors import N_, InputUnreadable, UsageError
from ukihashi.net.dial import via

PASSWORD_BYTES: Final = 24  # random bytes of a password we make: 192 bits
ID_BYTES: Final = 36  # of an installation: 20 for the login, 16 for node info (protocol sections 9.1, 9.4)

SECRET_MODE: Final = 0o600

_HEAD: Final = (
    "ukihashi: account of a virtual LAN card. It holds a secret; keep it readable for root only (mode 0600).",
    "Settings that are not here have their defaults.",
)

RandomBytes = Callable[[int], bytes]


def path_of(name: str) -> Path:
    """Where the account `name` lies. Raises: UsageError for a name that can't be one."""
    return places.card_config(check_account_name(name))


def names() -> list[str]:
    """All accounts of this machine, sorted."""
    folder = places.config_dir() / "card.d"
    try:
        return sorted(path.stem for path in folder.glob("*.toml"))
    except OSError as error:
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=folder, reason=error.strerror) from error


def exists(name: str) -> bool:
    """Is there such an account?"""
    return path_of(name).exists()


def read(name: str) -> CardConfig:
    """The account `name`.

    Raises:
        UsageError: there is none (the sentence names those there are).
        ConfigError: its file can't be read or is wrong.
    """
    path = path_of(name)
    if not path.exists():
        others = ", ".join(names())
        if others:
            raise UsageError(N_("there is no account “{name}”; there are: {others}"), name=name, others=others)
        raise UsageError(
            N_("there is no account “{name}”; make one with `ukihashi card join LINK`, the hub's admin gives the link"),
            name=name,
        )
    return load_card(path)


def from_link(link: Link, name: str, *, interface: str = "", random: RandomBytes = secrets.token_bytes) -> CardConfig:
    """A new account for `link`, with a password and a MAC address of its own."""
    return CardConfig(
        hub=Hub(host=link.host, port=link.port, hub=link.hub, user=link.user),
        trust=Trust(mode="pin", pin=link.pin.hex()),
        login=Login(method="password", password=make_secret(random), invite=link.token),
        path=PathToHub(known=_usable(link.via)),
        interface=Interface(
            name=interface or interface_name_for(name), mac=make_mac(random), addresses=list(link.addresses)
        ),
    )


def _usable(urls: Iterable[str]) -> list[str]:
    """The paths that can be taken; a later version's link may name kinds that this one doesn't know."""
    found: dict[via.Via, None] = {}
    for url in urls:
        with contextlib.suppress(UsageError):
            found[via.parse(url)] = None
    found.pop(via.DIRECT, None)
    return [str(one) for one in found][:VIA_MAX]


def make_secret(random: RandomBytes = secrets.token_bytes) -> str:
    """A password nobody has to remember, 192 bits."""
    return random(PASSWORD_BYTES).hex()


def make_mac(random: RandomBytes = secrets.token_bytes) -> str:
    """A locally administered address of one station (IEEE 802, the two low bits of the first byte)."""
    first, *rest = random(6)
    return bytes([first & 0xFC | 0x02, *rest]).hex(":")


def write(name: str, config: CardConfig) -> None:
    """Save an account, new or instead of the old one. Raises: EnvironmentLacks."""
    check(config)
    document = tomlkit.document()
    for line in _HEAD:
        document.add(tomlkit.comment(line))
    for section, fields in plain(config).items():
        document.add(tomlkit.nl())
        document.add(section, tomlkit.item(fields))
    put(path_of(name), tomlkit.dumps(document), mode=SECRET_MODE)


def edit(name: str, changes: dict[tuple[str, str], Any]) -> CardConfig:
    """Set values, `{("trust", "pin"): "…"}`, None to remove one; comments and order stay. Gives the new account.

    Raises: UsageError: the values can't be; nothing is written then.
    """
    path = path_of(name)
    if not path.exists():
        read(name)  # says which there are
    named = {f"{section}.{key}".removeprefix("."): value for (section, key), value in changes.items()}
    return config_edit.edit(path, CardConfig, named, mode=SECRET_MODE)


def remove(name: str) -> bool:
    """Delete an account; False if there was none."""
    try:
        path_of(name).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise not_written(path_of(name), error) from error
    return True


def open_to_others(name: str) -> bool:
    """Can others than its owner read the account's file, and so its secret?"""
    return bool(path_of(name).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def installation_id(random: RandomBytes = secrets.token_bytes) -> bytes:
    """36 bytes that stay the same on this machine, so that a hub knows a returning card from a second one (9.3)."""
    path = places.state_dir() / "card-id"
    try:
        known = bytes.fromhex(path.read_text("ascii").strip())
        if len(known) == ID_BYTES:
            return known
    except (OSError, ValueError):
        pass
    made = random(ID_BYTES)
    put(path, made.hex() + "\n", mode=SECRET_MODE)
    return made
