"""`./run bench relay`: what passes from A through the hub to B, ours beside SoftEther and a plain cable.

    a ---- h ---- b      a card on A, the hub on H, a card on B; H does not forward by itself

How it is measured: bench/streams.py.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.streams import Product, line, run_rounds
from lab import peers
from lab.net import LabError, Net
from lab.ukihashi import Card, Hub


def main(argv: Sequence[str]) -> int:
    """Run the bench. 0 done, 1 something could not be measured, 2 wrong words."""
    parser = argparse.ArgumentParser(prog="./run bench relay", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds of 3 s instead of 5 rounds of 6 s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    words = parser.parse_args(argv)
    rounds, seconds = (3, 3) if words.quick else (5, 6)
    console = Console(stderr=True)
    with Net() as net:
        try:
            products = [_veth(net), _ours(net)]
            if gone := peers.missing("vpnserver", "vpnclient"):
                console.print(f"[yellow]SoftEther is not measured: missing Debian packages {gone}[/yellow]")
            else:
                products.append(_softether(net))
            stolen = run_rounds(products, rounds, seconds, console)
        except LabError as error:
            console.print(f"[red]could not be measured:[/red] {error}")
            return 1
    result = _result(products, rounds, seconds, stolen)
    _show(products, result, Console())
    if words.json:
        words.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


# -- the products -------------------------------------------------------------------------------------------------


def _veth(net: Net) -> Product:
    a, b = net.lan("va", "vb", bridge="vw")
    return Product("veth", "plain veth and bridge", {"a": a, "b": b}, b.ipv4)


def _ours(net: Net) -> Product:
    hosts = line(net, "u")
    hub = Hub(hosts["h"])
    hub.start()
    cards = {name: Card(hosts[name]) for name in ("a", "b")}
    for number, (name, card) in enumerate(cards.items()):
        card.join(hub.invite(name, address=[address for address in hosts["h"].addresses if "." in address][number]))
    target = cards["b"].address(4)
    hosts["a"].pings(target)

    def counters() -> dict[str, tuple[int, int]]:
        found = {f"hub to {row['user'].upper()}": _writes(row) for row in hub.sessions()}
        return {"card A": _writes(cards["a"].status()), **found}

    return Product("ours", "ukihashi", hosts, target, counters=counters)


def _writes(row: dict[str, Any]) -> tuple[int, int]:
    return int(row["frames_written"]), int(row["tls_writes"])


def _softether(net: Net) -> Product:
    hosts = line(net, "s")
    server = peers.Server(hosts["h"])
    server.start()
    server.create_hub("LAB")
    gateways = [address for address in hosts["h"].addresses if "." in address]
    for number, name in enumerate(("a", "b")):
        server.create_user("LAB", name, "bench-" + name)
        client = peers.Client(hosts[name])
        client.start()
        client.create_account(
            "v1", server=gateways[number], port=peers.ADMIN_PORT, hub="LAB", user=name, password="bench-" + name,
            cidrs=[f"10.78.0.{number + 2}/24"],
        )  # fmt: skip
        client.connect("v1")
    hosts["a"].pings("10.78.0.3")
    return Product("softether", "SoftEther 5.01, 1 connection", hosts, "10.78.0.3")


# -- telling ------------------------------------------------------------------------------------------------------


def _result(products: list[Product], rounds: int, seconds: int, stolen: list[float]) -> dict[str, Any]:
    result: dict[str, Any] = {
        product.name: {
            "relay_mbit": round(product.mbit.middle, 1),
            "relay_mbit_rounds": [round(value, 1) for value in product.mbit.values],
            "cpu_s_per_gb": round(product.cpu_s_per_gb.middle, 2),
            "idle_ms": round(product.idle_ms.middle, 3),
        }
        for product in products
    }
    ours = next(product for product in products if product.name == "ours")
    result["ours"]["frames_per_tls_write"] = {
        place: round(found.middle, 1) for place, found in ours.frames_per_tls_write.items()
    }
    result["run"] = {"rounds": rounds, "seconds": seconds, "repeated_for_steal": [round(share, 3) for share in stolen]}
    return result


def _show(products: list[Product], result: dict[str, Any], console: Console) -> None:
    table = Table(title="A -> hub -> B, one TCP stream: median (least..most)")
    for title in ("", "Mbit/s", "of veth", "CPU s/GB, A + hub + B", "idle ping ms"):
        table.add_column(title, justify="left" if not title else "right")
    reference = products[0].mbit.middle
    for product in products:
        share = f"{product.mbit.middle / reference:.1%}" if reference else "-"
        cpu = "" if product.name == "veth" else product.cpu_s_per_gb.text(1)
        table.add_row(product.title, product.mbit.text(), share, cpu, f"{product.idle_ms.middle:.2f}")
    console.print(table)
    batches = result["ours"]["frames_per_tls_write"]
    console.print(
        "frames_per_tls_write: " + ", ".join(f"{place} {value:g}" for place, value in sorted(batches.items()))
    )
    if repeated := result["run"]["repeated_for_steal"]:
        console.print(f"{len(repeated)} disturbed round(s) repeated; CPU stolen in them: {repeated}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
