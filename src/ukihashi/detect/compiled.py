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
from tempfile import TemporaryFile
from types import FunctionType, ModuleType
from typing import Any, Final

from ukihashi.detect import columns, growth, kernel, layers, slots
from ukihashi.detect.columns import State
from ukihashi.detect.flow import Engine

_KERNEL: Final = (layers, slots, growth, kernel)

WORTH_IT: Final = 20_000  # packets; with fewer, loading takes longer than it saves


def is_possible() -> bool:
    """Is there what it needs?"""
    return find_spec("numba") is not None and find_spec("numpy") is not None


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

    return Engine(made["run"], made["forget"], made["sweep"], made["remove"], state, packets)


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
                    made[name] = names[name] = numba.njit(twin, cache=True, nogil=True)
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
