"""Filter expressions ("not port 22"): compiled by libpcap, run by the kernel for a card and by libpcap for a file.

A filter looks at a packet without its outer VLAN tag, because cards and kernel take that off before a filter sees the
packet; so a file gives what the card would have given. An expression with the word `vlan` sees the tag in both.
"""

import ctypes
import ctypes.util
import re
import socket
import struct
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from ukihashi.capture.batch import ETHERNET, RAW_IP, Batch, Packet
from ukihashi.errors import N_, EnvironmentLacks, UsageError

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
WHOLE: Final = 262144  # bytes; no packet is longer
# linux/filter.h
LOAD, LOAD_BYTE, LOAD_FROM, EQUAL, RETURN, RETURN_A = 0x20, 0x30, 0x40, 0x15, 0x06, 0x16
TO_X, XOR_X, MULTIPLY, SHIFT_RIGHT = 0x07, 0xAC, 0x24, 0x74
EXTENSION: Final = 0xFFFFF000  # SKF_AD_OFF
PROTOCOL, PACKET_TYPE, CARD = EXTENSION, EXTENSION + 4, EXTENSION + 8
NETWORK: Final = 0xFFF00000  # SKF_NET_OFF
_INSTRUCTION: Final = struct.Struct("=HBBI")
_OUTGOING: Final = 4  # PACKET_OUTGOING
_TAGS: Final = frozenset((b"\x81\x00", b"\x88\xa8", b"\x91\x00"))  # what the kernel takes off
_OTHER_NUMBERS: Final = {RAW_IP: 12}  # where a file's link type and libpcap's own number (DLT_) differ on Linux
_ERROR_BYTES: Final = 256  # PCAP_ERRBUF_SIZE


class Instruction(NamedTuple):
    """One instruction of classic BPF (struct sock_filter)."""

    code: int
    if_true: int
    if_false: int
    value: int


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class Filter:
    """An expression for packets of one link type, run by libpcap."""

    def __init__(self, expression: str, link_type: int) -> None:
        """Raises:
        UsageError: libpcap does not understand it.
        EnvironmentLacks: there is no libpcap.
        """
        self._strips = link_type == ETHERNET and not _names_vlan(expression)
        program = compile_expression(expression, link_type)
        self._instructions = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in program))
        self._run = _library().bpf_filter

    def passes(self, packet: bytes, length: int) -> bool:
        """Is a packet of `length` bytes on the wire, of which `packet` was captured, let through?"""
        if self._strips and packet[12:14] in _TAGS:
            packet, length = packet[:12] + packet[16:], length - 4
        return bool(self._run(self._instructions, packet, length, len(packet)))


class Sieve:
    """The packets of a file that an expression lets through."""

    def __init__(self, expression: str) -> None:
        """Raises: UsageError, EnvironmentLacks: see `Filter`."""
        self._expression = expression
        self._filters: dict[int, Filter] = {ETHERNET: Filter(expression, ETHERNET)}

    def __call__(self, batch: Batch) -> Batch:
        """The same batch, with fewer packets.

        Raises:
            UsageError: the expression makes no sense for the batch's link type ("ether host ..." on raw IP).
        """
        found = self._filters.get(batch.link_type)
        if found is None:
            found = self._filters[batch.link_type] = Filter(self._expression, batch.link_type)
        passes, buffer = found.passes, batch.buffer
        kept: list[Packet] = [
            packet for packet in batch.packets if passes(bytes(buffer[packet[1] : packet[1] + packet[2]]), packet[3])
        ]
        return batch._replace(packets=kept)


def compile_expression(expression: str, link_type: int, snap: int = WHOLE, card: str = "") -> list[Instruction]:
    """The instructions; each packet let through is cut to `snap` bytes.

    Args:
        card: it will look at packets as the kernel holds them for this card, with VLAN tags beside the packet. Opens
            the card if the expression needs that.
    Raises:
        UsageError: libpcap does not understand it; its reason is in the sentence.
        EnvironmentLacks: there is no libpcap.
    """
    library = _library()
    with _lock:  # libpcap's compiler of older versions keeps its state in static variables
        handle = _on_card(library, card, snap) if card and _names_vlan(expression) else None
        handle = handle or library.pcap_open_dead(_OTHER_NUMBERS.get(link_type, link_type), snap)
        program = _Program()
        try:
            if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, 0xFFFFFFFF):
                raise UsageError(
                    N_("the filter {expression} can't be used: {reason}"),
                    expression=repr(expression),
                    reason=library.pcap_geterr(handle).decode(errors="replace"),
                )
            data = ctypes.string_at(program.instructions, program.length * _INSTRUCTION.size)
            library.pcap_freecode(ctypes.byref(program))
        finally:
            library.pcap_close(handle)
    return [Instruction(*one) for one in _INSTRUCTION.iter_unpack(data)]


def everything(snap: int) -> list[Instruction]:
    """Let every packet through, cut to `snap` bytes."""
    return [Instruction(RETURN, 0, 0, snap)]


def only_cards(indexes: Sequence[int]) -> list[Instruction]:
    """Before another program: packets of other cards than these end here."""
    found = [Instruction(LOAD, 0, 0, CARD)]
    found += [Instruction(EQUAL, len(indexes) - place, 0, index) for place, index in enumerate(indexes)]
    return [*found, Instruction(RETURN, 0, 0, 0)]


def only_incoming() -> list[Instruction]:
    """Before another program: what this machine sends ends here. For the loopback, where all comes in again."""
    return [Instruction(LOAD, 0, 0, PACKET_TYPE), Instruction(EQUAL, 0, 1, _OUTGOING), Instruction(RETURN, 0, 0, 0)]


def by_addresses() -> list[Instruction]:
    """A number for each pair of IP addresses, the same for both directions; what is no IP gets 0.

    For sharing packets between processes: all connections of a client to a server come to the same one, and so do all
    fragments. (The kernel's own hash keeps single connections together only.)
    """

    def mixed(offsets: Sequence[int]) -> list[Instruction]:
        found = [Instruction(LOAD, 0, 0, NETWORK + offsets[0])]
        for offset in offsets[1:]:
            found += [
                Instruction(TO_X, 0, 0, 0),
                Instruction(LOAD, 0, 0, NETWORK + offset),
                Instruction(XOR_X, 0, 0, 0),
            ]
        return [
            *found,
            Instruction(MULTIPLY, 0, 0, 0x9E3779B1),
            Instruction(SHIFT_RIGHT, 0, 0, 15),
            Instruction(RETURN_A, 0, 0, 0),
        ]

    four, six = mixed((12, 16)), mixed(range(8, 40, 4))
    return [
        Instruction(LOAD, 0, 0, PROTOCOL),
        Instruction(EQUAL, 0, len(four), 0x0800),
        *four,
        Instruction(EQUAL, 0, len(six), 0x86DD),
        *six,
        Instruction(RETURN, 0, 0, 0),
    ]


def packed(program: Sequence[Instruction]) -> tuple[Any, bytes]:
    """(what must stay alive, struct sock_fprog) for setsockopt."""
    data = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in program))
    return data, struct.pack("@HP", len(program), ctypes.addressof(data))


def attach(packet_socket: socket.socket, program: Sequence[Instruction]) -> None:
    """Let the kernel run `program` on each packet of the socket. Raises: OSError."""
    keep, option = packed(program)
    packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
    del keep


def _names_vlan(expression: str) -> bool:
    return re.search(r"\bvlan\b", expression) is not None


_lock: Final = threading.Lock()


def _on_card(library: Any, card: str, snap: int) -> int | None:
    """A handle that knows where this kernel keeps VLAN tags; None if the card can't be opened."""
    reason = ctypes.create_string_buffer(_ERROR_BYTES)
    handle: int | None = library.pcap_create(card.encode(), reason)
    if handle:
        library.pcap_set_snaplen(handle, snap)
        if library.pcap_activate(handle) < 0:
            library.pcap_close(handle)
            return None
    return handle


@cache
def _library() -> Any:
    for name in ("libpcap.so.0.8", "libpcap.so.1", ctypes.util.find_library("pcap")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            break
    else:
        raise EnvironmentLacks(
            N_("a filter needs the library libpcap (Debian package libpcap0.8); install it, or leave --filter out")
        )
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("pcap_open_dead", pointer, (number, number)),
        ("pcap_create", pointer, (text, text)),
        ("pcap_set_snaplen", number, (pointer, number)),
        ("pcap_activate", number, (pointer,)),
        ("pcap_compile", number, (pointer, pointer, text, number, ctypes.c_uint)),
        ("pcap_geterr", text, (pointer,)),
        ("pcap_freecode", None, (pointer,)),
        ("pcap_close", None, (pointer,)),
        ("bpf_filter", ctypes.c_uint, (pointer, text, ctypes.c_uint, ctypes.c_uint)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
