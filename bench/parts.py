"""The parts of `./run bench relay`: what is done to a product, and which figures that gives."""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from bench.machine import Median, Watch, pss_mib
from bench.products import Product
from bench.rounds import Figures, Measure
from bench.streams import ROOT, best_rate, blast, percentile, ping, stream
from lab.line import Quality
from lab.net import LabError
from lab.wait import pause

LINE: Final = Quality(mbit=200, delay_s=0.01, loss=0.01)  # each way: a round trip of 20 ms
PACED_PER_S: Final = 10.0  # handshakes; vpnserver refuses more than 16 in a moment
FLOOD_S: Final = 2.0
REST_S: Final = 3.0  # after the last login, then memory is looked at


class Extent(NamedTuple):
    """How much is measured. 0 s: not at all. Streams last for whole seconds."""

    rounds: int
    long_s: int  # one stream
    short_s: int  # the other direction, four streams
    packets_s: float
    search: bool  # for the best rate of packets; else all that can be sent is
    pings: int
    loaded_s: int
    lossy_s: int
    members: int  # more sessions, for their memory
    handshakes_s: float
    crowd: int  # idle sessions beside two busy ones


FULL: Final = Extent(5, 4, 2, 1.5, True, 400, 4, 8, 40, 6.0, 998)
QUICK: Final = Extent(1, 1, 0, 0.4, False, 40, 2, 3, 5, 2.0, 50)


def through(to: str, prefix: str, extent: Extent, control: str) -> list[Measure]:
    """Streams from A to host `to` and back."""

    def forward(product: Product) -> Figures:
        before = product.writes() if product.writes and to == "b" else {}
        found = stream(product, to, extent.long_s, control=control)
        figures = {f"{prefix}_mbit": found.mbit}
        if product.pids():
            figures["cpu_s_per_gb" if to == "b" else f"{prefix}_cpu_s_per_gb"] = found.cpu_s_per_gb
        after = product.writes() if product.writes and before else {}
        for place, figure in (("card A", "card_kib_per_write"), ("hub to B", "hub_kib_per_write")):
            if writes := after.get(place, 0) - before.get(place, 0):
                figures[figure] = found.gigabytes * 1e9 / 1024 / writes
        return figures

    def other(figure: str, count: int, *, back: bool) -> Measure:
        def take(product: Product) -> Figures:
            return {figure: stream(product, to, extent.short_s, count=count, back=back, control=control).mbit}

        return Measure(figure.removesuffix("_mbit").replace("_", " "), take)

    measures = [Measure(prefix, forward)]
    if extent.short_s:
        measures += [
            other(f"{prefix}_back_mbit", 1, back=True),
            other(f"{prefix}_4_mbit", 4, back=False),
            other(f"{prefix}_4_back_mbit", 4, back=True),
        ]
    return measures


def packets(extent: Extent, _control: str) -> list[Measure]:
    """Small packets and large ones, each at the rate at which most of a product's arrive."""
    rates: dict[tuple[str, int], float] = {}

    def take(product: Product, size: int) -> Figures:
        if (key := (product.name, size)) not in rates:
            rates[key] = best_rate(product, size) if extent.search else 0.0
        found = blast(product, size, extent.packets_s, rates[key])
        if not product.pids():
            return {f"kpps_{size}": found.kpps}
        return {f"kpps_{size}": found.kpps, f"cpu_us_per_packet_{size}": found.cpu_us}

    sizes = (64, 1400) if extent.short_s else (64,)
    return [Measure(f"packets of {size} B", partial(take, size=size)) for size in sizes]


def latency(extent: Extent, control: str) -> list[Measure]:
    """Pings from A to B, idle and beside one stream."""

    def idle(product: Product) -> Figures:
        found = ping(product, extent.pings)
        return {"idle_p50_ms": percentile(found, 0.5), "idle_p99_ms": percentile(found, 0.99)}

    def loaded(product: Product) -> Figures:
        found = stream(product, "b", extent.loaded_s, ping=True, control=control)
        return {
            "loaded_p50_ms": percentile(found.pings_ms, 0.5),
            "loaded_p99_ms": percentile(found.pings_ms, 0.99),
            "loaded_mbit": found.mbit,
        }

    return [Measure("ping", idle), Measure("ping beside a stream", loaded)]


def lossy(extent: Extent, control: str) -> list[Measure]:
    """Streams over the slow line."""

    def forward(product: Product) -> Figures:
        found = stream(product, "b", extent.lossy_s, ping=True, control=control)
        return {
            "lossy_mbit": found.mbit,
            "lossy_loaded_p50_ms": percentile(found.pings_ms, 0.5),
            "lossy_loaded_p99_ms": percentile(found.pings_ms, 0.99),
        }

    def back(product: Product) -> Figures:
        return {"lossy_back_mbit": stream(product, "b", extent.lossy_s, back=True, control=control).mbit}

    measures = [Measure("slow line", forward)]
    return [*measures, Measure("slow line, back", back)] if extent.short_s else measures


def memory(extent: Extent, _control: str) -> list[Measure]:
    """What H's processes hold with two members, and what each further session adds."""

    def take(product: Product) -> Figures:
        if not product.pids():
            return {}
        before = pss_mib(product.pids("h"))
        if product.members is None:
            return {"hub_mib": before}
        with product.members(extent.members):
            pause(REST_S)
            after = pss_mib(product.pids("h"))
        return {"hub_mib": before, "session_mib": (after - before) / extent.members}

    return [Measure(f"{extent.members} more sessions", take)]


def handshakes(extent: Extent, _control: str) -> list[Measure]:
    """What a TLS handshake costs H; and how many a second ours can do. (Others defend themselves against so many.)"""

    def take(product: Product) -> Figures:
        if not product.port:
            return {}
        own = product.pids("h")
        idle = Watch({"h": own})
        pause(extent.handshakes_s)
        base = idle.stop()
        busy = Watch({"h": own})
        done = _shake(product, extent.handshakes_s, PACED_PER_S)
        used = busy.stop()
        if not done:
            raise LabError("no handshake came about")
        figures = {"handshake_cpu_ms": 1e3 * (used.total_s - base.total_s * used.seconds / base.seconds) / done}
        if product.name == "ours":
            figures["handshakes_per_s"] = _shake(product, FLOOD_S, 0.0) / FLOOD_S
        return figures

    return [Measure("handshakes", take)]


def _shake(product: Product, seconds: float, per_s: float) -> int:
    address = next(address for address in product.hosts["h"].addresses if "." in address)
    words = [sys.executable, "-P", "-m", "bench.shake", address, product.port, seconds, per_s]
    said = product.hosts["a"].run([*map(str, words)], env={"PYTHONPATH": str(ROOT)}, timeout_s=seconds + 30.0)
    return int(json.loads(said)["done"])


def crowd(extent: Extent, control: str) -> list[Measure]:
    """How much two busy sessions of ours keep of their speed beside many idle ones: before them, with them, after."""

    def take(product: Product) -> Figures:
        if product.name != "ours" or product.members is None:
            return {}

        def streams() -> list[float]:
            return [stream(product, "b", extent.long_s, control=control).mbit for _ in range(extent.rounds)]

        before = streams()
        with product.members(extent.crowd):
            pause(REST_S)
            beside = streams()
        pause(REST_S)
        after = streams()
        kept = Median(
            2 * with_them / (one + other) for one, with_them, other in zip(before, beside, after, strict=True)
        )
        return {"crowd_mbit": Median(beside).middle, "crowd_keep_ratio": kept.middle}

    return [Measure(f"{extent.crowd} idle sessions beside", take)]


def tls(extent: Extent, control: str) -> list[Measure]:
    """The same streams with TLS and without."""

    def take(product: Product, to: str, prefix: str) -> Figures:
        found = stream(product, to, extent.long_s, control=control)
        return {f"{prefix}_mbit": found.mbit, f"{prefix}_cpu_s_per_gb": found.cpu_s_per_gb}

    return [
        Measure("TLS kept, relay", lambda product: take(product, "b", "tls_relay")),
        Measure("TLS kept, single tunnel", lambda product: take(product, "h", "tls_single")),
    ]


class Part(NamedTuple):
    """A part that a user can choose."""

    measures: Callable[[Extent, str], list[Measure]]
    rounds: Callable[[int], int] = int  # of those asked for
    twice: bool = True  # for each congestion control
    paired: bool = True  # each peer right behind ours: where the machine's mood matters


PARTS: Final[dict[str, Part]] = {
    "relay": Part(lambda extent, control: through("b", "relay", extent, control)),
    "single": Part(lambda extent, control: through("h", "single", extent, control)),
    "packets": Part(packets, twice=False),
    "latency": Part(latency),
    "memory": Part(memory, lambda _: 1, twice=False, paired=False),
    "handshakes": Part(handshakes, lambda rounds: min(rounds, 3), twice=False, paired=False),
    "crowd": Part(crowd, lambda _: 1, twice=False, paired=False),
    "lossy": Part(lossy),
    "tls": Part(tls, twice=False),
}
