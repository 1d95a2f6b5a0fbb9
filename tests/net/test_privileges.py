import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from ukihashi.net.privileges import drop, identity
drop(identity("ukihashi-card"))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), int(status["CapEff"], 16), int(status["CapPrm"], 16),
      status["NoNewPrivs"].strip())
try:
    os.setuid(0)
except PermissionError:
    print("kept out")
"""


@pytest.mark.usefixtures("needs_root")
def test_nothing_is_left_and_nothing_comes_back() -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["60603 60603 60603 [] 0 0 1", "kept out"]
