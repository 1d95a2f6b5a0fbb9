"""Waits for mail with IMAP IDLE while another connection brings some: imap_client.py ROOT ADDRESS USER SECRET."""

import imaplib
import random
import ssl
import sys
import threading
import time

root, address, user, secret = sys.argv[1:]
IDLE_S = 29.0  # before it is renewed


def login() -> imaplib.IMAP4_SSL:
    link = imaplib.IMAP4_SSL(address, 993, ssl_context=ssl.create_default_context(cafile=root))
    link.login(user, secret)
    return link


def bring() -> None:
    """Mail that arrives, over a connection of its own each time."""
    while True:
        time.sleep(random.uniform(4, 14))
        link = login()
        body = b"Subject: news\r\n\r\n" + b"words " * random.randrange(20, 900)
        link.append("INBOX", "", imaplib.Time2Internaldate(time.time()), body)
        link.logout()


def idle(link: imaplib.IMAP4_SSL) -> None:
    """One round; the library knows no IDLE."""
    link.send(b"A1 IDLE\r\n")
    link.sock.settimeout(IDLE_S)
    try:
        while b"EXISTS" not in link.readline():
            pass
    except TimeoutError:
        pass
    link.sock.settimeout(60)
    link.send(b"DONE\r\n")
    while not link.readline().startswith(b"A1 "):
        pass


link = login()
link.select("INBOX")
threading.Thread(target=bring, daemon=True).start()
seen = 0
while True:
    idle(link)
    seen = max(seen, int(link.select("INBOX")[1][0] or b"0"))
    link.fetch(str(max(1, seen)), "(BODY[])")
