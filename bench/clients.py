"""`./run bench clients`: two official clients through our hub, beside the same two through the official server.

    a ---- h ---- b      vpnclient on A and on B; on H our hub or vpnserver

How it is measured: bench/streams.py. What is asked for is the ratio, round by round. The official programs give
themselves the highest priority; our hub gets the same here, so that whatever else runs weighs alike on both.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.machine import Median
from bench.streams import Product, line, run_rounds
from lab import peers
from lab.net import Host, LabError, Net
from lab.ukihashi import HUB, Hub

HIGHEST: Final = -20  # nice


def main(argv: Sequence[str]) -> int:
    """Run the bench. 0 done, 1 something could not be measured, 2 wrong words."""
    parser = argparse.ArgumentParser(prog="./run bench clients", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds of 3 s instead of 7 rounds of 6 s")
    parser.add_argument("--connections", type=int, default=1, help="TCP connections of each client, 1..32 [1]")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    words = parser.parse_args(argv)
    rounds, seconds = (3, 3) if words.quick else (7, 6)
    console = Console(stderr=True)
    if gone := peers.missing("vpnserver", "vpnclient"):
        console.print(f"[red]could not be measured:[/red] missing Debian packages {gone}")
        return 1
    with Net() as net:
        try:
            products = [_at_our_hub(net, words.connections), _at_the_official_server(net, words.connections)]
            stolen = run_rounds(products, rounds, seconds, console)
        except LabError as error:
            console.print(f"[red]could not be measured:[/red] {error}")
            return 1
    ratio = Median(ours / theirs for ours, theirs in zip(*(product.rounds for product in products), strict=True))
    result = _result(products, ratio, rounds, seconds, stolen)
    _show(products, ratio, stolen, Console())
    if words.json:
        words.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _at_our_hub(net: Net, connections: int) -> Product:
    hosts = line(net, "u")
    hub = Hub(hosts["h"])
    hub.start(first=False)
    hub.tell("create", name=HUB)
    passwords = {name: hub.tell("user_create", name=name, hub=HUB)[0]["password"] for name in "ab"}
    _join(hosts, hub.port, HUB, passwords, "10.77.100", connections)
    for pid in hosts["h"].pids():
        os.setpriority(os.PRIO_PROCESS, pid, HIGHEST)
    return Product("ours", "ukihashi hub", hosts, "10.77.100.3")


def _at_the_official_server(net: Net, connections: int) -> Product:
    hosts = line(net, "s")
    server = peers.Server(hosts["h"])
    server.start()
    server.create_hub(HUB)
    passwords = {name: f"bench-{name}" for name in "ab"}
    for name, password in passwords.items():
        server.create_user(HUB, name, password)
    _join(hosts, peers.ADMIN_PORT, HUB, passwords, "10.77.101", connections)
    return Product("softether", f"vpnserver {peers.version().partition('+')[0]}", hosts, "10.77.101.3")


def _join(
    hosts: dict[str, Host], port: int, hub: str, passwords: dict[str, str], network: str, connections: int
) -> None:
    """An official client on A and on B."""
    gateways = [address for address in hosts["h"].addresses if "." in address]
    for number, (name, gateway) in enumerate(zip("ab", gateways, strict=True)):
        client = peers.Client(hosts[name])
        client.start()
        client.create_account(
            "v", server=gateway, port=port, hub=hub, user=name, password=passwords[name], max_tcp=connections,
            cidrs=[f"{network}.{number + 2}/24"],
        )  # fmt: skip
        client.connect("v")
    hosts["a"].pings(f"{network}.3")


def _result(products: list[Product], ratio: Median, rounds: int, seconds: int, stolen: list[float]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        product.name: {
            "mbit": round(product.mbit.middle, 1),
            "mbit_rounds": [round(value, 1) for value in product.rounds],
            "cpu_s_per_gb": round(product.cpu_s_per_gb.middle, 2),
            "idle_ms": round(product.idle_ms.middle, 3),
        }
        for product in products
    }
    figures["ratio"] = {"median": round(ratio.middle, 3), "rounds": [round(value, 3) for value in ratio.values]}
    figures["run"] = {"rounds": rounds, "seconds": seconds, "repeated_for_steal": [round(share, 3) for share in stolen]}
    return figures


def _show(products: list[Product], ratio: Median, stolen: list[float], console: Console) -> None:
    table = Table(title="vpnclient -> hub -> vpnclient, one TCP stream: median (least..most)")
    for title in ("", "Mbit/s", "CPU s/GB, A + hub + B", "idle ping ms"):
        table.add_column(title, justify="left" if not title else "right")
    for product in products:
        table.add_row(product.title, product.mbit.text(), product.cpu_s_per_gb.text(1), f"{product.idle_ms.middle:.2f}")
    console.print(table)
    console.print(f"ratio, ours to theirs, round by round: {ratio.text(2)}")
    if stolen:
        console.print(f"{len(stolen)} disturbed round(s) repeated; CPU stolen in them: {[round(s, 3) for s in stolen]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
