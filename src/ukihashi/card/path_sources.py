"""Which paths to a hub there may be: the account's, the join link's, the environment's, this system's.

The variables are curl's, in small or capital letters, the small ones first: `https_proxy`, then `all_proxy`, unless
`no_proxy` names the hub. `http_proxy` is for other traffic. A value without a scheme is an `http://` proxy; `socks://`,
which desktops write, is a SOCKS5 one that looks names up itself (`socks5h://`).

`no_proxy` is a list parted by commas or blanks of
    example.org   .example.org   *.example.org     that domain and all in it
    10.1.2.3   fd00::1   10.0.0.0/8   fd00::/8     an address, a network; names are not looked up for them
    example.org:8443   [fd00::1]:8443              the same at that port only
    *                                              everything
"""

import contextlib
import functools
import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ukihashi.card.path_secrets import PathSecrets
from ukihashi.config.card import AUTO, CardConfig
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.locale import say
from ukihashi.net.dial.via import DIRECT, Via, parse, split

VARIABLES: Final = ("https_proxy", "all_proxy")
ENVIRONMENT_FILE: Final = Path("/etc/environment")  # pam_env(8)
FILE_MAX: Final = 64 * 1024  # bytes
GSETTINGS_S: Final = 3.0

LOG_TEXTS: Final = {"path_skipped": N_("a path to the hub can't be used, and is left out")}

_LINE: Final = re.compile(r"(?:export\s+)?(\w+)\s*=\s*(.*)")
_SETTING: Final = re.compile(r"org\.gnome\.system\.proxy(?:\.(\w+))? ([\w-]+) (.*)")

_log = structlog.get_logger()


class Candidate(NamedTuple):
    """A path that may lead to the hub. No representation shows the password."""

    via: Via
    secret: str | None  # password for `via.user`
    source: (
        str  # "account" (path.via), "direct", "link" (path.known), "environment", "system"; of `survey` also "desktop"
    )

    def __repr__(self) -> str:
        return f"Candidate(via={self.via}, secret={'None' if self.secret is None else '…'}, source={self.source})"


class Skipped(NamedTuple):
    """What was to be a path, and can't be."""

    where: str  # "HTTPS_PROXY", "/etc/environment: ALL_PROXY"
    problem: UkihashiError


class Survey(NamedTuple):
    """All that was found."""

    candidates: list[Candidate]
    skipped: list[Skipped]


def candidates(config: CardConfig, environ: Mapping[str, str] = os.environ) -> list[Candidate]:
    """The paths to try, the best first, each once; what can't be used is left out and logged once.

    May take as long as a keyring does (`path_secrets.KEYRING_S`).
    Raises: ConfigError: the file of passwords can't be used.
    """
    found = survey(config, environ)
    for one in found.skipped:
        _log_once(one.where, say(one.problem))
    return found.candidates


def survey(
    config: CardConfig, environ: Mapping[str, str] = os.environ, desktop: Mapping[str, str] | None = None
) -> Survey:
    """As `candidates`, with what is left out and why; `desktop`: what `desktop_settings` gave. Raises: ConfigError."""
    skipped: list[Skipped] = []
    if config.path.via != AUTO:
        named = [Candidate(parse(config.path.via), None, "account")]
    else:
        named = [Candidate(DIRECT, None, "direct"), *(Candidate(parse(url), None, "link") for url in config.path.known)]
        named += _of_the_machine(config, environ, desktop or {}, skipped)
    secrets, found = PathSecrets(config.path), dict[Via, Candidate]()
    for one in named:
        via, secret = (one.via, one.secret) if one.secret is not None else secrets.complete(one.via)
        before = found.get(via)
        if before is None:
            found[via] = Candidate(via, secret, one.source)
        elif before.secret is None:
            found[via] = before._replace(secret=secret)
    return Survey(list(found.values()), skipped)


def _of_the_machine(
    config: CardConfig, environ: Mapping[str, str], desktop: Mapping[str, str], skipped: list[Skipped]
) -> Iterator[Candidate]:
    host, port = config.hub.host, config.hub.port
    spared = no_proxy(environ)
    file = _environment_file()
    for source, where, variables in (
        ("environment", "", environ),
        ("system", f"{ENVIRONMENT_FILE}: ", file),
        ("desktop", "gsettings: ", desktop),
    ):
        if is_spared(f"{spared},{no_proxy(variables)}", host, port):
            continue
        for name in VARIABLES:
            written, value = _value(variables, name)
            if value.strip():
                try:
                    via, secret = from_variable(value)
                except UsageError as error:
                    skipped.append(Skipped(where + written, error))
                else:
                    yield Candidate(via, secret, source)


@functools.lru_cache(64)
def _log_once(where: str, reason: str) -> None:
    _log.warning("path_skipped", where=where, reason=reason)


# -- the variables --------------------------------------------------------------------------------------------------


def from_variable(value: str) -> tuple[Via, str | None]:
    """The path that a variable names, and its password. Raises: UsageError: none; it never repeats a password."""
    value = value.strip()
    if "://" not in value and value.lower() != str(DIRECT):
        value = f"http://{value}"
    scheme, colon, rest = value.partition(":")
    return split(f"socks5h:{rest}" if colon and scheme.lower() == "socks" else value)


def no_proxy(variables: Mapping[str, str]) -> str:
    """What goes without a proxy."""
    return _value(variables, "no_proxy")[1]


def is_spared(no_proxy: str, host: str, port: int) -> bool:
    """Whether the list `no_proxy` says that this host and port are reached without a proxy."""
    return any(_covers(entry, host, port) for entry in re.split(r"[\s,]+", no_proxy) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network is None:
        place, colon, only = entry.rpartition(":")
        if colon and only.isascii() and only.isdigit():
            if int(only[:6]) != port:
                return False
            entry, network = place, _network(place)
    address = _network(host.partition("%")[0])
    if network is not None or address is not None:
        return network is not None and address is not None and address.network_address in network
    domain, name = _plain(entry.removeprefix("*")), _plain(host)
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Also of one address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text[1:-1] if text.startswith("[") and text.endswith("]") else text, strict=False)
    return None


def _plain(name: str) -> str:
    """A name as it is compared."""
    name = name.strip(".").lower()
    with contextlib.suppress(UnicodeError):
        return name.encode("idna").decode()
    return name


def _value(variables: Mapping[str, str], name: str) -> tuple[str, str]:
    """As curl: the small letters win, nothing is as good as not there."""
    for written in (name, name.upper()):
        if value := variables.get(written, ""):
            return written, value
    return name, ""


# -- this system ------------------------------------------------------------------------------------------------------


def _environment_file() -> dict[str, str]:
    """What `ENVIRONMENT_FILE` sets for everybody who logs in; services get none of it by themselves."""
    try:
        with ENVIRONMENT_FILE.open("rb") as file:
            text = file.read(FILE_MAX).decode("utf-8", "replace")
    except OSError:
        return {}
    pairs = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {pair[1]: _unquoted(pair[2]) for pair in pairs if pair}


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def desktop_settings() -> dict[str, str]:
    """The proxies that the user of a desktop chose by hand, as variables; nothing where there is no such desktop."""
    program = shutil.which("gsettings")
    if program is None:
        return {}
    try:
        done = subprocess.run(
            [program, "list-recursively", "org.gnome.system.proxy"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GSETTINGS_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return _as_variables(done.stdout[:FILE_MAX].decode("utf-8", "replace"))


def _as_variables(settings: str) -> dict[str, str]:
    lines = (_SETTING.fullmatch(line.strip()) for line in settings.splitlines())
    known = {(line[1] or "", line[2]): _unquoted(line[3]) for line in lines if line}
    if known.get(("", "mode")) != "manual":
        return {}
    variables = {"no_proxy": ",".join(re.findall(r"'([^']*)'", known.get(("", "ignore-hosts"), "")))}
    for child, variable, scheme in (("https", "https_proxy", "http"), ("socks", "all_proxy", "socks")):
        host, port = known.get((child, "host"), ""), known.get((child, "port"), "0")
        if host and port != "0":
            variables[variable] = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    return variables
