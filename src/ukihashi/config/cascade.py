"""What a hub's control process and the process that holds one of its cascades tell each other: SEQPACKET, MessagePack.

    control  -- Begin -->  cascade  -- Standing, at each change -->  control

The cascade's process has no file and no name for its secrets but this.
"""

from typing import Any, Final

import msgspec

from ukihashi.config.card import CardConfig

MAX_MESSAGE: Final = 128 * 1024  # bytes


class Begin(msgspec.Struct, tag=True, frozen=True):
    """Join, with this. Said again to one that has joined, it only asks for its `Standing`."""

    name: str  # "HUB/CASCADE", for its log
    account: CardConfig
    files: dict[str, str]  # by option: what is in the file that it names
    ids: bytes  # 36 bytes that other hubs know it by, the same for ever
    password_hash: bytes = b""  # 20 bytes, standard form, in place of the account's password


class Standing(msgspec.Struct, tag=True, frozen=True):
    """How it stands: part of what `card status` shows, as plain values."""

    up: bool  # frames are taken: a session carries them, or will go on from the very record
    row: dict[str, Any]


encode: Final = msgspec.msgpack.Encoder().encode
decode_begin: Final = msgspec.msgpack.Decoder(Begin).decode
decode_standing: Final = msgspec.msgpack.Decoder(Standing).decode
