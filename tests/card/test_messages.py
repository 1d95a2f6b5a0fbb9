import msgspec
import pytest

from ukihashi.card.credentials import LARGEST
from ukihashi.card.messages import (
    MAX_MESSAGE,
    AnyMessage,
    Connect,
    End,
    Failed,
    Lost,
    Opened,
    Ready,
    SentOn,
    Sign,
    Signed,
    Standard,
    Terms,
    Trouble,
    decode,
    encode,
)
from ukihashi.errors import DialError, PeerViolation, Refused, UkihashiError, UsageError
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.wire.http import HttpViolation


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        Connect(attempt=3, location="h:443", server_name="h", hub="LAN", user="u", trust="pin", pin=bytes(32)),
        Opened(1, False, "SID-1", bytes(20), 20_000, 1, "TLSv1.3", "X", bytes(32)),
        Failed(2, Trouble.of(UsageError("{a} is wrong", a=1))),
        Connect(
            3, "h:443", "h", "LAN", "u", "pin", standard=Standard(8, monitor=True), terms=Terms(4, compressed=True)
        ),
        Sign(4, bytes(20)),
        Signed(4, bytes(256)),
        SentOn(5, "192.0.2.7", [443, 5555], bytes(20), bytes(32), bytes(32)),
        End(Trouble.of(Refused("over", code=126))),
    ],
)
def test_messages_cross(message: AnyMessage) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xc1", b"\x81\xa4type\xa7Unknown", b"\xff" * 50])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(data)


def test_errors_keep_class_words_and_code() -> None:
    refused = Trouble.of(Refused("no {user}", code=9, user="u")).error()
    assert isinstance(refused, Refused)
    assert (str(refused), refused.code, refused.exit_status) == ("no u", 9, 5)
    dial = Trouble.of(DialError("{address} gone", address="h:1")).error()
    assert (type(dial), str(dial)) == (DialError, "h:1 gone")


def test_a_value_called_code_that_is_not_of_the_wire_is_kept() -> None:
    error = PathRefused(Failure.FORBIDDEN, "the proxy said {code}", code=403)
    assert str(Trouble.of(error).error()) == "the proxy said 403"
    refused = Refused("{code}: no", code=20)
    assert (str(Trouble.of(refused).error()), Trouble.of(refused).values) == (str(refused), {})


def test_an_error_of_one_modules_own_class_travels_as_its_public_one() -> None:
    travelled = Trouble.of(HttpViolation("{n} bytes", status=413, n=5)).error()
    assert type(travelled) is PeerViolation
    assert str(travelled) == "5 bytes"


def test_an_unknown_class_is_still_an_error() -> None:
    assert type(Trouble("NoSuch", "x").error()) is UkihashiError
    assert type(Trouble("Path", "x").error()) is UkihashiError


def test_values_that_cannot_travel_become_text() -> None:
    error = DialError("{problem}", problem=UsageError("inner {x}", x=1))
    lost = decode(encode(Lost(1, Trouble.of(error))))
    assert isinstance(lost, Lost)
    assert str(lost.trouble.error()) == "inner 1"


def test_the_largest_order_fits_one_packet() -> None:
    order = Connect(
        attempt=2**62, location="x" * 260, server_name="x" * 253, hub="x" * 255, user="x" * 255, trust="ca",
        authorities="x" * 100_000, own_certificate=bytes(LARGEST), method="certificate",
    )  # fmt: skip
    assert len(encode(order)) < MAX_MESSAGE
