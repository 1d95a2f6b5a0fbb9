"""`python -m fuzz`: all targets, or one. Exit status: 0 no crash, 1 a crash, 2 wrong usage."""

import argparse
import random
import sys
from pathlib import Path

from fuzz import harness, targets


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Mutation fuzzing of what reads strangers' bytes."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--target", choices=targets.names(), action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, help="random numbers as in an earlier run")
    parser.add_argument("--corpus", type=Path, help="folder with more valid inputs, or with a folder for each target")
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"), help="where inputs of crashes are kept")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="handle this input once, with --target")
    options = parser.parse_args()
    if options.reproduce:
        if not options.target:
            parser.error("--reproduce wants --target")
        problem = harness.reproduce(options.target[0], options.reproduce.read_bytes())
        print(problem or "no crash")
        return 1 if problem else 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    crashed = False
    for name in options.target or targets.names():
        outcome = harness.run(name, seconds=options.seconds, seed=seed, corpus=options.corpus)
        rate = outcome.executions / max(outcome.seconds, 0.001)
        print(f"{name:12} {outcome.executions:9} inputs {rate:8.0f}/s {outcome.features:5} results, seed {seed}")
        if outcome.problem:
            crashed = True
            path = harness.save(outcome, options.crashes)
            print(f"{name:12} CRASH {outcome.problem}")
            print(f"{name:12} again: {sys.executable} -m fuzz --target {name} --reproduce {path}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
