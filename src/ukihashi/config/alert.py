"""`alert.toml`: what the administrator of a detector decides once. Options of `ukihashi alert` win over the file."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ukihashi.config.load import load


class AlertConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `alert.toml`."""

    label: Literal["modern", "classic"] = "modern"  # classic: "SoftEther 1.0" for every family
    probable: bool = False  # log findings that are only PROBABLE, too
    log: str = ""  # path of a log file for `ukihashi alert`; `sealert` always writes sealert.log where it starts
    json: str = ""  # path of a file of JSON lines
    ssh_clients: tuple[str, ...] = ()  # patterns of SSH client identifications that are always reported
    max_flows: Annotated[int, msgspec.Meta(ge=1024, le=4_000_000)] = 65_536  # TCP connections known at once


def load_alert(path: Path) -> AlertConfig:
    """Read `alert.toml`; an absent file means all defaults.

    Raises:
        ConfigError: names the file and the place.
    """
    return load(path, AlertConfig, missing_ok=True)
