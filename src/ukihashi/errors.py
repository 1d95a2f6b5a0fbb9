"""The only exception tree. A class says who must act; the message says what was seen and what to do next.

A message is a template with named fields, kept apart from its values, so that a face can print it in the reader's
language (D15) while logs and `str()` stay English. Templates are marked with `N_` where they are raised: the
catalogue is collected from those marks.
"""

from collections.abc import Callable
from typing import Final

Translate = Callable[[str], str]


def N_(template: str) -> str:  # noqa: N802 - gettext's own name for "translate later"
    """Mark `template` for the catalogue and give it back unchanged."""
    return template


class UkihashiError(Exception):
    """Anything we raise on purpose. `exit_status` is what a command ends with when this reaches its face."""

    exit_status: int = 1

    def __init__(self, template: str, **values: object) -> None:
        super().__init__(template)
        self.template: Final = template
        self.values: Final = values

    def render(self, translate: Translate) -> str:
        """The message in the language that `translate` knows; an error told as a value of another is said in it too."""
        values = {
            name: value.render(translate) if isinstance(value, UkihashiError) else value
            for name, value in self.values.items()
        }
        return translate(self.template).format(**values)

    def __str__(self) -> str:
        return self.template.format(**self.values)


class PeerViolation(UkihashiError):
    """The other end sent bytes that no correct peer sends. Drop that connection, keep the others."""


class UsageError(UkihashiError):
    """The caller asked for something that can't be: a wrong name, value or combination."""

    exit_status = 2


class ConfigError(UsageError):
    """A configuration file can't be used; the message names the file and the place in it."""


class EnvironmentLacks(UkihashiError):
    """The machine lacks what is needed: a right, a device, a port, room on the disk."""

    exit_status = 3


class DaemonUnreachable(UkihashiError):
    """No daemon answers on the control socket."""

    exit_status = 4


class Refused(UkihashiError):
    """The other end understood us and said no: wrong password, unknown hub, no room. Carries the wire's code."""

    exit_status = 5

    def __init__(self, template: str, *, code: int = 0, **values: object) -> None:
        super().__init__(template, code=code, **values)
        self.code: Final = code


class NotTrusted(UkihashiError):
    """The other end could not prove that it is the one we want."""

    exit_status = 6


class DialError(UkihashiError):
    """No connection came about, or what answered is not a hub."""

    exit_status = 7


class VersionMismatch(DialError):
    """Both ends are ours, but too far apart; the message names both versions and which one to upgrade (D6)."""


class InputUnreadable(UkihashiError):
    """A file given to us can't be read or is damaged."""

    exit_status = 2
