"""A bundle of evidence: signed, free of secrets, bounded; it comes to the same verdict again, and damage is named."""

import base64
import errno
import io
import json
import os
import stat
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.alert.kept import CORPUS, findings, of_corpus, session

from ukihashi.alert import bundle, bundle_check, sensor_key
from ukihashi.alert.bundle import Circumstances
from ukihashi.alert.evidence import Evidence
from ukihashi.alert.redact import redact
from ukihashi.alert.sensor_key import SensorKey, load_or_make
from ukihashi.capture.pcapng import pcapng
from ukihashi.cli.alert_evidence import replay, verify
from ukihashi.detect.record import Allowed, Finding, Verdict
from ukihashi.detect.whatif import Replay, same_ends
from ukihashi.errors import EnvironmentLacks, InputUnreadable, UkihashiError

NAMES = ("report.html", "finding.json", "packets.pcapng", "manifest.json", "manifest.sig", "sensor-key.pem")
ABOUT = Circumstances(interface="eth0", host="sensor", packets=500, dropped=3, missed=10, coverage=0.98)
POSITIVES = sorted(path.name for kind in ("se-*", "uk-*") for path in CORPUS.glob(f"{kind}.pcap.gz"))
WHOLE = ("se-d443-idle.pcap.gz", "se-ssh-idle.pcap.gz", "se-d443-v6-idle.pcap.gz", "uk-idle4.pcap.gz")
PASSWORD = b"kumo-no-ito"
MADE = 1_700_000_100.0


@cache
def key() -> SensorKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SensorKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@cache
def good() -> bytes:
    (finding,) = findings(session())
    return bundle.build(finding, key(), ABOUT, made=MADE)


def unpack(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def problems(path: Path, expected: str = "") -> list[str]:
    return [str(problem) for problem in bundle_check.check(path, expected=expected).problems]


# -- the same verdict again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POSITIVES)
def test_the_packets_that_a_bundle_holds_give_the_same_verdict(name: str) -> None:
    confirmed = [found for found in of_corpus(name) if found.verdict is Verdict.CONFIRMED]
    if not confirmed:
        pytest.skip("no verdict to come to again; tests/corpus says whether there should be one")
    for finding in confirmed:
        packets = bundle_check.packets(pcapng(map(redact, finding.packets)))
        again = same_ends(Replay(packets).judge(None, finding.decided, ticks=False), finding)
        assert again is not None
        assert (again.verdict, again.rule, again.family, again.outer, again.target) == (
            finding.verdict,
            finding.rule,
            finding.family,
            finding.outer,
            finding.target,
        )
        assert round(again.score, 2) == round(finding.score, 2)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_bundle_is_good_and_replays(name: str, tmp_path: Path) -> None:
    finding = of_corpus(name)[0]
    path = tmp_path / bundle.name_of(finding)
    path.write_bytes(bundle.build(finding, key(), ABOUT, made=MADE))
    found = bundle_check.check(path, expected=key().fingerprint)
    assert found.problems == []
    replayed = bundle_check.replay(found)
    assert replayed.same, replayed.points
    assert {name for name, _, _ in replayed.points} == {"verdict", "rule", "score", "kind", "client", "server"}


def test_a_bundle_tells_how_the_capture_stood_and_whose_it_is() -> None:
    files = unpack(good())
    assert tuple(files) == NAMES
    manifest = json.loads(files["manifest.json"])
    assert manifest["capture"]["coverage"] == 0.98
    assert manifest["capture"]["dropped"] == 3
    assert manifest["sensor"] == {"host": "sensor", "interface": "eth0", "key": key().fingerprint}
    assert len(manifest["rules"]["sha256"]) == 64
    assert set(manifest["files"]) == {"report.html", "finding.json", "packets.pcapng"}
    event = json.loads(files["finding.json"])
    ours = event["ukihashi"]
    assert event["event_type"] == "alert"
    assert ours["timeline"][0]["kind"] == "connection"
    assert {piece["name"] for piece in ours["reasons"][0]["pieces"]} == {"C1", "S1", "C2", "S2"}
    assert any(change["kind"] == "without further" for change in ours["changes"])


def test_the_same_finding_gives_the_same_bytes_and_the_same_name() -> None:
    (finding,) = findings(session())
    assert bundle.build(finding, key(), ABOUT, made=MADE) == good()
    assert bundle.name_of(finding) == bundle.name_of(findings(session())[0])
    assert bundle.name_of(of_corpus("se-d443-v6-idle.pcap.gz")[0]).isascii()


def test_packets_end_with_the_verdict_and_their_payload_is_short() -> None:
    (finding,) = findings([*session(), *session()[:0]])
    packets = bundle_check.packets(unpack(good())["packets.pcapng"])
    assert packets[-1][0] <= finding.decided + 1e-6
    assert max(len(data) for _, _, _, data in packets) <= 14 + 20 + 60 + 96
    assert any(length > len(data) for _, _, length, data in packets)


# -- secrets ------------------------------------------------------------------------------------------------------

CONNECT = (
    b"CONNECT hub.example:443 HTTP/1.1\r\nProxy-Authorization: Basic "
    + base64.b64encode(b"ann:" + PASSWORD)
    + b"\r\n\r\n"
)
HTTP = ((0, CONNECT), (1, b"HTTP/1.1 200 OK\r\nSet-Cookie: " + PASSWORD + b"\r\n\r\n"))
SOCKS5 = (
    (0, b"\x05\x01\x02"),
    (1, b"\x05\x02"),
    (0, b"\x01\x03ann" + bytes([len(PASSWORD)]) + PASSWORD),
    (1, b"\x01\x00"),
    (0, b"\x05\x01\x00\x03\x0bhub.example\x01\xbb"),
    (1, b"\x05\x00\x00\x01\x0a\x00\x00\x02\x01\xbb"),
)
SOCKS4 = ((0, b"\x04\x01\x01\xbb\x0a\x00\x00\x02" + PASSWORD + b"\x00"), (1, b"\x00\x5a\x01\xbb\x0a\x00\x00\x02"))


@pytest.mark.parametrize("before", [HTTP, SOCKS5, SOCKS4], ids=["http", "socks5", "socks4"])
def test_no_password_is_in_a_bundle_and_its_verdict_stands(
    before: tuple[tuple[int, bytes], ...], tmp_path: Path
) -> None:
    (finding,) = findings(session(before=before))
    held = b"".join(data for _, _, _, data in finding.packets)
    secrets = [secret for secret in (PASSWORD, base64.b64encode(b"ann:" + PASSWORD)[:12]) if secret in held]
    assert secrets, "the sensor did not even see it: the test shows nothing"
    files = unpack(bundle.build(finding, key(), ABOUT, made=MADE))
    for secret in (PASSWORD, base64.b64encode(b"ann:" + PASSWORD)[:12], b"Proxy-Authorization"):
        assert [name for name, data in files.items() if secret in data] == []
    found = bundle_check.check(pack(tmp_path / "b.zip", files))
    assert found.problems == []
    assert bundle_check.replay(found).same


def test_what_is_blanked_keeps_its_length_and_tells_nothing_by_its_checksum() -> None:
    (finding,) = findings(session(before=HTTP))
    for before in finding.packets:
        after = redact(before)
        assert (after[0], after[1], after[2]) == (before[0], before[1], before[2])
        assert len(after[3]) <= len(before[3])
        if after[3] != before[3][: len(after[3])]:
            assert after[3][34 + 16 : 34 + 18] == b"\0\0"


# -- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_byte_changed_in_any_file_is_named(name: str, tmp_path: Path) -> None:
    files = unpack(good())
    for at in (0, len(files[name]) // 2, len(files[name]) - 2):
        changed = bytearray(files[name])
        changed[at] ^= 1
        said = " ".join(problems(pack(tmp_path / "b.zip", files | {name: bytes(changed)})))
        assert name in said or "public key" in said, (name, at, said)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    files = unpack(good())
    del files[name]
    assert f"{name} is missing" in problems(pack(tmp_path / "b.zip", files))


def test_an_added_file_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "b.zip", unpack(good()) | {"more.txt": b"x"})
    assert problems(path) == ["more.txt was added: the manifest does not know it"]


def test_a_bundle_signed_again_by_another_key_is_told_from_the_expected_one(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    other = SensorKey(Ed25519PrivateKey.generate())
    (finding,) = findings(session())
    path = tmp_path / "b.zip"
    path.write_bytes(bundle.build(finding, other, ABOUT, made=MADE))
    assert problems(path) == []
    (said,) = problems(path, key().fingerprint)
    assert said == f"another sensor signed: its key is {other.fingerprint}, expected was {key().fingerprint}"


def test_another_key_put_into_the_bundle_does_not_fit(tmp_path: Path) -> None:
    other = load_or_make(tmp_path)
    said = problems(pack(tmp_path / "b.zip", unpack(good()) | {"sensor-key.pem": other.public}))
    assert len(said) == 2
    assert "is not the one that the manifest names" in said[0]
    assert "the signature does not fit" in said[1]


def test_a_damaged_zip_is_never_good_and_never_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    data = good()
    for at in range(0, len(data), 131):
        changed = bytearray(data)
        changed[at] ^= 0x55
        path.write_bytes(changed)
        try:
            found = bundle_check.check(path)
        except InputUnreadable:
            continue
        if not found.problems:  # a byte of the container that carries nothing: dates, attributes
            assert found.files == unpack(data)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"\0" * 400, b"PK\5\6" + bytes(18)], ids=["empty", "short", "zeros", "no entries"]
)
def test_what_is_no_bundle_is_refused_with_a_sentence(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(data)
    try:
        assert "manifest.json is missing" in problems(path)
    except InputUnreadable as error:
        assert "no evidence bundle" in str(error)  # noqa: PT017 - either is right


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.html", bytes(bundle_check.MAX_BUNDLE + 1))
    with pytest.raises(InputUnreadable, match="holds too much"):
        bundle_check.check(tmp_path / "b.zip")


@pytest.mark.parametrize(
    "manifest", [b"[]", b"{", b'{"format": "ukihashi evidence 1", "files": 3, "replay": []}', b"\xff"]
)
def test_a_manifest_that_is_none_is_said(manifest: bytes, tmp_path: Path) -> None:
    found = bundle_check.check(pack(tmp_path / "b.zip", unpack(good()) | {"manifest.json": manifest}))
    assert found.problems
    with pytest.raises(InputUnreadable, match="can't be replayed"):
        bundle_check.replay(found)


def test_packets_that_were_changed_give_another_verdict(tmp_path: Path) -> None:
    files = unpack(good())
    packets = bundle_check.packets(files["packets.pcapng"])
    found = bundle_check.check(pack(tmp_path / "b.zip", files | {"packets.pcapng": pcapng(packets[:20])}))
    assert [str(problem) for problem in found.problems] == ["packets.pcapng was changed after it was signed"]
    assert not bundle_check.replay(found).same


# -- the key ------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = load_or_make(tmp_path / "state")
    path = tmp_path / "state" / "sensor-key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_make(tmp_path / "state").fingerprint == first.fingerprint
    assert [entry.name for entry in path.parent.iterdir()] == ["sensor-key.pem"]
    assert sensor_key.verify(first.public, first.sign(b"x"), b"x")
    assert not sensor_key.verify(first.public, first.sign(b"x"), b"y")
    assert not sensor_key.verify(b"nothing", first.sign(b"x"), b"x")


def test_a_file_that_is_no_key_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sensor-key.pem").write_bytes(b"mine")
    with pytest.raises(InputUnreadable, match="not a sensor's key"):
        load_or_make(tmp_path)
    assert (tmp_path / "sensor-key.pem").read_bytes() == b"mine"


# -- the folder ---------------------------------------------------------------------------------------------------


class Store:
    """An `Evidence` with a clock of its own."""

    def __init__(self, folder: Path, **options: float) -> None:
        self.now = time.time()
        self.told: list[UkihashiError] = []
        self.evidence = Evidence(
            folder,
            key(),
            tell=self.told.append,
            about=lambda: ABOUT,
            per_day=int(options.get("per_day", 100)),
            max_mib=options.get("max_mib", 100.0),
            now=lambda: self.now,
        )

    def take(self, finding: Finding) -> str:
        """Take it, and wait until it is written."""
        path = self.evidence.take(finding)
        self.evidence.wait()
        return path


def many(count: int) -> Sequence[Finding]:
    (finding,) = findings(session())
    return [replace(finding, begin=finding.begin + n, packets=()) for n in range(count)]


def zips(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_is_written_once_with_mode_0600_in_a_folder_of_its_owner(tmp_path: Path) -> None:
    store = Store(tmp_path / "evidence")
    (finding,) = many(1)
    path = Path(store.take(finding))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.stat().st_mtime_ns
    assert store.take(finding) == str(path)
    store.evidence.close()
    assert path.stat().st_mtime_ns == before
    assert problems(path) == []
    assert zips(path.parent) == [path.name]


def test_findings_that_are_probable_or_allowed_get_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (finding,) = many(1)
    assert store.take(replace(finding, verdict=Verdict.PROBABLE)) == ""
    assert store.take(replace(finding, allowed=Allowed("a1", "ann", "home office", "2099-01-01"))) == ""
    store.evidence.close()
    assert zips(tmp_path) == []


def test_after_so_many_in_a_day_the_first_ones_stay_and_it_is_told_once(tmp_path: Path) -> None:
    store = Store(tmp_path, per_day=2)
    written = [store.take(finding) for finding in many(5)]
    assert [bool(path) for path in written] == [True, True, False, False, False]
    assert [str(error) for error in store.told] == [
        "2 evidence bundles in 24 hours: later findings get none until the oldest is a day old"
    ]
    for path in written[:2]:
        os.utime(path, (store.now - 90_000, store.now - 90_000))
    assert store.take(many(9)[8])
    store.evidence.close()


def test_a_full_folder_gets_no_more_and_loses_none(tmp_path: Path) -> None:
    store = Store(tmp_path, max_mib=0.02)
    for finding in many(6):
        store.take(finding)
    store.evidence.close()
    kept = zips(tmp_path)
    assert 0 < len(kept) < 6
    assert kept == [bundle.name_of(finding) for finding in many(6)][: len(kept)]
    assert len(store.told) == 1
    assert "take it away" in str(store.told[0])


def test_a_full_disk_is_told_and_leaves_no_half_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    real: Callable[[int], None] = os.fsync

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    one, two, three = many(3)
    store.take(one)
    store.take(two)
    assert zips(tmp_path) == []
    assert [error.values["reason"] for error in store.told] == ["No space left on device"]
    monkeypatch.setattr(os, "fsync", real)
    assert Path(store.take(three)).is_file()
    store.evidence.close()
    assert (store.evidence.written, store.evidence.failed) == (1, 2)


def test_a_folder_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentLacks, match="evidence can't be written to"):
        Store(tmp_path / "file" / "evidence")


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".ukihashi-20260101T000000Z-a.zip.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    Store(tmp_path).evidence.close()
    assert zips(tmp_path) == ["notes.txt"]


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "b.zip").write_bytes(good())
    return tmp_path / "b.zip"


def test_verify_says_good_and_whose(path: Path) -> None:
    done = CliRunner().invoke(verify, [str(path), "--signer", key().fingerprint])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"Good: 3 files are as they were when {key().fingerprint} signed them.",
        "CONFIRMED: client 10.0.0.1:50000, server 10.0.0.2:443, 2023-11-14T22:13:20.000000+0000",
    ]


def test_verify_ends_with_6_and_all_that_is_wrong(tmp_path: Path) -> None:
    files = unpack(good()) | {"report.html": b"<p>innocent", "extra": b""}
    done = CliRunner().invoke(verify, [str(pack(tmp_path / "b.zip", files))])
    assert done.exit_code == 6
    assert done.output.splitlines() == [
        "report.html was changed after it was signed",
        "extra was added: the manifest does not know it",
    ]


def test_verify_prints_this_sensors_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("UKIHASHI_STATE_DIR", str(tmp_path / "state"))
    done = CliRunner().invoke(verify, ["--key"])
    public, _, mark = done.output.rstrip("\n").rpartition("\n")
    assert public.startswith("-----BEGIN PUBLIC KEY-----")
    assert sensor_key.fingerprint(public.encode()) == mark
    (tmp_path / "key.pem").write_text(public)
    done = CliRunner().invoke(verify, [str(path), "--signer", str(tmp_path / "key.pem")])
    assert done.exit_code == 6
    assert "another sensor signed" in done.output


def test_replay_ends_with_0_for_the_same_and_1_for_another_verdict(path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(replay, [str(path)])
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == "The same verdict."
    assert "= verdict: CONFIRMED" in done.output
    files = unpack(good())
    event = json.loads(files["finding.json"])
    event["ukihashi"]["rule"] = "5"
    done = CliRunner().invoke(
        replay, [str(pack(tmp_path / "c.zip", files | {"finding.json": json.dumps(event).encode()}))]
    )
    assert done.exit_code == 1
    assert "! rule: 5 -> 1" in done.output
