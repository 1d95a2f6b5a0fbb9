"""The README's commands work as printed: each ```sh block is run on a lab host (`host=NAME` in its first line).

`stays`: the last command of the block runs on until the end. Words in capitals are what the reader has to fill in.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from lab.capture import Capture
from lab.net import Net
from lab.ukihashi import LINK, Card, Hub, gateway

ROOT: Final = Path(__file__).resolve().parent.parent.parent
BLOCK: Final = re.compile(r"^```sh ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
PLACEHOLDERS: Final = ("LINK", "HUB-ADDRESS", "CAPTURE")


class Block(NamedTuple):
    """Commands of one place."""

    host: str
    stays: bool
    commands: list[str]


def blocks(name: str) -> list[Block]:
    """The sh blocks of one README, in order."""
    found = []
    for head, body in BLOCK.findall((ROOT / name).read_text()):
        words = dict(word.partition("=")[::2] for word in head.split())
        found.append(Block(words["host"], "stays" in words, body.splitlines()))
    return found


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
    ready = [ROOT / ".venv" / name for name in ("ukihashi-run", "ukihashi-words")]
    if not all(path.exists() for path in ready):
        lacks("this clone was not set up by ./run; do that first: ./run setup all")
    machine, ann = net.lan("hub", "ann")
    hub, card = Hub(machine), Card(ann)
    values: dict[str, str] = {}
    with Capture(machine, "eth0") as capture:
        for number, block in enumerate(blocks("README.md")):
            here = {"hub": hub, "ann": card}[block.host]
            if "HUB-ADDRESS" in str(block.commands):
                values["HUB-ADDRESS"] = gateway(card.address(4))
            if "CAPTURE" in str(block.commands):
                capture.close()
                values["CAPTURE"] = str(capture.path)
            script = "\n".join(fill(command, values) for command in block.commands)
            argv = ["bash", "-euc", f"cd {shlex.quote(str(ROOT))}\n{script}"]
            if block.stays:
                process = here.host.spawn(argv, log=f"readme-{number}", env=here.env)
                said = process.wait_for(LINK.pattern if "hub" in script else r"\S", seconds=60)[0]
                values.setdefault("LINK", said)
            else:
                done = here.host.ask(argv, env=here.env, timeout_s=60)
                assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{hub.log()}"
                assert "Traceback" not in done.stderr


def fill(command: str, values: dict[str, str]) -> str:
    """The command with what the reader knows by now."""
    words = [values[word] if word in PLACEHOLDERS else word for word in shlex.split(command)]
    return shlex.join(words)


def test_pictures_and_pages_that_documents_point_to_exist() -> None:
    lost: list[str] = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md")]:
        targets = [target for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()) if "://" not in target]
        lost += [f"{path.relative_to(ROOT)} -> {target}" for target in targets if not (path.parent / target).exists()]
    assert lost == []
