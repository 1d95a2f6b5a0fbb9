"""The card's data process as a program.

python -m ukihashi.card.data_main CONTROL TAP NAME     (descriptors: socket pair, open TAP; the TAP's name)
"""

import codecs
import gc
import signal
import socket
import sys
from typing import Final

import msgspec

from ukihashi.card.data import DataProcess, ToldToEnd
from ukihashi.card.messages import Lost, Trouble, encode
from ukihashi.errors import EnvironmentLacks
from ukihashi.net.memory import keep_freed
from ukihashi.net.privileges import drop, identity
from ukihashi.net.tls import preload
from ukihashi.tap.device import adopt_tap
from ukihashi.tap.frame_pipe import Cable

# Python looks these up late; without rights their files may be unreadable.
for _codec in ("ascii", "idna", "latin-1", "utf-8"):
    codecs.lookup(_codec)

USER: Final = "ukihashi-card"  # or the number kept for it


def main(arguments: list[str]) -> int:
    """Adopt what the dialler passed, and live."""
    return live(socket.socket(fileno=int(arguments[0])), adopt_tap(int(arguments[1]), arguments[2]))


def live(control: socket.socket, tap: Cable) -> int:
    """Give up all rights, serve. Exit status: 0 told to stop, 1 otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the dialler says when to stop
    signal.signal(signal.SIGTERM, _end)
    keep_freed()
    preload()
    gc.freeze()  # what is there by now stays: the collector need not look at it while frames wait
    try:
        drop(identity(USER))
        DataProcess(control, tap).run()
    except EnvironmentLacks as error:  # rights could not be given up, or the TAP was removed
        control.setblocking(True)
        control.send(encode(Lost(0, Trouble.of(error))))
        return 1
    except msgspec.MsgspecError:
        return 1
    return 0


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise ToldToEnd


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
