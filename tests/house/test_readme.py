"""The README's commands work as printed: each ```sh block is run on a lab host (`host=NAME` in its first line).

`stays`: the last command of the block runs on until the end. Words in capitals are what the reader has to fill in.
"""

import re
import shlex
from collections.abc import Callable

import pytest

from lab.capture import Capture
from lab.net import Net
from lab.readme import ROOT, blocks, script, unprepared
from lab.ukihashi import LINK, Card, Hub, gateway

OF_ONE_HUB = {"hub", "ann"}  # the offices' commands are run by tests/netns/test_newcomer.py


def test_both_readmes_tell_the_same_commands_in_the_same_order() -> None:
    assert blocks("README.md") == blocks("README.ja.md")
    assert len(blocks("README.md")) >= 6


def test_every_command_begins_with_something_the_reader_has() -> None:
    for block in blocks("README.md"):
        for command in block.commands:
            assert shlex.split(command)[0] in {"./run", "ping"}


@pytest.mark.slow
@pytest.mark.peer("tcpdump")
def test_every_command_of_the_readme_works(net: Net, lacks: Callable[[str], None]) -> None:
    if reason := unprepared():
        lacks(reason)
    machine, ann = net.lan("hub", "ann")
    hub, card = Hub(machine), Card(ann)
    values: dict[str, str] = {}
    with Capture(machine, "eth0") as capture:
        for number, block in enumerate(block for block in blocks("README.md") if block.host in OF_ONE_HUB):
            here = {"hub": hub, "ann": card}[block.host]
            for command in block.commands:
                if "HUB-ADDRESS" in command:
                    values["HUB-ADDRESS"] = gateway(card.address(4))
                if "CAPTURE" in command:
                    capture.close()
                    values["CAPTURE"] = str(capture.path)
                argv = script(command, values)
                if block.stays and command == block.commands[-1]:
                    process = here.host.spawn(argv, log=f"readme-{number}", env=here.env)
                    said = process.wait_for(LINK.pattern if "hub" in command else r"\S", seconds=60)[0]
                    values.setdefault("LINK", said)
                else:
                    done = here.host.ask(argv, env=here.env, timeout_s=60)
                    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{hub.log()}"
                    assert "Traceback" not in done.stderr


def test_pictures_and_pages_that_documents_point_to_exist() -> None:
    lost: list[str] = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md")]:
        targets = [target for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()) if "://" not in target]
        lost += [f"{path.relative_to(ROOT)} -> {target}" for target in targets if not (path.parent / target).exists()]
    assert lost == []
