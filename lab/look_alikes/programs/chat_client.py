"""Two people on one server: chat_client.py irc|xmpp ROOT ADDRESS PORT NAME SECRET."""

import base64
import random
import select
import socket
import ssl
import sys
import time

kind, root, address, port, name, secret = sys.argv[1:]
PING_S = 15.0
DOMAIN = "lab"
OPEN = f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"  # noqa: E501 - one word of the protocol


def sentence() -> str:
    return "x" * random.randrange(5, 200)


def irc(link: socket.socket) -> None:
    link.sendall(f"NICK {name}\r\nUSER {name} 0 * :{name}\r\n".encode())
    wait(link, b" 001 ")
    link.sendall(b"JOIN #lab\r\n")


def xmpp(link: socket.socket) -> None:
    link.sendall(OPEN.encode())
    wait(link, b"</stream:features>")
    word = base64.b64encode(f"\0{name}\0{secret}".encode()).decode()
    link.sendall(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{word}</auth>".encode())
    wait(link, b"<success")
    link.sendall(OPEN.encode())
    wait(link, b"</stream:features>")
    link.sendall(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    wait(link, b"<jid>")
    link.sendall(b"<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>")


def wait(link: socket.socket, word: bytes) -> None:
    seen = b""
    while word not in seen:
        data = link.recv(65536)
        if not data:
            sys.exit(f"closed before {word!r}; came: {seen!r}")
        seen += data


def say(other: str) -> bytes:
    if kind == "irc":
        return f"PRIVMSG #lab :{sentence()}\r\n".encode()
    return f"<message to='{other}@{DOMAIN}' type='chat'><body>{sentence()}</body></message>".encode()


def alive() -> bytes:
    return b"PING :lab\r\n" if kind == "irc" else b"<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"


context = ssl.create_default_context(cafile=root)
context.check_hostname = False
link = context.wrap_socket(socket.create_connection((address, int(port))), server_hostname=DOMAIN)
{"irc": irc, "xmpp": xmpp}[kind](link)
next_ping, next_words = time.monotonic() + PING_S, time.monotonic() + 1
while True:
    if link.pending() or select.select([link], [], [], 0.2)[0]:
        data = link.recv(65536)
        if not data:
            sys.exit("closed")
        if kind == "irc" and data.startswith(b"PING"):
            link.sendall(b"PONG" + data[4:])
    now = time.monotonic()
    if now >= next_words:
        next_words = now + random.expovariate(1 / 7)
        link.sendall(say("hana" if name == "taro" else "taro"))
    if now >= next_ping:
        next_ping = now + PING_S
        link.sendall(alive())
