"""One cell of the matrix (lab/matrix.py): join, see how it is carried, ping, bulk, leave; or what goes wrong."""

import time
from dataclasses import replace
from typing import Final

from lab.ends import (
    UP_S,
    Carried,
    Far,
    Near,
    OfficialClient,
    OurCard,
    OurCascade,
    OurHub,
    RealCascade,
    RealServer,
)
from lab.flow import stream
from lab.matrix import Trouble, Variant
from lab.net import LabError, Net
from lab.ukihashi import Card
from lab.wait import TimeOver, pause, until

BULK: Final = 4 << 20  # bytes each way
GONE_S: Final = 40.0
BACK_S: Final = 75.0  # some refusals are tried again after 60 s
BY_ITSELF_S: Final = 30.0  # a peer that is not back by then is restarted, and that is noted
FLAPPED: Final = (
    "vpnserver dropped and made its link again and again until restarted; it does so towards another vpnserver, too, "
    "after vpncmd has been at it (trap T1 of the protocol page)"
)
POISONED: Final = "after the kill the official program had to be restarted (trap T1 of the protocol page)"

PAIRS: Final[dict[str, tuple[type[Near], type[Far]]]] = {
    "client": (OfficialClient, OurHub),
    "card": (OurCard, RealServer),
    "cascade-in": (RealCascade, OurHub),
    "cascade-out": (OurCascade, RealServer),
    "both": (OfficialClient, OurHub),
}


# -- the cells --------------------------------------------------------------------------------------------------------


class Scene:
    """Both ends up, not joined. In role "both" the far place on the virtual LAN is another host's card."""

    def __init__(self, net: Net, role: str, variant: Variant) -> None:
        near, far, third = net.lan("near", "far", "third")
        makes_near, makes_far = PAIRS[role]
        self.role: Final = role
        self.far: Final = makes_far(far, variant)
        self.far.start()
        self.near: Final = makes_near(near, variant, self.far.free_address())
        self.near.start()
        self.variant: Final = variant
        self.card: Card | None = None
        self.notes: list[str] = []
        self.far_host, self.far_inside = far, self.far.inside
        if role == "both":
            assert isinstance(self.far, OurHub)
            self.card = Card(third)
            self.card.join(self.far.program.invite("hanako", address=far.ipv6 if variant.ipv6 else far.ipv4))
            self.far_host, self.far_inside = third, f"{self.card.address(4)}/24"

    @property
    def addresses(self) -> tuple[str, str]:
        """On the virtual LAN: near's, far's."""
        return self.near.inside.partition("/")[0], self.far_inside.partition("/")[0]

    def joined(self) -> None:
        """Join with the right login, and see that frames pass and how."""
        self.near.join(self.far.login())
        try:
            self.passes(UP_S)
        except TimeOver:
            if not (self.near.official and self.far.flaps()):
                raise
            self.near.revive()
            self.notes.append(FLAPPED)
            self.passes(BACK_S)

    def passes(self, seconds: float) -> float:
        """Wait until frames pass both ways; how long that took."""
        begin = time.monotonic()
        near, far = self.addresses
        self.near.host.pings(far, seconds=seconds)
        self.far_host.pings(near, seconds=seconds)
        return time.monotonic() - begin

    def ends(self) -> None:
        """Leave, until the other end has noticed."""
        self.near.leave()
        until(lambda: self.far.carried() is None, seconds=GONE_S, what="the session being gone", step_s=0.3)
        if (answer := self.near.host.ask(["ping", "-n", "-c1", "-W1", self.addresses[1]])).returncode == 0:
            raise LabError(f"it answers still: {answer.stdout}")


def try_variant(net: Net, role: str, variant: Variant) -> list[str]:
    """Join, ping, bulk both ways, leave. What is worth a note. Raises `LabError` or `TimeOver` if anything fails."""
    scene = Scene(net, role, variant)
    scene.joined()
    for end in (scene.far, scene.near):
        wait_carried(end, variant)
    near, far = scene.addresses
    for sender, receiver, address in (
        (scene.near.host, scene.far_host, far),
        (scene.far_host, scene.near.host, near),
    ):
        stream(sender, receiver, address, seconds=0.0, least=BULK)
    if not ((said := scene.far.carried()) and said.is_as(variant)):
        raise LabError(f"after the bulk the session is carried as {said}")
    scene.ends()
    return scene.notes


def wait_carried(end: Near | Far, variant: Variant) -> None:
    """Until this end says that the session is carried as the row names it."""
    said: list[Carried | None] = [None]

    def look() -> bool:
        said[0] = end.carried()
        return said[0] is not None and said[0].is_as(variant)

    try:
        until(look, seconds=UP_S, what="the session being carried as wanted", step_s=0.5)
    except TimeOver as late:
        raise LabError(f"{late}; {type(end).__name__} says {said[0]}") from None


def try_trouble(net: Net, role: str, trouble: Trouble) -> list[str]:
    """A refusal and then a login, or a loss and then frames again. Raises as `try_variant` does."""
    scene = Scene(net, role, Variant("one", ""))
    return _refusal(scene, trouble) if trouble.code else _loss(scene, trouble)


def _refusal(scene: Scene, trouble: Trouble) -> list[str]:
    near, far, login = scene.near, scene.far, scene.far.login()
    if trouble.name == "password":
        login = replace(login, password="not-the-password")
    elif trouble.name == "unknown":
        login = replace(login, hub="NOSUCH")
    elif trouble.name == "full":
        far.fill()
    else:
        far.deny(True)
    if (code := near.refused(login)) != trouble.code:
        raise LabError(f"refused with {code} instead of {trouble.code}")
    if far.carried() is not None:
        raise LabError("refused, and a session is there")
    if trouble.name == "full":
        far.make_room()
    elif trouble.name == "policy":
        far.deny(False)
    pause(1.2)  # one login a second at a real server
    scene.joined()
    scene.ends()
    return scene.notes


def _loss(scene: Scene, trouble: Trouble) -> list[str]:
    scene.joined()
    notes = scene.notes
    if trouble.name == "restart":
        scene.far.restart()
        scene.passes(BACK_S)
    else:
        hosts = [scene.near.host, *([scene.far_host] if scene.card else [])]
        for host in hosts:
            host.run(["ss", "-K", "dport", "=", f":{scene.far.port}"])
        try:
            scene.passes(BY_ITSELF_S)
        except TimeOver:
            if not (scene.near.official or isinstance(scene.far, RealServer)):
                raise
            scene.near.revive() if scene.near.official else scene.far.restart()
            notes.append(POISONED)
            scene.passes(BACK_S)
    scene.ends()
    return notes
