"""What the machine did while something was measured: CPU of process trees, time stolen by the hypervisor."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self

TICKS: Final = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """One line of /proc/PID/stat, what we need of it."""

    parent: int
    cpu_s: float  # user and system, with the children it has waited for


def stat(pid: int) -> Stat | None:
    """None if the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Stat(int(fields[1]), sum(map(int, fields[11:15])) / TICKS)


def family(roots: Iterable[int]) -> list[int]:
    """The given processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (seen := stat(int(path.name))):
            children.setdefault(seen.parent, []).append(int(path.name))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def pss_mib(pids: Iterable[int]) -> float:
    """Memory that processes hold, MiB; what several share counts once among them (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):  # it has ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Watch:
    """CPU seconds of named groups of processes and the stolen share, from construction to `stop`."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        self._groups = {name: family(pids) for name, pids in groups.items()}
        self._begin = self._now()

    def _now(self) -> tuple[dict[str, float], float, float, float]:
        cpu = {
            name: sum(seen.cpu_s for seen in map(stat, pids) if seen is not None) for name, pids in self._groups.items()
        }
        fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return cpu, fields[7] / TICKS, sum(fields) / TICKS, time.monotonic()

    def stop(self) -> "Usage":
        """What was used since the beginning."""
        cpu, stolen, total, end = self._now()
        was_cpu, was_stolen, was_total, begin = self._begin
        return Usage(
            {name: cpu[name] - was_cpu[name] for name in cpu},
            (stolen - was_stolen) / max(total - was_total, 1e-9),
            end - begin,
        )


class Usage(NamedTuple):
    """Result of a `Watch`."""

    cpu_s: dict[str, float]
    steal: float  # share of all CPU time that the hypervisor gave to others, 0..1
    seconds: float

    @property
    def total_s(self) -> float:
        """CPU seconds of all groups together."""
        return sum(self.cpu_s.values())


class Median:
    """A list of figures that prints as its median and spread."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = sorted(values)

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def middle(self) -> float:
        """The median; 0 for no figures."""
        count = len(self.values)
        return (self.values[(count - 1) // 2] + self.values[count // 2]) / 2 if count else 0.0

    def add(self, value: float) -> Self:
        """One more figure."""
        self.values = sorted([*self.values, value])
        return self

    def text(self, digits: int = 0) -> str:
        """`1,234 (1,100..1,300)`."""
        if not self.values:
            return "-"
        return f"{self.middle:,.{digits}f} ({self.values[0]:,.{digits}f}..{self.values[-1]:,.{digits}f})"
