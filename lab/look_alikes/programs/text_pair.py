"""Both ends of a plain text protocol, for a wrapper around it: text_pair.py serve|join ADDRESS PORT."""

import random
import select
import socket
import sys
import threading
import time

role, address, port = sys.argv[1:]


def talk(link: socket.socket) -> None:
    next_words = time.monotonic()
    while True:
        if select.select([link], [], [], 0.2)[0] and not link.recv(65536):
            return
        if time.monotonic() >= next_words:
            next_words = time.monotonic() + random.choice((1.0, 5.0, 5.0, 8.0))
            link.sendall(b"x" * random.randrange(8, 700))


if role == "serve":
    with socket.create_server((address, int(port))) as listener:
        while True:
            threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
else:
    with socket.create_connection((address, int(port))) as joined:
        talk(joined)
