"""A path to the hub on a command line, and its password, which never stands there."""

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ukihashi.card.path_secrets import PathSecrets
from ukihashi.cli.arguments import hide_argument
from ukihashi.config.card import AUTO, PathToHub
from ukihashi.errors import N_, InputUnreadable, UsageError
from ukihashi.locale import _
from ukihashi.net.dial.via import DIRECT, Kind, Via, parse

Command = TypeVar("Command", bound=Callable[..., Any])

_WITHOUT_PASSWORD: Final = frozenset({Kind.DIRECT, Kind.SOCKS4, Kind.SOCKS4A})


def via_options(command: Command) -> Command:
    """`--via` and `--via-password-file`, given to the command as `via` and `via_password_file`."""
    command = click.option(
        "--via-password-file",
        type=click.File("r"),
        metavar="FILE",
        help=_("File with the password for --via in its first line; - is stdin."),
    )(command)
    return click.option(
        "--via",
        default="",
        metavar="URL",
        help=_("The path to the hub, such as http://proxy.example:3128 or ssh://user@gate.example [found out]."),
    )(command)


def path_of(text: str) -> Via:
    """A path of the command line. Raises: UsageError, also for a password in it, which `ps` no longer shows then."""
    try:
        return parse(text)
    except UsageError:
        hide_argument(text)
        raise


def path_changes(via: str, password_file: Any, *, look_up: bool = True) -> dict[str, Any]:
    """What the two options change in an account; a password that nobody knows yet is asked for on a terminal.

    `look_up`: what this user's file of passwords and keyring know need not be asked for.
    Raises: UsageError, InputUnreadable.
    """
    if not via:
        if password_file is not None:
            raise UsageError(N_("--via-password-file goes with --via"))
        return {}
    path = DIRECT if via == AUTO else path_of(via)
    changes: dict[str, Any] = {"path.via": AUTO if via == AUTO else str(path), "path.password": None}
    if password_file is not None:
        if path.kind in _WITHOUT_PASSWORD or not (path.user or path.kind is Kind.SSH):
            raise UsageError(N_("the path {via} names no user whom a password could be for"), via=changes["path.via"])
        changes["path.password"] = _first_line(password_file)
    elif path.user and path.kind not in _WITHOUT_PASSWORD:
        changes["path.password"] = _asked(path, look_up=look_up) or None
    return changes


def check_one_stdin(*files: Any) -> None:
    """Two readers of standard input would take lines from each other. Raises: UsageError."""
    if sum(getattr(file, "name", "") in {"-", "<stdin>"} for file in files) > 1:
        raise UsageError(N_("only one of them can be read from standard input; give --via-password-file a file"))


def _asked(path: Via, *, look_up: bool) -> str:
    if not sys.stdin.isatty() or (look_up and PathSecrets(PathToHub()).complete(path)[1] is not None):
        return ""
    text = _("Password for {via} (none: just Enter)").format(via=path)
    return str(click.prompt(text, default="", show_default=False, hide_input=True, err=True))


def _first_line(file: Any) -> str:
    try:
        password = str(file.readline()).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputUnreadable(N_("{path} can't be read: {reason}"), path=file.name, reason=error) from error
    if not password:
        raise UsageError(N_("the first line of {path} is empty; a password is wanted there"), path=file.name)
    return password
