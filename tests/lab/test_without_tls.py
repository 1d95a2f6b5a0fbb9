"""TLS can be taken out of our own programs in the laboratory, and then really nothing is encrypted."""

from pathlib import Path

import pytest
import trustme

from lab.flow import BLOCK, stream
from lab.net import Net
from lab.raw import Wire
from lab.ukihashi import Card, Hub
from lab.without_tls import Bare, switch_off
from ukihashi.net.tls import TlsState, client_context, server_context


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_after_the_handshake_everything_goes_as_it_is_whatever_the_pieces(tmp_path: Path, piece: int) -> None:
    issued = trustme.CA().issue_cert("hub.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    server = Bare(server_context(tmp_path / "cert.pem", tmp_path / "key.pem"), server_side=True)
    client = Bare(client_context(), server_side=False)
    client.start()
    said = {server: b"", client: b""}
    clear = b""

    def carry(source: Bare, sink: Bare) -> bytes:
        data = bytes(source.outgoing())
        source.sent(len(data))
        for start in range(0, len(data), piece):
            said[sink] += sink.receive(data[start : start + piece])
        return data

    for turn in range(6):
        clear += carry(client, server) + carry(server, client)
        if turn == 2:
            assert client.peer_certificate()
            client.send(b"from the client, " * 5000)
            server.send(b"from the server")
    assert said == {server: b"from the client, " * 5000, client: b"from the server"}
    assert b"from the client, from the client" in clear
    client.close()
    assert not client.outgoing()
    server.receive_end()
    assert server.state is TlsState.PEER_CLOSED


@pytest.mark.netns
@pytest.mark.slow
def test_hub_and_card_talk_and_their_line_can_be_read(net: Net) -> None:
    h, a = net.host("h"), net.host("a")
    net.link(h, a)
    hub, card = Hub(h), Card(a)
    switch_off(hub)
    switch_off(card)
    hub.start()
    card.join(hub.invite("ann"))
    own = card.address(4)
    with Wire(a, "to-h") as wire:
        stream(h, a, own, seconds=0.1, least=1 << 20)
        assert BLOCK[:32] in b"".join(wire.frames(seconds=0.2))
