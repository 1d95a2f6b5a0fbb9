"""Our own programs on lab hosts, started as a user starts them: `ukihashi hub serve`, `ukihashi card join`.

with Net() as net:
    machine, one, two = net.lan("hub", "one", "two")
    hub = Hub(machine)
    hub.start()
    first, second = Card(one), Card(two)
    first.join(hub.invite("ann"))
    second.join(hub.invite("bob"))
    one.pings(second.address(4))
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import tomlkit
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lab import ready
from lab.net import Ended, Host, LabError, Process
from ukihashi.auth.link import Link
from ukihashi.card.account import from_link
from ukihashi.config import card as accounts
from ukihashi.net.control_socket import Client as ControlClient

HUB: Final = "LAN"  # the virtual hub that `hub serve --first` makes
LINK: Final = re.compile(r"ukihashi://\S+")
SERVES: Final = r"^ukihashi hub \S+ serves"  # printed when it does
PATIENCE_S: Final = 30.0  # two shared cores and other people's tests


class _Installation:
    """A machine of its own as far as our programs can see: folders for state, runtime and configuration."""

    def __init__(self, host: Host, name: str) -> None:
        self.host: Final = host
        self.folder: Final = host.folder / name
        self.folder.mkdir(mode=0o755)
        self.python = sys.executable
        self.own_interpreter = False  # never a fork of `lab.ready`
        self.state_dir: Final = self.folder / "state"
        self.runtime_dir: Final = self.folder / "run"
        self.config_dir: Final = self.folder / "etc"
        self.env: dict[str, str] = {
            "UKIHASHI_STATE_DIR": str(self.state_dir),
            "UKIHASHI_RUNTIME_DIR": str(self.runtime_dir),
            "UKIHASHI_CONFIG_DIR": str(self.config_dir),
            "LANGUAGE": "en",
            "PYTHONUNBUFFERED": "1",
        }

    def argv(self, *words: str | Path) -> list[str]:
        """The command line of `ukihashi WORDS`."""
        own = ["-P"] if self.own_interpreter else []
        return [self.python, *own, "-m", "ukihashi.cli.main", *map(str, words)]

    def ask(self, *words: str | Path, stdin: str | None = None, timeout_s: float = PATIENCE_S) -> CompletedProcess[str]:
        """Run `ukihashi WORDS` to its end, whatever its exit status."""
        return self.host.ask(self.argv(*words), env=self.env, stdin=stdin, timeout_s=timeout_s)

    def run(self, *words: str | Path, stdin: str | None = None, timeout_s: float = PATIENCE_S) -> str:
        """Run `ukihashi WORDS`; its standard output. Raises `Ended` if it fails."""
        done = self.ask(*words, stdin=stdin, timeout_s=timeout_s)
        if done.returncode:
            raise Ended(["ukihashi", *map(str, words)], done.returncode, done.stdout, done.stderr)
        return done.stdout

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """`ukihashi WORDS --json`, parsed: one object a line (an array of objects is taken too)."""
        rows: list[dict[str, Any]] = []
        for line in self.run(*words, "--json").splitlines():
            value = json.loads(line)
            rows += value if isinstance(value, list) else [value]
        return rows

    def log(self) -> str:
        """Every log its daemons wrote, and what they printed."""
        paths = [*self.folder.rglob("*.log"), *self.host.folder.glob(f"{self.folder.name}*.log")]
        return "\n".join(path.read_text(errors="replace") for path in sorted(set(paths)))


FAST_CARD: Final = {"times": {"keepalive": 0.5, "suspect": 1.0, "dead": 1.5, "redial": 0.2}}  # a tenth of the usual
AT_ONCE: Final = frozenset({"times", "resume"})  # sections that a card takes over while it is up, without a trace
FAST_HUB: Final = {"times": {"keepalive_s": 0.5, "dead_s": 1.5}}


KEY_BITS: Final = 2048  # made, checked and used in a third of the time that the hub's own 3072 take
_keys: Final[list[bytes]] = []
_given: Final[dict[str, int]] = {}  # how many of them, by the network's mark


class Hub(_Installation):
    """`ukihashi hub serve` on a host."""

    def __init__(self, host: Host, name: str = "ukihashi-hub", *, port: int = 443) -> None:
        super().__init__(host, name)
        self.port: Final = port
        self.process: Process | None = None

    @property
    def output(self) -> str:
        """All that the running hub has printed."""
        assert self.process is not None
        return self.process.output()

    def start(
        self,
        *,
        first: bool = True,
        listen: Sequence[str] = (),
        words: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        seconds: float = PATIENCE_S,
    ) -> None:
        """Start it and wait until it serves.

        Args:
            first: as `./run hub` does it: a virtual hub `LAN` with a host port, an invite printed.
            listen: "ADDRESS:PORT" each; default is every address, IPv4 and IPv6, port `self.port`.
            words: more words of the command line.
        """
        if ready.is_enabled() and not self.own_interpreter:
            self._give_key()
        listeners = listen or (f"0.0.0.0:{self.port}", f"[::]:{self.port}")
        argv = self.argv("hub", "serve", *(["--first"] if first else []))
        for address in listeners:
            argv += ["--listen", address]
        self.process = self.host.spawn([*argv, *words], log=self.folder.name, env={**self.env, **(env or {})})
        self.process.wait_for(SERVES, seconds=seconds)
        if first:
            self.process.wait_for(LINK.pattern, seconds=seconds)

    def _give_key(self) -> None:
        """A key that this test process has already, so that the hub need not make one; no two of a `Net` are alike."""
        path = self.state_dir / "pki" / "hub.key"
        if path.exists():
            return
        number = _given.get(self.host.net.mark, 0)
        _given[self.host.net.mark] = number + 1
        while len(_keys) <= number:
            made = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            _keys.append(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(_keys[number])

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write `hub.toml`; read at the next start."""
        _edit(self.config_dir / "hub.toml", settings)

    def tell(self, verb: str, **arguments: Any) -> list[dict[str, Any]]:
        """Ask the running hub by its control socket, as `ukihashi hub` does, without starting a program for it."""
        return ControlClient(self.runtime_dir / "hub.sock", PATIENCE_S).ask(verb, **arguments)

    def set_policy(self, user: str, values: Mapping[str, int | bool], *, hub: str = HUB) -> None:
        """Values of the user's policy, by their names in the protocol, on top of what holds."""
        self.tell("user_set", name=user, hub=hub, policy=dict(values))

    def create_certificate_user(self, user: str, certificate: Path, *, hub: str = HUB) -> None:
        """A user who logs in with exactly this certificate (PEM)."""
        self.tell("user_create", name=user, hub=hub)
        self.tell("user_set", name=user, hub=hub, kind="certificate", certificate=certificate.read_text())

    def stop(self) -> int:
        """End it in order (SIGTERM); its exit status."""
        assert self.process is not None
        return self.process.stop()

    def invite(self, user: str, *words: str, hub: str = HUB, address: str = "") -> str:
        """A join link for `user`, made if new; `address` is where the card will find this host."""
        found = LINK.search(self.run("hub", "invite", hub, "--user", user, "--host", address or self.host.ipv4, *words))
        if found is None:
            raise LabError("`hub invite` printed no link")
        return found[0]

    def sessions(self, hub: str = HUB) -> list[dict[str, Any]]:
        """`hub sessions`."""
        return self.rows("hub", "sessions", hub)

    def mac_table(self, hub: str = HUB) -> list[dict[str, Any]]:
        """`hub mac-table`."""
        return self.rows("hub", "mac-table", hub)

    def first_link(self) -> str:
        """The link which `hub serve --first` printed."""
        assert self.process is not None
        return self.process.wait_for(LINK.pattern)[0]


class Card(_Installation):
    """`ukihashi card` on a host."""

    def __init__(self, host: Host, name: str = "ukihashi-card") -> None:
        super().__init__(host, name)
        if not host.has_own_etc("resolv.conf"):  # a card that takes a hub's name servers must not give them to us
            host.own_etc("resolv.conf", "nameserver 192.0.2.53\n")
        host.net.at_close(self.leave_all)

    def join(self, link: str, *words: str, seconds: float = PATIENCE_S) -> str:
        """`card join` with the link on standard input; what it printed. Returns when online.

        Without DHCP, unless the words speak of it: tests that count frames count theirs.
        """
        quiet = [] if {"--dhcp", "--accept"} & set(words) else ["--dhcp", "off"]
        return self.run("card", "join", "-", *words, *quiet, stdin=f"{link}\n", timeout_s=seconds)

    def create(self, account: str, settings: Mapping[str, Any]) -> None:
        """An account's file with all of these settings; nothing of an earlier one stays. No DHCP unless they say so."""
        settings = {**settings, "interface": {"dhcp": "off", **settings.get("interface", {})}}
        path = self.config_dir / "card.d" / f"{account}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        _edit(path, settings)

    def prepare(self, link: str, settings: Mapping[str, Any], account: str = "lan") -> str:
        """The account that `card join` would make of the link, and these settings, without joining; its name."""
        made = accounts.plain(from_link(Link.parse(link), account))
        self.create(account, {name: {**made.get(name, {}), **settings.get(name, {})} for name in {**made, **settings}})
        return account

    def configure(self, account: str, settings: Mapping[str, Any]) -> None:
        """Change the account's file; read at the next `up` or `reload`."""
        _edit(self.config_dir / "card.d" / f"{account}.toml", settings)

    def join_with(self, link: str, settings: Mapping[str, Any]) -> str:
        """Join, with other settings than the usual; gives the account's name."""
        self.join(link)
        account = next((self.config_dir / "card.d").glob("*.toml")).stem
        self.configure(account, settings)
        if settings.keys() <= AT_ONCE:
            self.run("card", "reload", account)
        else:
            self.leave(account)
            self.up(account)
        return account

    def up(self, account: str, *words: str, seconds: float = PATIENCE_S) -> str:
        """`card up ACCOUNT`."""
        return self.run("card", "up", account, *words, timeout_s=seconds)

    def leave(self, account: str) -> None:
        """`card leave ACCOUNT`."""
        self.run("card", "leave", account)

    def leave_all(self) -> None:
        """End every card of this installation; nothing happens if there is none."""
        if any(self.runtime_dir.glob("card-*.sock")):
            self.ask("card", "leave", "--all")

    def status(self, account: str = "") -> dict[str, Any]:
        """`card status --json` of one account (of the only one if not named)."""
        rows = self.rows("card", "status", *([account] if account else []))
        if not rows:
            raise LabError("`card status` lists no account")
        return rows[0]

    def tell(self, account: str, verb: str = "status") -> list[dict[str, Any]]:
        """Ask a running card by its control socket, without starting a program for it."""
        return ControlClient(self.runtime_dir / f"card-{account}.sock", PATIENCE_S).ask(verb)

    def interface(self) -> str:
        """The name of the card's interface on this host: the one that begins with "uk"."""
        names = [link["ifname"] for link in json.loads(self.host.run(["ip", "-j", "link"]))]
        return str(next(name for name in names if name.startswith("uk")))

    def address(self, version: int) -> str:
        """The card's own address on the virtual LAN, IPv4 or IPv6."""
        family, scope = {4: "inet", 6: "inet6"}[version], "global"
        for link in json.loads(self.host.run(["ip", "-j", "addr", "show", "dev", self.interface()])):
            for entry in link["addr_info"]:
                if entry["family"] == family and entry["scope"] == scope:
                    return str(entry["local"])
        raise LabError(f"the card of {self.host.name} has no IPv{version} address")


def _edit(path: Path, settings: Mapping[str, Any]) -> None:
    """Set `{"section": {"name": value}, "name": value}` in a TOML file, new or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = tomlkit.parse(path.read_text() if path.exists() else "")
    for name, value in settings.items():
        if isinstance(value, Mapping):
            document.setdefault(name, tomlkit.table()).update(value)
        else:
            document[name] = value
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    path.write_text(tomlkit.dumps(document))
    path.chmod(mode)


def gateway(address: str) -> str:
    """The hub's own address (`.1`, `::1`) beside a card's address on the same virtual LAN."""
    network = ip_network(f"{address}/{64 if ':' in address else 24}", strict=False)
    return str(network[1])
