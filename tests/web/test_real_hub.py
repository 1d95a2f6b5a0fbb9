"""The page as a hub really serves it, with its own certificate and its own worker in front (A3, A12, A14)."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.wait import until
from ukihashi import __version__
from ukihashi.config.hub import load_hub

pytestmark = [pytest.mark.peer("chromium", "curl"), pytest.mark.slow]

TAG = "9C37197CA7C2428388C2E6E59B829B30"
KINDS = ("STATE", "RUNTIME", "CONFIG")
PASSWORD = "浮橋は水の上に浮かぶ道です"
SECRET = re.compile(r"admin secret: (\S+)")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
]


@dataclass(frozen=True)
class RealHub:
    address: str
    page_dir: Path
    output: Path

    @property
    def secret(self) -> str:
        found = SECRET.search(self.output.read_text())
        assert found is not None
        return found[1]

    @property
    def config(self) -> Path:
        return self.page_dir.parent / "config" / "hub.toml"

    def ukihashi(self, *words: str) -> str:
        argv = [str(Path(sys.executable).with_name("ukihashi")), "--lang", "en", *words]
        env = os.environ | {f"UKIHASHI_{kind}_DIR": str(self.page_dir.parent / kind.lower()) for kind in KINDS}
        return subprocess.run(argv, capture_output=True, check=True, timeout=30, env=env, text=True).stdout

    def curl(self, *words: str) -> str:
        argv = ["curl", "-sk", "--max-time", "10", *words]
        return subprocess.run(argv, capture_output=True, check=True, timeout=20).stdout.decode()


@pytest.fixture(scope="module")
def real_hub() -> Iterator[RealHub]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # the hub gives up root; its own account must get to its folder
        page_dir = folder / "page"
        page_dir.mkdir(mode=0o755)
        (folder / "config").mkdir(mode=0o755)
        (folder / "config" / "hub.toml").write_text(f'page_dir = "{page_dir}"\n')
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        output = folder / "output"
        argv = [str(Path(sys.executable).with_name("ukihashi")), "hub", "serve", "--listen", f"127.0.0.1:{port}"]
        places = {f"UKIHASHI_{kind}_DIR": str(folder / kind.lower()) for kind in KINDS}
        with output.open("wb") as out:
            env = {**os.environ, **places, "LANGUAGE": "en"}
            hub = subprocess.Popen(argv, env=env, stdout=out, stderr=subprocess.STDOUT)

        def serves() -> bool:
            assert hub.poll() is None, output.read_text()
            return SECRET.search(output.read_text()) is not None

        try:
            until(serves, seconds=30, what="the hub")
            yield RealHub(f"https://127.0.0.1:{port}", page_dir, output)
        finally:
            hub.send_signal(signal.SIGTERM)
            hub.wait(20)


@pytest.mark.parametrize(
    ("language", "heading"), [("ja", "仮想 HUB は、ここに浮かぶ"), ("en", "A virtual HUB floats here")]
)
def test_curl_gets_the_page_in_its_language(real_hub: RealHub, language: str, heading: str) -> None:
    text = real_hub.curl("-i", "--http1.1", "-H", f"Accept-Language: {language}", real_hub.address + "/")
    head, _, body = text.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    assert f"content-length: {len(body.encode())}" in head.lower()
    assert f"<h1>{heading}</h1>" in body
    assert TAG in body[:1000]
    assert f"ukihashi {__version__}" in body


def test_curl_asks_many_things_on_one_connection(real_hub: RealHub) -> None:
    address = real_hub.address
    wanted = [f"{address}/", f"{address}/ukihashi/page.css", f"{address}/nowhere", f"{address}/admin"]
    shown = "%{http_code} %{num_connects}\n"
    said = real_hub.curl(*["-o", "/dev/null"] * len(wanted), "-w", shown, *wanted)
    assert said.split("\n")[:4] == ["200 1", "200 0", "404 0", "200 0"]
    head = real_hub.curl("-I", address + "/")
    assert head.startswith("HTTP/1.1 200")
    tag = re.search(r"^etag: (\S+)", head, re.MULTILINE | re.IGNORECASE)
    assert tag is not None
    assert real_hub.curl("-i", "-H", f"If-None-Match: {tag[1]}", address + "/").startswith("HTTP/1.1 304")


def test_an_own_page_takes_its_place_without_a_restart(real_hub: RealHub) -> None:
    ours = real_hub.curl(real_hub.address + "/")
    own = real_hub.page_dir / "index.html"
    own.write_text("<!doctype html><p>our own page")
    try:
        assert real_hub.curl(real_hub.address + "/") == "<!doctype html><p>our own page"
    finally:
        own.unlink()
    assert real_hub.curl(real_hub.address + "/") == ours


def test_a_browser_sees_the_page_and_its_administrator_signs_in(real_hub: RealHub) -> None:
    from playwright.sync_api import sync_playwright

    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        for locale, word in (("ja-JP", "仮想"), ("en-US", "virtual")):
            page = browser.new_context(locale=locale, ignore_https_errors=True).new_page()
            page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
            page.goto(real_hub.address)
            assert word in page.locator("h1").inner_text()
            assert page.locator(".scene").is_visible()
            style = page.evaluate("getComputedStyle(document.querySelector('.hero')).position")
            assert style == "relative"  # the style sheet came too
        page = browser.new_context(locale="en-US", ignore_https_errors=True).new_page()
        page.goto(real_hub.address + "/admin")
        page.fill("#secret", real_hub.secret)
        page.get_by_role("button").click()
        page.wait_for_url("**/admin/password")
        page.fill("#new", PASSWORD)
        page.fill("#again", PASSWORD)
        page.get_by_role("button").click()
        page.wait_for_url("**/admin")
        assert page.locator(".figures dd").first.inner_text() == __version__
        page.get_by_role("button", name="Sign out").click()
        page.fill("#secret", real_hub.secret)  # works once
        page.get_by_role("button").click()
        page.get_by_text("not the administrator").wait_for()
        page.fill("#secret", PASSWORD)
        page.get_by_role("button").click()
        page.wait_for_url("**/admin")
        page.get_by_role("link", name="Options").click()
        page.get_by_role("textbox", name="times.dead_s").fill("20")
        page.get_by_role("button", name="Change: times.dead_s").click()
        page.get_by_text("Changed.").wait_for()
        assert page.get_by_role("textbox", name="times.dead_s").input_value() == "20"
        browser.close()
    assert [fault for fault in faults if "403" not in fault] == []
    assert PASSWORD not in real_hub.output.read_text()
    assert load_hub(real_hub.config).times.dead_s == 20.0
    shown = [json.loads(line) for line in real_hub.ukihashi("hub", "options", "--json").splitlines()]
    assert [row["value"] for row in shown if row["option"] == "times.dead_s"] == [20.0]
    assert "times.dead_s: 20 → 15 (at once)" in real_hub.ukihashi("hub", "set", "times.dead_s", "15")
    assert "listen: 443 → 8443 (at the next start)" in real_hub.ukihashi("hub", "set", "listen", "8443")
