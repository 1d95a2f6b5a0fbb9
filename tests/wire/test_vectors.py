"""Every vector of softether-vectors.json goes through our code."""

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

import pytest

from ukihashi.auth.certificate import Shown, Trust, Wanted, refusal
from ukihashi.auth.password import admin_hash, check_secure_password, hash_password, secure_password, sha0
from ukihashi.wire import messages
from ukihashi.wire.blocks import BlockDecoder, compress, decompress, encode_frames, encode_keepalive
from ukihashi.wire.constants import BLOB_LENGTH, BLOB_MAGIC, PROBE_TAG, SHORT_SIGNATURE
from ukihashi.wire.http import ClientSide, ServerSide, is_pack, is_signature, read_pack, signature_request
from ukihashi.wire.pack import Pack, swapped
from ukihashi.wire.rpc_structs import TEST
from ukihashi.wire.udp import USED_KEY, UdpCodec, UdpEnd

Vector = dict[str, Any]
VECTORS: Final[list[Vector]] = json.loads((Path(__file__).parent / "softether-vectors.json").read_text())["vectors"]
TOTAL: Final = 41


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def check_sha0(vector: Vector) -> None:
    if "input_repeat" in vector:
        byte, times = vector["input_repeat"]
        data = unhex(byte) * times
    else:
        data = unhex(vector["input_hex"])
    assert sha0(data).hex() == vector["digest_hex"]


def check_password_hash(vector: Vector) -> None:
    assert hash_password(vector["username"], vector["password"]).hex() == vector["digest_hex"]
    assert sha0(vector["preimage_utf8"].encode()).hex() == vector["digest_hex"]


def check_admin_hash(vector: Vector) -> None:
    assert admin_hash(vector["password"]).hex() == vector["digest_hex"]


def check_secure(vector: Vector) -> None:
    hashed, challenge = unhex(vector["hashed_hex"]), unhex(vector["random_hex"])
    answer = unhex(vector["secure_password_hex"])
    assert hash_password(vector["username"], vector["password"]) == hashed
    assert secure_password(hashed, challenge) == answer
    assert check_secure_password(hashed, challenge, answer)


def check_pack(vector: Vector) -> None:
    data = unhex(vector["pack_hex"])
    pack = Pack.decode(data)
    assert pack.encode() == data
    assert [element.name for element in pack] == [wanted["name"] for wanted in vector["elements"]]
    for element, wanted in zip(pack, vector["elements"], strict=True):
        assert element.type.name == wanted["type"]
        values = [value.hex() if isinstance(value, bytes) else value for value in element.values]
        if "values_len" in wanted:
            assert [len(value) for value in element.values if isinstance(value, bytes)] == wanted["values_len"]
        else:
            assert values == wanted["values"]
    check_meaning(vector["id"], pack)


def check_meaning(name: str, pack: Pack) -> None:
    """What each captured message says, read by our messages."""
    key_length = 20
    if name == "pack-hello":
        hello = messages.read_hello(pack)
        assert isinstance(hello, messages.Hello)
        assert (hello.version, hello.build, hello.random[:2].hex()) == (501, 9674, "4347")
    elif name == "pack-login-python":
        login = messages.read_request(pack)
        assert isinstance(login, messages.Login)
        assert (login.hub, login.user, login.authtype, login.max_connection) == ("TEST", "alice", 1, 2)
        assert login.use_encrypt
        assert not login.extension
    elif name == "pack-login-real-client":
        login = messages.read_request(pack)
        assert isinstance(login, messages.Login)
        assert (login.client_version, login.client_build) == (501, 9674)
        assert login.use_encrypt
        assert len(login.node.unique_id) == 16
        assert swapped(pack.get_int("ClientProductVer")) == 501
        assert pack.get_ip("ClientIpAddress") == IPv4Address("10.77.0.2")
    elif name == "pack-welcome":
        welcome = messages.read_answer(pack)
        assert isinstance(welcome, messages.Welcome)
        assert len(welcome.session_key) == key_length
        assert (welcome.connection_name, welcome.timeout_ms, welcome.policy["Access"]) == ("CID-140", 20000, 1)
    elif name == "pack-error-hub-not-found":
        answer = messages.read_answer(pack)
        assert answer == messages.ErrorAnswer(8)
    elif name == "pack-noop-response":
        assert messages.read_answer(pack) == messages.Noop(1)
    elif name in ("pack-additional-connect-request", "pack-additional-connect-real-client"):
        more = messages.read_request(pack)
        assert isinstance(more, messages.AdditionalConnect)
        assert (len(more.session_key), more.client_build) == (key_length, 9674)
    elif name == "pack-additional-connect-response":
        assert isinstance(messages.read_additional_answer(pack), messages.AdditionalAnswer)
    elif name == "pack-redirect":
        redirect = messages.read_answer(pack)
        assert isinstance(redirect, messages.Redirect)
        assert (str(redirect.ip), redirect.ports, len(redirect.ticket)) == ("10.77.0.3", (4434,), key_length)


def check_ip(vector: Vector) -> None:
    pack = Pack()
    pack.add_ip("X", IPv4Address(vector["ip"]))
    assert pack.get_int("X") == vector["int_value"]
    assert unhex(vector["wire_hex"]) in pack.encode()
    bare = Pack()
    bare.add_int("X", vector["int_value"])
    assert bare.get_ip("x") == IPv4Address(vector["ip"])


def check_swapped(vector: Vector) -> None:
    assert swapped(vector["plain"]) == vector["int_value"]
    assert swapped(vector["int_value"]) == vector["plain"]
    assert vector["int_value"].to_bytes(4, "big").hex() == vector["wire_hex"]


def check_http(vector: Vector) -> None:
    server, head = ServerSide(), vector["request_head"].encode()
    if vector["id"] == "signature-short-body":
        (request,) = server.receive(head + unhex(vector["body_hex"]))
        assert request.body == SHORT_SIGNATURE
        assert is_signature(request)
        assert head.count(b"\r\n") == signature_request(ClientSide("10.77.0.1")).count(b"\r\n")
    elif vector["id"] == "signature-real-client":
        assert vector["body_fixed_prefix_len"] == BLOB_LENGTH
        start = unhex(vector["body_first16_hex"])
        assert start.startswith(BLOB_MAGIC)
        (request,) = server.receive(head + start.ljust(2284, b"\0"))
        assert is_signature(request)
        assert hashlib.sha256().digest_size * 2 == len(vector["body_fixed_prefix_sha256"])
    else:
        (request,) = server.receive(head)
        assert (request.method, request.target, request.header(b"x-vpn")) == ("GET", "/", b"1")
        assert not is_signature(request)
        client = ClientSide("10.77.0.3")
        client.request("GET", "/")
        response = client.receive(vector["accepted_reply"].encode())
        assert response is not None
        assert PROBE_TAG in response.body.upper()
        assert read_pack(response) is None
    assert not is_pack(request)


def check_tunnel(vector: Vector) -> None:
    stream, decoder = unhex(vector["stream_hex"]), BlockDecoder()
    frames = decoder.feed(stream)
    if "keepalive_payload_hex" in vector:
        assert (frames, decoder.keepalives) == ([], 1)
        assert encode_keepalive(unhex(vector["keepalive_payload_hex"])) == stream
    else:
        assert [frame.hex() for frame in frames] == vector["blocks_hex"]
        assert encode_frames(frames) == stream


def check_compressed_tunnel(vector: Vector) -> None:
    plain = [decompress(block) for block in BlockDecoder().feed(unhex(vector["stream_hex"]))]
    assert plain == [unhex(block) for block in vector["blocks_hex"]]
    assert [decompress(compress(frame)) for frame in plain if frame] == plain


def check_zlib_block(vector: Vector) -> None:
    assert decompress(unhex(vector["block_hex"])) == unhex(vector["plain_hex"])


def check_rpc(vector: Vector) -> None:
    packs = []
    for side in ("request_hex", "response_hex"):
        data = unhex(vector[side])
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        packs.append(Pack.decode(data[4:]))
        assert packs[-1].encode() == data[4:]
    assert packs[0].get_str("FUNCTION_NAME") == "Test"
    assert (packs[1].get_int("intvalue"), packs[1].get_str("StrValue"), packs[1].get_unistr("UniStrValue")) == (
        42,
        "42",
        "",
    )


def check_udp(vector: Vector) -> None:
    key = next(unhex(vector[name]) for name in ("server_key_hex", "client_key_hex") if name in vector)
    packet, cookie = unhex(vector["packet_hex"]), vector.get("cookie") or vector["fields"]["cookie"]
    known = vector["version"] == 2 or not vector["encrypted"]  # plain datagrams have no version
    end = UdpEnd(bytes(USED_KEY), key.ljust(USED_KEY, b"\0"), cookie, 1, vector["encrypted"], fast=False)
    receiver = UdpCodec(end, ip_version=4, first_iv=bytes(12))
    came = receiver.decode(packet)
    if not known:
        assert came is None  # RC4 is not taken
        return
    assert came is not None
    fields = vector.get("fields", {"sender_tick": came.tick, "echo_tick": came.echo, "size": 0, "flag": 0})
    assert (came.tick, came.echo, len(came.frame), came.flag) == tuple(
        fields[name] for name in ("sender_tick", "echo_tick", "size", "flag")
    )


def check_certificate(vector: Vector) -> None:
    certificate, challenge = unhex(vector["cert_der_hex"]), unhex(vector["random_hex"])
    inside = dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp()
    for asked, proves in ((challenge, True), (challenge[::-1], False)):
        shown = Shown(certificate, unhex(vector["sign_hex"]), asked)
        assert (refusal(shown, Wanted(certificate=certificate), Trust(), inside) == "") is proves


def check_jsonrpc(vector: Vector) -> None:
    values = TEST.from_json(vector["request"]["params"])
    assert vector["request"]["method"] == "Test"
    assert TEST.to_json(values | {"StrValue": str(values["IntValue"])}) == vector["response"]["result"]


CHECKS: Final[dict[str, Callable[[Vector], None]]] = {
    "sha0": check_sha0,
    "password_hash": check_password_hash,
    "admin_password_hash": check_admin_hash,
    "secure_password": check_secure,
    "pack": check_pack,
    "ip_int": check_ip,
    "swapped_int": check_swapped,
    "http": check_http,
    "tunnel": check_tunnel,
    "tunnel_compressed": check_compressed_tunnel,
    "zlib_block": check_zlib_block,
    "rpc": check_rpc,
    "udp_accel": check_udp,
    "cert_auth": check_certificate,
    "jsonrpc": check_jsonrpc,
}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_vector(vector: Vector) -> None:
    CHECKS[vector["kind"]](vector)


def test_every_vector_is_there_once() -> None:
    ids = [vector["id"] for vector in VECTORS]
    assert len(set(ids)) == len(ids) == TOTAL
