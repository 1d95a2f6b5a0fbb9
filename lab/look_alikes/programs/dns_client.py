"""Asks a DNS server over one TLS connection (RFC 7858) at random: dns_client.py ROOT ADDRESS."""

import random
import socket
import ssl
import struct
import sys
import time

root, address = sys.argv[1:]
link = ssl.create_default_context(cafile=root).wrap_socket(
    socket.create_connection((address, 853)), server_hostname=address
)
while True:
    for _ in range(random.randrange(1, 5)):
        label = b"n%d" % random.randrange(50)
        name = bytes([len(label)]) + label + b"\3lab\0"
        asked = struct.pack("!6H", random.randrange(1 << 16), 0x0100, 1, 0, 0, 1) + name + struct.pack("!2H", 1, 1)
        fill = -(len(asked) + 15) % 128
        asked += b"\0" + struct.pack("!HHIHHH", 41, 1232, 0, 4 + fill, 12, fill) + bytes(fill)  # padded, RFC 8467
        link.sendall(struct.pack("!H", len(asked)) + asked)
        link.recv(4096)
    time.sleep(random.expovariate(1 / 4))
