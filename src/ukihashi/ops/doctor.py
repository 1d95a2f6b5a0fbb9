"""Is this machine fit to be a hub, or to hold a card? Looked at before trouble comes, each answer with what to do.

Nothing is changed, and nothing is sent but to this machine's own control sockets. A check that hangs is given up after
a deadline; one that may not see what it wants says so. What is looked at is in `doctor_machine`, `doctor_state`,
`doctor_network` and `doctor_firewall`; here is what they have in common.
"""

import enum
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from ukihashi.config import places
from ukihashi.config.card import CardConfig, load_card
from ukihashi.config.hub import HubConfig, load_hub
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.net.privileges import is_root

DEADLINE_S: Final = 5.0  # for each check
COMMAND_S: Final = 3.0  # for each program that a check asks
SEARCH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"  # where the system's programs are, whatever PATH says
NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Level(enum.Enum):
    """How bad it is."""

    OK = "OK"
    SKIP = "SKIP"  # could not be seen, or there is nothing to see
    WARN = "WARN"
    FAIL = "FAIL"


class Finding(NamedTuple):
    """One answer: its name never changes; the sentence is a template for the catalogue."""

    name: str
    level: Level
    template: str
    values: Mapping[str, object] = NOTHING

    @property
    def sentence(self) -> UkihashiError:
        """What `locale.say` takes."""
        return UkihashiError(self.template, **self.values)


class Answer(NamedTuple):
    """A finding before it has its name."""

    level: Level
    template: str
    values: Mapping[str, object] = NOTHING


def ok(template: str, **values: object) -> Answer:
    """All is well."""
    return Answer(Level.OK, template, values)


def skip(template: str, **values: object) -> Answer:
    """Nothing to say."""
    return Answer(Level.SKIP, template, values)


def warn(template: str, **values: object) -> Answer:
    """Works, but."""
    return Answer(Level.WARN, template, values)


def fail(template: str, **values: object) -> Answer:
    """Does not work."""
    return Answer(Level.FAIL, template, values)


@dataclass(frozen=True)
class Look:
    """What the checks look at. The folders can be others in tests."""

    root: bool = field(default_factory=is_root)
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    etc: Path = Path("/etc")
    run: Path = Path("/run")
    search: str = SEARCH

    @cached_property
    def hub(self) -> HubConfig | UkihashiError:
        """`hub.toml`, or what is wrong with it."""
        try:
            return load_hub(places.hub_config())
        except UkihashiError as error:
            return error

    @property
    def hub_config(self) -> HubConfig:
        """`hub.toml`, or what holds without it."""
        return self.hub if isinstance(self.hub, HubConfig) else HubConfig()

    @cached_property
    def is_hub(self) -> bool:
        """Has a hub been set up here?"""
        return places.hub_config().exists() or self.database.exists() or places.hub_socket().exists()

    @property
    def database(self) -> Path:
        """The hub's."""
        return places.state_dir() / "hub" / "hub.db"

    @cached_property
    def accounts(self) -> dict[str, CardConfig | UkihashiError]:
        """The card's accounts by name, or what is wrong with each; none where they may not be listed."""
        found: dict[str, CardConfig | UkihashiError] = {}
        try:
            paths = sorted((places.config_dir() / "card.d").glob("*.toml"))
        except OSError:
            return found
        for path in paths:
            try:
                found[path.stem] = load_card(path)
            except UkihashiError as error:
                found[path.stem] = error
        return found

    @property
    def cards(self) -> dict[str, CardConfig]:
        """Those that can be read."""
        return {name: config for name, config in self.accounts.items() if isinstance(config, CardConfig)}

    @property
    def bridges(self) -> list[tuple[str, str]]:
        """Who is joined with which interface of this machine."""
        joined = [(f"hub {hub}", name) for hub, names in self.hub_config.bridges.items() for name in names]
        cards = [(f"card {account}", card.interface.bridge) for account, card in self.cards.items()]
        return [*joined, *(one for one in cards if one[1])]

    def text(self, path: Path) -> str:
        """A file of the system's; "" if there is none, or it may not be read."""
        try:
            return path.read_text(errors="replace").strip()
        except OSError:
            return ""

    def number(self, path: Path, default: int = 0) -> int:
        """A file that holds a number."""
        text = self.text(path)
        return int(text) if text.removeprefix("-").isdigit() else default

    def program(self, name: str) -> str:
        """Where a program is, "" if nowhere."""
        return shutil.which(name, path=self.search) or ""

    def ask(self, argv: Sequence[str], stdin: str = "") -> str:
        """What a program of the system's says. Raises: EnvironmentLacks: it can't be asked, or fails."""
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_S,
                check=False,
                env={"PATH": SEARCH, "LC_ALL": "C"},
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentLacks(N_("{what}: {reason}"), what=argv[0], reason=error) from error
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or str(done.returncode)).splitlines()[0]
            raise EnvironmentLacks(N_("{what}: {reason}"), what=argv[0], reason=reason)
        return done.stdout


Check = Callable[[Look], Iterable[Answer]]


def checks() -> dict[str, Check]:
    """All checks by name, in the order in which they are told."""
    from ukihashi.ops import doctor_firewall, doctor_machine, doctor_network, doctor_state

    parts = (doctor_machine, doctor_state, doctor_network, doctor_firewall)
    return {name: check for part in parts for name, check in part.CHECKS.items()}


def examine(look: Look, some: Mapping[str, Check], *, deadline_s: float = DEADLINE_S) -> Iterator[Finding]:
    """Make the checks, one after the other; each has `deadline_s` seconds."""
    for name, check in some.items():
        for answer in _answers(look, check, deadline_s):
            yield Finding(name, *answer)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst of them."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


def _answers(look: Look, check: Check, deadline_s: float) -> list[Answer]:
    answers: list[Answer] = []
    faults: list[Exception] = []

    def make() -> None:
        try:
            answers.extend(check(look))
        except Exception as error:  # noqa: BLE001 - told below, in the thread that waits
            faults.append(error)

    thread = threading.Thread(target=make, daemon=True)  # what hangs in the kernel is left behind
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        return [warn(N_("nothing came within {seconds:g} s; a disk or a program hangs"), seconds=deadline_s)]
    for error in faults:
        if not isinstance(error, UkihashiError | OSError):
            raise error
        return [*answers, skip(N_("could not be looked at: {reason}"), reason=error)]
    return answers
