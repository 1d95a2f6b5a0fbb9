"""Check an evidence bundle: is it whole, who signed it, and does the detector come to the same verdict again?"""

import base64
import binascii
import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from ukihashi.alert import bundle, sensor_key
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.record import Endpoint, Finding, Packet
from ukihashi.detect.whatif import Replay, nearest
from ukihashi.errors import N_, InputUnreadable, NotTrusted, UkihashiError

MAX_BUNDLE: Final = 64 << 20  # bytes, unpacked
MAX_NAMES: Final = 64
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
_EXPECTED: Final = (*bundle.SIGNED, bundle.MANIFEST, bundle.SIGNATURE, bundle.PUBLIC_KEY)


@dataclass(slots=True)
class Bundle:
    """What a bundle holds, and what is wrong with it; `problems` is empty for a good one."""

    files: dict[str, bytes]
    manifest: dict[str, Any]
    fingerprint: str  # of the public key in it, "" if there is none
    problems: list[UkihashiError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the detector says of the packets: (name, then, now) for each point; `same` if all are equal."""

    points: tuple[tuple[str, str, str], ...]

    @property
    def same(self) -> bool:
        """The verdict stands."""
        return all(then == now for _, then, now in self.points)


def check(path: Path, *, expected: str = "") -> Bundle:
    """Read a bundle and say all that is wrong with it.

    Args:
        expected: fingerprint of the sensor that must have signed; "" = whoever did.
    Raises:
        InputUnreadable: no file, or no zip file.
    """
    problems = list[UkihashiError]()
    files = _unpack(path, problems)
    manifest = _manifest(files, problems)
    public = files.get(bundle.PUBLIC_KEY, b"")
    found = Bundle(files, manifest, sensor_key.fingerprint(public), problems)
    _signature(found, expected)
    listed = manifest.get("files")
    listed = listed if isinstance(listed, dict) else {}
    for name in sorted({*bundle.SIGNED, *listed}):
        _file(found, name, listed.get(name))
    for name in sorted(files.keys() - listed.keys() - set(_EXPECTED)):
        problems.append(NotTrusted(N_("{name} was added: the manifest does not know it"), name=name))
    return found


def _unpack(path: Path, problems: list[UkihashiError]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = MAX_BUNDLE
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_NAMES or sum(entry.file_size for entry in entries) > MAX_BUNDLE:
                raise InputUnreadable(N_("{file} is no evidence bundle: it holds too much"), file=path)
            for entry in entries:
                if entry.filename in files:
                    problems.append(NotTrusted(N_("{name} is in the bundle twice"), name=entry.filename))
                try:
                    with archive.open(entry) as file:
                        data = file.read(left + 1)
                except _DAMAGE:
                    problems.append(NotTrusted(N_("{name} is damaged and can't be unpacked"), name=entry.filename))
                    files.setdefault(entry.filename, b"")
                    continue
                left -= len(data)
                if left < 0:
                    raise InputUnreadable(N_("{file} is no evidence bundle: it holds too much"), file=path)
                files[entry.filename] = data
    except FileNotFoundError:
        raise InputUnreadable(N_("{file} does not exist"), file=path) from None
    except IsADirectoryError:
        raise InputUnreadable(N_("{file} is a folder; give the zip file"), file=path) from None
    except _DAMAGE as error:
        raise InputUnreadable(
            N_("{file} is no evidence bundle, or its end is damaged: it is not a whole zip file"), file=path
        ) from error
    return files


def _manifest(files: dict[str, bytes], problems: list[UkihashiError]) -> dict[str, Any]:
    if bundle.MANIFEST not in files:
        problems.append(NotTrusted(N_("{name} is missing"), name=bundle.MANIFEST))
        return {}
    try:
        manifest = json.loads(files[bundle.MANIFEST])
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != bundle.FORMAT:
        problems.append(NotTrusted(N_("{name} is not a manifest of evidence"), name=bundle.MANIFEST))
        return {}
    return manifest


def _signature(found: Bundle, expected: str) -> None:
    files, problems = found.files, found.problems
    for name in (bundle.SIGNATURE, bundle.PUBLIC_KEY):
        if name not in files:
            problems.append(NotTrusted(N_("{name} is missing"), name=name))
    if bundle.PUBLIC_KEY in files and not found.fingerprint:
        problems.append(NotTrusted(N_("{name} is not a public key (Ed25519, PEM)"), name=bundle.PUBLIC_KEY))
    sensor = found.manifest.get("sensor")
    named = sensor.get("key") if isinstance(sensor, dict) else None
    if found.fingerprint and found.manifest and named != found.fingerprint:
        problems.append(
            NotTrusted(
                N_("the public key in the bundle ({key}) is not the one that the manifest names ({named})"),
                key=found.fingerprint,
                named=_printable(named),
            )
        )
    if found.fingerprint and bundle.SIGNATURE in files and bundle.MANIFEST in files:
        try:
            signature = base64.b64decode(files[bundle.SIGNATURE].strip(), validate=True)
        except binascii.Error:
            signature = b""
        if not sensor_key.verify(files[bundle.PUBLIC_KEY], signature, files[bundle.MANIFEST]):
            problems.append(
                NotTrusted(
                    N_("the signature does not fit: {manifest} or {signature} was changed, or another key signed"),
                    manifest=bundle.MANIFEST,
                    signature=bundle.SIGNATURE,
                )
            )
    if expected and found.fingerprint and expected != found.fingerprint:
        problems.append(
            NotTrusted(
                N_("another sensor signed: its key is {key}, expected was {expected}"),
                key=found.fingerprint,
                expected=expected,
            )
        )


def _file(found: Bundle, name: str, entry: object) -> None:
    data = found.files.get(name)
    if data is None:
        found.problems.append(NotTrusted(N_("{name} is missing"), name=name))
    elif not isinstance(entry, dict):
        if found.manifest:
            found.problems.append(NotTrusted(N_("{name} was added: the manifest does not know it"), name=name))
    elif entry.get("sha256") != hashlib.sha256(data).hexdigest():
        found.problems.append(NotTrusted(N_("{name} was changed after it was signed"), name=name))


def _printable(value: object) -> str:
    text = str(value)[:100]
    return text if text.isprintable() else repr(text)


def replay(found: Bundle) -> Replayed:
    """Judge the packets again, and compare with `finding.json`.

    Raises:
        InputUnreadable: the manifest, the finding or the packets can't be read.
    """
    try:
        event = json.loads(found.files[bundle.FINDING])
        begin, until = (float(found.manifest["replay"][name]) for name in ("begin", "until"))
        patterns = [str(pattern) for pattern in found.manifest["replay"].get("ssh_clients", [])]
        then = _points_of(event)
        client = _endpoint(event["src_ip"], event["src_port"])
        server = _endpoint(event["dest_ip"], event["dest_port"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputUnreadable(
            N_("the bundle can't be replayed: {name} is missing or damaged"), name=bundle.FINDING
        ) from error
    if bundle.PACKETS not in found.files:
        raise InputUnreadable(N_("the bundle can't be replayed: {name} is missing or damaged"), name=bundle.PACKETS)
    kept = packets(found.files[bundle.PACKETS])
    judged = Replay(kept, ssh_clients=patterns).judge(None, until, ticks=False)
    best = nearest(judged, client, server, begin)
    now = _points(best) if best is not None else dict.fromkeys(then, "-")
    return Replayed(tuple((name, value, now[name]) for name, value in then.items()))


def packets(data: bytes) -> list[Packet]:
    """What a capture file in memory holds.

    Raises:
        InputUnreadable: it is damaged.
    """
    found = list[Packet]()
    file = CaptureFile(io.BufferedReader(io.BytesIO(data)), bundle.PACKETS)
    for batch in file:
        for time, offset, captured, length in batch.packets:
            found.append((time, batch.link_type, length, bytes(batch.buffer[offset : offset + captured])))
    return found


def _endpoint(host: str, port: int) -> Endpoint:
    return Endpoint(ip_address(host).packed, int(port))


def _points_of(event: dict[str, Any]) -> dict[str, str]:
    ours = event["ukihashi"]
    return {
        N_("verdict"): str(ours["verdict"]),
        N_("rule"): str(ours["rule"]),
        N_("score"): f"{float(ours['score']):.2f}",
        N_("kind"): f"{ours['family']} {ours['transport']}",
        N_("client"): f"{event['src_ip']} {event['src_port']}",
        N_("server"): f"{event['dest_ip']} {event['dest_port']}",
    }


def _points(finding: Finding) -> dict[str, str]:
    return {
        "verdict": finding.verdict.value,
        "rule": finding.rule,
        "score": f"{finding.score:.2f}",
        "kind": f"{finding.family.name.lower()} {finding.outer.value}",
        "client": f"{finding.client.host} {finding.client.port}",
        "server": f"{finding.server.host} {finding.server.port}",
    }
