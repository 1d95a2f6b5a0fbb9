"""Streams of one HTTP/2 connection with keep-alive pings, as gRPC has them: grpc_like.py serve|join PEM ADDRESS PORT

Needs the library h2 (Debian package python3-h2).
"""

import os
import random
import select
import socket
import ssl
import struct
import sys
import threading
import time

import h2.config  # type: ignore[import-not-found]
import h2.connection  # type: ignore[import-not-found]
import h2.events  # type: ignore[import-not-found]

role, pem, address, port = sys.argv[1:]
PING_S = 10.0


def message(size: int) -> bytes:
    """A gRPC message: flag, length, body."""
    return struct.pack("!BI", 0, size) + os.urandom(size)


def talk(sock: ssl.SSLSocket, client: bool) -> None:
    link = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client))
    link.initiate_connection()
    sock.sendall(link.data_to_send())
    streams: list[int] = []
    next_ping, next_words = time.monotonic() + PING_S, time.monotonic() + 0.2
    while True:
        sock.settimeout(None)
        if not sock.pending() and not select.select([sock], [], [], 0.05)[0]:
            now = time.monotonic()
            if now >= next_ping:
                next_ping = now + PING_S
                link.ping(os.urandom(8))
            if now >= next_words:
                next_words = now + random.uniform(0.5, 9)
                if client and len(streams) < 4:
                    stream = link.get_next_available_stream_id()
                    link.send_headers(
                        stream,
                        [(":method", "POST"), (":scheme", "https"), (":authority", address), (":path", "/lab.S/Watch"),
                         ("content-type", "application/grpc"), ("te", "trailers"), ("authorization", "b" * 600)],
                    )  # fmt: skip
                    streams.append(stream)
                if streams:
                    link.send_data(random.choice(streams), message(random.randrange(8, 600)))
            if data := link.data_to_send():
                sock.sendall(data)
            continue
        data = sock.recv(65536)
        if not data:
            return
        for event in link.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                streams.append(event.stream_id)
                link.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
            elif isinstance(event, h2.events.DataReceived):
                link.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if not client:
                    link.send_data(event.stream_id, message(random.randrange(8, 900)))
        if data := link.data_to_send():
            sock.sendall(data)


if role == "serve":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["h2"])
    with socket.create_server((address, int(port))) as listener:
        while True:
            accepted, _ = listener.accept()
            wrapped = context.wrap_socket(accepted, server_side=True)
            threading.Thread(target=talk, args=(wrapped, False), daemon=True).start()
else:
    context = ssl.create_default_context(cafile=pem)
    context.set_alpn_protocols(["h2"])
    talk(context.wrap_socket(socket.create_connection((address, int(port))), server_hostname=address), True)
