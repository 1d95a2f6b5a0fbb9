"""Which path to the hub to try, and in which order; what came of it, and what worked in this network before.

A card that was told one path takes that. Else the one that carried the last link goes first, then the one that worked
in this network before, then the others as `path_sources` has them. Each dial for the same link takes the next one.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ukihashi.card.path_sources import Candidate
from ukihashi.card.status import told
from ukihashi.errors import N_, DialError, NotTrusted, UkihashiError
from ukihashi.locale import say
from ukihashi.net.dial.via import Via, parse

NETWORKS_MOST: Final = 64  # remembered; the one used longest ago makes room


class Finder:
    """The paths of one card."""

    def __init__(self, memory: "PathMemory") -> None:
        self._memory: Final = memory
        self._candidates: list[Candidate] = []
        self._network = ""
        self._carried: Via | None = None  # the last link, or it will
        self._turn = 0  # of the next dial for the present link
        self._troubles: dict[Via, UkihashiError] = {}

    def take(self, candidates: Sequence[Candidate]) -> None:
        """These are the paths from now on."""
        self._candidates = list(candidates)
        self._turn = 0

    def __len__(self) -> int:
        return len(self._candidates)

    def enter(self, network: str) -> None:
        """This machine is in that network; "": nobody can say."""
        if network != self._network:
            self._network, self._turn, self._carried = network, 0, None
            self._troubles.clear()

    @property
    def order(self) -> list[Candidate]:
        """All paths, the best first."""
        best = self._carried or self._memory.of(self._network)
        return sorted(self._candidates, key=lambda one: one.via != best)

    @property
    def best(self) -> Candidate:
        """The path that was chosen, or the likeliest."""
        return self.order[0]

    def next(self) -> Candidate:
        """The path of the next dial for the present link."""
        order, turn = self.order, self._turn
        self._turn += 1
        return order[turn % len(order)]

    def choose(self, via: Via) -> None:
        """Connections go over it from now on."""
        self._carried, self._turn = via, 0

    def carries(self, via: Via) -> None:
        """A link over it carries the session."""
        self.choose(via)
        self._troubles.pop(via, None)
        if len(self._candidates) > 1:
            self._memory.worked(self._network, via)

    def failed(self, via: Via, error: UkihashiError) -> None:
        """It did not lead to the hub this time."""
        self._troubles[via] = error

    def failure(self, account: str) -> UkihashiError:
        """When none leads to the hub: what to tell."""
        failed = [(one.via, self._troubles[one.via]) for one in self.order if one.via in self._troubles]
        if len({(type(error), str(error)) for _via, error in failed}) == 1:
            return failed[0][1]
        if failed and all(isinstance(error, NotTrusted) for _via, error in failed):
            return failed[0][1]
        return DialError(
            N_("no path leads to the hub: {paths}. `ukihashi card doctor {account}` says more"),
            paths=", ".join(f"{via} ({say(error)})" for via, error in failed),
            account=account,
        )

    def rows(self) -> list[dict[str, Any]]:
        """For `card status`: each path, where it is from, and what was wrong with it the last time."""
        return [
            {
                "via": str(one.via),
                "source": one.source,
                "used": one.via == self._carried,
                "reason": told(self._troubles.get(one.via)),
            }
            for one in self.order
        ]


class _Remembered(msgspec.Struct):
    via: str
    at: float  # Unix time


class PathMemory:
    """What worked in which network, in a small file; without one for as long as we live."""

    def __init__(self, path: Path | None) -> None:
        self._path: Final = path
        self._known: dict[str, _Remembered] = {}
        if path is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):  # none yet, or nothing that could be used
                self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, _Remembered])

    def of(self, network: str) -> Via | None:
        """What worked there the last time."""
        known = self._known.get(network)
        with contextlib.suppress(UkihashiError):
            return parse(known.via) if known is not None else None
        return None

    def worked(self, network: str, via: Via) -> None:
        """It worked there; whether that could be written down does not matter."""
        known = self._known.get(network)
        if not network or (known is not None and known.via == str(via)):
            return
        self._known[network] = _Remembered(str(via), time.time())
        for old in sorted(self._known, key=lambda name: self._known[name].at)[
            : max(0, len(self._known) - NETWORKS_MOST)
        ]:
            del self._known[old]
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_bytes(msgspec.json.encode(self._known))
            beside.replace(self._path)
