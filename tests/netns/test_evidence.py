"""A sensor on a live wire keeps a bundle of a real client's session; it is checked and judged again elsewhere."""

import json
import signal
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from lab import peers
from lab.net import Net
from lab.wait import until

UKIHASHI = [sys.executable, "-m", "ukihashi.cli.main"]
PASSWORD = "seven rafts of reed"


@pytest.mark.slow
@pytest.mark.peer("vpnserver", "vpnclient", "vpncmd")
@pytest.mark.timeout(240)
def test_the_bundle_of_a_real_session_is_good_and_comes_to_the_same_verdict(net: Net, tmp_path: Path) -> None:
    machine, host = net.lan("server", "client")
    folder, state = tmp_path / "closed" / "evidence", tmp_path / "state"
    folder.parent.mkdir(mode=0o700)  # the account that the sensor works as can't get here by name
    server = peers.Server(machine)
    server.start()
    server.create_hub("LAB")
    server.create_user("LAB", "ann", PASSWORD)
    sensor = machine.spawn(
        [
            *UKIHASHI,
            "alert",
            "-i",
            "eth0",
            "--bus",
            "off",
            "--evidence",
            str(folder),
            "--eve",
            str(tmp_path / "eve.json"),
        ],
        log="alert",
        env={"UKIHASHI_STATE_DIR": str(state), "LANGUAGE": "en"},
    )
    sensor.wait_for(r"Starting Capture Packets at \[", seconds=60)
    client = peers.Client(host)
    client.start()
    client.create_account(
        "work",
        server=machine.ipv4,
        port=443,
        hub="LAB",
        user="ann",
        password=PASSWORD,
        max_tcp=4,
        cidrs=["10.99.0.2/24"],
    )
    client.connect("work")
    line = sensor.wait_for(r"SoftEther VPN TCP Connection Detected \(client (\S+), server (\S+)\)", seconds=100)
    until(lambda: list(folder.glob("ukihashi-*.zip")), seconds=60, what="the bundle")
    assert sensor.stop(signal.SIGINT) == 0

    (bundle,) = folder.iterdir()
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    events = [json.loads(text) for text in (tmp_path / "eve.json").read_text().splitlines()]
    (alert,) = [event for event in events if event["event_type"] == "alert"]
    assert alert["ukihashi"]["evidence_file"] == str(bundle)
    env = {"UKIHASHI_STATE_DIR": str(state), "LANGUAGE": "en"}
    mark = machine.run([*UKIHASHI, "alert", "verify", "--key"], env=env).splitlines()[-1]
    told = machine.run([*UKIHASHI, "alert", "verify", str(bundle), "--signer", mark], env=env)
    assert told.startswith(f"Good: 3 files are as they were when {mark} signed them.")
    again = machine.run([*UKIHASHI, "alert", "replay", str(bundle)], env=env)
    assert again.splitlines()[-1] == "The same verdict."
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            assert PASSWORD.encode() not in archive.read(name)
        report = archive.read("report.html").decode()
        manifest = json.loads(archive.read("manifest.json"))
    assert line[1] in report
    assert line[2] in report
    assert manifest["sensor"]["interface"] == "eth0"
    assert manifest["capture"]["coverage"] > 0.5
