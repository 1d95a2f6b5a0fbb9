"""PACK and the messages in it."""

from contextlib import suppress

from fuzz.targets import overheard, vectors
from ukihashi.errors import PeerViolation
from ukihashi.wire import messages, methods
from ukihashi.wire.constants import MAX_REQUEST_PACK
from ukihashi.wire.pack import Pack

ALLOWED = (PeerViolation,)
TOKENS = [
    b"\0\0\0\1",
    b"\xff\xff\xff\xff",
    b"ukihashi_version",
    b"ukihashi_have",
    b"ukihashi_attempt",
    b"policy:",
    b"@ipv6_bool",
    b"Redirect",
    b"noop",
    b"error",
]


def seeds() -> list[bytes]:
    """The captured packs, and ours."""
    ours = [
        messages.Login("LAN", "alice", 1, b"s" * 20, extension=1, extension_oldest=1, invite_token="t").to_pack(b"x"),
        methods.PasswordChange("LAN", "alice", b"o" * 20, b"n" * 20).to_pack(b""),
        methods.AdminLogin("", b"s" * 20, "tool").to_pack(b""),
        methods.EnumHub().to_pack(b""),
        messages.Welcome("SID-1", "CID-1", b"k" * 20, policy={"Access": 1}, extension=1).to_pack(b""),
    ]
    captured = [bytes.fromhex(vector["pack_hex"]) for vector in vectors() if vector["kind"] == "pack"]
    resumes = [bytes.fromhex(vector["hex"]) for vector in vectors("extension") if vector["kind"] == "message"]
    return [*captured, *overheard("pack"), *resumes, *(pack.encode() for pack in ours)]


def run(data: bytes) -> object:
    """A PACK that is taken survives another round, and every reader of messages copes with it."""
    pack = Pack.decode(data, max_bytes=MAX_REQUEST_PACK)
    assert Pack.decode(pack.encode(), max_bytes=2 * MAX_REQUEST_PACK) == pack
    kinds = [frozenset(element.type for element in pack)]
    read = (messages.read_request, messages.read_answer, messages.read_hello, messages.read_additional_answer)
    told = []
    for reader in read:
        with suppress(PeerViolation):
            message = reader(pack)
            repr(message)
            told.append(type(message).__name__)
    return min(len(pack), 8), *kinds, tuple(told)
