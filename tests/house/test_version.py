"""One version string everywhere (A3)."""

import json
import subprocess
import sys
from importlib.metadata import metadata

import pytest

from lab.net import Net
from lab.ukihashi import Hub
from ukihashi import __version__


def test_the_command_the_package_and_the_source_say_the_same() -> None:
    argv = [sys.executable, "-P", "-m", "ukihashi.cli.main", "--version"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.split()[-1] == __version__
    assert metadata("ukihashi")["Version"] == __version__


@pytest.mark.peer("curl")
def test_a_running_hub_says_the_same_on_its_page_in_its_hello_and_in_its_log(net: Net) -> None:
    machine, other = net.lan("hub", "other")
    hub = Hub(machine)
    hub.start()
    page = other.run(["curl", "-sk", f"https://{machine.ipv4}/"])
    assert __version__ in page
    signature = ["-H", "Content-Type: image/jpeg", "--data-binary", "VPNCONNECT"]
    saved = other.folder / "hello"
    other.run(["curl", "-sk", *signature, "-o", saved, f"https://{machine.ipv4}/vpnsvc/connect.cgi"])
    assert f"ukihashi hub {__version__}".encode() in saved.read_bytes()
    assert __version__ in json.dumps(hub.rows("hub", "status"))
    assert __version__ in hub.log()
