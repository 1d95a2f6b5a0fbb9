"""One TCP stream from A through a hub to B, for several products in interleaved rounds of one run.

    a ---- h ---- b      H does not forward by itself

Each product has hosts of its own, all are up during the whole run, because two runs at different times on a shared
machine can't be compared. A round during which the hypervisor took more than `STEAL_LIMIT` of the CPU is repeated. TCP
is cubic inside and outside.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.machine import Median, Watch
from lab.net import Host, LabError, Net
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
    rounds: list[float] = field(default_factory=list)  # the same, in order
    cpu_s_per_gb: Median = field(default_factory=Median)
    idle_ms: Median = field(default_factory=Median)
    counters: Callable[[], dict[str, tuple[int, int]]] | None = None  # place -> (frames, TLS writes) so far
    frames_per_tls_write: dict[str, Median] = field(default_factory=dict)


def line(net: Net, prefix: str) -> dict[str, Host]:
    """A, H and B of one product."""
    hosts = {name: net.host(prefix + name) for name in ("a", "h", "b")}
    net.link(hosts["h"], hosts["a"])
    net.link(hosts["h"], hosts["b"])
    return hosts


def run_rounds(products: list[Product], rounds: int, seconds: int, console: Console) -> list[float]:
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
    product.rounds.append(mbit)
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
