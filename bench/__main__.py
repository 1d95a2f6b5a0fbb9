"""`./run bench NAME [--quick] [--json FILE]`: measure, side by side, in one run. A module here a bench."""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Final

HELPERS: Final = {
    "__main__", "blast", "figures", "machine", "parts", "plot", "products", "report", "rounds", "shake", "streams",
}  # fmt: skip


def names() -> list[str]:
    """The benches there are; `alert_...` are parts of `alert`."""
    found = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return sorted(name for name in found - HELPERS if not name.startswith("alert_"))


def main() -> int:
    """Run the bench named first with the words that follow; 2 if there is none of that name."""
    if len(sys.argv) < 2 or sys.argv[1] not in names():
        print(f"usage: ./run bench NAME [--quick] [--json FILE]; NAME is one of: {', '.join(names())}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"bench.{sys.argv[1]}")
    return int(module.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
