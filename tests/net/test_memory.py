"""What a busy process frees it keeps; asked of the kernel, in a process of its own."""

import subprocess
import sys

SCRIPT = """
import resource, sys
from ukihashi.net.memory import keep_freed
if sys.argv[1] == "keep":
    keep_freed()
pieces = [bytes(100_000) for _ in range(30)]
del pieces
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    pieces = [b"x" * 100_000 for _ in range(30)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)


def test_what_was_freed_is_used_again_without_new_pages() -> None:
    usual, kept = faults("usual"), faults("keep")
    print(usual, kept)
    assert kept < 3000, "pages: 30 pieces of 25 once, and little more"
