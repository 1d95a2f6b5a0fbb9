"""What a shell completes beside commands and options: names of accounts and hubs, network cards, keys of settings.

Only a process that a shell has asked (`packaging/completion.py`) comes here, so nothing of it costs a command anything.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

PATIENCE_S: Final = 1.0  # for the hub; a person waits

Names = Callable[[click.Context], Iterable[str]]


def teach(command: click.Command) -> click.Command:
    """Let every parameter below `command` complete what its metavar names; the same command."""
    for param in command.params:
        words = re.findall(r"[A-Z]+", str(getattr(param, "metavar", None) or ""))
        names = next((KNOWN[word] for word in words if word in KNOWN), None)
        if names is not None and isinstance(param.type, click.types.StringParamType):
            param.type = _Known(names)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            teach(inner)
    return command


class _Known(click.types.StringParamType):
    """Text, of which some is known."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Those that begin so; none, whatever goes wrong: a shell's line is no place for sentences."""
        del param
        try:
            names = sorted(set(self._names(ctx)))
        except Exception:  # noqa: BLE001 - see above
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _accounts(_ctx: click.Context) -> Iterable[str]:
    from ukihashi.card import account

    return account.names()


def _hubs(_ctx: click.Context) -> Iterable[str]:
    from ukihashi.config import places
    from ukihashi.net.control_socket import Client

    return (str(row["name"]) for row in Client(places.hub_socket(), PATIENCE_S).ask("list"))


def _cards(_ctx: click.Context) -> Iterable[str]:
    from ukihashi.capture.devices import devices

    return (device.interface for device in devices())


def _interfaces(_ctx: click.Context) -> Iterable[str]:
    return (one.name for one in Path("/sys/class/net").iterdir())


def _keys(ctx: click.Context) -> Iterable[str]:
    from ukihashi.config.options import options

    return (one.key for one in options("card" if " card " in f"{ctx.command_path} " else "hub"))


KNOWN: Final[Mapping[str, Names]] = {
    "ACCOUNT": _accounts,
    "HUB": _hubs,
    "CARD": _cards,
    "IFACE": _interfaces,
    "INTERFACE": _interfaces,
    "KEY": _keys,
}
