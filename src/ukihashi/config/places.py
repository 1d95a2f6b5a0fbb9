"""Where things lie on this machine: state, runtime sockets, configuration.

An option on the command line wins over the environment (`UKIHASHI_STATE_DIR`, `UKIHASHI_RUNTIME_DIR`,
`UKIHASHI_CONFIG_DIR`), which wins over the places the Filesystem Hierarchy Standard gives a system service.
Nothing here makes a folder.
"""

import os
from pathlib import Path
from typing import Final

STATE: Final = "UKIHASHI_STATE_DIR"
RUNTIME: Final = "UKIHASHI_RUNTIME_DIR"
CONFIG: Final = "UKIHASHI_CONFIG_DIR"

_DEFAULT: Final = {
    STATE: Path("/var/lib/ukihashi"),
    RUNTIME: Path("/run/ukihashi"),
    CONFIG: Path("/etc/ukihashi"),
}


def _place(name: str) -> Path:
    given = os.environ.get(name, "")
    return Path(given).absolute() if given else _DEFAULT[name]


def state_dir() -> Path:
    """What must survive a reboot: database, keys, accounts, logs of background cards."""
    return _place(STATE)


def runtime_dir() -> Path:
    """Control sockets and pid files; may be emptied at boot."""
    return _place(RUNTIME)


def config_dir() -> Path:
    """What the administrator writes: `hub.toml`, `card.d/NAME.toml`, `alert.toml`."""
    return _place(CONFIG)


def hub_config() -> Path:
    """The hub's configuration file."""
    return config_dir() / "hub.toml"


def hub_socket() -> Path:
    """The running hub's control socket."""
    return runtime_dir() / "hub.sock"


def web_socket() -> Path:
    """Where the hub's worker passes page requests on to."""
    return runtime_dir() / "web.sock"


def card_config(account: str) -> Path:
    """The configuration file of one card account."""
    return config_dir() / "card.d" / f"{account}.toml"


def card_socket(account: str) -> Path:
    """The control socket of the running card of one account."""
    return runtime_dir() / f"card-{account}.sock"


def override(*, state: Path | None = None, runtime: Path | None = None, config: Path | None = None) -> None:
    """Make places given on the command line hold for this process and those it starts."""
    for name, path in ((STATE, state), (RUNTIME, runtime), (CONFIG, config)):
        if path is not None:
            os.environ[name] = str(path.absolute())
