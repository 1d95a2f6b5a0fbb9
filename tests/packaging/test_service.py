"""Hub, card and detector under a service manager: what it is told, when, and when it is told nothing any more."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.hub.processes import children
from tests.packaging.manager import PATIENCE_S, Manager

from lab.net import Net
from lab.ukihashi import Card, Hub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

WATCHDOG_S = 1.6
LONGER_S = 1.3  # than three rounds


@pytest.fixture
def manager() -> Iterator[Manager]:
    one = Manager(watchdog_s=WATCHDOG_S)
    yield one
    one.close()


@pytest.fixture
def env(manager: Manager) -> dict[str, str]:
    places = {f"UKIHASHI_{kind}_DIR": str(manager.folder / kind.lower()) for kind in ("STATE", "RUNTIME", "CONFIG")}
    return {**places, "LANGUAGE": "en"}


def ukihashi(*words: str) -> list[str]:
    return [sys.executable, "-m", "ukihashi.cli.main", *words]


def ask(env: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ukihashi(*words), env={**os.environ, **env}, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def page(port: int, *, then: "threading.Event | None" = None) -> bytes:
    """The first line of the answer to a request for the front page; `then` is set once the connection stands."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain:
        if then is not None:
            then.set()
        with context.wrap_socket(plain) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return sock.recv(15)


def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    return sock


def of_kind(pid: int, account: str) -> list[int]:
    """The hub's children that work as this account."""
    from ukihashi.net.privileges import identity

    uid = str(identity(account).uid)
    status = {one: Path(f"/proc/{one}/status").read_text() for one in children(pid)}
    return [one for one, text in status.items() if text.split("Uid:\t")[1].split()[0] == uid]


@pytest.mark.usefixtures("needs_root")
def test_a_hub_is_ready_when_it_serves_alive_while_all_turn_and_ready_again_when_it_was_upgraded(
    manager: Manager, env: dict[str, str], tmp_path: Path
) -> None:
    with listener() as sock:
        port = sock.getsockname()[1]
        hub = manager.start(ukihashi("hub", "serve"), env, tmp_path / "log", [sock])
    manager.wait_ready()
    assert manager.values("MAINPID") == [str(hub.pid)]
    assert manager.values("STATUS")[-1].endswith(f" serves on 127.0.0.1:{port}")
    assert page(port) == b"HTTP/1.1 200 OK"  # at once, in spite of a hub.toml that doesn't name this port
    assert json.loads(ask(env, "hub", "status", "--json"))["hubs"] == 0
    manager.wait_for(lambda one: one.values("WATCHDOG"), "a first sign of life")
    assert manager.count_alive(WATCHDOG_S) >= 2
    for account in ("ukihashi", "ukihashi-worker"):  # control, and a worker
        (still,) = of_kind(hub.pid, account)
        os.kill(still, signal.SIGSTOP)
        manager.hear(LONGER_S / 2)  # one answer may have been under way
        assert manager.count_alive(LONGER_S) == 0, account
        os.kill(still, signal.SIGCONT)
        assert manager.count_alive(WATCHDOG_S) >= 2, account
    assert "has not answered" in (tmp_path / "log").read_text()

    os.kill(hub.pid, signal.SIGHUP)
    manager.wait_ready(2)
    assert [name for _when, _pid, lines in manager.said for name in lines if name in ("READY", "RELOADING")] == [
        "READY", "RELOADING", "READY",
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as pool:  # the manager listens meanwhile: only so many words wait for it
        asked = pool.submit(ask, env, "hub", "upgrade")
        manager.wait_ready(3)
        asked.result()
    assert len(manager.values("RELOADING")) == 2
    assert set(manager.values("MAINPID")) == {str(hub.pid)}
    assert {pid for _when, pid, _lines in manager.said} == {hub.pid}  # no child says anything
    assert page(port) == b"HTTP/1.1 200 OK"
    assert manager.count_alive(WATCHDOG_S) >= 2
    hub.terminate()
    assert hub.wait(20) == 0
    manager.hear()
    assert manager.values("STOPPING") == ["1"]


def test_who_calls_while_the_hub_starts_anew_waits_in_the_managers_socket(
    manager: Manager, env: dict[str, str], tmp_path: Path
) -> None:
    with listener() as sock:
        port = sock.getsockname()[1]
        for _ in range(2):
            got: list[bytes] = []
            stands = threading.Event()
            caller = threading.Thread(target=lambda: got.append(page(port, then=stands)))  # noqa: B023 - joined below
            caller.start()
            assert stands.wait(10)  # before there is a hub
            hub = manager.start(ukihashi("hub", "serve"), env, tmp_path / "log", [sock])
            caller.join(PATIENCE_S)
            assert got == [b"HTTP/1.1 200 OK"]
            manager.wait_ready()
            hub.terminate()
            assert hub.wait(20) == 0


def test_what_is_no_listening_socket_is_refused_in_a_sentence(
    manager: Manager, env: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        hub = manager.start(ukihashi("hub", "serve"), env, tmp_path / "log", [sock])
    assert hub.wait(PATIENCE_S) == 2
    assert "descriptor 3 is no listening TCP socket" in (tmp_path / "log").read_text()
    manager.hear()
    assert manager.said == []


@pytest.mark.netns
def test_a_card_is_ready_when_it_has_joined_and_alive_while_both_its_processes_turn(net: Net, manager: Manager) -> None:
    machine, host = net.lan("hub", "card")
    hub, card = Hub(machine), Card(host)
    hub.start()
    account = card.prepare(hub.first_link(), {"interface": {"dhcp": "off"}})
    argv = card.argv("card", "up", "--foreground", "--keep-trying", "--", account)
    process = manager.start_on(host, argv, card.env, "card")
    manager.wait_ready()
    assert card.status()["state"] == "online"
    assert manager.values("STATUS")[-1] == "online"
    manager.wait_for(lambda one: one.values("WATCHDOG"), "a first sign of life")
    assert manager.count_alive(WATCHDOG_S) >= 2
    data = card.status()["data_pid"]
    os.kill(data, signal.SIGSTOP)
    manager.hear(LONGER_S / 2)
    assert manager.count_alive(LONGER_S) == 0
    os.kill(data, signal.SIGCONT)
    manager.wait_for(lambda one: one.count_alive(WATCHDOG_S) > 1, "life again")
    assert process.stop() == 0
    manager.hear()
    assert manager.values("STOPPING") == ["1"]


@pytest.mark.netns
def test_a_card_that_keeps_trying_is_ready_though_nobody_is_there(net: Net, manager: Manager) -> None:
    machine, host = net.lan("hub", "card")
    hub, card = Hub(machine), Card(host)
    hub.start()
    link = hub.first_link()
    hub.stop()
    account = card.prepare(link, {"times": {"dial": 1.0}})
    for words, ready in ((["--keep-trying"], True), ([], False)):
        process = manager.start_on(host, card.argv("card", "up", "--foreground", *words, "--", account), card.env, "c")
        if ready:
            manager.wait_ready()
            assert manager.values("STATUS")[-1].startswith(("not online yet: ", "connecting"))
            manager.wait_for(lambda one: one.values("WATCHDOG"), "life")
            process.stop()
        else:
            assert process.wait(seconds=PATIENCE_S) == 7
            manager.hear()
            assert manager.values("READY") == []


@pytest.mark.netns
@pytest.mark.parametrize("workers", [1, 2])
def test_a_detector_is_ready_when_its_cards_are_open_and_alive_while_all_its_processes_turn(
    net: Net, manager: Manager, workers: int
) -> None:
    _machine, host = net.lan("a", "b")
    interface = next(one["ifname"] for one in json.loads(host.run(["ip", "-j", "link"])) if one["ifname"] != "lo")
    argv = ukihashi("alert", "-i", interface, "--workers", str(workers), "--bus", "off")
    process = manager.start_on(host, argv, {"LANGUAGE": "en"}, "alert")
    manager.wait_ready()
    assert manager.values("STATUS")[0].startswith("Starting Capture Packets at [")
    manager.wait_for(lambda one: len(one.values("WATCHDOG")) >= 3, "life")
    assert any(" packets seen, 0 lost, 0 detections" in status for status in manager.values("STATUS"))
    assert process.stop() == 0
    manager.hear()
    assert manager.values("STOPPING") == ["1"]
