"""What moves a connection, and what does not, in a network of the test's own: `wan` and `other` lead out."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.own_network import own_network
from ukihashi.errors import DialError
from ukihashi.net.route_watch import Notices, RouteWatch

pytestmark = pytest.mark.netns

HUB = {4: "203.0.113.9", 6: "2001:db8:9::9"}
OWN = {4: "10.1.0.2", 6: "fd01::2"}
GATEWAY = {4: "10.1.0.1", 6: "fd01::1"}
SECOND = {4: "10.1.0.254", 6: "fd01::fe"}
OTHER = {4: "10.2.0.1", 6: "fd02::1"}
HALF = {4: "203.0.0.0/8", 6: "2001:db8::/32"}
ELSEWHERE = {4: "198.51.100.0/24", 6: "2001:db8:7::/48"}


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        for number, name in ((1, "wan"), (2, "other")):
            ip(f"link add {name} type veth peer name {name}-far")
            ip(f"link set {name}-far up")
            ip(f"addr add 10.{number}.0.2/24 dev {name}")
            ip(f"addr add fd0{number}::2/64 dev {name} nodad")
            ip(f"link set {name} up")
        for version in (4, 6):
            ip(f"-{version} route add default via {GATEWAY[version]}")
        yield


def reason_of(watch: RouteWatch, *commands: str, seconds: float = 10.0) -> DialError | None:
    """Do as `ip` says, one by one; what the watch reports, None if it stays quiet for `seconds`."""

    async def scenario() -> DialError | None:
        task = asyncio.create_task(watch.changed())
        await asyncio.sleep(0.2)
        for command in commands:
            await asyncio.to_thread(ip, command)
        try:
            async with asyncio.timeout(seconds):
                return await task
        except TimeoutError:
            return None

    return asyncio.run(scenario())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("addr del {own}/{length} dev wan", "no longer has the address {own}"),
        ("-{version} route replace default via {second}", "from wan {gateway} to wan {second}"),
        ("-{version} route add {half} via {other}", "from wan {gateway} to other {other}"),
        ("-{version} route del default", "no route to {hub} any more"),
        ("link set wan down", "{hub}|{own}"),
        ("link del wan", "{own}"),
    ],
)
def test_what_moves_a_connection(version: int, command: str, said: str) -> None:
    words = {
        "version": version, "own": OWN[version], "length": 24 if version == 4 else 64, "gateway": GATEWAY[version],
        "second": SECOND[version], "other": OTHER[version], "half": HALF[version], "hub": HUB[version],
    }  # fmt: skip
    reason = reason_of(RouteWatch(OWN[version], HUB[version]), command.format(**words))
    assert any(part in str(reason) for part in said.format(**words).split("|"))


@pytest.mark.parametrize("version", [4, 6])
def test_what_does_not(version: int) -> None:
    quiet = reason_of(
        RouteWatch(OWN[version], HUB[version]),
        f"-{version} route add {ELSEWHERE[version]} via {OTHER[version]}",
        f"-{version} route add default via {OTHER[version]} metric 4000",
        "addr add 10.7.0.2/24 dev other",
        "addr add fd07::2/64 dev wan",
        "link add uklan type veth peer name uklan-far",
        "addr add 10.9.0.2/24 dev uklan",
        "link set uklan up",
        "route add 10.10.0.0/16 via 10.9.0.1",
        "link del uklan",
        "link set other down",
        seconds=0.5,
    )
    assert quiet is None


@pytest.mark.parametrize("version", [4, 6])
def test_a_renewal_in_one_go_is_no_change(version: int) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(RouteWatch(OWN[version], HUB[version], quiet=0.4).changed())
        await asyncio.sleep(0.2)
        await asyncio.to_thread(ip, f"-{version} route del default")
        await asyncio.to_thread(ip, f"-{version} route add default via {GATEWAY[version]}")
        await asyncio.sleep(0.7)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [4, 6])
def test_the_mark_decides_which_rules_hold(version: int) -> None:
    ip(f"-{version} route add default via {OTHER[version]} table 99")
    add_rule = f"-{version} rule add priority 100 not fwmark 0x2b75 table 99"
    assert reason_of(RouteWatch(OWN[version], HUB[version], 0x2B75), add_rule, seconds=0.5) is None
    ip(f"-{version} rule del priority 100")
    assert "to other" in str(reason_of(RouteWatch(OWN[version], HUB[version]), add_rule))


def test_a_connection_that_has_no_address_now_is_told_at_once() -> None:
    assert "no longer has the address 10.1.0.77" in str(reason_of(RouteWatch("10.1.0.77", HUB[4])))


def test_of_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert reason_of(RouteWatch.of(client), "route del default", seconds=0.3) is None


def test_without_rights() -> None:
    script = (
        "import asyncio, concurrent.futures.thread, os\n"
        "from ukihashi.net.route_watch import RouteWatch\n"
        f"RouteWatch({OWN[4]!r}, {HUB[4]!r})._look()  # imports what nobody may read afterwards\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "async def main():\n"
        f"    task = asyncio.create_task(RouteWatch({OWN[4]!r}, {HUB[4]!r}).changed())\n"
        "    await asyncio.sleep(0.3)\n"
        "    print('ready', flush=True)\n"
        "    print(await task, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        ip("route del default")
        assert "no route to" in process.stdout.readline()


def test_more_notices_than_fit_are_one_change() -> None:
    async def scenario() -> None:
        with Notices() as notices:
            notices._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            for number in range(60):
                await asyncio.to_thread(ip, f"route add 10.200.{number}.0/24 dev other")
            async with asyncio.timeout(5):
                await notices.changed(0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await notices.changed(0.05)

    asyncio.run(scenario())
