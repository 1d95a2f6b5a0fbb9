"""`python -m fuzz.overhear` (root): seeds from what the official programs really say, written to `fuzz/seeds/TARGET/`.

    near (vpnclient, vpnserver cascade, vpncmd) --- f (TLS ends here, and begins anew) --- far (our hub)

What names this machine is replaced; of the signature's 1411 bytes, which are not ours to keep, only the first six stay.
"""

import contextlib
import select
import socket
import ssl
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

import trustme

from fuzz.targets import SEEDS
from lab import peers
from lab.ends import OfficialClient, OurHub, RealCascade
from lab.matrix import Variant
from lab.net import Host, Net
from lab.wait import pause, until
from ukihashi.errors import PeerViolation
from ukihashi.net.tls import TlsChannel, TlsState, client_context
from ukihashi.wire.http import Request, ServerSide, is_pack, is_signature
from ukihashi.wire.pack import Pack

PIECE: Final = 1 << 16
STREAM: Final = 3000  # bytes of a block stream that are kept
PRIVATE: Final = frozenset(
    name.casefold() for name in ("ClientHostname", "unique_id", "UniqueId", "ClientOsProductId", "ServerHostname")
)
WAYS: Final = (
    Variant("one", ""),
    Variant("half", "", connections=4, half=True),
    Variant("compressed", "", compress=True),
    Variant("udp", "", udp=True),
    Variant("certificate", "", certificate=True),
)


class Ear:
    """A relay on `host` that ends TLS; keeps what the near side says on each connection, in the clear."""

    def __init__(self, host: Host, port: int, target: tuple[str, int]) -> None:
        self.said: Final[list[bytearray]] = []
        self._target, self._host = target, host
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        authority.issue_cert("hub.example", key_type=trustme.KeyType.RSA).configure_cert(self._context)
        self._context.num_tickets = 0
        with host.inside():
            self._listener = socket.create_server((host.ipv4, port))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No more connections."""
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        """One thread for both directions: TLS objects are not for two at once."""
        said = bytearray()
        with self._host.inside():
            far = socket.create_connection(self._target)
        inner = _Side(near, TlsChannel(self._context, server_side=True))
        outer = _Side(far, TlsChannel(client_context(), server_side=False))
        with contextlib.suppress(OSError, PeerViolation):
            while not (inner.ended or outer.ended):
                select.select([near, far], [], [])
                said += outer.take(inner)
                inner.take(outer)
        for side in (inner, outer):
            with contextlib.suppress(OSError):
                side.close()
        if said:
            self.said.append(said)


class _Side:
    """One of the two connections."""

    def __init__(self, sock: socket.socket, tls: TlsChannel) -> None:
        self.sock, self.tls, self.ended = sock, tls, False
        tls.start()
        self._flush()

    def take(self, other: "_Side") -> bytes:
        """What the other side has said, if it has: said on here."""
        if not select.select([other.sock], [], [], 0)[0]:
            return b""
        data = other.sock.recv(PIECE)
        plain = other.tls.receive(data) if data else b""
        other.ended = not data or other.tls.state is TlsState.PEER_CLOSED
        other._flush()  # noqa: SLF001 - its handshake's answer
        if plain:
            while self.tls.state is TlsState.HANDSHAKING:
                self.tls.receive(self.sock.recv(PIECE))
                self._flush()
            self.tls.send(plain)
            self._flush()
        return plain

    def close(self) -> None:
        """With close_notify: trap T1 of the protocol page."""
        self.tls.close()
        self._flush()
        self.sock.close()

    def _flush(self) -> None:
        while data := self.tls.outgoing():
            self.sock.sendall(data)
            self.tls.sent(len(data))


def overheard(variant: Variant) -> list[bytes]:
    """What the official client and the official server's cascade say to our hub, a connection each."""
    found: list[bytes] = []
    for kind in (OfficialClient, RealCascade):
        with Net() as net:
            near, f, far = net.host("near"), net.host("f"), net.host("far")
            net.link(f, near)
            net.link(far, f)
            hub = OurHub(far, variant)
            hub.start()
            ear = Ear(f, hub.port, (far.ipv4, hub.port))
            end = kind(near, variant, hub.free_address())
            end.start()
            end.join(replace(hub.login(), address=f.ipv4))
            near.ask(["ping", "-n", "-c", "3", hub.inside.partition("/")[0]])
            pause(1.5 + variant.connections)
            end.leave()
            ear.close()
            print(f"{kind.__name__}, {variant.name}: {len(ear.said)} connections")
            found += map(bytes, ear.said)
    return found


def commands() -> list[bytes]:
    """What vpncmd says to our hub."""
    with Net() as net:
        near, f, far = net.host("near"), net.host("f"), net.host("far")
        net.link(f, near)
        net.link(far, f)
        hub = OurHub(far, WAYS[0])
        hub.start()
        row = hub.program.tell("tools_on")[0]
        ear = Ear(f, hub.port, (far.ipv4, hub.port))
        words = ["vpncmd", f"{f.ipv4}:{hub.port}", "/SERVER", f"/PASSWORD:{row['password']}", "/CMD"]
        for command in (["HubList"], ["Hub", hub.hub], ["ServerStatusGet"]):
            near.ask([*words, *command])
        until(lambda: len(ear.said) >= 3, seconds=20, what="three talks")
        ear.close()
        return list(map(bytes, ear.said))


def seeds(talk: bytes) -> list[tuple[str, bytes]]:
    """(target, input) for the fuzzer from one connection's bytes."""
    server, found, request_bytes = ServerSide(), list[tuple[str, bytes]](), bytearray()
    method = ""
    with contextlib.suppress(PeerViolation):
        for request in _requests(server, talk):
            body = request.body
            if is_pack(request):
                pack = clean(Pack.decode(body))
                method, body = pack.get_str("method"), pack.encode()
                found.append(("pack", body))
            elif is_signature(request):
                body = (body[:6] + bytes(len(body) - 6)) if len(body) > 10 else body
            head = f"{request.method} {request.target} HTTP/1.1\r\nHost: hub\r\nContent-Length: {len(body)}\r\n\r\n"
            request_bytes += head.encode() + body
    rest = server.take_over()
    if request_bytes:
        found.append(("http_server", b"\x32" + bytes(request_bytes)))
    if rest and method in ("login", "additional_connect"):
        found.append(("blocks", b"\x07" + rest[:STREAM]))
    return found


def _requests(server: ServerSide, talk: bytes) -> list[Request]:
    """All requests of a talk, up to the one behind which the tunnel begins."""
    requests = server.receive(talk)
    found: list[Request] = []
    while requests:
        found += requests
        if is_pack(requests[0]) and Pack.decode(requests[0].body).get_str("method") != "":
            break
        server.respond(200, (), b"x")
        requests = server.receive(b"")
    return found


def clean(pack: Pack) -> Pack:
    """The same without what names this machine, and with little of the random filling."""
    copy = Pack()
    for element in pack:
        private = element.name.casefold() in PRIVATE
        values = [_harmless(value, private=private, filling=element.name == "pencore") for value in element.values]
        getattr(copy, f"add_{element.type.name.lower()}")(element.name, *values)
    return copy


def _harmless(value: int | bytes | str, *, private: bool, filling: bool) -> int | bytes | str:
    if isinstance(value, bytes):
        return bytes(len(value)) if private else value[:16] if filling else value
    return "host" if private and isinstance(value, str) else value


def main() -> int:
    """Overhear all, write the files."""
    talks = [(variant.name, talk) for variant in WAYS for talk in overheard(variant)]
    talks += [("vpncmd", talk) for talk in commands()]
    seen: set[tuple[str, int]] = set()
    for name, talk in talks:
        for target, data in seeds(talk):
            shape = target, len(data) // 64
            if shape in seen:
                continue
            seen.add(shape)
            path = Path(SEEDS) / target / f"{name}-{len(seen):02}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(path, len(data))
    return 0 if seen else 1


if __name__ == "__main__":
    if peers.missing("vpnserver", "vpnclient"):
        sys.exit("the official programs are missing")
    sys.exit(main())
