"""A client of web_app.py over connections that stay: web_client.py ROOT ADDRESS PORT DOES [VIA-PORT]."""

import http.client
import json
import random
import ssl
import sys
import threading
import time

root, address, port, does = sys.argv[1:5]
via = int(sys.argv[5]) if len(sys.argv) > 5 else 0


def connection() -> http.client.HTTPSConnection:
    """Through a local forwarder if one is named; the certificate's name stays the server's."""
    context = ssl.create_default_context(cafile=root)
    if via:
        context.check_hostname = False
        return http.client.HTTPSConnection("127.0.0.1", via, context=context, timeout=60)
    return http.client.HTTPSConnection(address, int(port), context=context, timeout=60)


def ask(link: http.client.HTTPSConnection, path: str, body: bytes = b"", token: int = 0) -> bytes:
    headers = {"Authorization": "Bearer " + "x" * token} if token else {}
    link.request("POST" if body else "GET", path, body=body or None, headers=headers)
    return link.getresponse().read()


def call(answer: int, size: int = 0) -> bytes:
    params = {"answer": answer, "text": "x" * size}
    return json.dumps({"jsonrpc": "2.0", "id": random.randrange(9999), "method": "m", "params": params}).encode()


def poll() -> None:
    link = connection()
    while True:
        ask(link, f"/wait/{random.choice((3, 5, 5, 5, 8))}")


def listen() -> None:
    link = connection()
    link.request("GET", "/events")
    answer = link.getresponse()
    while answer.readline():
        pass


def rpc() -> None:
    link = connection()
    while True:
        ask(link, "/call", call(random.randrange(20, 400)))
        time.sleep(5)


def natural() -> None:
    """A token in each request, answers and questions of any size."""

    def size(most: float) -> int:
        return int(random.lognormvariate(6, 1.2) % most)

    def work() -> None:
        link, token = connection(), random.choice((0, 300, 900, 1500))
        for _ in range(random.randrange(2, 9)):
            ask(link, "/call", call(size(9000), size(5000)), token=token)
        while True:
            time.sleep(random.expovariate(1 / 5))
            ask(link, "/call", call(size(9000), size(5000)), token=token)

    for _ in range(3):
        threading.Thread(target=work).start()
        time.sleep(random.uniform(0.3, 3))


def crowd() -> None:
    """Connections that come and go, a few calls each: a program that keeps none."""

    def work() -> None:
        link, token = connection(), random.choice((0, 300, 900, 1500))
        for _ in range(random.randrange(1, 7)):
            ask(
                link, "/call", call(int(random.lognormvariate(6.5, 1)), int(random.lognormvariate(6.5, 1))), token=token
            )
        link.close()

    while True:
        threading.Thread(target=work).start()
        time.sleep(random.expovariate(1))


def session(further: bool) -> None:
    """The sizes of a tunnel's opening, then small calls."""
    link = connection()
    ask(link, "/call", call(random.randrange(100, 900), random.randrange(0, 600)), token=random.randrange(900, 1600))
    body = random.randrange(100, 800) if further else random.randrange(2000, 3000)
    ask(link, "/call", call(random.randrange(100, 900) if further else random.randrange(1800, 2900), body))
    while True:
        time.sleep(random.uniform(3, 9))
        ask(link, "/call", call(random.randrange(20, 500), random.randrange(8, 400)))


def imitate() -> None:
    """Two such connections, the second a little later."""
    threading.Thread(target=session, args=(False,)).start()
    time.sleep(1.5)
    session(True)


def upload() -> None:
    link = connection()
    while True:
        ask(link, "/echo", random.randbytes(random.randrange(20_000, 400_000)))
        time.sleep(random.uniform(1, 6))


def browse() -> None:
    """New connections all the time, six a page."""

    def fetch() -> None:
        link = connection()
        for _ in range(3):
            ask(link, f"/size/{random.randrange(500, 60_000)}")
        link.close()

    while True:
        threads = [threading.Thread(target=fetch) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(random.uniform(1, 6))


{
    "poll": poll,
    "listen": listen,
    "rpc": rpc,
    "api": natural,
    "imitate": imitate,
    "crowd": crowd,
    "upload": upload,
    "browse": browse,
}[does]()
