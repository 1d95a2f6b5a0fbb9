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
    eve: str = ""  # path of a file of JSON lines, in the shape of Suricata's EVE
    json: str = ""  # the older name of `eve`, which wins
    syslog: str = ""  # /dev/log, HOST:PORT, udp://HOST:PORT or tcp://HOST:PORT; "" = none
    metrics: str = ""  # ADDRESS:PORT for Prometheus; "" = none
    bus: str = ""  # path of the socket for top, web and block; "" = alert.sock in the runtime folder; "off"
    evidence: str = ""  # folder of evidence bundles; "" = none
    evidence_per_day: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200  # bundles; later findings get none
    evidence_mib: Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] = 512  # of all bundles in the folder
    report: str = ""  # "1h": how often to say how much was seen; "" = never
    community_id_seed: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    send_on_capture_card: bool = False  # let syslog and metrics use a card that is captured on
    filter: str = ""  # packets to look at, as in tcpdump; "" = all
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1  # processes that share the packets
    snaplen: Annotated[int, msgspec.Meta(ge=128, le=65535)] = 256  # bytes kept of each packet
    ring: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64  # MiB for packets that wait, for each process
    ssh_clients: tuple[str, ...] = ()  # patterns of SSH client identifications that are always reported
    max_flows: Annotated[int, msgspec.Meta(ge=1024, le=4_000_000)] = 65_536  # TCP connections known at once


def load_alert(path: Path) -> AlertConfig:
    """Read `alert.toml`; an absent file means all defaults.

    Raises:
        ConfigError: names the file and the place.
    """
    return load(path, AlertConfig, missing_ok=True)
