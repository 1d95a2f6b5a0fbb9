"""The packet kernel as machine code, by numba where that is installed: the same functions, some fifty times as fast.

Compiling takes a minute, so the result is kept beside the source (or in the user's cache folder, where the source is
not ours to write) under a name made from the source itself; loading it takes a fraction of a second. Run this module
to compile ahead of time. Nothing but this module imports numba.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from ukihashi.detect import columns, growth, kernel, layers, slots
from ukihashi.detect.columns import State
from ukihashi.detect.flow import Engine, FlowTable

_MODULES: Final = (layers, slots, growth, kernel)
_EVERYTHING: Final = (*_MODULES, columns)


def is_possible() -> bool:
    """Is there what it needs?"""
    return find_spec("numba") is not None and find_spec("numpy") is not None


def load(cache: Path | None = None) -> Engine:
    """The compiled engine; compiles what is not in `cache` yet.

    Raises:
        ImportError: numba or numpy is not installed, or doesn't work here.
    """
    import numpy as np

    functions = _compile(_MODULES, cache)

    def state(plain: State) -> State:
        return State(*(_array(np, column) for column in plain))

    def packets(buffer: Any, times: Any, *rest: Any) -> tuple[Any, ...]:
        data = np.frombuffer(buffer, np.uint8)
        if not data.flags.writeable:  # compiled for one kind of array
            data = data.copy()
        numbers = (np.asarray(column, np.int64) for column in rest)
        return data, np.asarray(times, np.float64), *numbers

    return Engine(functions["run"], functions["forget"], functions["sweep"], functions["remove"], state, packets)


def _array(np: Any, column: memoryview) -> Any:
    kinds = {"q": np.int64, "d": np.float64, "B": np.uint8}
    return np.frombuffer(column, kinds[column.format]) if column.nbytes else np.zeros(0, kinds[column.format])


def _compile(modules: tuple[ModuleType, ...], cache: Path | None) -> dict[str, Any]:
    """The functions of `modules` by name, each compiled at its first call. They call each other's compiled form."""
    import numba

    made: dict[str, Any] = {}
    with _cached(numba, cache):
        for module in modules:
            names = {**vars(module), **made}
            for name, function in vars(module).items():
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    twin = FunctionType(function.__code__, names, name, function.__defaults__)
                    twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
                    made[name] = names[name] = numba.njit(twin, cache=True, nogil=True)
    return made


@contextmanager
def _cached(numba: Any, cache: Path | None) -> Iterator[None]:
    """Functions made inside are kept in a folder of their own for each state of the source."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str((cache or _folder()) / f"kernel-{_fingerprint(numba.__version__)}")
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def _fingerprint(version: str) -> str:
    digest = sha256(f"{version} {sys.version}".encode())
    for module in _EVERYTHING:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    beside = Path(__file__).parent / "__pycache__"
    try:
        beside.mkdir(exist_ok=True)
        probe = beside / "kernel-writable"
        probe.touch()
        probe.unlink()
    except OSError:
        from platformdirs import user_cache_path

        return user_cache_path("ukihashi")
    return beside


class _Nobody:
    """A watcher that wants nothing."""

    def turned(self, *_: object) -> None:
        pass

    joined = spoke = closed = turned

    def tick(self, now: float) -> None:
        pass


def main() -> None:
    """Compile everything, so that the first start is quick."""
    engine = load()
    table = FlowTable(_Nobody(), limit=16, engine=engine)
    table.take(layers.ETHERNET, bytearray(64), [(0.0, 0, 64, 64)])
    engine.forget(engine.state(table._state), 0)  # noqa: SLF001
    engine.sweep(engine.state(table._state), 0.0)  # noqa: SLF001


if __name__ == "__main__":
    main()
