"""`./run demo`: the whole system on this machine, in network namespaces, within two minutes.

ann --+                      two cards, a hub, and a detector that watches the hub's line
      +-- wire -- hub
bob --+
"""

import http.client
import re
import ssl
import sys
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lab.flow import Probe, stream
from lab.net import Host, LabError, Net, Process
from lab.raw import BROADCAST, Wire, crosses
from lab.ukihashi import Card, Hub
from lab.wait import TimeOver, until

BULK_S: Final = 5.0
DETECT_S: Final = 90.0  # after the last login; the detector's own promise is 70 s of a machine that isn't overloaded
LINE: Final = re.compile(r"^\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] \S.* Connection Detected \(client .*\)$", re.MULTILINE)
TAGGED: Final = b"\x81\x00\x00\x0a\x88\xb5"  # VLAN 10, then a local experimental EtherType (IEEE 802, clause 9.2)
UNKNOWN: Final = b"\x9a\xbc"

console: Final = Console(highlight=False, soft_wrap=True, markup=False)


def main() -> int:
    """Run it. 0 all seen, 1 something failed, 130 ended by Ctrl-C; cleaned up in each case."""
    begin = time.monotonic()
    try:
        with Net() as net:
            _show(net)
    except (LabError, TimeOver) as error:
        console.print(f"failed: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        console.print("stopped; everything was cleaned up")
        return 130
    console.print(f"done in {time.monotonic() - begin:.0f} s; everything was cleaned up")
    return 0


def _show(net: Net) -> None:
    machine, ann, bob = net.lan("hub", "ann", "bob")
    _title("a virtual HUB, and a detector on its line")
    detector = machine.spawn([sys.executable, "-m", "ukihashi.cli.main", "alert", "-i", "eth0"], log="alert")
    hub = Hub(machine)
    hub.start()
    console.print(f"the hub answers at https://{machine.ipv4}/ and https://[{machine.ipv6}]/")
    _title("two machines join by link")
    cards = {host.name: Card(host) for host in (ann, bob)}
    for host in (ann, bob):
        cards[host.name].join(hub.invite(host.name))
        card = cards[host.name]
        console.print(f"{host.name}: {card.interface()} has {card.address(4)} and {card.address(6)}")
    logins = time.monotonic()
    _title("one Ethernet")
    _ethernet(ann, bob, cards["ann"], cards["bob"])
    _title(f"a TCP stream from ann to bob, {BULK_S:g} s, checked by SHA-256")
    _bulk(ann, bob, cards["bob"].address(4))
    _title("a browser that opens the same address")
    for language in ("ja", "en"):
        console.print(f"{language}: {_page_title(ann, machine.ipv4, language)}")
    _title("the detector: one line for each login, from behaviour alone")
    _detections(detector, logins)
    _title("the TCP connection under ann's card is cut")
    _cut(machine, ann, bob, cards["bob"].address(4))


def _title(text: str) -> None:
    console.print(f"\n{text}", style="bold")


def _ethernet(ann: Host, bob: Host, of_ann: Card, of_bob: Card) -> None:
    for version in (4, 6):
        address = of_bob.address(version)
        console.print(f"IPv{version}: {address} answers in {ann.pings(address):.2f} ms")
    neighbour = ann.run(["ip", "neigh", "show", of_bob.address(4)]).split()
    console.print(f"ARP: {neighbour[0]} is at {neighbour[neighbour.index('lladdr') + 1]}")
    with Wire(ann, of_ann.interface()) as here, Wire(bob, of_bob.interface()) as there:
        for what, kind in (("802.1Q frame of VLAN 10", TAGGED), ("frame of unknown EtherType 9abc", UNKNOWN)):
            crosses(here, there, BROADCAST + here.mac + kind + bytes(range(60)))
            console.print(f"{what}: came across unchanged")


def _bulk(ann: Host, bob: Host, address: str) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    begin = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("carried", total=None)

        def moved(count: int) -> None:
            progress.advance(task, count)

        total = stream(ann, bob, address, seconds=BULK_S, moved=moved)
    seconds = time.monotonic() - begin
    console.print(f"{total / 1e6:,.0f} MB carried, {total * 8 / 1e6 / seconds:,.0f} Mbit/s, checksum right")


def _page_title(host: Host, address: str, language: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False  # the hub's own certificate; a person would compare the fingerprint it printed
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, context=context, timeout=10)
    with host.inside():
        connection.connect()
    try:
        connection.request("GET", "/", headers={"Accept-Language": language})
        answer = connection.getresponse()
        page = answer.read().decode()
    finally:
        connection.close()
    found = re.search(r"<title>\s*(.*?)\s*</title>", page, re.DOTALL)
    if answer.status != http.client.OK or found is None:
        raise LabError(f"the page in {language} came with status {answer.status} and no title")
    return f"{answer.status} {found[1]}"


def _detections(detector: Process, logins: float) -> None:
    def lines() -> list[str] | None:
        found = LINE.findall(detector.output())
        return found if len(found) >= 2 else None

    with console.status("watching the line") as status:

        def look() -> list[str] | None:
            status.update(f"watching the line, {time.monotonic() - logins:.0f} s after the logins")
            return lines()

        try:
            found = until(look, seconds=DETECT_S - (time.monotonic() - logins), what="a line for each of two logins")
        except TimeOver as late:
            raise TimeOver(f"{late}; the detector said:\n{detector.output()[-2000:]}") from None
    for line in found:
        console.print(line)
    console.print(f"both after {time.monotonic() - logins:.0f} s")


def _cut(machine: Host, ann: Host, bob: Host, address: str) -> None:
    def connections() -> set[str]:
        rows = machine.run(["ss", "-tnH", "state", "established", "sport", "=", ":443", "dst", ann.ipv4])
        return {row.split()[-1] for row in rows.splitlines()}

    with Probe(ann, bob, address) as probe:
        before = connections()
        cut = time.monotonic()
        for peer in before:
            machine.run(["ss", "-K", "state", "established", "sport", "=", ":443", "dst", peer])
        gap = probe.flows_again(cut)
        until(lambda: connections() - before, seconds=10, what="a new connection")
    console.print(f"{len(before)} connection reset; traffic flowed again after {gap:.2f} s, over a new connection")


def run(step: Callable[[], int] = main) -> None:
    """Entry of `python -m lab.demo`."""
    sys.exit(step())


if __name__ == "__main__":
    run()
