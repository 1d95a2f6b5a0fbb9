"""The Debian packages on a Debian 12 of their own, where systemd is the first process: units, watchdog, sockets.

The file system is made by debootstrap once and kept. The long way round; `test_debian.py` is the short one.
"""

import json
import subprocess
from pathlib import Path

import pytest
from tests.packaging.packages import NEWER, build, newer, reason_against
from tests.packaging.rootfs import Root

from lab.net import Net
from lab.wait import until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800), pytest.mark.peer("debootstrap", "systemd-nspawn", "lintian")]

KEPT = Path("/var/cache/ukihashi-lab/bookworm-1")
HOLDS = "python3,procps,systemd,systemd-sysv,dbus,iproute2,iputils-ping,ca-certificates,nftables,logrotate,man-db"


@pytest.fixture(scope="module")
def bookworm() -> Path:
    """A minimal Debian 12."""
    if not KEPT.is_dir():
        fresh = KEPT.with_suffix(".part")
        subprocess.run(["rm", "-rf", fresh], check=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={HOLDS}", "bookworm", fresh]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no Debian can be had by debootstrap: {done.stdout[-300:]}")
        fresh.rename(KEPT)
    return KEPT


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if reason := reason_against():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("deb")
    made = build(folder, "--quick")
    return {**made, "newer": newer(made["ukihashi"], folder)}


@pytest.fixture
def machine(net: Net, bookworm: Path, packages: dict[str, Path]) -> Root:
    """It has booted, and holds the packages in /srv."""
    one, other = net.lan("debian", "beside")
    root = Root(one, bookworm, boots=True)
    root.run(f"ip route add default via {other.ipv4}")
    for name, package in packages.items():
        (root.place / f"srv/{name}.deb").write_bytes(package.read_bytes())
    return root


def shown(root: Root, unit: str, name: str) -> str:
    return root.run(f"systemctl show {unit} --property={name} --value").strip()


def journal(root: Root, unit: str) -> str:
    return root.run(f"journalctl --no-pager --output=cat --unit={unit}")


def sessions(root: Root) -> list[str]:
    return [json.loads(line)["session"] for line in root.run("ukihashi hub sessions --json").splitlines()]


def test_the_same_source_gives_the_same_bytes_and_lintian_finds_no_error(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    for name, package in build(tmp_path, "--quick").items():
        assert package.read_bytes() == packages[name].read_bytes()
        argv: list[str | Path] = ["lintian", "--allow-root", "--fail-on", "error", package]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_under_systemd_a_hub_and_a_card_serve_are_watched_upgraded_and_removed(machine: Root) -> None:
    root = machine
    before = {*root.written()}
    root.run("dpkg -i /srv/ukihashi.deb")
    for unit in ("ukihashi-hub.service", "ukihashi-hub.socket", "ukihashi-card@x.service", "ukihashi-alert@x.service"):
        assert root.ask(f"systemd-analyze verify /lib/systemd/system/{unit.replace('x', '')}").stderr.strip() == ""
    assert root.run("man -w ukihashi-hub.toml").strip() == "/usr/share/man/man5/ukihashi-hub.toml.5.gz"
    root.run("mkdir -p /etc/systemd/system/ukihashi-hub.service.d")
    root.run("sh -c 'printf \"[Service]\\nWatchdogSec=6\\n\" > /etc/systemd/system/ukihashi-hub.service.d/quick.conf'")
    root.run("systemctl daemon-reload")

    root.run("systemctl start ukihashi-hub")  # returns when it serves
    assert root.run("ukihashi hub create LAN --host-port").count("uklan")
    link = root.run("ukihashi hub invite LAN --user ann --host 127.0.0.1").split("ukihashi://")[1].split()[0]
    root.run(f"ukihashi card join ukihashi://{link} --name t --interface ukt")
    root.run("ukihashi card leave t")
    root.run("systemctl start ukihashi-card@t")  # returns when it has joined
    assert shown(root, "ukihashi-card@t", "StatusText") == "online"
    assert "serves on 0.0.0.0:443" in shown(root, "ukihashi-hub", "StatusText")
    root.run("ukihashi hub set times.keepalive_s 4")  # written by the hub, inside its unit's bounds
    assert "keepalive_s = 4" in root.run("cat /etc/ukihashi/hub.toml")
    root.run("systemctl reload ukihashi-hub ukihashi-card@t")
    root.run("ukihashi hub uplink LAN")
    until(lambda: "masquerade" in root.run("nft list ruleset"), seconds=10, what="masquerade inside the unit's bounds")
    root.run("ukihashi hub uplink LAN --remove")

    # an upgrade under systemd: the same process, the same session
    pid, joined = shown(root, "ukihashi-hub", "MainPID"), sessions(root)
    card = shown(root, "ukihashi-card@t", "MainPID")
    root.run("dpkg -i /srv/newer.deb")
    assert json.loads(root.run("ukihashi hub status --json"))["version"] == NEWER
    assert (shown(root, "ukihashi-hub", "MainPID"), sessions(root)) == (pid, joined)
    until(lambda: f"version {NEWER} serves" in shown(root, "ukihashi-hub", "StatusText"), seconds=20, what="its status")
    assert shown(root, "ukihashi-hub", "ActiveState") == "active"
    assert (shown(root, "ukihashi-card@t", "MainPID"), shown(root, "ukihashi-card@t", "NRestarts")) == (card, "0")

    # a worker that stands still: systemd starts the hub again, and the card comes back by itself
    assert shown(root, "ukihashi-hub", "NRestarts") == "0"
    worker = root.run("pgrep -u ukihashi-worker").split()[0]
    root.run(f"kill -STOP {worker}")
    until(lambda: shown(root, "ukihashi-hub", "NRestarts") == "1", seconds=60, what="the watchdog")
    assert "has not answered for" in journal(root, "ukihashi-hub")
    until(lambda: shown(root, "ukihashi-hub", "ActiveState") == "active", seconds=60, what="the hub's new start")
    until(lambda: len(sessions(root)) == 1, seconds=60, what="the card's return")

    # systemd holds the port: who calls while nobody serves is served
    root.run("systemctl stop ukihashi-hub")
    root.run("systemctl start ukihashi-hub.socket")
    until(lambda: shown(root, "ukihashi-hub", "ActiveState") == "active", seconds=60, what="a start by the card's call")
    until(lambda: len(sessions(root)) == 1, seconds=60, what="the card's return")

    root.run("systemctl stop ukihashi-card@t")
    assert "ukt" not in root.run("ip -brief link")
    root.run("systemctl start ukihashi-card@t")
    root.run("dpkg -r ukihashi")
    assert root.ask("pgrep -f /usr/lib/ukihashi").stdout == ""
    assert "uk" not in root.run("ip -brief link show type tun")
    root.run("rm -r /etc/systemd/system/ukihashi-hub.service.d")
    root.run("dpkg -P ukihashi")
    left = [name for name in set(root.written()) - before if "ukihashi" in name and "/dpkg/" not in name]
    assert [name for name in left if not name.startswith(("var/log/", "var/cache/man/"))] == []
    assert "ukihashi" not in root.run("cat /etc/passwd")


def test_the_compiler_is_at_hand_when_the_detector_starts(machine: Root) -> None:
    """The detector itself finds no card to capture on in such a container, inside its unit or outside."""
    root = machine
    root.run("dpkg -i /srv/ukihashi.deb /srv/ukihashi-alert-speed.deb", seconds=600)
    asked = "from ukihashi.detect import compiled; assert compiled.is_kept(); assert compiled.is_ready()"
    as_detector = "setpriv --reuid=ukihashi-alert --regid=ukihashi-alert --clear-groups env XDG_CACHE_HOME=/var/cache"
    root.run(f"{as_detector} /usr/lib/ukihashi/bin/python3 -I -c '{asked}'")
    root.run("dpkg -P ukihashi-alert-speed ukihashi")
    assert root.ask("test -e /usr/lib/ukihashi").returncode == 1
