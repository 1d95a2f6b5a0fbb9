"""The control socket of a running card: `RUNTIME/card-ACCOUNT.sock`, verbs `status` and `leave`."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from ukihashi.config import places
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.net import control_socket


@contextlib.contextmanager
def listener(path: Path, name: str) -> Iterator[socket.socket]:
    """The card's control socket, gone afterwards. Raises: UsageError if this card is up already."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with sock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                if is_up(name):
                    raise UsageError(N_("the card “{name}” is up already; see `ukihashi card status`"), name=name)
                path.unlink()
            sock.bind(str(path))
            path.chmod(0o660)
            sock.listen()
        except OSError as error:
            raise EnvironmentLacks(
                N_("the control socket {path} can't be made: {reason}; run this as root (sudo)"),
                path=path,
                reason=error.strerror or error,
            ) from error
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)


def client(name: str) -> control_socket.Client:
    """Ask the running card of an account."""
    return control_socket.Client(
        places.card_socket(name), absent=N_("this card is not up (nothing answers on {path}); start it with `card up`")
    )


def is_up(name: str) -> bool:
    """Does a card of this account run?"""
    try:
        client(name).ask("status")
    except DaemonUnreachable:
        return False
    except UkihashiError:
        return True
    return True
