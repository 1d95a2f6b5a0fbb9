"""The hash table of flows: open addressing, bounded, one entry for both directions. Compiled, as `layers` is."""

from ukihashi.detect.columns import ADDRESSES, BITS, FLOW, FLOWS, FREE, HASH, KEY, MASK, PORTS, USED, VERSION, State
from ukihashi.detect.layers import Buffer, u16, u32

NOTHING = -1
BITS32 = 0xFFFFFFFF


def scramble(seed: int, a: int, b: int, c: int, d: int, port: int) -> int:
    """32 bits of an address and a port; who doesn't know `seed` can't choose them."""
    x = (a ^ seed) * 0x9E3779B1 & BITS32
    x ^= x >> 15
    if b or c or d:
        x = (x + b) * seed & BITS32
        x ^= x >> 13
        x = (x + c) * 0x85EBCA6B & BITS32
        x ^= x >> 16
        x = (x + d) * seed & BITS32
        x ^= x >> 14
    x = (x + port * 0x10001) * seed & BITS32
    x ^= x >> 13
    x = x * 0xC2B2AE35 & BITS32
    return x ^ x >> 16


def hash_of(seed: int, buffer: Buffer, at: int, version: int, tcp: int) -> int:
    """The same for both directions of a connection."""
    here, there = u16(buffer, tcp), u16(buffer, tcp + 2)
    if version == 4:
        return scramble(seed, u32(buffer, at), 0, 0, 0, here) + scramble(seed, u32(buffer, at + 4), 0, 0, 0, there)
    a = scramble(seed, u32(buffer, at), u32(buffer, at + 4), u32(buffer, at + 8), u32(buffer, at + 12) + 1, here)
    b = scramble(
        seed, u32(buffer, at + 16), u32(buffer, at + 20), u32(buffer, at + 24), u32(buffer, at + 28) + 1, there
    )
    return a + b


def find(st: State, buffer: Buffer, at: int, version: int, tcp: int, mixed: int) -> int:
    """The direction that a packet with this hash belongs to, or NOTHING."""
    mask = st.registers[MASK]
    place = mixed & mask
    while True:
        entry = st.slots[place]
        if entry == 0:
            return NOTHING
        if entry >> 24 == mixed:
            flow = (entry & 0xFFFFFF) - 1
            key = flow * KEY
            if st.keys[key + VERSION] == version:
                ports = u32(buffer, tcp)
                words = 1 if version == 4 else 4
                size = words * 4
                for side in range(2):
                    if (ports if side == 0 else (ports & 0xFFFF) << 16 | ports >> 16) != st.keys[key + PORTS]:
                        continue
                    source, target = (at, at + size) if side == 0 else (at + size, at)
                    same = True
                    for word in range(words):
                        row = key + ADDRESSES + 2 * word
                        if u32(buffer, source + 4 * word) != st.keys[row]:
                            same = False
                        if u32(buffer, target + 4 * word) != st.keys[row + 1]:
                            same = False
                    if same:
                        return int(2 * flow + side)
        place = (place + 1) & mask


def insert(st: State, mixed: int) -> int:
    """A row for a new flow with this hash; there must be one."""
    regs = st.registers
    if regs[FREE] > 0:
        regs[FREE] -= 1
        flow = st.free[regs[FREE]]
    else:
        flow = regs[USED]
        regs[USED] += 1
    regs[FLOWS] += 1
    place = mixed & regs[MASK]
    while st.slots[place] != 0:
        place = (place + 1) & regs[MASK]
    st.slots[place] = mixed << 24 | (flow + 1)
    st.keys[flow * KEY + HASH] = mixed
    return int(flow)


def remove(st: State, flow: int) -> None:
    """Take a flow out of the table; its row can be used again."""
    mask = st.registers[MASK]
    slots = st.slots
    hole = st.keys[flow * KEY + HASH] & mask
    while slots[hole] & 0xFFFFFF != flow + 1:
        hole = (hole + 1) & mask
    place = hole
    while True:  # pull back what lies behind it and would not be found any more
        place = (place + 1) & mask
        entry = slots[place]
        if entry == 0:
            break
        if (place - (entry >> 24)) & mask >= (place - hole) & mask:
            slots[hole] = entry
            hole = place
    slots[hole] = 0
    st.flows[flow * FLOW + BITS] = 0
    st.free[st.registers[FREE]] = flow
    st.registers[FREE] += 1
    st.registers[FLOWS] -= 1
