"""One measurement of one product: a stream of TCP through it, packets, pings, and the CPU it took meanwhile.

Load tools run at the same priority as the products, so nobody waits for the other more than by what they do.
"""

import contextlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.blast import Received
from bench.machine import Usage, Watch
from bench.products import HIGHEST, Product
from lab.net import Host, LabError, Process
from lab.wait import pause, until

IPERF_PORT: Final = 5301
BLAST_PORTS: Final = range(20_000, 30_000)  # a new one each time
SPARE_S: Final = 20.0  # beyond its own time, then a load tool counts as stuck
BEGIN_S: Final = 0.5  # a stream runs for so long before pings are counted beside it
PING_S: Final = 0.01  # from one ping to the next
IDLE_S: Final = 0.25  # after the last packet the count is over
SEARCH_S: Final = 0.5
SEARCH: Final = (0.9, 1.2, 1.7, 2.5)  # of what arrives when all is sent that can be sent: offered rates to be tried
ROOT: Final = Path(__file__).resolve().parent.parent

_ports: Final[list[int]] = list(reversed(BLAST_PORTS))


class Stream(NamedTuple):
    """What came of a stream."""

    mbit: float  # million bits a second that arrived
    gigabytes: float
    usage: Usage
    pings_ms: list[float]  # beside it

    @property
    def cpu_s_per_gb(self) -> float:
        """Of all processes of the product together."""
        return self.usage.total_s / self.gigabytes


def stream(
    product: Product,
    to: str,
    seconds: int,
    *,
    count: int = 1,
    back: bool = False,
    ping: bool = False,
    control: str = "cubic",
) -> Stream:
    """`count` streams of TCP between A and host `to` ("b" or "h") at once. Raises: LabError.

    Args:
        back: towards A.  ping: A pings `to` meanwhile.  control: the streams' own congestion control.
    """
    a, far = product.hosts["a"], product.hosts[to]
    address = product.target if to == "b" else product.middle
    carriers = {letter: product.pids(letter) for letter in product.hosts}
    argv = ["iperf3", "-c", address, "-p", str(IPERF_PORT), "-t", str(seconds), "-P", str(count), "-C", control]
    argv += ["-J", "--connect-timeout", "5000", *(["-R"] if back else [])]
    with _listening(far), _pinging(a, address, seconds if ping else 0.0) as pings:
        watch = Watch(carriers)
        said = _ask(a, argv, seconds)
        usage = watch.stop()
    try:
        end = json.loads(said)["end"]["sum_received"]
        mbit, gigabytes = end["bits_per_second"] / 1e6, end["bytes"] / 1e9
    except (ValueError, KeyError):
        raise LabError(f"{product.title}: iperf3 gave no result:\n{said[-500:]}") from None
    if not gigabytes:
        raise LabError(f"{product.title}: nothing arrived")
    return Stream(mbit, gigabytes, usage, pings)


@contextlib.contextmanager
def _listening(host: Host) -> Iterator[None]:
    server = host.spawn(_first(["iperf3", "-s", "-1", "-p", str(IPERF_PORT)]), log="iperf3")
    try:
        until(lambda: host.run(["ss", "-ltnH", f"sport = :{IPERF_PORT}"]), seconds=10.0, what="iperf3 listening")
        yield
    finally:
        _end(host, server)


@contextlib.contextmanager
def _pinging(host: Host, address: str, seconds: float) -> Iterator[list[float]]:
    """Pings beside what the block does, which takes `seconds`; the list is filled when the block is left. 0: none."""
    pings: list[float] = []
    if not seconds:
        yield pings
        return
    count = max(1, int((seconds - 2 * BEGIN_S) / PING_S))
    words = " ".join(["ping", "-n", "-c", str(count), "-i", str(PING_S), "-W", "2", address])
    process = host.spawn(_first(["sh", "-c", f"sleep {BEGIN_S}; exec {words}"]), log="ping")
    try:
        yield pings
        process.wait(seconds=SPARE_S)
    finally:
        _end(host, process)
    pings += round_trips(process.output())


def ping(product: Product, count: int) -> list[float]:
    """Round trips from A to B with nothing else going on, ms."""
    argv = ["ping", "-n", "-c", str(count), "-i", "0.005", "-W", "2", product.target]
    return round_trips(_ask(product.hosts["a"], argv, 0.01 * count))


def round_trips(said: str) -> list[float]:
    """What ping printed, ms."""
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", said)]


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` (0..1) of the others don't exceed. Raises: LabError: there are none."""
    if not values:
        raise LabError("no ping was answered")
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


# -- packets -----------------------------------------------------------------------------------------------------------


class Blast(NamedTuple):
    """What came of many packets."""

    kpps: float  # thousand packets a second that arrived at B
    cpu_us: float  # of the product, for each packet that arrived


def blast(product: Product, size: int, seconds: float, rate: float) -> Blast:
    """UDP packets with `size` bytes of payload from A to B, so many a second; 0 = as many as go."""
    a, b = product.hosts["a"], product.hosts["b"]
    port = _ports.pop()
    carriers = {letter: product.pids(letter) for letter in product.hosts}
    env = {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-P", "-m", "bench.blast"]
    receiver = b.spawn(_first([*program, "receive", str(port), str(IDLE_S)]), log="blast", env=env)
    try:
        receiver.wait_for("^ready")
        watch = Watch(carriers)
        send = [*program, "send", product.target, str(port), str(size), f"{seconds:g}", f"{rate:.0f}"]
        _ask(a, send, seconds, env)
        receiver.wait_for(r"^\{")
        usage = watch.stop()
        found: dict[str, Any] = json.loads(receiver.output().splitlines()[-1])
    finally:
        _end(b, receiver)
    received = Received(**found)
    return Blast(received.per_s / 1e3, usage.total_s * 1e6 / max(received.received, 1))


def best_rate(product: Product, size: int) -> float:
    """The offered rate at which most arrives: with more, the sender takes the CPU that the product would need."""
    flat = blast(product, size, SEARCH_S, 0.0).kpps * 1e3
    tried = {0.0: flat}
    for part in SEARCH:
        rate = max(flat, 1000.0) * part
        tried[rate] = blast(product, size, SEARCH_S, rate).kpps * 1e3
    return max(tried, key=lambda rate: tried[rate])


# -- programs ----------------------------------------------------------------------------------------------------------


def _first(argv: Sequence[str]) -> list[str]:
    """The command line at the priority of the products."""
    return ["nice", "-n", str(HIGHEST), *argv]


def _ask(host: Host, argv: Sequence[str], seconds: float, env: dict[str, str] | None = None) -> str:
    try:
        return host.ask(_first(argv), timeout_s=seconds + SPARE_S, env=env).stdout
    except subprocess.TimeoutExpired:
        raise LabError(f"{argv[0]} did not end within {seconds + SPARE_S:g} s") from None


def _end(host: Host, process: Process) -> None:
    process.stop()
    host.net.processes.remove(process)
    pause(0.1)  # what it left on the way arrives
