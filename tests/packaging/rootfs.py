"""A root file system of its own on a host of the laboratory: another one below, and above it what is written.

The mounts belong to a process; when it ends, they are gone.
"""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lab.net import Ended, Host, Process
from lab.wait import until

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# arguments: the room, the file system below; a ready file tells that all is mounted
HOLD: Final = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
rm -rf var/lib/ukihashi etc/ukihashi var/cache/ukihashi var/log/ukihashi # this machine may have used it
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
echo mounted
exec sleep infinity
"""
# the same, booted: systemd is the first process of a container
BOOT: Final = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
exec systemd-nspawn --quiet --register=no --keep-unit --network-namespace-path="$3" --capability=CAP_NET_ADMIN \\
    --bind=/dev/net/tun --console=pipe --directory="$1/root" --boot
"""


class Root:
    """See the module. `upper`: what was written, seen by this process."""

    def __init__(self, host: Host, below: Path, *, boots: bool = False) -> None:
        self._host: Final = host
        self._boots: Final = boots
        room = host.folder / "rootfs"
        room.mkdir()
        self._room: Final = room
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT if boots else HOLD, "sh"]
        argv += [str(room), str(below)]
        if boots:  # it enters the host's network by itself, and needs the machine's own /sys
            self._log = host.folder / "boot.log"
            with self._log.open("wb") as log:
                self._popen = subprocess.Popen([*argv, f"/run/netns/{host.namespace}"], stdout=log, stderr=log)
            host.net.at_close(self.stop)
            self._pid = until(self._init, seconds=60, what="systemd's start")
            until(self._is_up, seconds=120, what="the boot")
            holder = self._popen.pid
        else:
            self._holder: Process = host.spawn(argv, log="rootfs")
            self._holder.wait_for("^mounted$")
            self._pid = holder = self._holder.pid
        self.upper: Final = Path(f"/proc/{holder}/root{room}/upper")
        self.place: Final = Path(f"/proc/{self._pid}/root" if boots else f"/proc/{holder}/root{room}/root")
        # never this machine's own: what runs in there installs and removes
        assert (self.place / ".").stat().st_dev != Path("/").stat().st_dev

    def _init(self) -> int:
        """systemd, as this machine numbers it."""
        assert self._popen.poll() is None, self._log.read_text()
        waiting = [self._popen.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError):
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            with contextlib.suppress(OSError):  # it may be gone again
                if pid != self._popen.pid and Path(f"/proc/{pid}/exe").readlink().name == "systemd":
                    return pid
        return 0

    def _is_up(self) -> bool:
        done = subprocess.run(
            self.argv(["systemctl", "is-system-running"]), capture_output=True, text=True, check=False
        )
        return done.stdout.strip() in {"running", "degraded"}

    def argv(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs `argv` in there; the network is that of whoever runs it, or the booted one."""
        clean = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(env or {})}
        enter = ["nsenter", "--target", str(self._pid), "--mount"]
        if self._boots:
            enter += ["--pid", "--net", "--ipc", "--uts", "--cgroup", "--root", "--wd=/"]
        else:
            enter += ["--wd=/", "chroot", f"{self._room}/root"]
        return [*enter, "env", "-i", *(f"{name}={value}" for name, value in clean.items()), *argv]

    def ask(self, command: str, *, on: Host | None = None, seconds: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run a command line, whatever becomes of it."""
        argv = self.argv(shlex.split(command))
        if self._boots:
            return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
        return (on or self._host).ask(argv, timeout_s=seconds)

    def run(self, command: str, *, on: Host | None = None, seconds: float = 240.0) -> str:
        """Run a command line; its standard output. Raises: Ended: it failed."""
        done = self.ask(command, on=on, seconds=seconds)
        if done.returncode:
            raise Ended(shlex.split(command), done.returncode, done.stdout, done.stderr)
        return done.stdout

    def spawn(self, command: str, log: str, *, on: Host | None = None) -> Process:
        """Start a program that runs on."""
        return (on or self._host).spawn(self.argv(shlex.split(command)), log=log)

    def written(self) -> list[str]:
        """Every file, link and removal that differs from the file system below."""
        found = []
        for folder, _folders, files in os.walk(self.upper):
            found += [str((Path(folder) / name).relative_to(self.upper)) for name in files]
        return sorted(found)

    def stop(self) -> None:
        """End the booted system."""
        if self._popen.poll() is None:
            self._popen.terminate()  # of nspawn: an orderly shutdown
            try:
                self._popen.wait(30)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait(10)
