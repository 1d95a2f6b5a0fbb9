"""What two ukihashi ends say beyond the protocol: control records, resume; every vector of extension-vectors.json."""

import json
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.ether.offload import ALL, MAX_SUPER_FRAME, Kind, SuperFrame, flaw, kind_of
from ukihashi.ether.segment import finish
from ukihashi.wire import messages
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import MAX_BLOCK, MAX_CONTROL, MAX_KEEPALIVE, MAX_TEXT, Code
from ukihashi.wire.extension import (
    CONTROL,
    MAX_INTERVAL_MS,
    MAX_NUMBER,
    MAX_PADDING,
    SUPER_FRAME,
    Blocked,
    Bye,
    Control,
    ControlRecord,
    Have,
    Numbers,
    PeerOptions,
    Reason,
    Resume,
    encode_blocked,
    encode_bye,
    encode_have,
    encode_have_keepalive,
    encode_options,
    read_control,
)
from ukihashi.wire.messages import AdditionalAnswer, AdditionalConnect, ErrorAnswer, Login, Welcome
from ukihashi.wire.pack import Pack

Vector = dict[str, Any]
VECTORS: Final[list[Vector]] = json.loads((Path(__file__).parent / "extension-vectors.json").read_text())["vectors"]
TOTAL: Final = 72

numbers = st.integers(0, MAX_NUMBER)


def of_kind(kind: str) -> pytest.MarkDecorator:
    found = [vector for vector in VECTORS if vector["kind"] == kind]
    assert found
    return pytest.mark.parametrize("vector", found, ids=[vector["id"] for vector in found])


def decoder_of(vector: Vector) -> BlockDecoder:
    return BlockDecoder(extended=True, super_frames=bool(vector.get("granted")))


def decoded(data: bytes, *, super_frames: bool = False) -> tuple[list[bytes], list[ControlRecord], int]:
    decoder = BlockDecoder(extended=True, super_frames=super_frames)
    frames = decoder.feed(data)
    assert decoder.pending == 0
    return frames, decoder.controls, decoder.keepalives


def as_record(told: dict[str, Any]) -> ControlRecord:
    match told:
        case {"have": number}:
            return Have(number)
        case {"bye": reason, "text": text}:
            return Bye(Reason(reason), text)
        case {"keepalive_ms": interval}:
            return PeerOptions(interval)
        case {"blocked": True, "with": port}:
            return Blocked(port)
        case {"blocked": False}:
            return Blocked(None)
    raise AssertionError(told)


# -- vectors ----------------------------------------------------------------------------------------------------------

FRAME: Final = bytes.fromhex("ffffffffffff02000000000108060001")
ENCODED: Final[dict[str, bytes]] = {  # what we send, byte for byte; the other streams are sent by others only
    "record": encode_frames([FRAME]),
    "have": encode_have(4294967298),
    "bye-left": encode_bye(Bye()),
    "bye-stopping": encode_bye(Bye(Reason.STOPPING, "再起動します")),
    "bye-offline": encode_bye(Bye(Reason.OFFLINE)),
    "bye-removed": encode_bye(Bye(Reason.REMOVED, "disconnected")),
    "options": encode_options(PeerOptions(2500)),
    "blocked": encode_blocked(Blocked("SID-HQ-3")),
    "blocked-no-more": encode_blocked(Blocked(None)),
    "keepalive-have": encode_have_keepalive(3, b"\xaa\xbb\xcc"),
    "keepalive-have-short": encode_have_keepalive(0, b""),
}
KEY: Final = bytes(range(20))
REFUSED: Final = Numbers(attempt=2, have=17, first=20, end=25)
MESSAGES: Final[dict[str, Login | Welcome | AdditionalConnect | AdditionalAnswer | ErrorAnswer]] = {
    "login": Login(
        "LAN",
        "u",
        0,
        extension=1,
        extension_oldest=1,
        resume=True,
        super_frames=63,
        invite_token="token",
        invite_hash=bytes(range(20)),
    ),
    "welcome": Welcome("SID", "CID", KEY, extension=1, grace_s=300, super_frames=7),
    "version error": ErrorAnswer(Code.VERSION_INVALID, extension=2, extension_oldest=2),
    "resume": AdditionalConnect(KEY, "card", 501, 1, Resume(3, 4294967298)),
    "resume answer": AdditionalAnswer(have=17),
    "resume refused": ErrorAnswer(Code.SESSION_TIMEOUT, numbers=REFUSED),
    "resume stale": ErrorAnswer(Code.INVALID_PROTOCOL, numbers=REFUSED),
}
READERS: Final[dict[type, Callable[[Pack], object]]] = {
    Login: messages.read_request,
    AdditionalConnect: messages.read_request,
    Welcome: messages.read_answer,
    AdditionalAnswer: messages.read_additional_answer,
    ErrorAnswer: messages.read_additional_answer,
}


def test_the_vectors_are_all_there() -> None:
    ids = [vector["id"] for vector in VECTORS]
    assert len(set(ids)) == len(ids) == TOTAL
    kinds = {"stream", "dropped stream", "refused stream", "element", "message"}
    assert {vector["kind"] for vector in VECTORS} == kinds
    assert set(ENCODED) <= {vector["id"] for vector in VECTORS if vector["kind"] == "stream"}
    assert set(MESSAGES) == {vector["message"] for vector in VECTORS if vector["kind"] in {"element", "message"}}


def test_the_protocols_page_lists_every_vector_and_no_other() -> None:
    def row(vector: Vector) -> str:
        data = vector["hex"]
        shown = f"`{data}`" if len(data) <= 80 else f"`{data[:40]}`… ({len(data) // 2} bytes)"
        said = {"refused stream": "refused: ", "dropped stream": "dropped: "}.get(vector["kind"], "")
        return f"| `{vector['id']}` | {said}{vector['what']} | {shown} |"

    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text().partition("## 8. Vectors")[2]
    assert [line for line in page.splitlines() if line.startswith("| `")] == [row(vector) for vector in VECTORS]


def test_the_protocols_page_names_every_element() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text().partition("## 3.")[0]
    assert {vector["name"] for vector in VECTORS if vector["kind"] == "element"} == set(
        re.findall(r"`(ukihashi_\w+)`", page)
    )


def test_every_control_record_has_a_vector() -> None:
    kinds = {type(as_record(told)) for vector in VECTORS for told in vector.get("controls", [])}
    assert kinds == {Have, Bye, PeerOptions, Blocked}
    said = {told["bye"] for vector in VECTORS for told in vector.get("controls", []) if "bye" in told}
    assert said == set(Reason)
    assert len(Control) == len(kinds)


def test_every_element_has_a_vector() -> None:
    """Of each message that may carry it."""
    ours = {
        (name, element.name)
        for name, message in MESSAGES.items()
        for element in message.to_pack(b"")
        if element.name.startswith("ukihashi_") and name != "resume stale"
    }
    assert ours == {(vector["message"], vector["name"]) for vector in VECTORS if vector["kind"] == "element"}


@of_kind("stream")
def test_a_stream_means_what_its_vector_says(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    frames, controls, _ = decoded(data, super_frames="granted" in vector)
    assert [frame.hex() for frame in frames] == vector["frames"]
    assert controls == [as_record(told) for told in vector["controls"]]
    if vector["id"] in ENCODED:
        assert ENCODED[vector["id"]] == data
    if not controls and data[:4] != b"\xff" * 4 and frames:
        assert encode_frames(frames) == data


@of_kind("stream")
def test_a_stream_means_the_same_however_it_is_cut(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    for step in (1, 2, 3, 5, 11):
        decoder, frames = decoder_of(vector), list[bytes]()
        for at in range(0, len(data), step):
            frames += decoder.feed(data[at : at + step])
            assert decoder.pending <= MAX_BLOCK + 3
        whole = decoder_of(vector)
        assert (frames, list(map(type, frames))) == (again := whole.feed(data), list(map(type, again)))
        assert (decoder.controls, decoder.keepalives) == (whole.controls, whole.keepalives)
        assert decoder.super_frames == whole.super_frames == sum(type(frame) is SuperFrame for frame in frames)


@of_kind("stream")
def test_a_super_frame_is_sound_and_finished_as_its_vector_says(vector: Vector) -> None:
    frames = decoder_of(vector).feed(bytes.fromhex(vector["hex"]))
    supers = [frame for frame in frames if isinstance(frame, SuperFrame)]
    assert bool(supers) == ("granted" in vector)
    assert [flaw(frame, Kind(vector["granted"])) for frame in supers] == [""] * len(supers)
    if "finished" in vector:
        assert [plain.hex() for frame in supers for plain in finish(frame)] == vector["finished"]
        assert all(finish(frame, ALL) == [frame] for frame in supers)


@of_kind("dropped stream")
def test_a_super_frame_with_a_flaw_is_a_record_that_is_dropped(vector: Vector) -> None:
    (frame,) = decoder_of(vector).feed(bytes.fromhex(vector["hex"]))
    assert frame.hex() == vector["frames"][0]
    assert isinstance(frame, SuperFrame)
    assert flaw(frame, Kind(vector["granted"]))


def test_vectors_of_super_frames_are_of_every_kind() -> None:
    kinds = Kind(0)
    for vector in VECTORS:
        if vector["kind"] == "stream":
            for frame in decoder_of(vector).feed(bytes.fromhex(vector["hex"])):
                kinds |= kind_of(frame)
    assert kinds == ALL


@of_kind("refused stream")
@pytest.mark.parametrize("step", [1, 3, 4, 1000])
def test_a_stream_that_no_correct_end_sends_is_refused(vector: Vector, step: int) -> None:
    data, decoder = bytes.fromhex(vector["hex"]), decoder_of(vector)

    def feed_all() -> None:
        for at in range(0, len(data), step):
            decoder.feed(data[at : at + step])

    with pytest.raises(PeerViolation):
        feed_all()
    with pytest.raises(PeerViolation):
        decoder.feed(b"")


@of_kind("element")
def test_an_element_is_written_and_read_as_its_vector_says(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    assert data in MESSAGES[vector["message"]].to_pack(b"").encode()
    (element,) = Pack.decode(struct.pack("!I", 1) + data)
    value = element.values[0]
    assert (element.name, element.type.name) == (vector["name"], vector["type"])
    assert (value.hex() if isinstance(value, bytes) else value) == vector["value"]


@of_kind("message")
def test_a_message_is_written_and_read_as_its_vector_says(vector: Vector) -> None:
    message, data = MESSAGES[vector["message"]], bytes.fromhex(vector["hex"])
    assert message.to_pack(b"").encode() == data
    assert READERS[type(message)](Pack.decode(data)) == message


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_with_our_elements_survive(name: str) -> None:
    message = MESSAGES[name]
    assert READERS[type(message)](Pack.decode(message.to_pack(b"x").encode())) == message


# -- control records --------------------------------------------------------------------------------------------------


@given(numbers, st.binary(max_size=MAX_PADDING))
def test_any_number_survives(number: int, padding: bytes) -> None:
    assert decoded(encode_have(number)) == ([], [Have(number)], 0)
    data = encode_have_keepalive(number, padding)
    assert len(data) - 8 <= MAX_KEEPALIVE
    assert decoded(data) == ([], [Have(number)], 1)


@given(st.sampled_from(Reason), st.text(max_size=400))
def test_any_goodbye_survives_as_far_as_it_goes(reason: Reason, text: str) -> None:
    _, (bye,), _ = decoded(encode_bye(Bye(reason, text)))
    assert isinstance(bye, Bye)
    assert bye.reason is reason
    assert text.startswith(bye.text)
    assert len(text.encode()) <= MAX_TEXT or MAX_TEXT - 3 <= len(bye.text.encode()) <= MAX_TEXT


@given(st.integers(1, 1 << 31))
def test_an_interval_survives_within_reason(interval: int) -> None:
    assert decoded(encode_options(PeerOptions(interval)))[1] == [PeerOptions(min(interval, MAX_INTERVAL_MS))]


def test_options_without_what_we_know_are_passed_over() -> None:
    pack = Pack()
    pack.add_int("something_later", 1)
    assert read_control(bytes([Control.OPTIONS]) + pack.encode()) is None


def test_too_much_padding_is_our_bug() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode_have_keepalive(0, bytes(MAX_PADDING + 1))


@given(st.binary(max_size=MAX_CONTROL))
def test_a_control_record_of_anything_is_read_or_refused(body: bytes) -> None:
    stream = struct.pack("!II", 1, CONTROL | len(body)) + body
    try:
        wanted = read_control(body)
    except PeerViolation:
        with pytest.raises(PeerViolation):
            decoded(stream)
        return
    assert decoded(stream) == ([], [] if wanted is None else [wanted], 0)


@pytest.mark.parametrize("number", [MAX_NUMBER + 1, (1 << 64) - 1])
def test_a_number_beyond_all_counting_is_refused_wherever_it_stands(number: int) -> None:
    pack = Pack()
    pack.add_int64("ukihashi_attempt", 1)
    pack.add_int64("ukihashi_have", number)
    for reader in (Resume.read, Numbers.read):
        with pytest.raises(PeerViolation):
            reader(pack)
    with pytest.raises(PeerViolation):
        decoded(encode_have(number))


def test_a_standard_peers_messages_carry_no_resume() -> None:
    assert Resume.read(AdditionalConnect(KEY).to_pack(b"")) is None
    assert Numbers.read(ErrorAnswer(Code.SESSION_TIMEOUT).to_pack(b"")) is None
    answer = messages.read_additional_answer(AdditionalAnswer().to_pack(b""))
    assert answer == AdditionalAnswer(have=None)


def test_a_welcome_without_a_grace_grants_nothing() -> None:
    """Nor does a grace without the feature."""
    assert "ukihashi_resume" not in Welcome("SID", "CID", KEY, extension=1).to_pack(b"")
    pack = Welcome("SID", "CID", KEY, extension=1).to_pack(b"")
    pack.add_int("ukihashi_grace", 300)
    pack.add_int("ukihashi_superframe", 63)
    answer = messages.read_answer(pack)
    assert isinstance(answer, Welcome)
    assert (answer.grace_s, answer.super_frames) == (0, 0)


def test_a_standard_login_offers_nothing() -> None:
    assert not [name for name in Login("LAN", "u", 0).to_pack(b"").names() if name.startswith("ukihashi")]
    request = messages.read_request(Login("LAN", "u", 0, extension=1, extension_oldest=1).to_pack(b""))
    assert isinstance(request, Login)
    assert not request.resume


# -- the extended stream ----------------------------------------------------------------------------------------------

Item = tuple[bytes, list[bytes], list[ControlRecord], int]  # bytes, frames, control records, keep-alives
sizes = st.sampled_from([1, 14, 60, 60, 60, 60, 1514, 1600, MAX_BLOCK])
super_sizes = st.sampled_from([24, 76, 76, 76, 1500, MAX_BLOCK, MAX_BLOCK + 1, 40_000, MAX_SUPER_FRAME])
records = st.one_of(
    st.builds(lambda size, fill: bytes([fill]) * size, sizes, st.integers(0, 255)).map(lambda f: (f, None)),
    st.builds(lambda size, fill: SuperFrame([fill]) * size, super_sizes, st.integers(0, 255)).map(
        lambda f: (SuperFrame(f), None)
    ),
    st.one_of(
        numbers.map(lambda n: (encode_have(n), Have(n))),
        st.sampled_from([(encode_bye(Bye(Reason.REMOVED, "x")), Bye(Reason.REMOVED, "x"))]),
        st.sampled_from([(encode_options(PeerOptions(900)), PeerOptions(900))]),
        st.sampled_from([(struct.pack("!II", 1, CONTROL | 3) + b"\xf0ab", None)]),
    ).map(lambda pair: (pair[0][4:], pair)),
)


@st.composite
def batches(draw: st.DrawFn) -> Item:
    """Frames and control records mixed in one batch, or a keep-alive, or nothing."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        number = draw(numbers)
        return encode_have_keepalive(number, bytes(draw(st.integers(0, MAX_PADDING)))), [], [Have(number)], 1
    if kind == 1:
        return bytes(4), [], [], 0
    chosen = draw(st.lists(records, min_size=1, max_size=24))
    frames = [data for data, control in chosen if control is None]
    controls = [control[1] for _, control in chosen if control is not None and control[1] is not None]
    body = b"".join(
        data if control is not None else struct.pack("!I", len(data) | SUPER_FRAME * (type(data) is SuperFrame)) + data
        for data, control in chosen
    )
    return struct.pack("!I", len(chosen)) + body, frames, controls, 0


@given(st.lists(batches(), max_size=5), st.lists(st.integers(0), max_size=12))
def test_any_extended_stream_survives_any_split(stream: list[Item], cuts: list[int]) -> None:
    data = b"".join(item[0] for item in stream)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    decoder, frames = BlockDecoder(extended=True, super_frames=True), list[bytes]()
    for start, stop in pairwise(places):
        frames += decoder.feed(data[start:stop])
        assert decoder.pending <= MAX_SUPER_FRAME + 3
    wanted = [frame for item in stream for frame in item[1]]
    assert (frames, list(map(type, frames))) == (wanted, list(map(type, wanted)))
    assert decoder.super_frames == sum(type(frame) is SuperFrame for frame in wanted)
    assert decoder.controls == [control for item in stream for control in item[2]]
    assert decoder.keepalives == sum(item[3] for item in stream)
    assert decoder.pending == 0


def test_control_records_within_a_run_of_one_size_are_found() -> None:
    run = [struct.pack("!I", 60) + bytes([n]) * 60 for n in range(20)]
    body = b"".join(run[:9]) + encode_have(3)[4:] + b"".join(run[9:])
    frames, controls, _ = decoded(struct.pack("!I", 21) + body)
    assert frames == [bytes([n]) * 60 for n in range(20)]
    assert controls == [Have(3)]


def test_runs_of_super_frames_and_mixed_ones_survive() -> None:
    run: list[bytes] = [SuperFrame(bytes([n]) * 76) for n in range(20)]
    mixed = [frame for n in range(10) for frame in (bytes([n]) * 76, SuperFrame(bytes([n]) * 76))]
    for wanted in (run, mixed, run + mixed, [*run[:9], bytes(76), *run[9:]]):
        frames = BlockDecoder(extended=True, super_frames=True).feed(encode_frames(wanted))
        assert (frames, list(map(type, frames))) == (wanted, list(map(type, wanted)))


def test_a_run_of_super_frames_that_nobody_agreed_on_is_refused() -> None:
    run = encode_frames([SuperFrame(bytes(76))] * 20)
    for decoder in (BlockDecoder(extended=True), BlockDecoder(), BlockDecoder(super_frames=True)):
        with pytest.raises(PeerViolation, match="taken"):
            decoder.feed(run)


def test_a_super_frame_too_long_is_our_bug() -> None:
    assert encode_frames([SuperFrame(bytes(MAX_SUPER_FRAME))])
    with pytest.raises(ValueError, match="longer"):
        encode_frames([SuperFrame(bytes(MAX_SUPER_FRAME + 1))])
    with pytest.raises(ValueError, match="longer"):
        encode_frames([SuperFrame(bytes(24)), bytes(MAX_BLOCK + 1)])


def test_whoever_reads_the_control_records_empties_the_list() -> None:
    decoder = BlockDecoder(extended=True)
    decoder.feed(encode_have(1))
    decoder.feed(encode_have_keepalive(2, b""))
    assert decoder.controls == [Have(1), Have(2)]
    decoder.controls = []
    decoder.feed(encode_have(3))
    assert decoder.controls == [Have(3)]


def test_a_standard_session_knows_no_control_records() -> None:
    with pytest.raises(PeerViolation):
        BlockDecoder().feed(encode_have(1))
    decoder = BlockDecoder()
    assert decoder.feed(encode_have_keepalive(9, b"pad") + encode_frames([b"", b"frame"])) == [b"frame"]
    assert (decoder.controls, decoder.keepalives) == ([], 1)
