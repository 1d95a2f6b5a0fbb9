"""A short run of every fuzz target, and the harness itself: it finds crashes, hangs and greed."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import harness, targets
from fuzz.mutate import MAX_INPUT, Mutator

SECONDS = 2.0


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.names())
def test_no_input_crashes(name: str) -> None:
    outcome = harness.run(name, seconds=SECONDS, seed=int.from_bytes(os.urandom(4), "big"), corpus=None)
    assert outcome.problem == "", outcome.data.hex()
    assert outcome.executions > 0
    assert outcome.features > 1


@pytest.mark.parametrize("name", targets.names())
def test_every_valid_input_is_handled(name: str) -> None:
    found = targets.load(name).seeds()
    assert found
    assert [harness.reproduce(name, data) for data in found] == [""] * len(found)
    assert harness.reproduce(name, b"") == ""


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, again = (Mutator(random.Random(7), [b"abc", b"\0\0\0\x05hello" * 9], [b"T"]) for _ in range(2))
    made = [first.next() for _ in range(300)]
    assert made == [again.next() for _ in range(300)]
    assert len(set(made)) > 200
    assert max(map(len, made)) <= MAX_INPUT


BAD = '''
"""A target that fails as {kind}."""
ALLOWED = (ValueError,)
def seeds(): return [b"good"]
def run(data):
    if data == b"good": return 1
    {code}
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "code", "word"),
    [
        ("a bug", "raise KeyError(data)", "KeyError"),
        ("greed", "bytearray(1 << 30)", "MemoryError"),
        ("a hang", "\n    while True: pass", "took more than"),
        ("a dead process", "__import__('os')._exit(7)", "status 7"),
    ],
)
def test_the_harness_finds(kind: str, code: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD.format(kind=kind, code=code))
    script = (
        f"import sys; sys.path.insert(0, {str(harness.ROOT)!r})\n"
        f"from fuzz import harness, targets\nharness.HANG_S = 0.3\ntargets.__path__.append({str(tmp_path)!r})\n"
        "if len(sys.argv) > 1:\n"
        "    import json; print(json.dumps(harness._child(harness.Job(**json.loads(sys.argv[1])))))\n"
        "else:\n"
        "    harness.COMMAND = (sys.executable, __file__)\n"
        "    outcome = harness.run('bad', seconds=20, seed=1, corpus=None)\n"
        f"    print(outcome.problem); print(harness.save(outcome, harness.Path({str(tmp_path)!r})))\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=True)
    problem, saved = done.stdout.splitlines()
    assert word in problem
    assert Path(saved).read_bytes() != b"good"


def test_the_command_reports_what_it_did(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuzz", "--seconds", "0.2", "--target", "pack", "--seed", "3"]
    done = subprocess.run(
        [*command, "--crashes", tmp_path / "none"],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "inputs" in done.stdout
    assert "seed 3" in done.stdout
    assert not (tmp_path / "none").exists()
    sample = tmp_path / "sample"
    sample.write_bytes(b"\0\0\0\1")
    done = subprocess.run(
        [*command, "--reproduce", sample], cwd=harness.ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "no crash\n"
