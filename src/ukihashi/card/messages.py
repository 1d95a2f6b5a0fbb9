"""What the card's two processes tell each other (docs/architecture.md, "Card"). Values only.

    dialler (CAP_NET_ADMIN)  <-- SEQPACKET socket pair + passed descriptors -->  data (no rights)

The data process parses what strangers send, so the dialler trusts its messages for their shape only: the worst a broken
one can do is to end its own session. Bytes travel as MessagePack, one message a packet.
"""

from typing import Any, Final, Literal

import msgspec

from ukihashi import errors
from ukihashi.errors import UkihashiError

MAX_MESSAGE: Final = 128 * 1024  # bytes of one message; a socket pair's packet may be that long


class Message(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    """Base: the class name travels as the tag."""


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on its way to another process."""

    kind: str  # class name in `ukihashi.errors`
    template: str
    values: dict[str, Any] = {}
    code: int = 0  # of the wire, for `Refused`

    @classmethod
    def of(cls, error: UkihashiError) -> "Trouble":
        """Pack an error; a subclass that only its module knows travels as its nearest public class."""
        kind = next(base.__name__ for base in type(error).__mro__ if vars(errors).get(base.__name__) is base)
        values = {
            name: value if isinstance(value, int | float | str) else str(value)
            for name, value in error.values.items()
            if name != "code"
        }
        return cls(kind, error.template, values, int(getattr(error, "code", 0)))

    def error(self) -> UkihashiError:
        """The error again."""
        kind = vars(errors).get(self.kind)
        if kind is errors.Refused:
            return errors.Refused(self.template, code=self.code, **self.values)
        if not (isinstance(kind, type) and issubclass(kind, UkihashiError)):
            kind = UkihashiError
        return kind(self.template, **self.values)


# -- dialler to data ----------------------------------------------------------------------------------------------


class Connect(Message, frozen=True):
    """Open a session, or resume one, over the attached descriptor. `Opened` or `Failed` follows within `deadline`."""

    attempt: int  # named in every answer, so that one for an attempt given up is told apart
    location: str  # "host:port" as dialled, for sentences and the Host header
    server_name: str  # for SNI and, with a CA, to be found in the certificate
    hub: str
    user: str
    trust: Literal["pin", "ca", "first-use"]
    pin: bytes = b""  # 32 bytes; first-use without one: the key is accepted and told
    authorities: str = ""  # PEM; mode "ca" without it: the system's
    method: Literal["password", "plain", "anonymous"] = "password"
    password_hash: bytes = b""  # method "password": SHA-0 form, 20 bytes
    password: str = ""  # method "plain"
    invite: str = ""
    session_key: bytes = b""  # resume this session instead of logging in
    timeout_ms: int = 20_000  # resume: what its welcome said
    extension: int = 0  # resume: what its welcome said
    unique_id: bytes = b""  # 20 bytes
    node_id: bytes = b""  # 16 bytes
    host_name: str = ""
    system: str = ""
    deadline: float = 15.0  # seconds for TLS and login together
    keepalive: float = 5.0  # seconds of silence, between two ukihashi ends
    dead: float = 15.0  # seconds of silence, between two ukihashi ends
    ciphers: list[str] = []  # picked by hand; [] = modern ones


class Disconnect(Message, frozen=True):
    """Close the link in good order, or give the attempt up. No answer."""


class Ask(Message, frozen=True):
    """Tell the counters: answered by `Counters`."""


class Stop(Message, frozen=True):
    """Close the link in good order and exit."""


# -- data to dialler ----------------------------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """The data process has given up its rights and waits."""


class Opened(Message, frozen=True):
    """Frames flow."""

    attempt: int
    resumed: bool
    session: str  # SID-USER-n
    session_key: bytes
    timeout_ms: int
    extension: int  # ukihashi version in use, 0 = a standard peer
    tls: str  # "TLSv1.3"
    cipher: str
    pin: bytes  # 32 bytes, of the key that the hub showed
    product: str = ""  # the hub's own words
    banner: str = ""  # for the user


class Failed(Message, frozen=True):
    """The attempt came to nothing."""

    attempt: int
    trouble: Trouble


class Lost(Message, frozen=True):
    """The link of an open session is gone."""

    attempt: int
    trouble: Trouble


class Counters(Message, frozen=True):
    """Since the data process started. Frames and bytes are of Ethernet frames, seen from this machine."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    tls_writes: int = 0  # that carried frames
    frames_written: int = 0  # inside them
    keepalives_in: int = 0
    keepalives_out: int = 0
    refused: int = 0  # frames from the hub that the kernel would not take
    oversized: int = 0  # frames from this machine, or from the hub, longer than the protocol carries
    backlog: int = 0  # bytes that wait for the network now


AnyMessage = Connect | Disconnect | Ask | Stop | Ready | Opened | Failed | Lost | Counters

encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(AnyMessage)


def decode(data: bytes) -> AnyMessage:
    """One message; raises `msgspec.DecodeError` or `msgspec.ValidationError` for anything else."""
    message: AnyMessage = _decoder.decode(data)
    return message
