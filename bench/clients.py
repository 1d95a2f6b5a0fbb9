"""`./run bench clients`: two official clients through our hub, beside the same two through the official server.

    a ---- h ---- b      vpnclient on A and on B; on H our hub or vpnserver

How it is measured: bench/rounds.py. What is asked for is the ratio, round by round.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.figures import column, ratio_text, text
from bench.parts import QUICK, Extent, latency, through
from bench.products import Place, Product, towards
from bench.rounds import Book, run_rounds
from lab import peers
from lab.net import Host, LabError, Net
from lab.ukihashi import HUB, Hub
from lab.wait import TimeOver

ROUNDS, SECONDS = 7, 6
QUICK_ROUNDS, QUICK_SECONDS = 3, 3


def main(argv: Sequence[str]) -> int:
    """Run the bench. 0 done, 1 something could not be measured, 2 wrong words."""
    parser = argparse.ArgumentParser(prog="./run bench clients", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true",
        help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS} s instead of {ROUNDS} rounds of {SECONDS} s",
    )  # fmt: skip
    parser.add_argument("--connections", type=int, default=1, help="TCP connections of each client, 1..32 [1]")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    words = parser.parse_args(argv)
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if words.quick else (ROUNDS, SECONDS)
    console = Console(stderr=True)
    if gone := peers.missing("vpnserver", "vpnclient"):
        console.print(f"[red]could not be measured:[/red] missing Debian packages {gone}")
        return 1
    book, extent = Book(), QUICK._replace(rounds=rounds, long_s=seconds)
    with Net() as net, Progress(console=console) as progress:
        try:
            products = [_at_our_hub(Place(net), words.connections), _at_vpnserver(Place(net), words.connections)]
            for product in products:
                product.settle()
            measures = [*through("b", "relay", extent, "cubic"), latency(extent, "cubic")[0]]
            run_rounds(products, measures, rounds, book, progress)
        except (LabError, TimeOver) as error:
            console.print(f"[red]could not be measured:[/red] {error}")
            return 1
    result = _result(book, extent)
    _show({product.name: product.title for product in products}, result, Console())
    if words.json:
        words.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if book.failed else 0


def _at_our_hub(place: Place, connections: int) -> Product:
    hosts = place.hosts("u")
    hub = Hub(hosts["h"])
    hub.start(first=False)
    hub.tell("create", name=HUB)
    passwords = {name: hub.tell("user_create", name=name, hub=HUB)[0]["password"] for name in "ab"}
    _join(hosts, hub.port, passwords, "10.77.100", connections)
    return Product("ours", "ukihashi hub", hosts, "10.77.100.3", "")


def _at_vpnserver(place: Place, connections: int) -> Product:
    hosts = place.hosts("s")
    server = peers.Server(hosts["h"])
    server.start()
    server.create_hub(HUB)
    passwords = {name: f"bench-{name}" for name in "ab"}
    for name, password in passwords.items():
        server.create_user(HUB, name, password)
    _join(hosts, peers.ADMIN_PORT, passwords, "10.77.101", connections)
    return Product("vpnserver", f"vpnserver {peers.version().partition('+')[0]}", hosts, "10.77.101.3", "")


def _join(hosts: dict[str, Host], port: int, passwords: dict[str, str], network: str, connections: int) -> None:
    """An official client on A and on B."""
    for number, (name, address) in enumerate(zip("ab", towards(hosts), strict=True)):
        client = peers.Client(hosts[name])
        client.start()
        client.create_account(
            "v", server=address, port=port, hub=HUB, user=name, password=passwords[name], max_tcp=connections,
            cidrs=[f"{network}.{number + 2}/24"],
        )  # fmt: skip
        client.connect("v")


def _result(book: Book, extent: Extent) -> dict[str, Any]:
    run = {
        "rounds": extent.rounds,
        "seconds": extent.long_s,
        "repeated_for_steal": [round(share, 3) for share in book.stolen],
        "failed": book.failed,
    }
    return {**column(book), "run": run}


def _show(titles: dict[str, str], result: dict[str, Any], console: Console) -> None:
    table = Table(title="vpnclient -> hub -> vpnclient, one TCP stream: median (least..most)")
    for title in ("", "Mbit/s", "CPU s/GB, A + hub + B", "idle ping ms"):
        table.add_column(title, justify="left" if not title else "right")
    for name, title in titles.items():
        row = result.get(name, {})
        table.add_row(title, *(text(row, figure) for figure in ("relay_mbit", "cpu_s_per_gb", "idle_p50_ms")))
    console.print(table)
    theirs = result.get("vpnserver", {})
    console.print(f"ratio, ours to theirs, round by round: {ratio_text(theirs, 'relay_mbit')}")
    if repeated := result["run"]["repeated_for_steal"]:
        console.print(f"{len(repeated)} disturbed measurement(s) repeated; CPU stolen in them: {repeated}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
