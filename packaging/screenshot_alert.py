"""Pictures of the detector's page for its manual: `docs/images/alert-ja.png` and `alert-en.png`.

    python packaging/screenshot_alert.py

The findings are made up, the bus and the page are real. Needs playwright (of the development packages) and the system's
chromium.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "packaging")]

from tests.alert.findings import end  # noqa: E402
from tests.alert.sensor import Sensor, finding  # noqa: E402

from ukihashi.config.places import RUNTIME  # noqa: E402
from ukihashi.detect.features import Outer  # noqa: E402
from ukihashi.detect.record import Allowed, Family  # noqa: E402

screenshot = importlib.import_module("screenshot")  # beside this file
SIZE = {"width": 1200, "height": 1120}


def scene(sensor: Sensor) -> None:
    """An afternoon of an office."""
    ended = finding("192.168.126.31", ago=5400.0, server=end("203.0.113.9", 443))
    sensor.find(
        ended,
        finding(
            "192.168.126.44",
            ago=2700.0,
            server=end("192.168.126.8", 3128),
            outer=Outer.HTTP,
            family=Family.UKIHASHI,
            target="hub.example.com:443",
        ),
        finding(
            "192.168.126.20",
            ago=1500.0,
            server=end("198.51.100.7", 443),
            allowed=Allowed("4711ab", "Ann Mori", "branch office", "2030-03-31"),
        ),
        finding("192.168.126.77", ago=130.0, server=end("203.0.113.9", 443)),
    )
    sensor.end(ended)


def count(sensor: Sensor) -> None:
    """A second after the other."""
    began, told = time.monotonic(), 0
    while True:
        packets = round((time.monotonic() - began) * 12_345) - told
        told += packets
        sensor.count(packets, flows=1_234)
        time.sleep(1.0)


def main() -> None:
    """One picture for each language."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        sensor = Sensor(Path(folder) / "alert.sock", ("eth1",))
        argv = [sys.executable, "-m", "ukihashi.cli.main", "alert", "web"]
        env = {**os.environ, RUNTIME: folder}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as web:
            assert web.stdout is not None
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=screenshot.ARGUMENTS)
            first = web.stdout.readline().strip()
            scene(sensor)
            threading.Thread(target=count, args=(sensor,), daemon=True).start()
            for language, locale in screenshot.LANGUAGES.items():
                context = browser.new_context(
                    locale=locale,
                    viewport=SIZE,  # type: ignore[arg-type] # a TypedDict there
                    device_scale_factor=screenshot.SCALE,
                    color_scheme="light",
                )
                page = context.new_page()
                page.goto(first)
                first = web.stdout.readline().strip()
                page.wait_for_timeout(2500)
                picture = screenshot.shrink(page.screenshot())
                target = screenshot.FOLDER / f"alert-{language}.png"
                target.write_bytes(picture)
                print(f"{target}: {len(picture)} bytes")
                context.close()
            browser.close()
            web.terminate()
        sensor.close()


if __name__ == "__main__":
    main()
