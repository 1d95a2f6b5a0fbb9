"""`ukihashi alert web` as a person runs it."""

import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.alert.sensor import Sensor, finding

from ukihashi.cli.alert_web import Keeper, address_of
from ukihashi.config import places
from ukihashi.errors import EnvironmentLacks, UsageError
from ukihashi.net.privileges import identity, is_root

ARGV = [sys.executable, "-m", "ukihashi.cli.main", "alert", "web"]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "r").mkdir()
    return tmp_path / "r"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "127.0.0.1", 0),
        (":8080", "127.0.0.1", 8080),
        ("127.0.0.1", "127.0.0.1", 0),
        ("[::1]:80", "::1", 80),
        ("[::1]", "::1", 0),
        ("0.0.0.0:9", "0.0.0.0", 9),
    ],
)
def test_where_to_listen(text: str, host: str, port: int) -> None:
    assert address_of(text) == (host, port)


@pytest.mark.parametrize("text", ["localhost:1", "127.0.0.1:65536", "127.0.0.1:-1", "::1:x", "1.2.3:4", "127.0.0.1:八"])
def test_where_one_can_not(text: str) -> None:
    with pytest.raises(UsageError):
        address_of(text)


@pytest.mark.slow
def test_other_machines_are_kept_out_unless_asked_for(runtime: Path) -> None:
    done = subprocess.run([*ARGV, "--listen", "0.0.0.0:0"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--remote" in done.stderr


@pytest.mark.slow
def test_the_page_has_no_rights_and_the_keeper_ends_it(runtime: Path) -> None:
    sensor = Sensor(runtime / "alert.sock")
    sensor.find(finding("192.168.126.77"))
    with subprocess.Popen(ARGV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (page,) = children
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{page}/status").read_text().splitlines() if ":\t" in line
        )
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        if is_root():
            assert status["Uid"].split() == [str(identity("ukihashi-page").uid)] * 4
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 0, timeout=20)
        connection.request("GET", f"/?{address.query}")
        answer = connection.getresponse()
        cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
        answer.read()
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert process.stdout.readline().startswith("http://127.0.0.1:")  # the next way in
        connection.request("GET", "/", headers={"Cookie": cookie})
        assert "192.168.126.77:50412" in connection.getresponse().read().decode()
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(page), 0)
    sensor.close()


def test_the_keeper_gives_only_bundles_that_the_sensor_named(tmp_path: Path) -> None:
    import asyncio
    import json

    from ukihashi.alert import eve
    from ukihashi.alert.page_state import key_of

    keeper = Keeper("http://x/", tell=lambda _line: None)
    told = {
        name: eve.Eve("e").event(finding(name, evidence_file=str(tmp_path / "b.zip")))
        for name in ("10.0.0.1", "10.0.0.2")
    }
    keeper.note(json.dumps({"event_type": "hello", "findings": [told["10.0.0.1"]]}).encode())
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04!")
    (row,) = asyncio.run(keeper.evidence(key_of(told["10.0.0.1"]), 2))
    assert (row["name"], row["size"], row["data"]) == ("b.zip", 5, "AwQh")
    (tmp_path / "b.zip").write_bytes(b"root:x:0:0")  # told by a sensor that was taken over
    with pytest.raises(EnvironmentLacks):
        asyncio.run(keeper.evidence(key_of(told["10.0.0.1"]), 0))
    for key in (key_of(told["10.0.0.2"]), "../../etc/passwd", str(tmp_path / "b.zip")):
        with pytest.raises(UsageError):
            asyncio.run(keeper.evidence(key, 0))
