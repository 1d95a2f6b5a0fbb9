"""Made-up traffic put on a wire as frames."""

import socket
from collections.abc import Iterable
from random import Random
from typing import Final

from lab.net import Host
from lab.scene import Frame, Talk, softether_login

STEP: Final = 200  # frames sent before others may run: a queue of the kernel holds a thousand
CLIENT: Final = "10.9.0.1"
SERVER: Final = "10.9.0.2"


def session(
    client: tuple[str, int] = (CLIENT, 50000), server: tuple[str, int] = (SERVER, 443), *, tags: tuple[int, ...] = ()
) -> list[list[Frame]]:
    """A SoftEther session: the frames of its first connection and of a further one."""
    talks = []
    for further in (False, True):
        talk = Talk((client[0], client[1] + further), server, tags=tags)
        softether_login(talk, Random(further), further=further)
        talks.append(talk.frames)
    return talks


def send(host: Host, interface: str, frames: Iterable[Frame]) -> int:
    """Put frames on an interface, as fast as it goes; how many they were."""
    with host.inside():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind((interface, 0))
    count = 0
    with raw:
        for _, frame in frames:
            raw.send(frame)
            count += 1
    return count
