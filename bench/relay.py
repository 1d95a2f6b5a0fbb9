"""`./run bench relay`: what passes from A through the hub to B, ours beside SoftEther and a plain cable.

    a ---- h ---- b      a card on A, the hub on H, a card on B; H does not forward by itself

Each product has hosts of its own, all are up during the whole run, and rounds are interleaved (veth, ours, SoftEther,
veth, ...), because two runs at different times on a shared machine can't be compared. A round during which the
hypervisor took more than `STEAL_LIMIT` of the CPU is repeated. TCP is cubic inside and outside.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.machine import Median, Watch
from lab import peers
from lab.net import Host, LabError, Net
from lab.ukihashi import Card, Hub
from lab.wait import until

STEAL_LIMIT: Final = 0.10  # share of the CPU
REPEATS: Final = 3  # of disturbed rounds, in one run
IPERF_PORT: Final = 5301
BULK: Final = ("card A", "hub to B")  # who sends the stream's data; the other direction has acknowledgements alone


@dataclass
class Product:
    """One thing measured: where it runs, and what was found."""

    name: str
    title: str
    hosts: dict[str, Host]  # "a", "b", and "h" where there is a hub
    target: str  # B's address as A sees it
    mbit: Median = field(default_factory=Median)  # million bits a second that B received, one TCP stream
    cpu_s_per_gb: Median = field(default_factory=Median)
    idle_ms: Median = field(default_factory=Median)
    counters: Callable[[], dict[str, tuple[int, int]]] | None = None  # place -> (frames, TLS writes) so far
    frames_per_tls_write: dict[str, Median] = field(default_factory=dict)


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
            stolen = _rounds(products, rounds, seconds, console)
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


def _line(net: Net, prefix: str) -> dict[str, Host]:
    hosts = {name: net.host(prefix + name) for name in ("a", "h", "b")}
    net.link(hosts["h"], hosts["a"])
    net.link(hosts["h"], hosts["b"])
    return hosts


def _ours(net: Net) -> Product:
    hosts = _line(net, "u")
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
    hosts = _line(net, "s")
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


# -- measuring ----------------------------------------------------------------------------------------------------


def _rounds(products: list[Product], rounds: int, seconds: int, console: Console) -> list[float]:
    """Fill the products with figures; gives the stolen share of each disturbed round that was repeated."""
    stolen: list[float] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("rounds", total=rounds * len(products))
        for turn in range(rounds):
            shift = turn % len(products)  # nobody is always first
            for product in products[shift:] + products[:shift]:
                progress.update(task, description=f"round {turn + 1}: {product.title}")
                while True:
                    again = len(stolen) < REPEATS
                    steal = _measure(product, seconds, repeat=again)
                    if steal <= STEAL_LIMIT or not again:
                        break
                    stolen.append(steal)
                progress.advance(task)
        for product in products:
            product.idle_ms.add(_ping(product))
    return stolen


def _measure(product: Product, seconds: int, *, repeat: bool) -> float:
    """One stream from A to B; gives the stolen share. A disturbed one is not noted if it can be repeated."""
    a, b = product.hosts["a"], product.hosts["b"]
    server = b.spawn(["iperf3", "-s", "-1", "-p", str(IPERF_PORT)], log="iperf3")
    until(lambda: "LISTEN" in b.run(["ss", "-ltnH", f"sport = :{IPERF_PORT}"]), seconds=5, what="iperf3 listening")
    before = product.counters() if product.counters else {}
    carriers = {name: [pid for pid in host.pids() if pid != server.pid] for name, host in product.hosts.items()}
    watch = Watch(carriers)
    argv = ["iperf3", "-c", product.target, "-p", str(IPERF_PORT), "-t", str(seconds), "-C", "cubic", "-J"]
    done = a.ask([*argv, "--connect-timeout", "5000"], timeout_s=seconds + 20.0)
    usage = watch.stop()
    server.stop()
    try:
        received = json.loads(done.stdout)["end"]["sum_received"]
        gigabytes, mbit = received["bytes"] / 1e9, received["bits_per_second"] / 1e6
    except (ValueError, KeyError):
        raise LabError(f"{product.title}: iperf3 gave no result:\n{done.stdout[-500:]}") from None
    if repeat and usage.steal > STEAL_LIMIT:
        return usage.steal
    product.mbit.add(mbit)
    product.cpu_s_per_gb.add(usage.total_s / gigabytes)
    for place, (frames, writes) in (product.counters() if product.counters else {}).items():
        more, calls = frames - before[place][0], writes - before[place][1]
        if place in BULK and calls:
            product.frames_per_tls_write.setdefault(place, Median()).add(more / calls)
    return usage.steal


def _ping(product: Product) -> float:
    """The median round trip from A to B with nothing else going on, ms."""
    out = product.hosts["a"].run(["ping", "-n", "-c", "200", "-i", "0.005", product.target])
    return Median(float(line.partition("time=")[2].split()[0]) for line in out.splitlines() if "time=" in line).middle


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
