"""The targets: each module here is one, found by its name.

A target module has:
    ALLOWED: the exception types that a bad input may end with;
    seeds() -> list[bytes]: valid inputs to start from (not none);
    run(data: bytes) -> object: handle one input. Its result, or the template of the error, tells the harness whether
        the input led somewhere new; it should be small and hashable. An `assert` in it states what holds for any input.
and may have:
    TOKENS: words of the format.
"""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any, Final, Protocol, cast

_VECTORS: Final = Path(__file__).parents[2] / "tests" / "wire"
SEEDS: Final = Path(__file__).parents[1] / "seeds"  # what official programs said: a folder for each target


class Target(Protocol):
    """What a target module offers."""

    ALLOWED: tuple[type[Exception], ...]

    def seeds(self) -> list[bytes]:
        """Valid inputs."""

    def run(self, data: bytes) -> object:
        """Handle one input."""


def names() -> list[str]:
    """All targets."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Target:
    """The target of that name."""
    return cast(Target, importlib.import_module(f"{__name__}.{name}"))


def vectors(of: str = "softether") -> list[dict[str, Any]]:
    """Test vectors to take seeds from: the protocol's, or the "extension"'s."""
    found: list[dict[str, Any]] = json.loads((_VECTORS / f"{of}-vectors.json").read_text())["vectors"]
    return found


def overheard(target: str) -> list[bytes]:
    """What `fuzz.overhear` has kept for a target."""
    return [path.read_bytes() for path in sorted((SEEDS / target).glob("*.bin"))]


def pieces(data: bytes, step: int) -> list[bytes]:
    """`data` cut every `step` bytes, as a slow network would, but in a few hundred pieces at most."""
    step = max(step, len(data) // 200, 1)
    return [data[at : at + step] for at in range(0, len(data), step)]
