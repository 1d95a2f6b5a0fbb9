"""Evidence of a finding to hand over: one zip file, signed, that anyone can check and judge again.

Inside: `report.html` for people, `finding.json` (the EVE object), `packets.pcapng` (headers of the packets up to the
verdict), `manifest.json` with the SHA-256 of each, `manifest.sig` (Ed25519 over the manifest's bytes, base64) and
`sensor-key.pem` (the public key). `docs/evidence.en.md` says how to check it without this program.
"""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

from ukihashi import __version__
from ukihashi.alert import eve, explain
from ukihashi.alert.redact import redact
from ukihashi.alert.sensor_key import SensorKey
from ukihashi.capture.pcapng import pcapng
from ukihashi.detect.record import Finding, moment
from ukihashi.detect.whatif import Change, changes

FORMAT: Final = "ukihashi evidence 1"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
PUBLIC_KEY: Final = "sensor-key.pem"
FINDING: Final = "finding.json"
PACKETS: Final = "packets.pcapng"
REPORT: Final = "report.html"
SIGNED: Final = (FINDING, PACKETS, REPORT)
MAX_TIMELINE: Final = 1024  # entries in finding.json


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How the capture stood when the verdict was reached."""

    interface: str = ""  # cards, or the names of capture files
    host: str = ""  # name of the sensor's machine
    packets: int = 0  # read since the begin
    dropped: int = 0  # that the kernel threw away
    missed: int = 0  # bytes that the capture lost, by the sequence numbers
    coverage: float = 1.0  # share of bytes that were seen, 0..1
    ssh_clients: tuple[str, ...] = ()  # patterns that the detector was given


def name_of(finding: Finding) -> str:
    """The file's name, the same whenever this finding is written."""
    begin = moment(finding.begin)
    client = str(finding.client).translate({ord("["): None, ord("]"): None, ord(":"): "-"})
    mark = hashlib.sha256(f"{finding.client} {finding.server} {finding.begin!r}".encode()).hexdigest()[:8]
    return f"ukihashi-{begin:%Y%m%dT%H%M%SZ}-{client}-{mark}.zip"


def prepare() -> None:
    """Read what a bundle needs of the program's files: they may be out of reach once rights are given up."""
    from ukihashi.alert.bundle_page import preload

    preload()
    rules_digest()


@cache
def rules_digest() -> str:
    """SHA-256 over the source of all rules and laws: two equal ones judge alike."""
    digest = hashlib.sha256()
    for entry in sorted(resources.files("ukihashi.detect").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()


def build(finding: Finding, key: SensorKey, about: Circumstances, *, language: str = "en", made: float) -> bytes:
    """The zip file.

    Args:
        language: in which the report opens; it has them all.
        made: seconds since 1970 UTC.
    """
    from ukihashi.alert.bundle_page import render

    found = changes(finding, ssh_clients=about.ssh_clients)
    files = {
        FINDING: _json(finding_object(finding, found, about)),
        PACKETS: pcapng(
            map(redact, finding.packets),
            application=f"ukihashi {__version__}",
            comment="Headers of the packets up to the verdict; payload cut and blanked.",
        ),
        REPORT: render(finding, found, about, fingerprint=key.fingerprint, language=language, made=made).encode(),
    }
    manifest = _json(_manifest(finding, files, key, about, made))
    files[MANIFEST] = manifest
    files[SIGNATURE] = base64.b64encode(key.sign(manifest)) + b"\n"
    files[PUBLIC_KEY] = key.public
    return _zip(files, datetime.fromtimestamp(made, UTC))


def finding_object(finding: Finding, found: Sequence[Change], about: Circumstances) -> dict[str, Any]:
    """The EVE object, with all of the timeline, the parts of the reasons and what would have changed the verdict."""
    event = eve.Eve(about.interface).event(finding)
    ours = event["ukihashi"]
    ours["reasons"] = explain.reason_objects(finding)
    ours["timeline"] = explain.timeline_objects(finding, MAX_TIMELINE)
    ours["changes"] = explain.change_objects(found)
    return event


def _manifest(
    finding: Finding, files: dict[str, bytes], key: SensorKey, about: Circumstances, made: float
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "made": eve.utc(made),
        "product": {"name": "ukihashi", "version": __version__},
        "rules": {"signature_revision": eve.REVISION, "sha256": rules_digest()},
        "sensor": {"host": about.host, "interface": about.interface, "key": key.fingerprint},
        "finding": {
            "family": finding.family.name.lower(),
            "transport": finding.outer.value,
            "client": str(finding.client),
            "server": str(finding.server),
            "begin": eve.utc(finding.begin),
            "verdict": finding.verdict.value,
            "rule": finding.rule,
            "score": round(finding.score, 2),
        },
        # The moments of begin and verdict, to the last bit: rules that wait for time are tried then.
        "replay": {"begin": finding.begin, "until": finding.decided, "ssh_clients": list(about.ssh_clients)},
        "capture": {
            "packets": about.packets,
            "dropped": about.dropped,
            "missed_bytes": about.missed,
            "coverage": round(about.coverage, 6),
            "connection_lost_bytes": finding.lost,
            "packets_kept": len(finding.packets),
        },
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
        },
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"


def _zip(files: dict[str, bytes], made: datetime) -> bytes:
    """The same bytes for the same input."""
    stamp = (max(made.year, 1980), made.month, made.day, made.hour, made.minute, made.second)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (REPORT, FINDING, PACKETS, MANIFEST, SIGNATURE, PUBLIC_KEY):
            entry = zipfile.ZipInfo(name, stamp)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()
