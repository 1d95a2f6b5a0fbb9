"""One target in a process of its own, and the watch over it.

The child notes every input in memory shared with its parent before it handles it, so that the input survives whatever
happens to the child: killed for its memory, crashed in C, or busy for ever.
"""

import contextlib
import hashlib
import json
import mmap
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fuzz import targets
from fuzz.mutate import MAX_INPUT, Mutator
from ukihashi.errors import UkihashiError

ROOT: Final = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "fuzz.harness")  # starts a child; its job follows
MEMORY: Final = 512 << 20  # bytes of address space of a child
HANG_S = 5.0  # one input may take this long
_SMALL: Final = 4096  # bytes; longer inputs are slow and seldom lead further
_HEAD: Final = struct.Struct("=QI")  # inputs so far, length of the current one


@dataclass
class Job:
    """What a child is to do."""

    target: str
    seconds: float
    seed: int
    corpus: str | None  # a folder with more seeds
    shared: str  # the file that is shared memory


@dataclass
class Outcome:
    """What became of it."""

    target: str
    executions: int = 0
    seconds: float = 0.0
    features: int = 0  # different results and errors seen
    problem: str = ""  # "" = no crash
    data: bytes = b""  # the input of the crash


class Hang(BaseException):
    """An input took too long; a BaseException, so that no target catches it."""


def run(target: str, *, seconds: float, seed: int, corpus: Path | None) -> Outcome:
    """Fuzz `target` in a child for about `seconds` and tell what came of it."""
    with tempfile.NamedTemporaryFile(prefix="fuzz-") as file:
        file.truncate(_HEAD.size + MAX_INPUT)
        job = Job(target, seconds, seed, str(corpus) if corpus else None, file.name)
        start = time.monotonic()
        child = subprocess.Popen(
            [*COMMAND, json.dumps(asdict(job))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child, mmap.mmap(file.fileno(), 0) as shared:
            try:
                output = _watch(child, shared)
            finally:
                child.kill()
            executions, length = _HEAD.unpack_from(shared)
            current = shared[_HEAD.size : _HEAD.size + length]
    outcome = Outcome(target, executions, time.monotonic() - start)
    try:
        told: dict[str, Any] = json.loads(output)
    except ValueError:
        told = {"problem": f"the process ended with status {child.returncode}, or hung"}
    outcome.problem, outcome.features = told.get("problem", ""), told.get("features", 0)
    outcome.data = current if outcome.problem else b""
    return outcome


def _watch(child: subprocess.Popen[str], shared: mmap.mmap) -> str:
    """The child's output; "" if it had to be killed, because one input kept it busy for twice its time."""
    last, since = -1, time.monotonic()
    while True:
        try:
            output, _ = child.communicate(timeout=0.5)
        except subprocess.TimeoutExpired:
            executions = _HEAD.unpack_from(shared)[0]
            if executions != last:
                last, since = executions, time.monotonic()
            elif time.monotonic() - since > 2 * HANG_S + 5.0:  # the start counts, too
                return ""
        else:
            return output


def reproduce(target: str, data: bytes) -> str:
    """Handle one input here; "" if it went as it must, else what went wrong."""
    return _try(targets.load(target), data)[0]


def save(outcome: Outcome, folder: Path) -> Path:
    """Keep the input of a crash; the same input gets the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.target}-{hashlib.sha256(outcome.data).hexdigest()[:12]}.bin"
    path.write_bytes(outcome.data)
    return path


def _try(target: targets.Target, data: bytes) -> tuple[str, object]:
    """What went wrong, or "", and a feature: what the input led to."""
    try:
        return "", target.run(data)
    except target.ALLOWED as error:
        str(error)  # its template must fit its values
        return "", (type(error).__name__, error.template if isinstance(error, UkihashiError) else "")
    except Hang:
        return f"one input took more than {HANG_S:g} s", None
    except BaseException as error:  # noqa: BLE001 - anything else is what we look for
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
        return f"{type(error).__name__}: {str(error)[:200]} at {where}", None


def _child(job: Job) -> dict[str, object]:
    target = targets.load(job.target)
    seeds = target.seeds()
    if job.corpus:
        folder = Path(job.corpus)
        nested = folder / job.target
        seeds += [path.read_bytes()[:MAX_INPUT] for path in sorted((nested if nested.is_dir() else folder).glob("*.*"))]
    mutator = Mutator(random.Random(job.seed), seeds, getattr(target, "TOKENS", ()))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _hung)
    features: set[object] = set()
    first = iter(seeds)  # valid inputs must pass, too
    end = time.monotonic() + job.seconds
    with Path(job.shared).open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        executions = 0
        while time.monotonic() < end:
            data = next(first, None) or mutator.next()
            shared[_HEAD.size : _HEAD.size + len(data)] = data
            executions += 1
            _HEAD.pack_into(shared, 0, executions, len(data))
            signal.setitimer(signal.ITIMER_REAL, HANG_S)
            problem, feature = _try(target, data)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if problem:
                return {"problem": problem, "features": len(features)}
            if feature not in features:
                features.add(feature)
                if len(data) <= _SMALL:
                    mutator.keep(data)
    return {"features": len(features)}


def _hung(_number: int, _frame: FrameType | None) -> None:
    raise Hang


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        print(json.dumps(_child(Job(**json.loads(sys.argv[1])))))
