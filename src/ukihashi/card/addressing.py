"""DHCP on a card's interface: the client (`dhcp_client.py`) with its socket, its timer, and the lease it remembers.

There is a socket only while an answer is awaited, and a filter in the kernel feeds it: answers to this very station,
and ARP while an address is being checked. Frames of any other kind never wake the card's first process.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import structlog

from ukihashi.card.dhcp_client import Client, Lease, State
from ukihashi.config import places
from ukihashi.config.card import CardConfig
from ukihashi.config.edit import put
from ukihashi.errors import N_, UkihashiError
from ukihashi.ether import frame as ether
from ukihashi.locale import say

LOG_TEXTS: Final = {
    "lease_got": N_("an address was leased"),
    "lease_gone": N_("the leased address is gone"),
    "address_in_use": N_("the offered address is somebody else's already"),
    "dhcp_not_possible": N_("DHCP is not possible here"),
    "lease_not_kept": N_("the lease could not be written down"),
}

NAP_S: Final = 30.0  # a sleep of asyncio stands still while the machine sleeps
SECRET_MODE: Final = 0o600
MOST_FRAMES: Final = 32  # read in a row
QUIET: Final = frozenset(
    {State.OFF, State.BOUND, State.INFORMED, State.UNANSWERED, State.PAUSING}
)  # nothing is awaited

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
SOL_PACKET: Final = 263  # linux/socket.h
PACKET_AUXDATA: Final = 8  # linux/if_packet.h
CHECKSUM_NOT_READY: Final = 1 << 3  # TP_STATUS_CSUMNOTREADY
VLAN_TAG: Final = 1 << 4  # TP_STATUS_VLAN_VALID
_AUXDATA: Final = struct.Struct("IIIHHHH")
_INSTRUCTION: Final = struct.Struct("=HBBI")
# linux/filter.h
_WORD, _HALF, _BYTE = 0x20, 0x28, 0x30  # at a fixed place
_WORD_X, _HALF_X = 0x40, 0x48  # after the IP header
_IP_HEADER, _EQUAL, _ANY_BIT, _RETURN = 0xB1, 0x15, 0x45, 0x06
_PACKET_TYPE: Final = 0xFFFFF000 + 4
_OUTGOING: Final = 4
_WHOLE: Final = 0xFFFF

_log = structlog.get_logger()

Mode = Literal["off", "ask", "inform"]


class Wish(NamedTuple):
    """What an account wants of DHCP."""

    mode: Mode
    own: IPv4Address | None = None  # "inform": the account's address


def wish_of(config: CardConfig) -> Wish:
    """By `interface.dhcp`, whether there are addresses, and whether it is a bridge, which has no use for one."""
    settings = config.interface
    if settings.dhcp == "on":
        return Wish("ask")
    if settings.dhcp == "off" or settings.bridge or config.standard.bridge:
        return Wish("off")
    if not settings.addresses:
        return Wish("ask")
    own = next((one.ip for one in map(ip_interface, settings.addresses) if isinstance(one.ip, IPv4Address)), None)
    return Wish("inform", own) if own else Wish("off")


class Addressing:
    """One card's, for its whole life."""

    def __init__(
        self,
        account: str,
        changed: Callable[[Lease | None], Awaitable[None]],
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        host_name: str = "",
    ) -> None:
        """`changed`: called with what is in force from then on, one call after the other."""
        self._account: Final = account
        self._changed: Final = changed
        self._clock: Final = clock
        self._random: Final = random
        self._host_name: Final = host_name or socket.gethostname()
        self._client: Client | None = None
        self._wish = Wish("off")
        self._interface, self._mac = "", b""
        self._answers: socket.socket | None = None
        self._arp: socket.socket | None = None
        self._in_force: Lease | None = None
        self._declined = ""
        self._outbox: list[bytes] = []
        self._wake = asyncio.Event()
        self.settled = asyncio.Event()  # nothing is awaited, or it was for the first time

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def begin(self, interface: str, mac: bytes, wish: Wish) -> None:
        """The interface is up and a session carries it."""
        self._interface, self._mac = interface, mac
        self.want(wish)

    def want(self, wish: Wish) -> None:
        """From now on; nothing happens if it is what was wanted, or before `begin`."""
        if not self._interface or (self._client is not None and wish == self._wish):
            return
        self._wish = wish
        self.settled.clear()
        if wish.mode == "off":
            if self._client is not None:
                self._client.stop()
            self._close()
            self.settled.set()
            self._wake.set()
            return
        if self._answers is None and not self._open():
            self.settled.set()
            return
        client = self._client = self._client or Client(self._mac, self._random, host_name=self._host_name)
        if wish.mode == "ask":
            self._outbox += client.ask(self._clock(), _remembered(self._account, self._clock()))
        else:
            assert wish.own is not None
            self._outbox += client.inform(self._clock(), wish.own)
        self._wake.set()

    def rejoined(self) -> None:
        """The virtual LAN was joined afresh."""
        if self._client is not None and self._wish.mode != "off":
            self._outbox += self._client.rejoined(self._clock())
            self._wake.set()

    def status(self) -> dict[str, object]:
        """For `card status`."""
        client, lease = self._client, self._in_force
        return {
            "mode": self._wish.mode,
            "state": str(client.state if client is not None else State.OFF),
            "server": lease.server if lease else "",
            "address": lease.address if lease else "",
            "left_s": round(lease.ends - self._clock()) if lease and lease.address else None,
            "declined": self._declined,
        }

    # -- for the card's whole life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ends by being cancelled."""
        try:
            while True:
                await self._turn()
        finally:
            self._close()

    async def _turn(self) -> None:
        client, now = self._client, self._clock()
        wait = NAP_S
        if client is not None:
            self._outbox += client.tick(now)
            self._send(client)
            await self._tell(client)
            wait = min(client.deadline - self._clock(), NAP_S)
            if client.lease is not None:
                wait = min(wait, client.lease.ends - self._clock())
            if client.settled:
                self.settled.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait)):
                await self._wake.wait()
        self._wake.clear()

    async def _tell(self, client: Client) -> None:
        if client.declined != self._declined:
            self._declined = client.declined
            _log.warning("address_in_use", account=self._account, address=client.declined)
        before, lease = self._in_force, client.lease
        if lease is before:
            return
        self._in_force = lease
        address = lease.address if lease else ""
        if address and (before is None or before.address != address):
            _log.info("lease_got", account=self._account, address=address, server=lease.server if lease else "")
        elif before is not None and before.address and not address:
            _log.warning("lease_gone", account=self._account, address=before.address)
        if lease is not None and address:
            await asyncio.to_thread(_remember, self._account, lease, self._clock())
        await self._changed(lease)

    # -- sockets ------------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        try:
            self._answers = _packet_socket(self._interface, ether.IPV4, answers_to(self._mac))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            _log.warning("dhcp_not_possible", account=self._account, interface=self._interface, reason=reason)
            return False
        asyncio.get_running_loop().add_reader(self._answers, self._readable, self._answers)
        return True

    def _listen_to_arp(self, wanted: bool) -> None:
        if wanted == (self._arp is not None):
            return
        if self._arp is not None:
            _let_go(self._arp)
            self._arp = None
            return
        with contextlib.suppress(OSError):  # then nobody can object
            self._arp = _packet_socket(self._interface, ether.ARP, only_incoming())
            asyncio.get_running_loop().add_reader(self._arp, self._readable, self._arp)

    def _close(self) -> None:
        for sock in (self._answers, self._arp):
            if sock is not None:
                _let_go(sock)
        self._answers = self._arp = None

    def _send(self, client: Client) -> None:
        """What is to be said, with the sockets that the answers need."""
        frames, self._outbox = self._outbox, []
        if self._answers is None and (frames or client.state not in QUIET):
            self._open()
        self._listen_to_arp(client.state is State.CHECKING)
        if self._answers is not None:
            for frame in frames:
                with contextlib.suppress(OSError):  # the interface is down or full: asked again later
                    self._answers.send(frame)
        if client.state in QUIET:
            self._close()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(MOST_FRAMES):
            try:
                frame, extra, _flags, _address = sock.recvmsg(2048, socket.CMSG_SPACE(_AUXDATA.size))
            except OSError:  # no more; or the interface is gone, which the card hears elsewhere
                break
            if self._client is not None:
                self._outbox += self._client.receive(_as_sent(frame, extra), self._clock())
        self._wake.set()


def answers_to(mac: bytes) -> list[tuple[int, int, int, int]]:
    """Classic BPF: whole UDP datagrams to port 68 about this station; nothing that we send."""
    high, low = struct.unpack("!IH", mac)
    tests = [  # what to load, what it must be, or (any bit) must not have
        (_HALF, 12, _EQUAL, ether.IPV4),
        (_BYTE, 23, _EQUAL, 17),
        (_HALF, 20, _ANY_BIT, 0x3FFF),
        (_IP_HEADER, 14, 0, 0),
        (_HALF_X, 16, _EQUAL, 68),
        (_WORD_X, 14 + 8 + 28, _EQUAL, high),
        (_HALF_X, 14 + 8 + 32, _EQUAL, low),
    ]
    program: list[tuple[int, int, int, int]] = [(_WORD, 0, 0, _PACKET_TYPE), (_EQUAL, -1, 0, _OUTGOING)]
    for load, place, test, value in tests:
        program.append((load, 0, 0, place))
        if test:
            program.append((test, 0, -1, value) if test == _EQUAL else (test, -1, 0, value))
    program += [(_RETURN, 0, 0, _WHOLE), (_RETURN, 0, 0, 0)]
    last = len(program) - 1
    return [
        (code, last - at - 1 if true < 0 else true, last - at - 1 if false < 0 else false, value)
        for at, (code, true, false, value) in enumerate(program)
    ]


def only_incoming() -> list[tuple[int, int, int, int]]:
    """Classic BPF: nothing that we send."""
    return [(_WORD, 0, 0, _PACKET_TYPE), (_EQUAL, 0, 1, _OUTGOING), (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _WHOLE)]


def _packet_socket(interface: str, protocol: int, program: list[tuple[int, int, int, int]]) -> socket.socket:
    """Frames of one kind from one interface. Raises: OSError."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)  # hears nothing yet
    try:
        code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in program))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.bind((interface, protocol))
    except OSError:
        sock.close()
        raise
    return sock


def _let_go(sock: socket.socket) -> None:
    asyncio.get_running_loop().remove_reader(sock)
    sock.close()


def _as_sent(frame: bytes, extra: list[tuple[int, int, bytes]]) -> bytes:
    """The frame with what the kernel holds beside it; b"" if it belongs to a VLAN.

    A UDP checksum that its sender left to hardware, which there is none of on the way, is taken out; IPv4 allows that.
    """
    status = 0
    for level, kind, data in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
            status = _AUXDATA.unpack_from(data)[0]
    if status & VLAN_TAG or len(frame) <= ether.HEADER:
        return b""
    at = ether.HEADER + (frame[ether.HEADER] & 0x0F) * 4 + 6
    if status & CHECKSUM_NOT_READY and ether.ether_type(frame) == ether.IPV4 and at + 2 <= len(frame):
        return frame[:at] + bytes(2) + frame[at + 2 :]
    return frame


# -- what is remembered -------------------------------------------------------------------------------------------


def _path(account: str) -> Path:
    return places.state_dir() / "leases" / f"{account}.json"


def _remember(account: str, lease: Lease, now: float) -> None:
    kept = msgspec.structs.replace(lease, begins=lease.begins - now + time.time())
    try:
        put(_path(account), msgspec.json.encode(kept).decode() + "\n", mode=SECRET_MODE)
    except UkihashiError as error:
        _log.warning("lease_not_kept", account=account, reason=say(error))


def _remembered(account: str, now: float) -> Lease | None:
    try:
        kept = msgspec.json.decode(_path(account).read_bytes(), type=Lease)
        ip_interface(kept.address)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    if kept.begins > time.time():  # the machine's clock was set back: who knows how long it holds
        return None
    return msgspec.structs.replace(kept, begins=kept.begins - time.time() + now)


def forget(account: str) -> None:
    """The account is deleted: so is its lease."""
    with contextlib.suppress(OSError):
        _path(account).unlink(missing_ok=True)
