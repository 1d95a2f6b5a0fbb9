"""Giving rights away, for good, before the first byte of a stranger is read (Linux: capabilities(7), prctl(2)).

A process that serves calls `drop`, and `die_with` where it must not outlive its parent.
"""

import ctypes
import os
import pwd
import resource
import signal
import struct
from typing import Final, NamedTuple

from ukihashi.errors import N_, EnvironmentLacks

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
DESCRIPTORS: Final = 65536  # a hub worker's; each connection is one

# Where no account of that name exists: numbers that neither distributions (below 60000) nor systemd (61184 on) assign.
FALLBACK: Final = {
    "ukihashi": 60601, "ukihashi-worker": 60602, "ukihashi-card": 60603, "ukihashi-page": 60604,
    "ukihashi-alert": 60605,
}  # fmt: skip


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
    """Become `who` and keep no right.

    No supplementary group, no capability, no way to gain any by `exec`, no core dump (keys are in memory). Without
    root the account stays, the rest is done. Import everything first: files may be unreadable afterwards.

    Raises:
        EnvironmentLacks: the kernel refused; do not go on.
    """
    try:
        if is_root():
            os.setgroups([])
            os.setresgid(who.gid, who.gid, who.gid)
            os.setresuid(who.uid, who.uid, who.uid)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _keep_nothing()
    except OSError as error:
        raise EnvironmentLacks(
            N_("rights can't be given up: {reason}"), reason=os.strerror(error.errno or 0)
        ) from error


def die_with(parent: int, death_signal: signal.Signals) -> None:
    """Get `death_signal` when the process `parent` dies. After `drop`: a change of identity would clear it.

    Raises:
        EnvironmentLacks: the kernel refused.
    """
    if _libc().prctl(PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (int(death_signal), 0, 0, 0))):
        raise EnvironmentLacks(N_("rights can't be given up: {reason}"), reason=os.strerror(ctypes.get_errno()))
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


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _keep_nothing() -> None:
    libc = _libc()
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; two words each
    zero = ctypes.c_ulong(0)
    libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)
    if libc.capset(header, nothing) != 0 or libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), "capset")
