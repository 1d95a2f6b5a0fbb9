"""Giving rights away, for good (capabilities(7), prctl(2)). A child calls `drop`, then `seal`, before it works."""

import ctypes
import os
import pwd
import resource
import signal
from typing import Final, NamedTuple

from ukihashi.errors import N_, EnvironmentLacks

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_NO_NEW_PRIVS: Final = 38
DESCRIPTORS: Final = 65536  # a worker's; each connection is one

# Where no account of that name exists: numbers that neither distributions (below 60000) nor systemd (61184 on) assign.
FALLBACK: Final = {"ukihashi": 60601, "ukihashi-worker": 60602}


class Identity(NamedTuple):
    """Whom a process becomes."""

    uid: int
    gid: int


def is_root() -> bool:
    """May give rights away, so has them."""
    return os.geteuid() == 0


def identity(user: str) -> Identity:
    """The account `user`, or the number kept for it; oneself where rights can't be given away.

    Raises:
        EnvironmentLacks: an account that was chosen by hand doesn't exist.
    """
    if not is_root():
        return Identity(os.geteuid(), os.getegid())
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        if user not in FALLBACK:
            raise EnvironmentLacks(N_("there is no account {user} on this machine"), user=user) from None
        return Identity(FALLBACK[user], FALLBACK[user])
    return Identity(account.pw_uid, account.pw_gid)


def drop(who: Identity) -> None:
    """Become `who`, with no other group and no capability."""
    if is_root():
        os.setgroups([])
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)  # from root this clears every capability set


def seal(parent: int, death_signal: signal.Signals) -> None:
    """Never gain rights again, by no program whatever; and get `death_signal` when the process `parent` dies.

    After `drop`: a change of identity would clear the signal.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, int(death_signal))):
        if prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise EnvironmentLacks(
                N_("this kernel refuses to confine a process: {reason}"), reason=os.strerror(ctypes.get_errno())
            )
    if os.getppid() != parent:  # it died before the signal was set
        os.kill(os.getpid(), death_signal)


def raise_descriptor_limit() -> int:
    """As many descriptors as the machine lets us have, at most DESCRIPTORS; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if is_root() or hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError):  # a container's cap below the kernel's
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
