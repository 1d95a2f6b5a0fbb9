"""Messages survive PACK; missing or malformed elements are violations; versions are agreed or both are named."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation, VersionMismatch
from ukihashi.wire import messages
from ukihashi.wire.constants import Code
from ukihashi.wire.elements import MessageViolation
from ukihashi.wire.extension import agree
from ukihashi.wire.messages import (
    AdditionalAnswer,
    AdditionalConnect,
    ErrorAnswer,
    Hello,
    Login,
    Node,
    Noop,
    Redirect,
    UnknownMethod,
    Welcome,
)
from ukihashi.wire.methods import AdminLogin, Done, EnumHub, HubNames, PasswordChange
from ukihashi.wire.pack import Pack
from ukihashi.wire.udp import UdpGrant, UdpOffer

HELLO = Hello("ukihashi hub 0", 501, 9999, bytes(range(20)))
LOGIN = Login(
    hub="LAN",
    user="alice",
    authtype=1,
    secure_password=b"s" * 20,
    client="ukihashi card 0",
    client_version=501,
    client_build=9999,
    client_id=7,
    max_connection=4,
    qos=True,
    unique_id=b"u" * 20,
    node=Node(host="box", system="Linux", server="hub.example", unique_id=b"n" * 16, ip="10.77.0.2"),
    extension=1,
    extension_oldest=1,
    invite_token="token",
    invite_hash=b"h" * 20,
    udp=UdpOffer(40_000, b"c" * 128),
)
WELCOME = Welcome(
    "SID-ALICE-1",
    "CID-1",
    b"k" * 20,
    4,
    timeout_ms=20000,
    policy={"Access": 1},
    message="hé",
    extension=1,
    udp=UdpGrant(40_001, b"s" * 128, to_server=1, to_client=2),
)
REDIRECT = Redirect(IPv4Address("10.0.0.9"), (443, 992), b"t" * 20, b"cert", "over there")
ADMIN = AdminLogin("LAN", b"s" * 20, "a tool", 501, 9999)
CHANGE = PasswordChange("LAN", "alice", b"o" * 20, b"n" * 20)
MORE = AdditionalConnect(b"k" * 20, "card", 501, 9999)


def over_the_wire(pack: Pack) -> Pack:
    return Pack.decode(pack.encode())


def without(pack: Pack, name: str) -> Pack:
    rest = Pack()
    for element in pack:
        if element.name != name:
            rest._elements[element.name.lower().encode()] = element
    return rest


@given(st.binary(max_size=999))
def test_messages_survive_the_wire(pencore: bytes) -> None:
    assert messages.read_hello(over_the_wire(HELLO.to_pack(pencore))) == HELLO
    for request in (LOGIN, MORE, Noop(1), EnumHub(), CHANGE, ADMIN):
        assert messages.read_request(over_the_wire(request.to_pack(pencore))) == request
    for answer in (WELCOME, REDIRECT, ErrorAnswer(9, no_save_password=True, extension=2, extension_oldest=1)):
        assert messages.read_answer(over_the_wire(answer.to_pack(pencore))) == answer
    assert messages.read_additional_answer(over_the_wire(AdditionalAnswer(2).to_pack(pencore))) == AdditionalAnswer(2)
    assert messages.read_answer(over_the_wire(Noop(2).answer_pack(pencore))) == Noop(2)


@pytest.mark.parametrize(
    "login",
    [
        replace(LOGIN, authtype=0, secure_password=b""),
        replace(LOGIN, authtype=2, secure_password=b"", plain_password="geheim"),
        replace(LOGIN, authtype=3, secure_password=b"", certificate=b"c" * 700, signature=b"s" * 256),
        replace(LOGIN, authtype=99, secure_password=b"", ticket=b"t" * 20),
    ],
)
def test_every_kind_of_proof_survives(login: Login) -> None:
    assert messages.read_request(over_the_wire(login.to_pack(b""))) == login


def test_a_list_of_no_hubs_has_no_column() -> None:
    """Trap T6."""
    assert "HubName" not in over_the_wire(HubNames(()).to_pack(b""))
    pack = over_the_wire(HubNames(("LAN", "b")).to_pack(b""))
    assert [pack.get_str("HubName", "", n) for n in range(pack.get_int("NumHub"))] == ["LAN", "b"]


@pytest.mark.parametrize(
    ("request_", "missing"),
    [(CHANGE, "hubname"), (CHANGE, "secure_old_password"), (CHANGE, "new_password"), (ADMIN, "secure_password")],
)
def test_other_methods_need_their_elements(request_: PasswordChange | AdminLogin, missing: str) -> None:
    with pytest.raises(MessageViolation, match=missing):
        messages.read_request(without(request_.to_pack(b""), missing))


def test_a_tool_without_a_hub_asks_for_the_whole() -> None:
    assert messages.read_request(without(ADMIN.to_pack(b""), "hubname")) == replace(ADMIN, hub="")


def test_pencore_is_the_last_element() -> None:
    for message in (
        HELLO, LOGIN, WELCOME, REDIRECT, MORE, CHANGE, ADMIN, HubNames(()), Done(), ErrorAnswer(9), AdditionalAnswer(),
    ):  # fmt: skip
        assert message.to_pack(b"x").names()[-1] == "pencore"


def test_a_standard_session_has_no_element_of_ours() -> None:
    packs = [
        replace(LOGIN, extension=0, invite_token="").to_pack(b""),
        replace(WELCOME, extension=0).to_pack(b""),
        ErrorAnswer(9).to_pack(b""),
    ]
    assert not [name for pack in packs for name in pack.names() if "ukihashi" in name]


@pytest.mark.parametrize("missing", ["hubname", "username"])
def test_a_login_needs_hub_and_user(missing: str) -> None:
    with pytest.raises(MessageViolation) as caught:
        messages.read_request(without(LOGIN.to_pack(b""), missing))
    assert caught.value.code is Code.PROTOCOL_ERROR
    assert missing in str(caught.value)


@pytest.mark.parametrize("missing", ["session_name", "connection_name", "session_key", "timeout"])
def test_a_welcome_needs_its_names_key_and_timeout(missing: str) -> None:
    with pytest.raises(MessageViolation, match=missing):
        messages.read_answer(without(WELCOME.to_pack(b""), missing))


@pytest.mark.parametrize("missing", ["hello", "random"])
def test_a_hello_needs_product_and_challenge(missing: str) -> None:
    with pytest.raises(MessageViolation, match=missing):
        messages.read_hello(without(HELLO.to_pack(b""), missing))


@pytest.mark.parametrize(
    "message",
    [
        replace(HELLO, random=bytes(19)),
        replace(WELCOME, session_key=bytes(21)),
        replace(WELCOME, timeout_ms=0),
        replace(REDIRECT, ports=()),
        replace(REDIRECT, ports=(0,)),
        replace(REDIRECT, ticket=b""),
    ],
)
def test_malformed_answers_are_refused(message: Hello | Welcome | Redirect) -> None:
    read = messages.read_hello if isinstance(message, Hello) else messages.read_answer
    with pytest.raises(MessageViolation):
        read(message.to_pack(b""))


@pytest.mark.parametrize(
    "login",
    [
        replace(LOGIN, hub="h" * 256),
        replace(LOGIN, user="é" * 128),
        replace(LOGIN, authtype=3, certificate=bytes(100_001)),
        replace(LOGIN, authtype=3, signature=bytes(513)),
    ],
)
def test_oversized_fields_are_refused(login: Login) -> None:
    with pytest.raises(MessageViolation, match="longer"):
        messages.read_request(login.to_pack(b""))


def test_a_login_without_use_encrypt_asks_for_plaintext() -> None:
    login = messages.read_request(without(LOGIN.to_pack(b""), "use_encrypt"))
    assert isinstance(login, Login)
    assert not login.use_encrypt


def test_connections_are_between_1_and_32() -> None:
    for wanted, given_ in ((0, 1), (99, 32)):
        login = messages.read_request(replace(LOGIN, max_connection=wanted).to_pack(b""))
        assert isinstance(login, Login)
        assert login.max_connection == given_


def test_an_unknown_method_is_named() -> None:
    pack = Pack()
    pack.add_str("method", "Farm_Connect")
    assert messages.read_request(pack) == UnknownMethod("farm_connect")
    assert messages.read_request(Pack()) == UnknownMethod("")


def test_an_error_in_place_of_a_hello_is_read() -> None:
    assert messages.read_hello(ErrorAnswer(Code.HUB_IS_BUSY).to_pack(b"")) == ErrorAnswer(Code.HUB_IS_BUSY)
    refusal = ErrorAnswer(Code.AUTH_FAILED).refusal()
    assert (refusal.code, "password" in str(refusal)) == (9, True)
    assert "4711" in str(ErrorAnswer(4711).refusal())


def test_secrets_do_not_show_in_repr() -> None:
    shown = repr([replace(LOGIN, plain_password="geheim"), WELCOME, MORE, REDIRECT])
    for secret in ("geheim", "token", "ssss", "kkkk", "tttt", "hhhh"):
        assert secret not in shown


@given(st.binary(max_size=300))
def test_hostile_packs_give_messages_or_violations(data: bytes) -> None:
    with suppress(PeerViolation):
        pack = Pack.decode(data)
        messages.read_request(pack)
        messages.read_answer(pack)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [((0, 0), (1, 1), 0), ((1, 1), (1, 1), 1), ((2, 1), (1, 1), 1), ((2, 1), (3, 2), 2), ((3, 2), (2, 1), 2)],
)
def test_versions_one_apart_agree(theirs: tuple[int, int], ours: tuple[int, int], expected: int) -> None:
    assert agree(*theirs, peer="hub", our_newest=ours[0], our_oldest=ours[1]) == expected


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ((3, 2), (1, 1), ["hub speaks ukihashi protocol 2 to 3", "this end 1", "upgrade this end"]),
        ((1, 1), (3, 2), ["hub speaks ukihashi protocol 1", "this end 2 to 3", "upgrade the hub"]),
    ],
)
def test_versions_too_far_apart_are_both_named(
    theirs: tuple[int, int], ours: tuple[int, int], words: list[str]
) -> None:
    with pytest.raises(VersionMismatch) as caught:
        agree(*theirs, peer="hub", our_newest=ours[0], our_oldest=ours[1])
    assert [word for word in words if word not in str(caught.value)] == []
