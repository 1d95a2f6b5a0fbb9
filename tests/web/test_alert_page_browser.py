"""The detector's page as a manager uses it: the command, the printed address, a real browser, a bus fed by hand."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.alert.sensor import Sensor, finding
from tests.web.test_browser import ARGUMENTS, CONTRAST

from ukihashi.alert import allow
from ukihashi.config import places

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]

CORPUS = Path(__file__).parent.parent / "corpus"


class Web:
    """`ukihashi alert web`, running."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "ukihashi.cli.main", "alert", "web"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def address(self) -> str:
        """The address printed next; each works once."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> str:
        """End it; what it said on standard error."""
        self.process.terminate()
        _out, err = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, err
        return err


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "r").mkdir()
    return tmp_path / "r"


@pytest.fixture
def sensor(runtime: Path) -> Iterator[Sensor]:
    one = Sensor(runtime / "alert.sock")
    yield one
    one.close()


@pytest.fixture
def web(runtime: Path) -> Iterator[Web]:
    one = Web()
    yield one
    said = one.close()
    assert "Traceback" not in said
    assert "key=" not in said  # the way in goes to standard output only


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: "Browser", web: Web) -> Iterator[Open]:
    """A fresh profile that is let in; afterwards: nothing was asked elsewhere, no error on the console."""
    faults: list[str] = []
    contexts = []

    def open_one(*, locale: str = "en-US") -> "Page":
        context = browser.new_context(locale=locale)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda asked: None if "//127.0.0.1:" in asked.url else faults.append(asked.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type in {"error", "warning"} else None)
        page.goto(web.address())
        assert "key=" not in page.url
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


def test_findings_appear_change_and_end_by_themselves(open_page: Open, sensor: Sensor) -> None:
    page = open_page()
    page.get_by_text("The sensor listens on eth1").wait_for()
    page.get_by_text("Nothing found so far").wait_for()
    first = sensor.suspect(finding("192.168.126.77"))
    page.get_by_text("Only probable, and not shown: 1.").wait_for()
    sensor.find(first)
    row = page.locator("tr", has_text="192.168.126.77:50412")
    row.get_by_text("confirmed").wait_for()
    row.get_by_role("link").focus()
    sensor.find(finding("192.168.126.78", ago=1))
    page.get_by_text("192.168.126.78:50412").wait_for()
    assert page.evaluate("document.activeElement.closest('tr').innerText").count("192.168.126.77")  # focus stayed
    sensor.end(first)
    row.get_by_text("ended").wait_for()
    sensor.count(1000)
    sensor.count(1000, drops=3, coverage=0.9)
    page.get_by_text("90.00 %", exact=True).wait_for()
    assert page.locator(".figures .poor").count() == 2
    assert page.locator(".history rect").count() >= 1


def test_one_finding_is_explained_and_allowed_until_a_day(open_page: Open, sensor: Sensor, runtime: Path) -> None:
    bundle = runtime / "bundle.zip"
    bundle.write_bytes(b"PK\x03\x04" + bytes(500_000))
    sensor.find(finding("192.168.126.77", evidence_file=str(bundle)))
    page = open_page(locale="ja-JP")
    page.locator("#list").get_by_role("link").first.click()
    page.get_by_role("heading", name="SoftEther VPN のトンネル（直接）").wait_for()
    assert page.get_by_role("img", name=re.compile("^クライアントとサーバーのやり取り")).is_visible()
    assert page.locator(".strip rect").count() == 16
    page.get_by_text("同じ内容の表").click()
    assert page.get_by_role("cell", name="2,739").is_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="バンドルをダウンロード").click()
    assert Path(download.value.path()).read_bytes() == bundle.read_bytes()
    page.get_by_role("textbox", name="責任者").fill("森 杏")
    page.get_by_role("textbox", name="理由").fill("支社との接続")
    page.get_by_role("button", name="許可する").click()
    page.get_by_text("エントリを追加しました。").wait_for()
    (entry,) = allow.read(allow.default_path())
    assert (entry.client, entry.server, entry.port, entry.family, entry.owner, entry.reason) == (
        *("192.168.126.77", "61.197.235.210", 7777, "softether", "森 杏", "支社との接続"),
    )
    page.get_by_role("link", name="English").click()
    page.get_by_role("heading", name="The allow list").wait_for()
    page.get_by_role("button", name="Remove: 192.168.126.77, 森 杏").click()
    page.get_by_text("The entry was removed.").wait_for()
    assert allow.read(allow.default_path()) == ()


def test_a_file_that_is_dropped_is_judged_in_place(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("link", name="Judge a file").click()
    page.set_input_files("#file", CORPUS / "se-d443-idle.pcap.gz")
    page.get_by_text("se-d443-idle.pcap.gz: tunnels found: 1").wait_for()
    page.get_by_role("link", name=re.compile(r"^\d{4}-")).click()
    page.get_by_role("heading", name="SoftEther VPN tunnel, direct").wait_for()
    page.get_by_role("heading", name="What would have changed the verdict").wait_for()
    assert page.get_by_role("button", name="Allow").count() == 0
    page.go_back()
    harmless = (CORPUS / "ng-wss-chat.pcap.gz").read_bytes()
    page.evaluate(DROP, {"name": "harmless.pcap.gz", "bytes": list(harmless)})
    page.get_by_text("harmless.pcap.gz: no tunnel found").wait_for()
    damaged = tmp_path / "damaged.pcap.gz"
    damaged.write_bytes((CORPUS / "se-d443-idle.pcap.gz").read_bytes()[:30_000])
    page.set_input_files("#file", damaged)
    page.get_by_text("damaged.pcap.gz: not read to its end").wait_for()
    page.get_by_text("damaged.pcap.gz is damaged at byte").wait_for()
    assert page.locator("#judged tbody tr").count() == 1
    page.get_by_role("button", name="Forget the result").click()
    page.get_by_text("damaged.pcap.gz").first.wait_for(state="detached")


def test_a_sensor_goes_and_comes_back(open_page: Open, runtime: Path) -> None:
    page = open_page()
    page.get_by_text("No sensor yet").wait_for()
    for client in ("192.168.126.77", "192.168.126.78"):
        sensor = Sensor(runtime / "alert.sock")
        sensor.find(finding(client))
        page.get_by_text(f"{client}:50412").wait_for()
        page.get_by_text("The sensor listens on eth1").wait_for()
        sensor.close()
        page.get_by_text(re.compile(r"No sensor since \d\d:\d\d:\d\d")).wait_for()
    assert page.locator("#list tbody tr").count() == 2


def test_a_wrong_key_is_refused_and_a_used_one_too(browser: "Browser", web: Web) -> None:
    address = web.address()
    page = browser.new_page(locale="en-US")
    for wrong in (address[:-1] + "~", address.partition("?")[0]):
        answer = page.goto(wrong)
        assert answer is not None
        assert answer.status == 403
    assert page.get_by_role("heading", name="This page is not open to you").is_visible()
    page.goto(address)
    page.get_by_role("heading", name="Tunnels on this network").wait_for()
    other = browser.new_context().new_page()
    refused = other.goto(address)
    assert refused is not None
    assert refused.status == 403
    other.context.close()
    page.context.close()


def test_every_view_fits_stands_out_and_is_reached_by_keyboard(open_page: Open, sensor: Sensor) -> None:
    sensor.find(finding(), finding("2001:db8:1111:2222:3333:4444:5555:6666", ago=60))
    page = open_page(locale="ja-JP")
    page.locator("#list").get_by_role("link").first.wait_for()
    home = page.url
    finding_page = home.rstrip("/") + str(page.locator("#list a").first.get_attribute("href"))
    for address in (home, finding_page, f"{home}allow", f"{home}judge"):
        page.goto(address)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(CONTRAST) == [], address
        for width in (320, 390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (address, width)
        unnamed = (
            "[...document.querySelectorAll('input:not([type=hidden]),select,button')].filter(f => !f.labels?.length"
        )
        assert page.evaluate(f"{unnamed} && !f.ariaLabel && !f.innerText).length") == 0, address
    page.goto(f"{home}judge")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "file":
            return
    pytest.fail("the keyboard does not reach the file field")


DROP = """({name, bytes}) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  const dropped = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
  document.getElementById("drop").dispatchEvent(dropped);
}"""
