"""Pictures of the hub's front page for the manuals: `docs/images/page-ja.png` and `page-en.png`.

    python packaging/screenshot.py                     a hub of its own, on loopback, stopped again afterwards
    python packaging/screenshot.py https://HOST:PORT   a hub that runs already

Needs playwright (of the development packages) and the system's chromium.
"""

import argparse
import contextlib
import os
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
SHOWN_NAME = "hub.example.com"  # what the page's reader has typed; leads to the real hub's address
LANGUAGES = {"ja": "ja-JP", "en": "en-US"}
SIZE = {"width": 1200, "height": 1160}
SCALE = 0.75  # of the pictures; manuals show them small
START_S = 30.0
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@contextlib.contextmanager
def own_hub(port: int) -> Iterator[str]:
    """Start a hub with state of its own; give its address; stop it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # the hub's own users go through it
        places = {f"UKIHASHI_{kind}_DIR": f"{folder}/{kind.lower()}" for kind in ("STATE", "RUNTIME", "CONFIG")}
        command = [str(Path(sys.executable).with_name("ukihashi")), "hub", "serve", "--listen", f"127.0.0.1:{port}"]
        hub = subprocess.Popen(
            command, env={**os.environ, **places}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            address = f"https://127.0.0.1:{port}"
            wait_for(address, hub)
            yield address
        finally:
            hub.send_signal(signal.SIGTERM)
            hub.wait(20)


def wait_for(address: str, hub: "subprocess.Popen[bytes]") -> None:
    """Return when the page is there."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    until = time.monotonic() + START_S
    while hub.poll() is None and time.monotonic() < until:
        with contextlib.suppress(URLError, OSError), urlopen(address, context=context, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    sys.exit(f"no page at {address}")


def photograph(address: str, scheme: str) -> None:
    """One picture for each language."""
    place = urlsplit(address)
    rules = f"--host-resolver-rules=MAP {SHOWN_NAME} {place.hostname}"
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=[*ARGUMENTS, rules])
        for language, locale in LANGUAGES.items():
            context = browser.new_context(
                locale=locale,
                viewport=SIZE,  # type: ignore[arg-type] # a TypedDict there
                device_scale_factor=SCALE,
                ignore_https_errors=True,
                color_scheme=scheme,  # type: ignore[arg-type] # one of the choices below
            )
            page = context.new_page()
            page.goto(f"https://{SHOWN_NAME}:{place.port or 443}/")
            picture = shrink(page.screenshot())
            target = FOLDER / f"page-{language}.png"
            target.write_bytes(picture)
            print(f"{target}: {len(picture)} bytes")
            context.close()
        browser.close()


# -- a smaller PNG of the same picture (ISO/IEC 15948) --------------------------------------------------------------


def shrink(png: bytes) -> bytes:
    """The same 8-bit RGB(A) picture, opaque, each line with its best filter, packed as hard as zlib can."""
    width, height, samples, data = _unpack(png)
    lines = _lines(data, width * samples, height, samples)
    if samples == 4:
        lines = [bytes(value for at, value in enumerate(line) if at % 4 != 3) for line in lines]
    packed, above = bytearray(), bytes(width * 3)
    for line in lines:
        packed += min(_filtered(line, above), key=lambda row: sum(min(value, 256 - value) for value in row[1:]))
        above = line
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(packed), 9)), (b"IEND", b""))
    made = b"".join(struct.pack("!I", len(d)) + k + d + struct.pack("!I", zlib.crc32(k + d)) for k, d in chunks)
    return min(png, b"\x89PNG\r\n\x1a\n" + made, key=len)


def _unpack(png: bytes) -> tuple[int, int, int, bytes]:
    at, data, head = 8, b"", b""
    while at < len(png):
        length, kind = struct.unpack_from("!I4s", png, at)
        body = png[at + 8 : at + 8 + length]
        head, data = (body if kind == b"IHDR" else head), data + (body if kind == b"IDAT" else b"")
        at += 12 + length
    width, height, depth, colour, _, _, interlaced = struct.unpack("!IIBBBBB", head)
    assert (depth, interlaced) == (8, 0)
    return width, height, {2: 3, 6: 4}[colour], zlib.decompress(data)


def _lines(data: bytes, length: int, height: int, samples: int) -> list[bytes]:
    lines, above = list[bytes](), bytes(length)
    for number in range(height):
        start = number * (length + 1)
        kind, line = data[start], bytearray(data[start + 1 : start + 1 + length])
        for at in range(length) if kind else ():
            left, corner = (line[at - samples], above[at - samples]) if at >= samples else (0, 0)
            line[at] = (line[at] + _guess(kind, left, above[at], corner)) & 255
        above = bytes(line)
        lines.append(above)
    return lines


def _filtered(line: bytes, above: bytes) -> Iterator[bytes]:
    left, corner = bytes(3) + line[:-3], bytes(3) + above[:-3]
    for kind in range(5):
        yield bytes([kind]) + bytes(
            (value - _guess(kind, a, b, c)) & 255 for value, a, b, c in zip(line, left, above, corner, strict=True)
        )


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        p, q, r = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        return left if p <= q and p <= r else up if q <= r else corner
    return (0, left, up, (left + up) // 2)[kind]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Photograph the hub's front page.")
    parser.add_argument("address", nargs="?")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--port", type=int, default=8443, help="of the hub of its own; the picture shows it [8443]")
    given = parser.parse_args()
    with contextlib.nullcontext(given.address) if given.address else own_hub(given.port) as found:
        photograph(found, given.scheme)
