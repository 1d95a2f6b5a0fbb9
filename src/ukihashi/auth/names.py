"""Names of virtual hubs and users: which are allowed, and when two are the same.

Case makes no difference (protocol section 9.1). UTF-8 is welcome; what would break a log line, a file name or a screen
is not.
"""

import unicodedata
from typing import Final

from ukihashi.errors import N_, UsageError

MAX_NAME: Final = 255  # bytes of UTF-8; the limit of the login PACK's fields

_FORBIDDEN: Final = frozenset('/\\:*?"<>|')
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories


def name_key(name: str) -> str:
    """Two names are the same if their keys are equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_hub_name(name: str) -> str:
    """The name in its one spelling (NFC), or `UsageError` saying what is wrong with it."""
    return _check(name)


def check_user_name(name: str) -> str:
    """The name in its one spelling (NFC), or `UsageError` saying what is wrong with it."""
    return _check(name)


def _check(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    if not name or name != name.strip():
        raise UsageError(N_("a name can't be empty, nor begin or end with a space; got “{name}”"), name=name)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(N_("a name must be valid text (UTF-8)")) from None
    if size > MAX_NAME:
        raise UsageError(
            N_("a name may have at most {limit} bytes; “{name}…” has {size}"),
            limit=MAX_NAME,
            name=name[:24],
            size=size,
        )
    for letter in name:
        if unicodedata.category(letter) in _INVISIBLE:
            raise UsageError(
                N_("a name can't contain invisible characters (found U+{code:04X} in it)"),
                code=ord(letter),
            )
        if letter in _FORBIDDEN:
            raise UsageError(N_("a name can't contain {letter} (in “{name}”)"), letter=letter, name=name)
    if name.startswith("-"):
        raise UsageError(N_("a name can't begin with a hyphen; “{name}” would look like an option"), name=name)
    return name
