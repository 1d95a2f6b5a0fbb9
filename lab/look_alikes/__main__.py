"""python -m lab.look_alikes FOLDER [--seconds 75] [--only NAME,...] [--whole]: record them and say how it went."""

import argparse
import sys
from pathlib import Path

from lab.look_alikes import SECONDS, TABLE, record, rows, write_labels


def main() -> int:
    """1 if one failed; what is not installed is only told."""
    parser = argparse.ArgumentParser(prog="lab.look_alikes", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", default="", metavar="NAME,...")
    parser.add_argument("--whole", action="store_true", help="keep every byte")
    options = parser.parse_args()
    chosen = rows(options.only.split(",")) if options.only else TABLE
    made = record(options.folder, seconds=options.seconds, chosen=chosen, whole=options.whole)
    write_labels(options.folder, made)
    for one in made:
        state = f"skipped: {one.skipped}" if one.skipped else f"failed: {one.failed}" if one.failed else "good"
        print(f"{one.row.name:<18} {one.packets:>6} packets {one.seconds:>6.1f} s  {state}")
    return any(one.failed for one in made)


if __name__ == "__main__":
    sys.exit(main())
