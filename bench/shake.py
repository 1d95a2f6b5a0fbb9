"""TLS handshakes, one behind the other, each ended in good order: `python -m bench.shake ADDRESS PORT SECONDS PER_S`.

PER_S 0: as fast as it goes. Prints one JSON line.
"""

import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

PATIENCE_S: Final = 5.0


class Shaken(NamedTuple):
    """What came of them."""

    done: int
    refused: int
    seconds: float


def shake(
    one: Callable[[], bool],
    seconds: float,
    per_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Shaken:
    """Do `one`, which says whether it came about, again and again: at equal distances, or without a pause."""
    begin, done, refused = clock(), 0, 0
    while clock() - begin < seconds:
        if one():
            done += 1
        else:
            refused += 1
        if per_s:
            sleep(max(0.0, begin + (done + refused) / per_s - clock()))
    return Shaken(done, refused, clock() - begin)


def main(words: list[str]) -> int:
    """See the top."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (words[0], int(words[1]))

    def one() -> bool:
        with suppress(OSError), socket.create_connection(address, PATIENCE_S) as sock:
            sock.settimeout(PATIENCE_S)
            with context.wrap_socket(sock) as channel:
                with suppress(OSError):  # the other end may hang up without its own goodbye
                    channel.unwrap()
                return True
        return False

    print(json.dumps(shake(one, float(words[2]), float(words[3]))._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
