"""Which tunnels are blocked, for how long, and who said so (D14; surpasses requirement B32). Time is an argument.

A direct tunnel is blocked by client, server and port; one through a proxy or an SSH server by exactly its connections,
for others use the same server. Each detection anew makes the time whole again. A block is on trial at first: if nobody
confirms it in time it is undone, and that client's tunnels to that server are let alone until the program is restarted.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

from ukihashi.alert.nftables import Match, Wall
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError, UsageError

DIRECT: Final = "TCP"  # the word of the finding's transport
MAX_BLOCKS: Final = 1024  # when full, what is found next is not blocked, and that is told
MAX_MATCHES: Final = 64  # connections of one tunnel; the oldest are left to their time-out
MAX_REMEMBERED: Final = 4096  # of each kind; the oldest is forgotten
EFFECT_S: Final = 10.0  # after so long without a packet stopped it is told that the block has no effect

Event = dict[str, Any]
Key = tuple[str, str, int]  # client address, server address, port


class Action(Enum):
    """What happened to a tunnel; the value is the word in JSON."""

    BLOCKED = "blocked"
    WOULD_BLOCK = "would_block"  # dry run
    RENEWED = "renewed"
    CONFIRMED = "confirmed"
    UNDONE = "undone"  # somebody asked for it
    UNCONFIRMED = "unconfirmed"  # undone because nobody confirmed it in time
    EXPIRED = "expired"  # not detected again within its time
    NO_EFFECT = "no_effect"  # no packet of it has come by
    LEFT_ALONE = "left_alone"  # not blocked; `why` says why


@dataclass(slots=True)
class Block:
    """One tunnel that is blocked."""

    number: int
    key: Key
    session: str  # Community ID of the first connection
    family: str
    transport: str
    begin: float  # seconds since 1970
    until: float
    trial_until: float | None  # None: confirmed
    matches: OrderedDict[Match, None] = field(default_factory=OrderedDict)
    packets: int = 0  # stopped so far
    told_no_effect: bool = False
    read: dict[Match, int] = field(default_factory=dict)  # the kernel's count when it was read last

    @property
    def ends(self) -> float:
        """When it ends if nothing happens."""
        return self.until if self.trial_until is None else min(self.until, self.trial_until)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell."""

    action: Action
    time: float
    key: Key
    family: str
    transport: str
    block: Block | None = None
    matches: tuple[Match, ...] = ()
    others: tuple[Match, ...] | None = None  # connections that are hit besides; None: not known
    why: UkihashiError | None = None  # it was left alone


@dataclass(frozen=True, slots=True)
class Policy:
    """How long, and whom never."""

    seconds: float = 600.0
    trial_s: float | None = 120.0  # None: no confirmation is needed
    never: tuple[IPv4Network | IPv6Network, ...] = ()


Others = Callable[[Match, set[int]], tuple[Match, ...] | None]


class Blocker:
    """Reads the sensor's events; `wall` None is a dry run."""

    def __init__(self, wall: Wall | None, policy: Policy, tell: Callable[[Notice], None], others: Others) -> None:
        self.blocks: dict[int, Block] = {}
        self._wall = wall
        self._policy = policy
        self._tell = tell
        self._others = others
        self._numbers = 0
        self._undone: OrderedDict[Key, None] = OrderedDict()
        self._known: OrderedDict[Key, None] = OrderedDict()  # confirmed once: when it comes back it is on no trial
        self._seen: OrderedDict[Key, None] = OrderedDict()  # dry run: told of

    def take(self, event: Event, now: float) -> None:
        """One event of the bus. Events that say nothing to us are ignored, also such as no sensor of ours writes."""
        try:
            kind = event.get("event_type")
            if kind == "hello":
                for known in event.get("findings", ()):
                    if not known["ukihashi"].get("ended"):
                        self._found(known, now)
            elif kind == "alert":
                self._found(event, now)
            elif kind == "vpn_connection" and not event.get("allowed"):
                self._joined(event, now)
        except (KeyError, TypeError, ValueError, AttributeError):
            return

    def tick(self, now: float) -> None:
        """About once a second: what has ended, and what has an effect."""
        counted = self._wall.counts() if self._wall is not None and self.blocks else {}
        for block in list(self.blocks.values()):
            for match in block.matches:
                packets, before = counted.get(match, 0), block.read.get(match, 0)
                block.packets += packets - before if packets >= before else packets  # set anew, it counts from 0
                block.read[match] = packets
            if block.trial_until is not None and now >= block.trial_until:
                self._undo(block, now, Action.UNCONFIRMED)
            elif now >= block.until:
                self._remove(block)
                self._say(Action.EXPIRED, block, now)
            elif not block.packets and not block.told_no_effect and now >= block.begin + EFFECT_S:
                block.told_no_effect = True
                self._say(Action.NO_EFFECT, block, now)

    def confirm(self, number: int, now: float) -> Block:
        """It stays for its whole time, and comes back with each detection. Raises: UsageError: no such block."""
        block = self._of(number)
        block.trial_until, block.until = None, now + self._policy.seconds
        _remember(self._known, block.key)
        self._put(block, block.matches, now)
        self._say(Action.CONFIRMED, block, now)
        return block

    def undo(self, number: int, now: float) -> Block:
        """Let it through, and leave it alone from now on. Raises: UsageError: no such block."""
        block = self._of(number)
        self._undo(block, now, Action.UNDONE)
        return block

    # -- inside ---------------------------------------------------------------------------------------------------

    def _found(self, event: Event, now: float) -> None:
        ours = event["ukihashi"]
        if ours["verdict"] != "CONFIRMED" or ours.get("allowed"):
            return
        key = str(ip_address(event["src_ip"])), str(ip_address(event["dest_ip"])), int(event["dest_port"])
        family, transport = str(ours["family"]), str(ours["transport"])
        ports = [int(event["src_port"])]
        ports += [int(one["src_port"]) for one in ours.get("evidence", {}).get("connections", ())]
        matches = _matches(key, transport, ports)
        block = next((one for one in self.blocks.values() if one.key == key and one.transport == transport), None)
        if block is not None:
            block.session = str(event["community_id"])
            self._renew(block, matches, now)
            return
        why = self._why_not(key)
        if why is not None:
            self._tell(Notice(Action.LEFT_ALONE, now, key, family, transport, matches=matches, why=why))
            return
        if self._wall is None:
            if key not in self._seen:
                _remember(self._seen, key)
                others = self._others(matches[0], set(ports))
                self._tell(Notice(Action.WOULD_BLOCK, now, key, family, transport, None, matches, others))
            return
        policy = self._policy
        trial = None if policy.trial_s is None or key in self._known else now + policy.trial_s
        self._numbers += 1
        block = Block(
            self._numbers, key, str(event["community_id"]), family, transport, now, now + policy.seconds, trial
        )
        try:
            self._put(block, matches, now)
        except EnvironmentLacks as error:
            self._wall.remove(block.matches)
            self._tell(Notice(Action.LEFT_ALONE, now, key, family, transport, matches=matches, why=error))
            return
        self.blocks[block.number] = block
        others = self._others(matches[0], set(ports))  # not before: it may take a while
        self._tell(Notice(Action.BLOCKED, now, key, family, transport, block, matches, others))

    def _joined(self, event: Event, now: float) -> None:
        """One more connection of a tunnel that is blocked."""
        block = next((one for one in self.blocks.values() if one.session == event["session"]), None)
        if block is not None:
            self._renew(block, _matches(block.key, block.transport, [int(event["src_port"])]), now)

    def _renew(self, block: Block, matches: Iterable[Match], now: float) -> None:
        block.until = now + self._policy.seconds
        self._put(block, matches, now)
        self._say(Action.RENEWED, block, now)

    def _put(self, block: Block, matches: Iterable[Match], now: float) -> None:
        """The kernel ends it at the same time as we would."""
        assert self._wall is not None
        for match in list(matches):
            self._wall.put(match, block.ends - now)
            block.matches[match] = None
            block.matches.move_to_end(match)
            block.read[match] = 0
        while len(block.matches) > MAX_MATCHES:
            oldest, _ = block.matches.popitem(last=False)
            block.read.pop(oldest, None)

    def _why_not(self, key: Key) -> UkihashiError | None:
        client, server = ip_address(key[0]), ip_address(key[1])
        if key in self._undone:
            return UsageError(N_("a block of it was undone before"))
        if any(address in network for network in self._policy.never for address in (client, server)):
            return UsageError(N_("the address is one that is never to be blocked"))
        if self._wall is not None and client.version not in self._wall.versions:
            return UsageError(N_("this machine does not forward this version of IP"))
        if len(self.blocks) >= MAX_BLOCKS:
            return UsageError(N_("as many tunnels are blocked as can be"))
        return None

    def _undo(self, block: Block, now: float, action: Action) -> None:
        self._remove(block)
        _remember(self._undone, block.key)
        self._known.pop(block.key, None)
        self._say(action, block, now)

    def _remove(self, block: Block) -> None:
        assert self._wall is not None
        del self.blocks[block.number]
        self._wall.remove(block.matches)

    def _of(self, number: int) -> Block:
        if number not in self.blocks:
            known = ", ".join(map(str, self.blocks)) or "-"
            raise UsageError(N_("there is no block {number}; there are: {known}"), number=number, known=known)
        return self.blocks[number]

    def _say(self, action: Action, block: Block, now: float) -> None:
        self._tell(Notice(action, now, block.key, block.family, block.transport, block, tuple(block.matches)))


def _matches(key: Key, transport: str, ports: Iterable[int]) -> tuple[Match, ...]:
    client, server, port = key
    if transport == DIRECT:
        return (Match(client, 0, server, port),)
    return tuple(Match(client, one, server, port) for one in dict.fromkeys(ports) if one)


def _remember(keys: OrderedDict[Key, None], key: Key) -> None:
    keys[key] = None
    if len(keys) > MAX_REMEMBERED:
        keys.popitem(last=False)
