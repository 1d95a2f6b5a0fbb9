"""Our own programs with TLS taken out behind its handshake; what they carry less with TLS is what TLS costs (A10).

    hub, card = Hub(h), Card(a)
    switch_off(hub)
    switch_off(card)                   # both, or neither understands the other

A laboratory's switch that no option of the product can reach, and for namespaces only. Handshake, certificate and key
are as always; from then on everything takes the very same way, and is written as it is.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Final

from lab.ukihashi import Card, Hub
from ukihashi.net import tls
from ukihashi.net.clear import cut_records
from ukihashi.net.tls import TlsChannel, TlsState

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = "UKIHASHI_LAB_PYTHON"  # what our programs start each other by


class Bare(TlsChannel):
    """A channel that encrypts nothing but its handshake."""

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Record by record while it shakes hands: what follows the last one is no TLS any more."""
        if self.state is not TlsState.HANDSHAKING:
            return bytes(data) if self.state is TlsState.OPEN else b""
        whole = vars(self).setdefault("_records", bytearray())
        whole += data
        for record in cut_records(whole):
            super().receive(record)
            if self.state is not TlsState.HANDSHAKING:
                rest = bytes(whole)
                whole.clear()
                return rest
        return b""

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Behind what the handshake left to be sent."""
        self._encrypted.write(data)

    def close(self) -> None:
        """TCP's end is the end."""
        self._closing = True


def switch_off(installation: Hub | Card) -> None:
    """Let what is started from now on of this hub or card do without TLS."""
    program = installation.folder / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lab.without_tls "$@"\n')
    program.chmod(0o755)
    installation.env |= {PYTHON: str(program), "PYTHONPATH": str(ROOT), tls.SWITCH: "ssl"}
    installation.python = str(program)


def main(words: list[str]) -> None:
    """`[-P] -m MODULE WORDS`: as Python does, with the channel of this file in place of TLS's."""
    module, *rest = words[words.index("-m") + 1 :]
    sys.executable = os.environ[PYTHON]
    tls.TlsChannel = Bare  # type: ignore[misc]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
