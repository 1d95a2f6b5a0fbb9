"""Make ukihashi_VERSION_ARCH.deb and ukihashi-alert-speed_VERSION_ARCH.deb: see packaging/README.md.

    /usr/lib/ukihashi      a virtual environment of Debian's python3 with the locked wheels, and nothing of the system's
    /usr/bin/ukihashi      starts it with `python3 -I`; sealert comes by update-alternatives, where nobody has that name

Plain dpkg-deb; no pip and no network when it is installed. The same source gives the same bytes: file times are those
of the last commit, or SOURCE_DATE_EPOCH.
"""

import argparse
import datetime as dt
import gzip
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, TypeAlias

HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

completion = importlib.import_module("completion")  # beside the folder
wheels = importlib.import_module("wheels")  # beside this file
PYTHON: Final[str] = wheels.PYTHON
Wheel: TypeAlias = Any  # of `wheels`

LANGUAGES: Final = ("en", "ja")
HOME: Final = Path("usr/lib/ukihashi")
SITE: Final = HOME / f"lib/python{PYTHON}/site-packages"
SPEED: Final = "ukihashi-alert-speed"
MAINTAINER: Final = f"{os.environ.get('DEBFULLNAME', 'Local build')} <{os.environ.get('DEBEMAIL', 'root@localhost')}>"
SOURCES: Final = ("src/", "packaging/", "README", "LICENSE", "CHANGELOG", "pyproject.toml", "requirements/")
SCRIPT: Final = """#!/{home}/bin/python3 -I
import sys

from ukihashi.cli.{module} import {function}

sys.exit({function}())
"""
RULES: Final = {"ukihashi": "ukihashi.logrotate", "ukihashi-alert": "ukihashi-alert.logrotate"}


class Build:
    """One run."""

    def __init__(self, source: Path, machine: str, maintainer: str, epoch: int, cache: Path, room: Path) -> None:
        self.machine, self.maintainer, self.epoch, self.cache, self.room = machine, maintainer, epoch, cache, room
        self.source = room / "source"
        copy_source(source, self.source)
        self.wheel = self._wheel()
        self.version = re.sub(r"(a|b|rc|\.dev)(\d+)$", r"~\1\2", self.wheel.version).replace("~.", "~")

    def _wheel(self) -> Wheel:
        out = self.room / "wheel"
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(self.epoch)}
        command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
        subprocess.run(command, cwd=self.source, env=env, check=True, stdout=subprocess.DEVNULL)
        (made,) = out.glob("*.whl")
        return wheels.read(made)

    # -- ukihashi -------------------------------------------------------------------------------------------------

    def base(self) -> Path:
        """The folder of the main package."""
        root = self.room / "ukihashi"
        fetched = wheels.fetch(self.source / "requirements/run.lock", self.cache, self.machine)
        found = wheels.needed(fetched, self.wheel, ["fast"])
        for wheel in [*found, self.wheel]:
            wheels.unpack(wheel, root / SITE)
        (root / HOME / "bin").mkdir()
        write(root / HOME / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
        (root / HOME / "bin/python3").symlink_to("../../../bin/python3")
        for name, module, function in (("ukihashi", "main", "main"), ("sealert", "alert", "sealert")):
            text = SCRIPT.format(home=HOME, module=module, function=function)
            write(root / HOME / "bin" / name, text, mode=0o755)
        (root / "usr/bin").mkdir()
        (root / "usr/bin/ukihashi").symlink_to("../lib/ukihashi/bin/ukihashi")
        self._configuration(root)
        self._manuals(root)
        self._about(root, "ukihashi", found)
        size = self._control(
            root,
            "ukihashi",
            depends=[
                f"python3 (>= {PYTHON}~), python3 (<< {next_python()}~)",
                "libc6 (>= 2.28)",
                "systemd-standalone-sysusers | systemd-sysusers",
            ],
            more={
                "Recommends": "ca-certificates, nftables",
                "Suggests": f"{SPEED}, openssh-client",
                "Description": description(
                    "Ethernet over HTTPS: virtual hub, LAN card, tunnel detector",
                    "A virtual Ethernet switch that members reach by HTTPS through whatever firewall or proxy stands"
                    " between, the network card that joins it, and a detector that finds such tunnels on a network."
                    " Sessions outlive their connections, and an upgrade of the hub loses none.",
                ),
            },
        )
        print(f"ukihashi {self.version}: {len(found)} libraries, {size} KiB installed", file=sys.stderr)
        return root

    def _configuration(self, root: Path) -> None:
        packaging = self.source / "packaging"
        units = root / "lib/systemd/system"
        for unit in sorted((packaging / "systemd").glob("*@*")) + sorted((packaging / "systemd").glob("*hub*")):
            write(units / unit.name, unit.read_text().replace("/usr/local/bin/", "/usr/bin/"))
        write(root / "usr/lib/sysusers.d/ukihashi.conf", (packaging / "systemd/ukihashi.sysusers.conf").read_text())
        (root / "etc/ukihashi").mkdir(parents=True)
        for name, file in RULES.items():
            write(root / "etc/logrotate.d" / name, (packaging / "config" / file).read_text())
        for example in sorted((packaging / "config").glob("*.toml")):
            write(root / "usr/share/doc/ukihashi/examples" / example.name, example.read_text())
        for name, place in completion.PLACES.items():
            write(root / place, completion.script(name))

    def _manuals(self, root: Path) -> None:
        pages = self.room / "man"
        env = {**os.environ, "PYTHONPATH": str(self.source / "src")}
        for language in LANGUAGES:
            command = [sys.executable, "-P", str(HERE.parent / "man.py"), language, str(pages), self._date()]
            subprocess.run(command, env=env, check=True)
        for page in sorted(pages.rglob("*.[15]")):
            place = page.relative_to(pages)
            # sealert's comes and goes with the alternative
            folder = HOME / "man" if page.stem == "sealert" else Path("usr/share/man")
            write_gz(root / folder / f"{place}.gz", page.read_text(encoding="utf-8"))

    def _date(self) -> str:
        return dt.datetime.fromtimestamp(self.epoch, dt.UTC).date().isoformat()

    # -- ukihashi-alert-speed -------------------------------------------------------------------------------------

    def speed(self) -> Path:
        """The folder of the package with the compiler."""
        root = self.room / SPEED
        fetched = wheels.fetch(self.source / "requirements/alert.lock", self.cache, self.machine)
        base = {wheel.name for wheel in wheels.needed(fetched, self.wheel, ["fast"])}
        found = [one for one in wheels.needed(fetched, self.wheel, ["alert"]) if one.name not in base]
        for wheel in found:
            wheels.unpack(wheel, root / SITE)
        self._about(root, SPEED, found)
        size = self._control(
            root,
            SPEED,
            depends=[f"ukihashi (= {self.version})", "libc6 (>= 2.28)", "libstdc++6"],
            more={
                "Description": description(
                    "compiler for ukihashi's tunnel detector",
                    "With it `ukihashi alert` reads packets some fifty times as fast. What it compiles is kept; that"
                    " takes about a minute, once, when this package is installed.",
                )
            },
        )
        print(f"{SPEED} {self.version}: {', '.join(one.name for one in found)}, {size} KiB installed", file=sys.stderr)
        return root

    # -- both -----------------------------------------------------------------------------------------------------

    def _about(self, root: Path, package: str, found: Iterable[Wheel]) -> None:
        folder = root / "usr/share/doc" / package
        write(folder / "copyright", copyright_text(found))
        when = formatdate(self.epoch, localtime=False)
        entry = f"{package} ({self.version}) unstable; urgency=medium\n\n  * Release {self.wheel.version}.\n\n"
        write_gz(folder / "changelog.gz", f"{entry} -- {self.maintainer}  {when}\n")
        if package == "ukihashi":
            write_gz(folder / "CHANGELOG.md.gz", (self.source / "CHANGELOG.md").read_text())
            write_gz(folder / "README.md.gz", (self.source / "README.md").read_text())
        overrides = (HERE / f"{package}.lintian-overrides").read_text()
        write(root / "usr/share/lintian/overrides" / package, overrides)

    def _control(self, root: Path, package: str, depends: list[str], more: dict[str, str]) -> int:
        """Writes DEBIAN; the installed size in KiB."""
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        size = sum((path.stat().st_size + 1023) // 1024 for path in files)
        fields = {
            "Package": package,
            "Source": "ukihashi",
            "Version": self.version,
            "Architecture": self.machine,
            "Maintainer": self.maintainer,
            "Installed-Size": str(size),
            "Depends": ", ".join(depends),
            "Section": "net",
            "Priority": "optional",
            **more,
        }
        if package == "ukihashi":
            del fields["Source"]
        control = root / "DEBIAN"
        write(control / "control", "".join(f"{name}: {value}\n" for name, value in fields.items()))
        for script in ("postinst", "prerm", "postrm"):
            template = HERE / "maintainer" / f"{package}.{script}"
            if template.exists():
                write(control / script, template.read_text().replace("@SITE@", f"/{SITE}"), mode=0o755)
        conffiles = [f"/{path.relative_to(root)}\n" for path in files if path.is_relative_to(root / "etc")]
        if conffiles:
            write(control / "conffiles", "".join(conffiles))
        sums = subprocess.run(
            ["md5sum", *(str(path.relative_to(root)) for path in files if "DEBIAN" not in path.parts)],
            cwd=root, check=True, capture_output=True, text=True,
        )  # fmt: skip
        write(control / "md5sums", sums.stdout)
        return size

    def pack(self, root: Path, output: Path, compression: list[str]) -> Path:
        """The package's file."""
        for path in sorted(root.rglob("*"), reverse=True):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (self.epoch, self.epoch), follow_symlinks=False)
        os.utime(root, (self.epoch, self.epoch))
        root.chmod(0o755)
        file = output / f"{root.name}_{self.version}_{self.machine}.deb"
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(self.epoch)}
        command = ["dpkg-deb", "--root-owner-group", *compression, "--build", str(root), str(file)]
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        return file


def copy_source(source: Path, target: Path) -> None:
    """What git keeps, as it is now; of what is no repository, everything."""
    argv = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, capture_output=True, check=False)
    names = done.stdout.decode().split("\0") if (source / ".git").exists() and not done.returncode else []
    names = names or [str(path.relative_to(source)) for path in source.rglob("*") if "__pycache__" not in path.parts]
    for name in names:
        if name.startswith(SOURCES) and (source / name).is_file() and not name.endswith(".mo"):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, path)


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def write_gz(path: Path, text: str) -> None:
    """A compressed file that says nothing of when and by what name it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(text.encode())


def description(short: str, long: str) -> str:
    """The control field, wrapped."""
    lines, line = [], ""
    for word in long.split():
        if len(line) + len(word) > 78:
            lines.append(line)
            line = ""
        line = f"{line} {word}"
    return "\n".join([short, *lines, line])


def copyright_text(found: Iterable[Wheel]) -> str:
    """Whose all of it is; the licenses' texts are beside the libraries."""
    head = (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: ukihashi\n\n"
        "Files: *\nCopyright: 2026 The ukihashi founders\nLicense: Apache-2.0\n"
        " On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.\n"
    )
    return head + "".join(
        f"\nFiles: {SITE}/**/{one.name.replace('-', '_')}*\nCopyright: its authors, named in its license\n"
        f"License: {one.license}\n The text is in /{SITE}/{one.name.replace('-', '_')}-{one.version}.dist-info.\n"
        for one in found
    )


def next_python() -> str:
    """The first minor version that this is not for."""
    return f"{sys.version_info.major}.{sys.version_info.minor + 1}"


def last_change(source: Path) -> int:
    """Seconds since 1970: SOURCE_DATE_EPOCH, or the last commit, or now."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    argv = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return int(done.stdout.strip() or time.time())


def main() -> None:
    """See the module."""
    root = HERE.parent.parent
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ukihashi-deb"
    parser = argparse.ArgumentParser(prog="packaging/deb/build", description="Make the Debian packages.")
    parser.add_argument("--output", type=Path, default=Path.cwd(), help="folder for them [this one]")
    parser.add_argument("--source", type=Path, default=root, help="the source tree [this one]")
    parser.add_argument("--cache", type=Path, default=cache, help=f"wheels fetched before [{cache}]")
    parser.add_argument("--only", choices=("ukihashi", SPEED), help="one of the two packages")
    parser.add_argument("--arch", choices=sorted(wheels.MACHINES), default=host_machine())
    parser.add_argument("--maintainer", default=MAINTAINER, help=f"name and address [{MAINTAINER}]")
    parser.add_argument("--quick", action="store_true", help="hardly compressed, for tests")
    given = parser.parse_args()
    with (given.source / "pyproject.toml").open("rb") as file:
        if tomllib.load(file)["project"]["name"] != "ukihashi":
            parser.error(f"{given.source} is not ukihashi's source")
    given.output.mkdir(parents=True, exist_ok=True)
    compression = ["-Zgzip", "-z1"] if given.quick else ["-Zxz", "--threads-max=1"]
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="ukihashi-deb-") as room:
        epoch = last_change(given.source)
        build = Build(given.source, given.arch, given.maintainer, epoch, given.cache, Path(room))
        makers: dict[str, Callable[[], Path]] = {"ukihashi": build.base, SPEED: build.speed}
        for name, make in makers.items():
            if given.only in {None, name}:
                print(build.pack(make(), given.output, compression))


def host_machine() -> str:
    """Debian's word for this machine."""
    machine = os.uname().machine
    return next((debian for debian, name in wheels.MACHINES.items() if name == machine), "amd64")


if __name__ == "__main__":
    main()
