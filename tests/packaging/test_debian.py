"""The Debian package on a machine: it installs, serves, is upgraded without losing a session, and leaves nothing.

Quickly: this machine's own file system, with everything that is written in memory, and no systemd as the first process;
so what systemd would do then is left out. The long way (`test_debian_booted.py`) has both.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.hub.processes import children, process_status
from tests.packaging.packages import NEWER, build, newer, reason_against
from tests.packaging.rootfs import Root

from lab.net import Host, Net
from lab.ukihashi import LINK, SERVES, gateway
from lab.wait import until
from ukihashi import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HOME = "usr/lib/ukihashi"
# what installing and purging any package may leave: dpkg's own notes, logs, account files and caches of other programs
OTHERS = re.compile(
    r"var/lib/dpkg/|var/log/|var/cache/(man|ldconfig|debconf)/|etc/\.pwd\.lock$|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$"
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """This version and a newer one."""
    if reason := reason_against():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("deb")
    now = build(folder, "--quick", "--only", "ukihashi")["ukihashi"]
    return {"now": now, "newer": newer(now, folder)}


def names_in(package: Path) -> dict[str, str]:
    """Each file of a package with its rights and owner."""
    listing = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=5) for line in listing.splitlines()]
    return {row[5].partition(" -> ")[0].removeprefix("./"): f"{row[0]} {row[1]}" for row in rows}


def test_the_package_holds_what_a_machine_needs_and_nothing_that_only_builds(packages: dict[str, Path]) -> None:
    names = names_in(packages["now"])
    for wanted in (
        "usr/bin/ukihashi", f"{HOME}/bin/python3", f"{HOME}/bin/sealert", "etc/ukihashi/",
        "etc/logrotate.d/ukihashi", "etc/logrotate.d/ukihashi-alert", "usr/lib/sysusers.d/ukihashi.conf",
        "lib/systemd/system/ukihashi-hub.service", "lib/systemd/system/ukihashi-hub.socket",
        "lib/systemd/system/ukihashi-card@.service", "lib/systemd/system/ukihashi-alert@.service",
        "usr/share/bash-completion/completions/ukihashi", "usr/share/zsh/vendor-completions/_ukihashi",
        "usr/share/fish/vendor_completions.d/ukihashi.fish", "usr/share/doc/ukihashi/examples/hub.toml",
        "usr/share/man/man1/ukihashi-hub.1.gz", "usr/share/man/ja/man5/card.toml.5.gz",
    ):  # fmt: skip
        assert wanted in names
    assert "usr/bin/sealert" not in names  # somebody else may own that name
    assert not any("__pycache__" in name or name.endswith((".pyc", ".po~")) for name in names)
    site = [name.partition("site-packages/")[2].partition("/")[0] for name in names if "site-packages/" in name]
    assert {"ukihashi", "cryptography", "click", "msgspec", "numpy"} <= set(site)
    assert not {"hatchling", "babel", "editables", "pip", "numba", "pytest"} & set(site)
    assert all(rights.endswith("root/root") and (rights[0] == "l" or rights[8] != "w") for rights in names.values())
    for unit in (name for name in names if name.startswith("lib/systemd")):
        text = subprocess.run(
            f"dpkg-deb --fsys-tarfile {packages['now']} | tar -xO ./{unit}",
            shell=True, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "/usr/local" not in text


@pytest.fixture
def machines(net: Net) -> tuple[Root, Host, Host]:
    """The installation's file system, and two hosts on which its programs run."""
    one, other = net.lan("hub", "card")
    return Root(one, Path("/")), one, other


def test_it_installs_serves_is_upgraded_without_losing_a_session_and_leaves_nothing(
    packages: dict[str, Path], machines: tuple[Root, Host, Host]
) -> None:
    root, hub, card = machines
    accounts = (root.place / "etc/passwd").read_text()
    assert "ukihashi" not in accounts
    removed = set(root.written())  # what this machine had of it is out of sight
    for name, package in packages.items():
        (root.place / f"tmp/{name}.deb").write_bytes(package.read_bytes())

    root.run("dpkg -i /tmp/now.deb")
    assert __version__ in root.run("ukihashi --version")
    assert "NUMBER" in root.run("sealert --help")
    for account in ("ukihashi", "ukihashi-worker", "ukihashi-card", "ukihashi-page", "ukihashi-alert"):
        assert f"\n{account}:x:" in (root.place / "etc/passwd").read_text()
    path = root.run(f"/{HOME}/bin/python3 -I -c 'import sys; print(sys.path)'")
    assert "dist-packages" not in path
    assert "/usr/local" not in path

    serving = root.spawn("ukihashi hub serve --first", "hub")
    serving.wait_for(SERVES)
    # the link names the address that this machine goes out by; here it must be the wire's
    link = re.sub(r"//[^/]*/", f"//{hub.ipv4}:443/", serving.wait_for(LINK.pattern)[0])
    uids = {line.split(":")[0]: line.split(":")[2] for line in (root.place / "etc/passwd").read_text().splitlines()}
    running = {process_status(pid)["Uid"].split()[0] for pid in children(serving.pid)}
    assert running == {uids["ukihashi"], uids["ukihashi-worker"]}
    root.run(f"ukihashi card join {link} --name lan", on=card)
    joined = json.loads(root.run("ukihashi card status --json", on=card))
    home = gateway(joined["addresses"][0].partition("/")[0])
    card.pings(home)
    before = json.loads(root.run("ukihashi hub sessions --json"))
    pid, data_pid = serving.pid, joined["data_pid"]

    done = root.run("dpkg -i /tmp/newer.deb")
    assert f"version {NEWER} serves" in done
    assert "1 sessions go on" in done
    assert (serving.pid, serving.running) == (pid, True)
    assert json.loads(root.run("ukihashi hub status --json"))["version"] == NEWER
    after = json.loads(root.run("ukihashi hub sessions --json"))
    assert after["session"] == before["session"]
    assert after["ledger"]["lost"] == 0
    card.pings(home)
    joined = json.loads(root.run("ukihashi card status --json", on=card))
    assert (joined["data_pid"], joined["logins"]) == (data_pid, 1)

    root.run("dpkg -r ukihashi")
    until(lambda: not serving.running, seconds=10, what="the hub's end")
    assert not [line for line in (*hub.pids(), *card.pids()) if is_ours(line)]
    assert not any(name.startswith("uk") for name in interfaces(hub) + interfaces(card))
    left = set(root.written()) - removed
    assert not [name for name in left if name.startswith((HOME, "usr/bin/", "etc/alternatives", "lib/systemd"))]
    assert {"var/lib/ukihashi/hub/hub.db", "etc/ukihashi/card.d/lan.toml", "etc/logrotate.d/ukihashi"} <= left

    root.run("dpkg -P ukihashi")
    assert [name for name in root.written() if not OTHERS.match(name) and name not in removed] == []
    assert (root.place / "etc/passwd").read_text() == accounts


def is_ours(pid: int) -> bool:
    try:
        return HOME.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def interfaces(host: Host) -> list[str]:
    return [one["ifname"] for one in json.loads(host.run(["ip", "-j", "link"]))]
