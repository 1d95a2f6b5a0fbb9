"""A real sensor on a wire, a real vpnclient, the page beside the sensor, a real browser."""

import json
import signal
import sys

import pytest
from tests.web.test_browser import ARGUMENTS

from lab import peers
from lab.net import Net
from lab.ukihashi import Hub

pytestmark = [pytest.mark.slow, pytest.mark.netns, pytest.mark.peer("vpnclient", "vpncmd", "chromium")]


@pytest.mark.timeout(360)
def test_a_tunnel_that_is_opened_on_the_wire_appears_on_the_page(net: Net) -> None:
    from playwright.sync_api import sync_playwright

    machine, other = net.lan("hub", "office")
    hub = Hub(machine)
    hub.start()
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    bus = str(hub.folder / "alert.sock")
    argv = [sys.executable, "-P", "-m", "ukihashi.cli.main", "alert", "-i", "eth0", "--web", "--bus", bus]
    sensor = machine.spawn(argv, log="alert")
    address = sensor.wait_for(r"http://127\.0\.0\.1:\d+/\?key=\S+", seconds=120)[0]
    client = peers.Client(other)
    client.start()
    client.create_account(
        "v1",
        server=machine.ipv4,
        port=443,
        hub="LAN",
        user="taro",
        password=made["password"],
        cidrs=["10.9.0.200/24"],
        max_tcp=4,
    )
    with machine.inside(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        page = browser.new_page(locale="en-US")
        page.goto(address)
        page.get_by_text("The sensor listens on eth0").wait_for()
        page.get_by_text("Nothing found so far").wait_for()
        client.connect("v1")
        row = page.locator("#list tbody tr", has_text=other.ipv4)
        row.get_by_text("confirmed").wait_for(timeout=60_000)
        assert f"{machine.ipv4}:443" in row.inner_text()
        row.get_by_role("link").click()
        page.get_by_role("heading", name="SoftEther VPN tunnel, direct").wait_for()
        assert page.locator(".ladder .named").count() >= 4
        page.go_back()
        row.wait_for()
        assert sensor.stop(signal.SIGINT) == 0
        page.get_by_text("does not answer any more").wait_for()  # the page ended with its sensor
        browser.close()
