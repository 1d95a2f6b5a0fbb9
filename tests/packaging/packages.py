"""Debian packages for tests: of this source, and of the same source under another version."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEWER = "9.9.9"
MAINTAINER = "A test <test@packages.debian.org>"


def reason_against() -> str:
    """Why packages can't be made or installed here; empty if they can."""
    for program in ("dpkg-deb", "systemd-sysusers", "/usr/bin/python3"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/bin:/usr/sbin") is None:
            return f"{program} is missing"
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    system = subprocess.run(
        ["/usr/bin/python3", "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
    if system != f"{sys.version_info.major}.{sys.version_info.minor}":
        return f"packages are made for the Python that makes them, {sys.version.split()[0]}; the system's is {system}"
    return ""


def build(output: Path, *words: str, source: Path = ROOT) -> dict[str, Path]:
    """Make packages; by name."""
    env = {**os.environ, "UKIHASHI_VENV": sys.prefix}
    argv = [str(ROOT / "packaging/deb/build"), "--output", str(output), "--source", str(source)]
    argv += ["--maintainer", MAINTAINER, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600, env=env)
    assert done.returncode == 0, done.stderr
    return {Path(line).name.partition("_")[0]: Path(line) for line in done.stdout.split()}


def newer(package: Path, output: Path) -> Path:
    """The same package under a higher version."""
    tree = output / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    for path, old, new in (
        (tree / "DEBIAN/control", r"(?m)^Version: .*$", f"Version: {NEWER}"),
        (next(tree.glob("usr/lib/ukihashi/lib/*/site-packages/ukihashi/__init__.py")), r'"\S+"(?=  #)', f'"{NEWER}"'),
    ):
        text, count = re.subn(old, new, path.read_text())
        assert count == 1
        path.write_text(text)
    file = output / f"ukihashi_{NEWER}.deb"
    command: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, file]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return file
