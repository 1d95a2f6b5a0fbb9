"""What happens for each packet: account for it, and stop where somebody has to be told.

Per direction only the highest sequence number is kept; growth is new data, so repeats and reordering change nothing.
When the other side acknowledges more than was seen, the missing bytes are credited *before* that packet: turns stay
right under capture loss, with one direction captured and with any snap length.

`run` goes through packets until one gives an event. It then returns the event's number; the caller tells whom it
concerns and calls `run` again, which goes on inside that very packet. So who is told sees all numbers as of that moment
and can change them, and nothing depends on how many packets are handed over at a time.

Compiled, as `layers` is.
"""

from typing import Any

from ukihashi.detect.columns import (
    ADDRESSES,
    BEFORE,
    BITS,
    CAPTURED,
    CLIENT,
    CLOSED,
    COUNT,
    EVENT_FLOW,
    FLOW,
    FLOW_TIMES,
    FLOWS,
    HALF,
    HALF_TIMES,
    HEAD,
    HEARD,
    HIGH,
    INDEX,
    ISN,
    KEPT,
    KEPT_BYTES,
    KEPT_COUNT,
    KEY,
    LAST,
    LIMIT,
    LINK,
    LIVE,
    LOST,
    MAX_KEPT_PACKET,
    MISSED,
    MSS,
    NOW,
    OPENED,
    PACKET,
    PHASE,
    PORTS,
    PROMPTED,
    SEED,
    SERIAL,
    SIDE,
    STAGE,
    SYN_SEEN,
    TICK_AT,
    UNDECIDED,
    USED,
    VERSION,
    WHERE,
    WHOSE,
    WIRE,
    State,
)
from ukihashi.detect.growth import (
    BOTH,
    DEAD,
    DONE,
    ENDED,
    FORGET,
    FULL,
    OPENING,
    TICK,
    drop,
    grow,
    is_quiet,
    start_growth,
)
from ukihashi.detect.layers import Buffer, copy, locate, u16, u32
from ukihashi.detect.slots import BITS32, NOTHING, find, hash_of, insert, remove

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

DEFAULT_MSS = 1460
AGE_S = 300.0  # a silent connection is forgotten
DEAD_AGE_S = 900.0  # longer for one that was cleared: it must not come back as one that began unseen

GROWTH = 1 << 30  # a larger step of a sequence number is no growth (RFC 7323: windows stay below)
NO_ROOM, IN_THE_WAY = -2, -3  # beside NOTHING

# Phases of a packet.
_TIME, _FLOW, _ANSWER, _DATA, _GROWTH, _END = range(6)


def mss_of(buffer: Buffer, at: int, end: int) -> int:
    """The maximum segment size among the TCP options of a SYN (RFC 9293, 3.7.1), or the usual one."""
    while at < end and buffer[at]:
        if buffer[at] == 1:
            at += 1
            continue
        if at + 1 >= end or buffer[at + 1] < 2:
            break
        if buffer[at] == 2 and buffer[at + 1] == 4 and at + 4 <= end:
            return max(64, u16(buffer, at + 2))
        at += buffer[at + 1]
    return DEFAULT_MSS


def begin(
    st: State, buffer: Buffer, half: int, time: float, at: int, version: int, tcp: int, data: int, mixed: int
) -> int:
    """The direction that a packet belongs to whose flow is new or which is a SYN; NOTHING, NO_ROOM or IN_THE_WAY."""
    flags = buffer[tcp + 13] * 1
    sequence = u32(buffer, tcp + 4)
    regs = st.registers
    if half >= 0:  # a SYN of a connection we know
        h, flow = half * HALF, half >> 1
        f = flow * FLOW
        isn = st.halves[h + ISN]
        is_server = half & 1 != st.flows[f + CLIENT]
        if isn == sequence or (isn < 0 and flags & ACK and st.flows[f + BITS] & SYN_SEEN and is_server):
            if isn < 0:
                st.halves[h + ISN], st.halves[h + HIGH] = sequence, (sequence + 1) & BITS32
                st.flows[f + MSS] = min(st.flows[f + MSS], mss_of(buffer, tcp + 20, data))
            return half
        if not is_quiet(st, flow):
            regs[EVENT_FLOW] = flow
            return IN_THE_WAY
        remove(st, flow)
    if not flags & SYN and (not flags & ACK or flags & RST):
        return NOTHING
    if regs[FLOWS] >= regs[LIMIT]:
        return NO_ROOM
    flow = insert(st, mixed)
    regs[OPENED] += 1
    key = flow * KEY
    st.keys[key + PORTS], st.keys[key + VERSION] = u32(buffer, tcp), version
    words = 1 if version == 4 else 4
    for word in range(words):
        st.keys[key + ADDRESSES + 2 * word] = u32(buffer, at + 4 * word)
        st.keys[key + ADDRESSES + 2 * word + 1] = u32(buffer, at + 4 * words + 4 * word)
    f, h, p = flow * FLOW, 2 * flow * HALF, (2 * flow + 1) * HALF
    for column in range(FLOW):
        st.flows[f + column] = 0
    for column in range(2 * HALF):
        st.halves[h + column] = 0
    for column in range(2 * HALF_TIMES):
        st.half_times[2 * flow * HALF_TIMES + column] = 0.0
    for column in range(FLOW_TIMES):
        st.times[flow * FLOW_TIMES + column] = time
    st.half_times[2 * flow * HALF_TIMES + HEARD] = time
    st.half_times[(2 * flow + 1) * HALF_TIMES + HEARD] = time
    st.half_times[2 * flow * HALF_TIMES + PROMPTED] = -1.0
    st.half_times[(2 * flow + 1) * HALF_TIMES + PROMPTED] = -1.0
    st.halves[h + ISN] = st.halves[p + ISN] = st.halves[p + HIGH] = -1
    st.flows[f + SERIAL] = regs[OPENED]
    if flags & SYN:
        st.halves[h + ISN], st.halves[h + HIGH] = sequence, (sequence + 1) & BITS32
        st.flows[f + CLIENT] = 1 if flags & ACK else 0
        st.flows[f + BITS] = LIVE | SYN_SEEN
        st.flows[f + MSS] = mss_of(buffer, tcp + 20, data)
    else:  # the lower port serves, unless a handshake says otherwise
        st.halves[h + HIGH] = sequence
        st.flows[f + CLIENT] = 0 if u16(buffer, tcp) >= u16(buffer, tcp + 2) else 1
        st.flows[f + BITS] = LIVE | UNDECIDED
        st.flows[f + MSS] = DEFAULT_MSS
    if flags & ACK:
        st.halves[p + HIGH] = u32(buffer, tcp + 8)
    return 2 * flow


def keep_packet(
    st: State, buffer: Buffer, flow: int, time: float, at: int, end: int, wire: int, data: int, head: int, link: int
) -> None:
    """Put the headers of a packet, and `head` bytes of its payload, among the packets kept; the oldest make room."""
    regs = st.registers
    packets, room = len(st.kept_times), len(st.kept_bytes)
    size = min(min(data + head, end) - at, MAX_KEPT_PACKET)
    if packets == 0 or size <= 0:
        return
    where = regs[KEPT_BYTES]
    if where % room + size > room:
        where += room - where % room
    target = where % room
    copy(st.kept_bytes, target, buffer, at, size)
    number = regs[KEPT_COUNT]
    place = number % packets
    row = place * PACKET
    f = flow * FLOW
    st.kept[row + BEFORE], st.kept[row + WHOSE] = st.flows[f + KEPT], st.flows[f + SERIAL]
    st.kept[row + WHERE], st.kept[row + CAPTURED] = where, size
    st.kept[row + WIRE], st.kept[row + LINK] = wire, link
    st.kept_times[place] = time
    st.flows[f + KEPT] = number + 1
    regs[KEPT_COUNT], regs[KEPT_BYTES] = number + 1, where + size


def run(st: State, buffer: Buffer, times: Any, ats: Any, captured: Any, lengths: Any, links: Any, count: int) -> int:
    """Account for packets from number `registers[INDEX]` on, until an event (its number) or the end (DONE).

    Args:
        times, ats, captured, lengths: of each packet: seconds, offset in `buffer`, bytes captured, bytes on the wire.
        links: link type of each packet, or one for all.
        count: number of packets.
    """
    regs, clock, flows, halves = st.registers, st.clock, st.flows, st.halves
    number, phase = regs[INDEX], regs[PHASE]
    seed = regs[SEED]
    several = len(links) > 1
    while number < count:
        time = times[number]
        clock[NOW] = time
        regs[INDEX] = number
        if phase == _TIME:
            phase = _FLOW
            if time >= clock[TICK_AT]:
                regs[PHASE] = _FLOW
                return TICK
        at = ats[number]
        end = at + captured[number]
        link = links[number] if several else links[0]
        tcp, addresses, version, length = locate(buffer, link, at, end, at + lengths[number])
        if version == 0:
            number += 1
            phase = _TIME
            continue
        mixed = hash_of(seed, buffer, addresses, version, tcp)
        half = find(st, buffer, addresses, version, tcp, mixed)
        flags = buffer[tcp + 13] * 1
        data = tcp + buffer[tcp + 12] // 16 * 4
        if phase == _FLOW:
            if half < 0 or flags & SYN:
                half = begin(st, buffer, half, time, addresses, version, tcp, min(data, end), mixed)
                if half < NOTHING:
                    regs[PHASE] = _FLOW
                    return FULL if half == NO_ROOM else FORGET
                if half == NOTHING:
                    number += 1
                    phase = _TIME
                    continue
            flow = half >> 1
            f = flow * FLOW
            st.times[flow * FLOW_TIMES + LAST] = time
            if flows[f + STAGE] == DEAD:
                if flags & (FIN | RST):
                    flows[f + BITS] |= CLOSED
                number += 1
                phase = _TIME
                continue
            phase = _DATA
            news = length > 0 or flags & (SYN | FIN | RST) != 0
            if flags & ACK:
                acknowledged, peer = u32(buffer, tcp + 8), (half ^ 1) * HALF
                if halves[peer + HIGH] < 0:
                    halves[peer + HIGH] = acknowledged
                else:
                    missing = (acknowledged - halves[peer + HIGH]) & BITS32
                    if missing == 1:  # a FIN that was not captured: it takes a number, but is no byte
                        halves[peer + HIGH] = acknowledged
                    elif 0 < missing < GROWTH:
                        halves[peer + HIGH] = acknowledged
                        if halves[peer + ISN] >= 0:  # that direction is captured, these bytes of it were not
                            regs[MISSED] += missing
                        start_growth(st, half ^ 1, missing, 0, 0, 0)
                        phase = _ANSWER
                        news = True
            if news:
                shown = HEAD if flows[f + COUNT] == 0 or flows[f + SIDE] != half & 1 else 0
                keep_packet(st, buffer, flow, time, at, end, lengths[number], data, min(shown, length), link)
        if half < 0:  # never: between two phases no flow goes away
            number += 1
            phase = _TIME
            continue
        if phase == _ANSWER:
            event = grow(st, buffer, time)
            if event:
                regs[PHASE] = _ANSWER
                return event
            phase = _DATA
        flow, h = half >> 1, half * HALF
        f = flow * FLOW
        sequence = u32(buffer, tcp + 4)
        if phase == _DATA:
            phase = _END
            stop = (sequence + length) & BITS32
            if stop != halves[h + HIGH] and not flags & RST:
                new = (stop - halves[h + HIGH]) & BITS32 if halves[h + HIGH] >= 0 else length
                if 0 < new < GROWTH:
                    halves[h + HIGH] = stop
                    if new > length:
                        halves[h + LOST] += new - length
                        regs[MISSED] += new - length
                    shown = 0
                    if flows[f + STAGE] in (OPENING, BOTH):
                        shown = max(0, min(data + min(length, HEAD), end) - data)
                    start_growth(st, half, new, length, data, shown)
                    phase = _GROWTH
        if phase == _GROWTH:
            event = grow(st, buffer, time)
            if event:
                regs[PHASE] = _GROWTH
                return event
            phase = _END
        if phase == _END and flags & (FIN | RST):
            if flags & FIN and halves[h + HIGH] >= 0:
                halves[h + HIGH] = (sequence + length + 1) & BITS32  # a FIN takes a number, but is no byte
            if not flows[f + BITS] & CLOSED:
                if not is_quiet(st, flow) and flows[f + STAGE] != DEAD:
                    regs[EVENT_FLOW] = flow
                    regs[PHASE] = _END + 1
                    return ENDED
                flows[f + BITS] |= CLOSED
                drop(st, flow)
        number += 1
        phase = _TIME
    regs[INDEX] = number
    regs[PHASE] = _TIME
    return DONE


def forget(st: State, count: int) -> int:
    """Remove the first `count` flows of `out`; those that somebody has to be told of stay: their number, in `out`."""
    left = 0
    for place in range(count):
        flow = st.out[place]
        if is_quiet(st, flow):
            remove(st, flow)
        else:
            st.out[left] = flow
            left += 1
    return left


def sweep(st: State, now: float) -> int:
    """Forget connections that were silent for long; as `forget`."""
    count = 0
    for flow in range(st.registers[USED]):
        if st.flows[flow * FLOW + BITS] & LIVE:
            age = DEAD_AGE_S if st.flows[flow * FLOW + STAGE] == DEAD else AGE_S
            if now - st.times[flow * FLOW_TIMES + LAST] > age:
                st.out[count] = flow
                count += 1
    return forget(st, count)
