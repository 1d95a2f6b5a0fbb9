"""What the guide for the official client tells Linux people to type brings them onto the LAN."""

import json
import re
import shlex
from pathlib import Path

import pytest

from lab import peers
from lab.net import Net
from lab.ukihashi import Hub, gateway
from lab.wait import until

GUIDES = ("official-clients.en.md", "official-clients.ja.md")


def commands(guide: Path) -> list[list[str]]:
    (block,) = re.findall(r"^```sh linux\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def test_both_languages_tell_the_same_commands(repository: Path) -> None:
    found = [
        re.findall(r"^ *```sh.*?\n(.*?)^ *```", (repository / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
        for name in GUIDES
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 4


@pytest.mark.slow
@pytest.mark.peer("vpnclient", "vpncmd")
def test_the_commands_for_linux_join(net: Net, repository: Path) -> None:
    machine, host = net.lan("hub", "a")
    hub = Hub(machine)
    hub.start()
    made = json.loads(hub.run("hub", "user", "create", "taro", "--json"))
    (lan,) = hub.rows("hub", "list")
    prefix = lan["subnet4"].rpartition(".")[0]
    client = peers.Client(host)
    client.start()  # in place of the package's own service
    said = {"hub.example:443": f"{machine.ipv4}:443", "generated-password": made["password"], "10.81.7": prefix}
    for argv in commands(repository / "docs" / GUIDES[0]):
        if argv[0] in {"apt-get", "systemctl"}:
            continue
        if argv[0] == "ip" and not client.online("lan"):
            until(lambda: client.online("lan"), seconds=20.0, what="the session being up")
        words = argv
        for old, new in said.items():
            words = [word.replace(old, new) for word in words]
        done = host.ask(words, timeout_s=60.0)
        assert done.returncode == 0, f"{words[:5]}: {done.stdout}"
    host.pings(gateway(f"{prefix}.200"), seconds=20)
    client.say("AccountDisconnect lan")
