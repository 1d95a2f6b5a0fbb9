"""`ukihashi alert` and `sealert`: what they print where, and how they end."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from lab.net import Net
from lab.scene import Talk, pcap, softether_login
from lab.wait import until
from ukihashi import __version__
from ukihashi.capture.devices import devices
from ukihashi.cli.alert import SUBCOMMANDS

PYTHON = [sys.executable, "-c", "from ukihashi.cli.alert import sealert; sealert()"]
CORPUS = Path(__file__).resolve().parent.parent / "corpus"
IDLE = CORPUS / "se-d443-idle.pcap.gz"
V6 = CORPUS / "se-d443-v6-idle.pcap.gz"
BENIGN = CORPUS / "ng-mqtt-ka5.pcap.gz"
BANNER = f"ukihashi Alert Version {__version__}\nCopyright (C) 2026 The ukihashi founders.\nAll Rights Reserved.\n\n"
NOTE = "Use it only on a network whose manager has agreed."


def run(
    *words: str | Path, cwd: Path | None = None, stdin: str | None = "", program: list[str] | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    argv = [*(program or [sys.executable, "-m", "ukihashi.cli.main", "alert"]), *map(str, words)]
    environment = {**os.environ, "LANGUAGE": "en", "TZ": "Asia/Tokyo", "UKIHASHI_CONFIG_DIR": "/nonexistent", **env}
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env=environment, cwd=cwd, input=stdin
    )


def test_a_file_gives_one_line_on_standard_output_and_all_else_on_standard_error() -> None:
    done = run("-r", IDLE)
    assert done.returncode == 0
    assert done.stdout == (
        "[2026/11/22 04:37:30] SoftEther VPN TCP Connection Detected (client 10.77.8.2:43552, server 10.77.200.2:443)\n"
    )
    assert NOTE in done.stderr
    assert "packets read" in done.stderr
    assert "1 detections" in done.stderr


@pytest.mark.parametrize(("label", "words"), [("modern", "SoftEther VPN"), ("classic", "SoftEther 1.0")])
def test_the_label_and_ipv6(label: str, words: str) -> None:
    done = run("-r", V6, "--label", label)
    assert f"] {words} TCP Connection Detected (client [fd77::10:2]:39928, server [fd77::c8:2]:443)\n" in done.stdout


def test_nothing_found_is_no_error_and_says_nothing_on_standard_output() -> None:
    done = run("-r", BENIGN, "--fail-on-detect")
    assert (done.returncode, done.stdout) == (0, "")


def test_fail_on_detect() -> None:
    assert run("-r", IDLE, "--fail-on-detect").returncode == 1


def test_several_files_json_log_and_explanation(tmp_path: Path) -> None:
    done = run("-r", IDLE, "-r", V6, "--json", "eve.json", "--log", "alert.log", "--explain", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "alert.log").read_text() == done.stdout
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    assert [event["ukihashi"]["verdict"] for event in events if event["event_type"] == "alert"] == ["CONFIRMED"] * 2
    assert "CONFIRMED by rule 1" in done.stderr
    assert "login dialogue  1 : " in done.stderr
    assert done.stderr.count("Give no administrator's rights") == 2


def test_json_on_standard_output_takes_the_place_of_the_lines() -> None:
    done = run("-r", IDLE, "--json", "-")
    assert next(json.loads(line)["event_type"] for line in done.stdout.splitlines()) == "alert"


def test_standard_input() -> None:
    with IDLE.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "ukihashi.cli.main", "alert", "-r", "-"],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout.count("Connection Detected") == 1


def test_a_damaged_capture_is_named_with_its_offset_and_what_was_found_so_far_counts(tmp_path: Path) -> None:
    talks = [Talk(("10.0.0.1", 50000 + n), ("10.0.0.2", 443), begin=1.7e9 + n) for n in range(2)]
    for place, talk in enumerate(talks):
        softether_login(talk, Random(place), further=bool(place))
    data = pcap([frame for talk in talks for frame in talk.frames])
    (tmp_path / "cut.pcap").write_bytes(data + b"\0" * 9)
    done = run("-r", tmp_path / "cut.pcap")
    assert done.returncode == 2
    assert done.stdout.count("Connection Detected") == 1
    assert f"cut.pcap is damaged at byte {len(data)};" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "give either capture files (-r FILE) or a card"),
        (["-r", "/nonexistent.pcap"], 2, "/nonexistent.pcap can't be read: No such file or directory"),
        (["-r", __file__], 2, "is not a capture file"),
        (["-r", "/"], 2, "/ can't be read: Is a directory"),
        (["-i", "nosuch0"], 2, "no card nosuch0 that is up; there are: lo"),
        (["-r", IDLE, "--log", "/nonexistent/a.log"], 3, "/nonexistent/a.log can't be opened"),
        (["-r", IDLE, "--log", "/dev/full"], 3, "/dev/full can't be written (No space left on device)"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_status(words: list[str | Path], status: int, said: str) -> None:
    done = run(*words)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_log_does_not_end_the_detection_on_the_console() -> None:
    assert run("-r", IDLE, "--log", "/dev/full").stdout.count("Connection Detected") == 1


def test_the_configuration_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "alert.toml").write_text('label = "classic"\nlog = "from-config.log"\n')
    done = run("-r", IDLE, cwd=tmp_path, UKIHASHI_CONFIG_DIR=str(tmp_path))
    assert "] SoftEther 1.0 TCP" in done.stdout
    assert (tmp_path / "from-config.log").read_text() == done.stdout
    (tmp_path / "alert.toml").write_text("labell = 1\n")
    done = run("-r", IDLE, UKIHASHI_CONFIG_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "alert.toml" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a right to give away")
def test_no_right_to_capture_is_one_line() -> None:
    alert = [sys.executable, "-m", "ukihashi.cli.main", "alert"]
    done = run("-i", "lo", program=["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", *alert])
    assert done.returncode == 3
    assert "no right to capture packets; run as root" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_command_beside_the_detector_has_help(language: str) -> None:
    whole = run("--help", LANGUAGE=language).stdout
    for name in SUBCOMMANDS:
        assert f"  {name} " in whole
        done = run(name, "--help", LANGUAGE=language)
        assert done.returncode == 0, done.stderr
        assert f"ukihashi alert {name}" in done.stdout
    assert run("nosuch").returncode == 2


def test_options_come_before_a_command_or_without_one() -> None:
    assert "no such" in run("-r", IDLE, "nosuch").stderr.lower()


# -- sealert -------------------------------------------------------------------------------------------------------


def listing() -> str:
    cards = "".join(f"  {place}: {card.name}\n" for place, card in enumerate(devices(), 1))
    return f"{BANNER}Network Devices:\n{cards}\nDevice ID>"


def test_banner_list_and_prompt_byte_for_byte_and_the_end_of_input(tmp_path: Path) -> None:
    done = run(program=PYTHON, cwd=tmp_path)
    assert done.stdout == listing() + "\n"
    assert NOTE in done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "sealert.log").exists()


def test_a_wrong_answer_asks_again(tmp_path: Path) -> None:
    done = run(program=PYTHON, cwd=tmp_path, stdin="0\neth0\n9999\n\n")
    assert done.stdout == listing() + "Device ID>" * 4 + "\n"


@pytest.mark.parametrize("number", ["0", "9999"])
def test_a_number_out_of_range_is_an_error(number: str, tmp_path: Path) -> None:
    done = run(number, program=PYTHON, cwd=tmp_path)
    assert done.returncode == 2
    assert f"there is no card {number}; the list has 1 to {len(devices())}" in done.stderr
    assert "Device ID>" not in done.stdout


def replay(interface: str) -> None:
    """A login and a further connection, as frames on a wire."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for further in (False, True):
            talk = Talk(("10.0.0.1", 50000 + further), ("10.0.0.2", 443))
            softether_login(talk, Random(further), further=further)
            for _, frame in talk.frames:
                raw.send(frame)


@pytest.mark.parametrize("how", ["number", "prompt"])
def test_sealert_on_a_wire_writes_console_and_log_and_ends_in_order(net: Net, how: str, tmp_path: Path) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    (tmp_path / "answer").write_text("2\n")
    words = ["2"] if how == "number" else []
    shell = ["sh", "-c", 'exec "$@" < answer', "sh", *PYTHON, *words]
    process = b.spawn(["env", "-C", tmp_path, "LANGUAGE=en", *shell], log="sealert")
    process.wait_for(r"Starting Capture Packets at \[")
    with a.inside():
        replay(near)
    process.wait_for("Connection Detected")
    log = tmp_path / "sealert.log"
    until(lambda: log.read_text() != "", seconds=10, what="the log line")
    assert process.stop(signal.SIGINT) == 0
    output = process.output()
    assert log.read_text().endswith(
        " SoftEther VPN TCP Connection Detected (client 10.0.0.1:50000, server 10.0.0.2:443)\n"
    )
    assert log.read_text() in output
    assert f"Starting Capture Packets at [{far} (" in output
    assert " packets seen, 0 dropped by the kernel" in output
    assert "2 TCP connections" in output


def test_alert_on_a_wire(net: Net) -> None:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    process = b.spawn([sys.executable, "-m", "ukihashi.cli.main", "alert", "-i", far, "--fail-on-detect"], log="alert")
    process.wait_for(r"Starting Capture Packets at \[")
    with a.inside():
        replay(near)
    process.wait_for("Connection Detected")
    assert process.stop(signal.SIGTERM) == 1
