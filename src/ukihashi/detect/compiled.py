"""The packet kernel as machine code, by numba where that is installed: the same functions, some fifty times as fast.

Compiling takes a minute, so the result is kept beside the source (or in the user's cache folder, where the source is
not ours to write) under a name made from the source itself; loading it takes a fraction of a second.
`python -m ukihashi.capture.warm` compiles ahead of time. Nothing but this module imports numba.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from struct import pack
from tempfile import TemporaryFile
from types import FunctionType, ModuleType
from typing import Any, Final

from ukihashi.detect import columns, growth, kernel, layers, slots
from ukihashi.detect.columns import State
from ukihashi.detect.flow import Engine, Flow, FlowTable, Half

_KERNEL: Final = (layers, slots, growth, kernel)

_OUTERMOST: Final = ("run", "forget", "sweep")
# Nothing is allocated, so nothing is counted; and division by zero is none of the things that can happen.
_HOW: Final[dict[str, Any]] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}

WORTH_IT: Final = 20_000  # packets; with fewer, loading takes longer than it saves


def is_possible() -> bool:
    """Is there what it needs?"""
    return find_spec("numba") is not None and find_spec("numpy") is not None


def is_kept() -> bool:
    """Was the engine compiled here before?"""
    from importlib.metadata import version

    return (_folder() / f"kernel-{_fingerprint(version('numba'), _KERNEL)}").is_dir()


@cache
def is_ready() -> bool:
    """Load the compiled code, once; compiles what was never compiled here. False where that can't be done."""
    try:
        engine()
    except (ImportError, OSError, RuntimeError):  # not installed; made for another numpy; no folder to keep it in
        return False
    return True


@cache
def engine() -> Engine:
    """The compiled engine.

    Raises:
        ImportError: numba or numpy is not installed, or doesn't work here.
    """
    import numpy as np

    made = functions(*_KERNEL)

    def state(plain: State) -> State:
        return State(*map(array, plain))

    def packets(buffer: Any, times: Any, *rest: Any) -> tuple[Any, ...]:
        numbers = (np.asarray(column, np.int64) for column in rest)
        return array(buffer), np.asarray(times, np.float64), *numbers

    found = Engine(made["run"], made["forget"], made["sweep"], made["remove"], state, packets)
    _try_out(found)  # now, while files can be read: a function is loaded when it is first called
    return found


class _Nobody:
    """A watcher that wants nothing."""

    def turned(self, flow: Flow, time: float) -> None:
        pass

    def joined(self, flow: Flow, time: float) -> None:
        pass

    def spoke(self, half: Half, time: float) -> None:
        pass

    def closed(self, flow: Flow, time: float) -> None:
        pass

    def tick(self, now: float) -> None:
        pass


def _try_out(engine: Engine) -> None:
    """Call every function of an engine: a connection with turns that is replaced, then too many of them, then age."""
    table = FlowTable(_Nobody(), limit=8, engine=engine)
    frames = [_packet(1, 0x02, 0), _packet(1, 0x10, 8), _packet(1, 0x10, 8, back=True), _packet(1, 0x10, 9)]
    frames += [_packet(port, 0x02, 0) for port in (1, *range(2, 12))]
    for place, frame in enumerate(frames):
        table.take(layers.RAW, bytearray(frame), [(float(place), 0, len(frame), len(frame))])
    table.advance(1e9)


def _packet(port: int, flags: int, size: int, *, back: bool = False) -> bytes:
    here, there, ports = b"\x0a\0\0\x01", b"\x0a\0\0\x02", (port, 443)
    if back:
        here, there, ports = there, here, (443, port)
    tcp = pack("!HHIIBBHHH", *ports, 1000, 1000, 0x50, flags, 0, 0, 0) + bytes(size)
    return pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + here + there + tcp


def array(column: Any) -> Any:
    """The same memory as an array; a copy, where it can't be written to: code is compiled for one kind of array."""
    import numpy as np

    view = memoryview(column)
    kind = {"q": np.int64, "d": np.float64, "B": np.uint8}[view.format]
    if not view.nbytes:
        return np.zeros(0, kind)
    made = np.frombuffer(view, kind)
    return made.copy() if view.readonly else made


@cache
def functions(*modules: ModuleType) -> dict[str, Any]:
    """The functions of `modules` by name, each compiled at its first call. They call each other's compiled form.

    A function must be written before those that call it.
    """
    import numba

    made: dict[str, Any] = {}
    with _cached(numba, modules):
        for module in modules:
            names = {**vars(module), **made}
            for name, function in vars(module).items():
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    twin = FunctionType(function.__code__, names, name, function.__defaults__)
                    twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
                    made[name] = names[name] = numba.njit(twin, **_HOW, forceinline=name not in _OUTERMOST)
            if "copy_singly" in made:
                made["copy"] = made["copy_singly"]
    return made


@contextmanager
def _cached(numba: Any, modules: tuple[ModuleType, ...]) -> Iterator[None]:
    """Functions made inside are kept in a folder of their own for each state of the source."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_folder() / f"kernel-{_fingerprint(numba.__version__, modules)}")
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def _fingerprint(version: str, modules: tuple[ModuleType, ...]) -> str:
    digest = sha256(f"{version} {sys.version}".encode())
    for module in (*modules, columns):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    beside = Path(__file__).parent / "__pycache__"
    try:
        beside.mkdir(exist_ok=True)
        with TemporaryFile(dir=beside):
            pass
    except OSError:
        from platformdirs import user_cache_path

        return user_cache_path("ukihashi")
    return beside
