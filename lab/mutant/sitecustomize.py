"""Read by the interpreter at its start where PYTHONPATH names this folder: our programs with other numbers.

Only benches of the detector use it, to see what changed builds would escape. UKIHASHI_MUTANT says which change.
"""

import os
from typing import Any


def _padding(most: int) -> None:
    from ukihashi.wire import constants

    constants.MAX_PENCORE = most  # type: ignore[misc]


def _acknowledge_after(seconds: float) -> None:
    from ukihashi.session import machine

    machine.ACK_S = seconds  # type: ignore[misc]


def _named() -> None:
    """A server name and ALPN in the client hello, as browsers have them."""
    import ssl

    from ukihashi.net import tls_fast

    begin = ssl.SSLContext.wrap_bio

    def wrap_bio(self: ssl.SSLContext, *words: Any, **named: Any) -> Any:
        if not words[2:] and not named.get("server_side"):
            self.set_alpn_protocols(["h2", "http/1.1"])
            named["server_hostname"] = named.get("server_hostname") or "www.example.com"
        return begin(self, *words, **named)

    ssl.SSLContext.wrap_bio = wrap_bio  # type: ignore[method-assign]
    for kind in vars(tls_fast).values():
        if isinstance(kind, type) and "channel" in vars(kind):
            _give_name(kind)


def _give_name(kind: Any) -> None:
    channel = kind.channel
    kind.channel = lambda self, name: channel(self, name or "www.example.com")


def _in_halves() -> None:
    """Two TLS records for each write."""
    from ukihashi.net import tls, tls_fast

    for kind in (tls.TlsChannel, tls_fast.FastChannel):
        _halve(kind)


def _halve(kind: Any) -> None:
    send = kind.send

    def halves(self: Any, data: Any) -> None:
        middle = len(data) // 2
        send(self, data[:middle])
        send(self, data[middle:])

    kind.send = halves


MUTANTS = {
    "no padding": lambda: _padding(0),
    "padding to 4999": lambda: _padding(4999),
    "acknowledges after 0.4 s": lambda: _acknowledge_after(0.4),
    "acknowledges after 3 s": lambda: _acknowledge_after(3.0),
    "server name and ALPN": _named,
    "records in halves": _in_halves,
}
if os.environ.get("UKIHASHI_MUTANT"):
    MUTANTS[os.environ["UKIHASHI_MUTANT"]]()
