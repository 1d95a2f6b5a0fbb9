"""A newcomer's way, from the README alone, in namespaces that never saw the program: its commands, and what they print.

Nothing else is used: no test's knowledge of addresses, folders or options.
"""

import re
from collections import Counter
from collections.abc import Callable

import pytest

from lab.net import Net
from lab.readme import Block, blocks, script, unprepared
from lab.ukihashi import LINK, Card, Hub, gateway

FIRST = {"README.md": "The first join", "README.ja.md": "最初の参加"}


def until_first_ping(name: str) -> list[Block]:
    """What the README tells to do up to the first answer from the other machine."""
    found = blocks(name, heading=FIRST[name])
    last = next(number for number, block in enumerate(found) if any(word.startswith("ping") for word in block.commands))
    return found[: last + 1]


@pytest.mark.parametrize("name", list(FIRST))
def test_the_first_ping_takes_two_commands_on_each_machine(name: str) -> None:
    count = Counter[str]()
    for block in until_first_ping(name):
        count[block.host] += len(block.commands)
    assert set(count) == {"hub", "ann"}
    assert max(count.values()) <= 2, count
    assert until_first_ping(name) == until_first_ping("README.md")


@pytest.mark.slow
def test_the_first_ping_as_printed(net: Net, lacks: Callable[[str], None]) -> None:
    if reason := unprepared():
        lacks(reason)
    machine, ann = net.lan("hub", "ann")
    homes = {"hub": Hub(machine), "ann": Card(ann)}  # folders of their own; nothing is started or prepared by them
    (serve,), (join, ping) = (block.commands for block in until_first_ping("README.md"))
    serving = machine.spawn(script(serve, {}), log="hub", env=homes["hub"].env)
    link = serving.wait_for(LINK.pattern, seconds=60)[0]
    joined = ann.ask(script(join, {"LINK": link}), env=homes["ann"].env, timeout_s=60)
    assert joined.returncode == 0, joined.stderr
    own = re.search(r"\s(\d+\.\d+\.\d+\.\d+)/24\b", joined.stdout)  # "prints that address, and the same with .1"
    assert own is not None, joined.stdout
    answered = ann.ask(script(ping, {"HUB-ADDRESS": gateway(own[1])}))
    assert "3 received" in answered.stdout, answered.stdout
