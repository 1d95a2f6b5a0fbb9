"""What nDPI (`ndpiReader`, Debian package libndpi-bin) makes of the same captures."""

import gzip
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

PACKAGE: Final = "libndpi-bin"
FLOW: Final = re.compile(
    r"^\s*\d+\s+(TCP|UDP) .*?\[proto: [\d.]+/([^\]]+)\].*?(?:\[cat: ([^/\]]+)/\d+\])?", re.MULTILINE
)
CATEGORY: Final = re.compile(r"\[cat: ([^/\]]+)/")
TUNNELS: Final = ("softether", "vpn", "wireguard", "ipsec", "ultrasurf", "tor")
PATIENCE_S: Final = 120.0


class Named(NamedTuple):
    """One capture."""

    protocols: tuple[str, ...]  # of its TCP and UDP flows, each once
    vpn: bool  # one of them is a VPN of any kind, by protocol or category
    softether: bool


def missing() -> str:
    """Which Debian package must be installed; empty if it is there."""
    return "" if shutil.which("ndpiReader") else PACKAGE


def version() -> str:
    """As it says."""
    said = subprocess.run(["ndpiReader", "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"nDPI ([\w.-]+)", said)
    return found[1] if found else "unknown"


def parse(said: str) -> Named:
    """What `ndpiReader -v 2` printed."""
    protocols = dict[str, None]()
    vpn = False
    for line in said.splitlines():
        if (found := FLOW.match(line)) is None:
            continue
        protocols[found[2]] = None
        category = CATEGORY.search(line)
        words = found[2].lower().split(".")
        vpn = vpn or (category is not None and category[1] == "VPN")
        vpn = vpn or any(word == name or (name in word and name != "tor") for word in words for name in TUNNELS)
    return Named(tuple(protocols), vpn, any("softether" in name.lower() for name in protocols))


def names(path: Path) -> Named:
    """Ask it about a capture. Raises: subprocess.SubprocessError: it does not come to an end."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.pcap")
        raw = path.read_bytes()
        plain.write_bytes(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        argv = ["ndpiReader", "-i", str(plain), "-v", "2"]
        done = subprocess.run(argv, capture_output=True, timeout=PATIENCE_S, check=False)
    return parse(done.stdout.decode(errors="replace"))


def table(captures: Iterable[tuple[Path, str, bool]]) -> dict[str, Any]:
    """Counts over (capture, family or "" for harmless, holds somebody else's tunnel)."""
    found: dict[str, Any] = {"version": version(), "families": {}, "benign": {"n": 0, "vpn": 0, "softether": 0}}
    found["benign"]["wrongly"] = []
    for path, family, other in captures:
        said = names(path)
        row = found["families"].setdefault(family, {"n": 0, "vpn": 0, "softether": 0}) if family else found["benign"]
        row["n"] += 1
        row["vpn"] += said.vpn
        row["softether"] += said.softether
        if not family and (said.softether or (said.vpn and not other)):
            found["benign"]["wrongly"].append(f"{path.name}: {' '.join(said.protocols)}")
    return found
