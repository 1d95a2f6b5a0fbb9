"""New data of a flow: its turns and messages, and the sieve. Compiled, as `layers` is.

A flow that nobody was told of is looked at by the *sieve*: could an opening dialogue end with its last turn? That is
asked without leaving compiled code, and nearly all flows end here.
"""

from typing import Any

from ukihashi.detect.columns import (
    BITS,
    BYTES,
    CLIENT,
    CLOSED,
    COUNT,
    COUNTED,
    COUPLED,
    CUT,
    DIALOGUES,
    EVENT_FLOW,
    EVENT_GAP,
    EVENT_PASSED,
    EVENT_WAIT,
    FIRST,
    FLOW,
    FLOW_TIMES,
    G_HALF,
    G_HEAD,
    G_HEAD_SIZE,
    G_LENGTH,
    G_NEW,
    HALF,
    HALF_TIMES,
    HEAD,
    HEAD_SIZE,
    HEADS,
    HEARD,
    LONGEST,
    MESSAGE_SIZE,
    MESSAGE_TIME,
    MSS,
    OLD_COUPLED,
    OLD_SIZE,
    PROMPTED,
    SENDS,
    SIDE,
    SIEVE,
    SIZE,
    SMALL,
    SPLIT_MAX,
    SPOKE,
    STAGE,
    STEP,
    SYN_SEEN,
    TALKS,
    TOLD,
    TOTAL,
    TURN,
    TURN_BEGIN,
    TURN_END,
    TURN_TIMES,
    TURNS,
    UNDECIDED,
    WATCHED_SINCE,
    WINDOW_END,
    WINDOW_FIRST,
    WINDOW_LAST,
    State,
)
from ukihashi.detect.layers import Buffer, copy, u32

OPENING, WATCHED, DEAD, BOTH = 0, 1, 2, 3  # stages

PAUSE_S = 0.03  # data after a longer pause is another message
GAP_S = 0.95  # a message after a shorter silence tells nothing about timers
COUPLED_S = 0.35  # a message this close to one of the other side may be its answer
LONG_TURN = 60_000  # bytes; a longer turn is judged before it ends

# Events.
DONE, TICK, FULL, FORGET, JOINED, SWAPPED, TURNED, LONG, SPOKEN, CRUMB, ENDED = range(11)
# What the sieve says.
KEEP, DROP, TELL = 0, 1, 2


def drop(st: State, flow: int) -> None:
    """Look at nothing more of it."""
    f = flow * FLOW
    st.flows[f + STAGE] = DEAD
    st.flows[f + COUNT] = 0
    st.halves[2 * flow * HALF + TALKS] = 0
    st.halves[(2 * flow + 1) * HALF + TALKS] = 0


def within(sieve: Any, dialogue: int, part: int, size: int) -> bool:
    """Can this turn of a dialogue have `size` bytes?"""
    at = SIEVE + dialogue * 8 + part * 2
    return bool(sieve[at] <= size <= sieve[at + 1])


def sift(st: State, flow: int) -> int:
    """What is to be done with a flow, all of whose turns so far are complete: KEEP, DROP or TELL."""
    sieve = st.sieve
    if len(sieve) == 0:
        return TELL
    f = flow * FLOW
    count = st.flows[f + COUNT]
    row = flow * TURNS * TURN
    head, head_size = flow * HEADS * HEAD, st.turns[row + HEAD_SIZE]
    first_side = st.flows[f + SIDE] ^ (count - 1 & 1)
    if first_side != st.flows[f + CLIENT] or head_size == 0:
        return TELL
    first = st.heads[head]
    if first != 0x16:  # neither TLS nor what asks a proxy, nor SSH: HTTP most of all
        return TELL if first in (0x43, 0x04, 0x05, 0x53) else DROP
    if head_size < 6 or st.heads[head + 1] != 3 or st.heads[head + 5] != 1:
        return TELL
    after = count - 1
    size = st.turns[row + after * TURN + SIZE]
    if after & 1:
        for split in range(2):
            start = after - 3 - 2 * split
            if not sieve[WINDOW_FIRST] <= start <= sieve[WINDOW_LAST]:
                continue
            a = row + start * TURN
            c1, s1, c2 = st.turns[a + SIZE], st.turns[a + TURN + SIZE], st.turns[a + 2 * TURN + SIZE]
            if split:
                if s1 > sieve[SPLIT_MAX]:
                    continue
                c1, s1, c2 = c1 + c2, s1 + st.turns[a + 3 * TURN + SIZE], st.turns[a + 4 * TURN + SIZE]
            part = st.turns[row + after * TURN + FIRST]
            for number in range(sieve[DIALOGUES]):
                if (
                    within(sieve, number, 0, c1)
                    and within(sieve, number, 1, s1)
                    and within(sieve, number, 2, c2)
                    and (within(sieve, number, 3, size) or within(sieve, number, 3, part))
                ):
                    return TELL
    return DROP if after >= sieve[WINDOW_END] or size > LONG_TURN or count >= TURNS - 1 else KEEP


def must_tell(st: State, flow: int) -> bool:
    """A turn is complete: is it somebody's business? A flow in which nothing can come any more is dropped."""
    f = flow * FLOW
    if st.flows[f + BITS] & TOLD:
        return True
    said = sift(st, flow)
    if said == DROP:
        drop(st, flow)
    elif said == TELL:
        st.flows[f + BITS] |= TOLD
        return True
    return False


def is_quiet(st: State, flow: int) -> bool:
    """Can it be forgotten without telling anybody?"""
    f = flow * FLOW
    if st.flows[f + BITS] & TOLD:
        return False
    return not (
        st.flows[f + STAGE] == OPENING and not st.flows[f + BITS] & CLOSED and st.flows[f + COUNT] > 0
    ) or not must_tell(st, flow)


def begins(buffer: Buffer, at: int, size: int, high: int, low: int) -> bool:
    """With these eight bytes?"""
    return size >= 8 and u32(buffer, at) == high and u32(buffer, at + 4) == low


def decide(st: State, buffer: Buffer, half: int, time: float, at: int, size: int) -> int:
    """Is the first data of a flow without SYN the begin of a connection? Its sender's role tells."""
    flow = half >> 1
    f = flow * FLOW
    st.flows[f + BITS] &= ~UNDECIDED
    client = -1
    first = buffer[at] * 1
    if size > 5 and first == 0x16 and buffer[at + 1] == 3 and 1 <= buffer[at + 5] <= 2:  # TLS: client hello, server's
        client = half & 1 if buffer[at + 5] == 1 else (half & 1) ^ 1
    elif (
        begins(buffer, at, size, 0x434F4E4E, 0x45435420)  # "CONNECT "
        or (size >= 3 and first == 5 and buffer[at + 1] == 1 and buffer[at + 2] == 0)
        or (size >= 2 and first == 5 and buffer[at + 1] == 2)
        or (size >= 2 and first == 4 and buffer[at + 1] == 1)
    ):
        client = half & 1
    elif begins(buffer, at, size, 0x5353482D, 0x322E302D):  # "SSH-2.0-"
        client = st.flows[f + CLIENT]
    if client < 0:
        st.flows[f + COUNT] = 0
        st.flows[f + STAGE] = WATCHED
        st.flows[f + BITS] |= TOLD
        st.times[flow * FLOW_TIMES + WATCHED_SINCE] = time
        return JOINED
    st.flows[f + BITS] |= SYN_SEEN
    if client != st.flows[f + CLIENT]:
        st.flows[f + CLIENT] = client
        if st.flows[f + BITS] & TOLD:
            return SWAPPED
    return DONE


def start_growth(st: State, half: int, new: int, length: int, head: int, head_size: int) -> None:
    """Set the registers for `grow`: `length` = payload of the packet that brings the bytes, 0 if only acknowledged."""
    regs = st.registers
    regs[STEP], regs[G_HALF], regs[G_NEW], regs[G_LENGTH] = 0, half, new, length
    regs[G_HEAD], regs[G_HEAD_SIZE] = head, head_size


def grow(st: State, buffer: Buffer, time: float) -> int:
    """New bytes of a direction, as the registers tell; an event, after which the call is to be repeated, or DONE."""
    regs = st.registers
    half, new, length, head = regs[G_HALF], regs[G_NEW], regs[G_LENGTH], regs[G_HEAD_SIZE]
    flow, side = half >> 1, half & 1
    f, h, t = flow * FLOW, half * HALF, half * HALF_TIMES
    flows = st.flows
    regs[EVENT_FLOW] = flow
    if regs[STEP] == 0:
        regs[STEP] = 1
        st.halves[h + TOTAL] += new
        regs[BYTES] += new
        if head and flows[f + BITS] & UNDECIDED and flows[f + STAGE] in (OPENING, BOTH):
            event = decide(st, buffer, half, time, regs[G_HEAD], head)
            if event:
                return event
    if regs[STEP] == 1:
        regs[STEP] = 2
        turning = flows[f + STAGE] in (OPENING, BOTH) and flows[f + COUNT] > 0 and flows[f + SIDE] != side
        if turning and must_tell(st, flow):
            return TURNED
    if regs[STEP] == 2:
        regs[STEP] = 3
        if flows[f + STAGE] in (OPENING, BOTH):
            count = flows[f + COUNT]
            if count == 0 or flows[f + SIDE] != side:
                row = flow * TURNS + count
                flows[f + COUNT], flows[f + SIDE] = count + 1, side
                for column in range(TURN):
                    st.turns[row * TURN + column] = 0
                st.turn_times[row * TURN_TIMES + TURN_BEGIN] = time
                if new == length and count < HEADS and head > 0:
                    target = (flow * HEADS + count) * HEAD
                    copy(st.heads, target, buffer, regs[G_HEAD], head)
                    st.turns[row * TURN + HEAD_SIZE] = head
            row = flow * TURNS + flows[f + COUNT] - 1
            size = st.turns[row * TURN + SIZE] + new
            st.turns[row * TURN + SIZE] = size
            st.turn_times[row * TURN_TIMES + TURN_END] = time
            if not st.turns[row * TURN + CUT]:
                st.turns[row * TURN + FIRST] += new
                # A full segment is the MSS, less 12 bytes when timestamps are on (RFC 7323); a driver may join several.
                if length and length % flows[f + MSS] and length % (flows[f + MSS] - 12):
                    st.turns[row * TURN + CUT] = 1
            if size > LONG_TURN >= size - new and must_tell(st, flow):
                return LONG
    if regs[STEP] == 3:
        regs[STEP] = 4
        small = flows[f + SMALL] & 0xFFFF
        if small and flows[f + STAGE] in (WATCHED, BOTH):
            peer, peer_times = (half ^ 1) * HALF, (half ^ 1) * HALF_TIMES
            if 0 < length <= small and new == length:
                prompted = st.half_times[t + PROMPTED]
                st.clock[EVENT_WAIT] = time - prompted if prompted >= 0 else -1.0
                st.clock[EVENT_GAP] = time - st.half_times[peer_times + HEARD]
                regs[EVENT_PASSED] = st.halves[peer + TOTAL] - st.halves[h + COUNTED]
                st.half_times[t + PROMPTED] = -1.0
                st.halves[h + COUNTED] = st.halves[peer + TOTAL]
                return CRUMB
            if st.half_times[peer_times + PROMPTED] < 0:
                st.half_times[peer_times + PROMPTED] = time
    if regs[STEP] == 4:
        regs[STEP] = 5
        if 0 < length <= flows[f + SMALL] >> 16 and new == length:  # the outer layer's own
            return DONE
        silence = time - st.half_times[t + HEARD]
        st.half_times[t + HEARD] = time
        if silence < PAUSE_S:
            if st.halves[h + TALKS]:
                st.halves[h + MESSAGE_SIZE] += new
            return DONE
        st.halves[h + TALKS] = 0
        if flows[f + STAGE] not in (WATCHED, BOTH):
            return DONE
        peer, peer_times = (half ^ 1) * HALF, (half ^ 1) * HALF_TIMES
        since = time - st.times[flow * FLOW_TIMES + WATCHED_SINCE]
        st.halves[h + SENDS] += 1
        st.half_times[t + LONGEST] = max(st.half_times[t + LONGEST], min(silence, since))
        st.half_times[t + SPOKE] = time
        coupled = time - st.half_times[peer_times + SPOKE] <= COUPLED_S
        if coupled and st.halves[peer + TALKS] and time - st.half_times[peer_times + MESSAGE_TIME] <= COUPLED_S:
            st.halves[peer + COUPLED] = 1
        if silence >= GAP_S:
            regs[OLD_SIZE], regs[OLD_COUPLED] = st.halves[h + MESSAGE_SIZE], st.halves[h + COUPLED]
            st.halves[h + TALKS], st.halves[h + MESSAGE_SIZE] = 1, new
            st.halves[h + COUPLED] = 1 if coupled else 0
            st.half_times[t + MESSAGE_TIME] = time
            st.clock[EVENT_GAP] = silence
            return SPOKEN
    return DONE
