"""Give up rights for good, before the first byte of a stranger is read (Linux: `capabilities(7)`, `prctl(2)`)."""

import ctypes
import os
import pwd
import resource
import struct
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks

PR_SET_NO_NEW_PRIVS: Final = 38  # linux/prctl.h
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h


def drop_privileges(user: str, number: int) -> None:
    """Become `user` (or `number`, a uid no distribution assigns, where that user doesn't exist) and keep no right.

    No supplementary group, no capability, no way to gain any by `exec`, no core dump. Without root the uid stays, the
    rest is done. Import everything first: files may be unreadable afterwards.

    Raises: EnvironmentLacks: the kernel refused; do not go on.
    """
    try:
        if os.geteuid() == 0:
            uid, gid = _ids(user, number)
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _keep_nothing()
    except OSError as error:
        raise EnvironmentLacks(
            N_("rights can't be given up: {reason}"), reason=os.strerror(error.errno or 0)
        ) from error


def _ids(user: str, number: int) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return number, number
    return entry.pw_uid, entry.pw_gid


def _keep_nothing() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; two words each
    zero = ctypes.c_ulong(0)
    libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)
    if libc.capset(header, nothing) != 0 or libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), "capset")
