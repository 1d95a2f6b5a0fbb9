import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from ukihashi.auth.link import Link
from ukihashi.auth.password import admin_hash, hash_password, secure_password
from ukihashi.config.hub import Endpoint
from ukihashi.errors import UkihashiError
from ukihashi.hub import control
from ukihashi.hub.backstage import Facts
from ukihashi.hub.desk import Desk
from ukihashi.hub.hashing import Hasher
from ukihashi.hub.messages import (
    AdminAsked,
    Answered,
    AnyMessage,
    Asked,
    Failed,
    Granted,
    HostPortGone,
    HostPortWanted,
    HubPut,
    HubRemoved,
    LoginAnswered,
    LoginAsked,
    OptionsPut,
    PasswordAsked,
    PeerLink,
    Ready,
    RpcAnswered,
    RpcAsked,
    SessionOpened,
    Stop,
    Traffic,
    Upgraded,
    Wish,
    encode,
)
from ukihashi.hub.pipes import LENGTH, MessageDecoder, receive_with_fds, send_with_fd
from ukihashi.net.control_socket import Client
from ukihashi.wire.constants import Code
from ukihashi.wire.pack import Pack

PATIENCE_S = 10.0
CHALLENGE = b"c" * 20


class Worker:
    """A worker that is only a socket: notes what it is told, answers questions from a table."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.told: list[AnyMessage] = []
        self.rows: dict[str, list[dict[str, Any]]] = {"status": [{"connections": 0}]}
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        decoder = MessageDecoder()
        while data := self.sock.recv(65536):
            for message in decoder.feed(data):
                if isinstance(message, Asked):
                    self.send(Answered(message.ask, rows=self.rows.get(message.what, [])))
                with self.changed:
                    self.told.append(message)
                    self.changed.notify_all()

    def send(self, message: Any) -> None:
        data = encode(message)
        self.sock.sendall(LENGTH.pack(len(data)) + data)

    def wait_for(self, fits: Callable[[AnyMessage], bool]) -> Any:
        with self.changed:
            assert self.changed.wait_for(lambda: any(map(fits, self.told)), PATIENCE_S), self.told
            return next(message for message in self.told if fits(message))

    def login(self, user: str, password: str, number: int = 1, **more: Any) -> LoginAnswered:
        answer = secure_password(hash_password(user, password), CHALLENGE)
        self.send(LoginAsked(number, "LAN", user, 1, CHALLENGE, secure_password=answer, peer="192.0.2.9:5", **more))
        found = self.wait_for(lambda message: isinstance(message, LoginAnswered) and message.ask == number)
        assert isinstance(found, LoginAnswered)
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE_S)
        self.sock.close()


class Hub:
    """A control process in a thread, between a supervisor and a worker that are only sockets."""

    def __init__(
        self,
        folder: Path,
        *,
        first: bool = False,
        web: control.Web | None = None,
        host_ports: bool = True,
        public_address: str = "hub.example.jp",
    ) -> None:
        self.folder = folder
        self.births: list[control.Birth] = []
        self.supervisor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor.settimeout(PATIENCE_S)
        worker, worker_theirs = socket.socketpair()
        self.worker = Worker(worker)
        self.listening = []
        for name in ("web", "admin"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            (folder / f"{name}.sock").unlink(missing_ok=True)
            sock.bind(str(folder / f"{name}.sock"))
            sock.listen()
            self.listening.append(sock)
        facts = Facts(
            "9.9", (Endpoint("127.0.0.1", 8443),), b"p" * 32, public_address=public_address, host_ports=host_ports
        )
        start = _Start(theirs, worker_theirs, *self.listening)
        self.status: list[int] = []
        self.left = [theirs, worker_theirs]

        def live() -> None:
            self.status.append(
                control.run(
                    start,
                    facts,
                    folder / "hub.db",
                    web=web,
                    announce=self.births.append,
                    first=first,
                    hasher=Hasher(hasher=PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)),
                )
            )

        self.thread = threading.Thread(target=live, daemon=True)
        self.thread.start()
        self.wishes: list[AnyMessage] = []

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        return Client(self.folder / "admin.sock", PATIENCE_S).ask(do, **arguments)

    def wish(self, kind: type) -> Any:
        """The next message of that kind to the supervisor."""
        while True:
            received = receive_with_fds(self.supervisor)
            assert received is not None
            if isinstance(received[0], kind):
                return received[0]

    def stop(self) -> int:
        with contextlib.suppress(UkihashiError):
            send_with_fd(self.supervisor, Stop())
        self.worker.close()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        for sock in (self.supervisor, *self.listening, *self.left):
            sock.close()
        return self.status[0]


class _Start:
    def __init__(
        self, supervisor: socket.socket, worker: socket.socket, web: socket.socket, admin: socket.socket
    ) -> None:
        self.supervisor, self.workers, self.web, self.admin = supervisor, {0: worker}, web, admin


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio takes signal handlers in the main thread only."""
    monkeypatch.setattr(asyncio.unix_events._UnixSelectorEventLoop, "add_signal_handler", lambda *_: None)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    made.wish(Ready)
    yield made
    made.stop()


def test_the_first_start_has_a_secret_a_hub_with_a_host_port_and_a_link(tmp_path: Path) -> None:
    first = Hub(tmp_path, first=True)
    wanted = first.wish(HostPortWanted)
    assert (wanted.hub, wanted.interface) == ("LAN", "uklan")
    assert [one.rpartition("/")[0].rpartition(".")[2] for one in wanted.addresses[:1]] == ["1"]
    first.wish(Ready)
    assert first.worker.wait_for(lambda message: isinstance(message, HubPut)).hub == "LAN"
    row = first.ask("list")[0]
    birth = first.births[0]
    link = Link.parse(birth.invites[0]["link"])
    assert (link.hub, link.user, link.pin, link.location) == ("LAN", "guest", b"p" * 32, "hub.example.jp:8443")
    assert link.addresses == tuple(birth.invites[0]["addresses"])
    assert row["subnet4"].rpartition(".")[0] == link.addresses[0].rpartition(".")[0]
    assert first.ask("admin_check", secret=birth.secret) == [{"one_time": True}]
    assert first.stop() == 0

    again = Hub(tmp_path, first=True)
    again.wish(Ready)
    assert again.births[0].secret == ""
    assert len(again.ask("list")) == 1
    assert Link.parse(again.births[0].invites[0]["link"]).addresses == link.addresses
    assert again.stop() == 0


def test_without_root_the_first_hub_has_no_host_port(tmp_path: Path) -> None:
    made = Hub(tmp_path, first=True, host_ports=False)
    made.wish(Ready)
    assert made.ask("list")[0]["host_port"] is None
    with pytest.raises(UkihashiError, match="sudo"):
        made.ask("create", name="x", host_port=True)
    made.stop()


def test_hubs_are_made_and_deleted_while_running(hub: Hub) -> None:
    hub.ask("create", name="本社", host_port=True)
    wanted = hub.wish(HostPortWanted)
    assert wanted.interface.startswith("ukhub")
    with pytest.raises(UkihashiError, match="already"):
        hub.ask("create", name="本社")
    hub.ask("create", name="支店", offline=True)
    assert hub.worker.wait_for(lambda message: isinstance(message, HubPut) and message.hub == "支店").online is False
    assert hub.ask("hub_set", name="支店", online=True)[0]["online"] is True
    subnets = [row["subnet4"] for row in hub.ask("list")]
    assert len(set(subnets)) == 2
    hub.ask("delete", name="本社")
    assert hub.wish(HostPortGone).hub == "本社"
    assert hub.worker.wait_for(lambda message: isinstance(message, HubRemoved)).hub == "本社"
    with pytest.raises(UkihashiError, match="no virtual hub “本社”; there are: 支店"):
        hub.ask("sessions", hub="本社")


def test_a_generated_password_is_told_once_and_lets_in(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    password = hub.ask("user_create", name="Hanako")[0]["password"]
    assert "password" not in hub.ask("user_show", name="hanako")[0]
    assert hub.worker.login("hanako", password).error == 0
    assert hub.worker.login("hanako", "wrong", 2).error == Code.AUTH_FAILED
    renewed = hub.ask("user_password", name="hanako")[0]["password"]
    assert hub.worker.login("hanako", password, 3).error == Code.AUTH_FAILED
    assert hub.worker.login("hanako", renewed, 4).error == 0
    hub.worker.send(SessionOpened("SID-HANAKO-1", "LAN", "Hanako", "192.0.2.9:5", "client", 0, 1234.5))
    hub.worker.login("x", "x", 5)  # after it, the event before has been taken
    hub.ask("user_create", name="after", anonymous=True)
    assert {row["name"]: row["last_login_at"] for row in hub.ask("users")} == {"Hanako": 1234.5, "after": None}


def test_a_member_sets_a_new_password(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    password = hub.ask("user_create", name="Hanako")[0]["password"]
    old = secure_password(hash_password("Hanako", password), CHALLENGE)
    hub.worker.send(PasswordAsked(1, "LAN", "hanako", CHALLENGE, old, hash_password("hanako", "newer")))
    answer = hub.worker.wait_for(lambda message: isinstance(message, LoginAnswered) and message.ask == 1)
    assert answer.error == 0
    assert hub.worker.login("hanako", password, 2).error == Code.AUTH_FAILED
    assert hub.worker.login("hanako", "newer", 3).error == 0


def test_traffic_is_counted_even_in_the_last_moment(tmp_path: Path) -> None:
    made = Hub(tmp_path)
    made.wish(Ready)
    made.ask("create", name="LAN")
    made.ask("user_create", name="hanako")
    made.worker.send(Traffic("SID-HANAKO-1", "LAN", "hanako", 1, 100, 2, 200))
    made.worker.login("x", "x")  # after it, the message before has been taken
    assert made.stop() == 0
    again = Hub(tmp_path)
    again.wish(Ready)
    (row,) = again.ask("users")
    assert (row["bytes_in"], row["bytes_out"]) == (100, 200)
    assert again.stop() == 0


def test_chosen_passwords(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    assert hub.ask("user_create", name="taro", password="long enough")[0]["login"] == "chosen"
    assert hub.worker.login("taro", "long enough").error == Code.AUTH_FAILED  # the standard hash was not asked for
    hub.ask("user_password", name="taro", password="long enough", standard_hash=True)
    assert hub.worker.login("taro", "long enough", 2).error == 0
    with pytest.raises(UkihashiError, match="8 to 256 characters"):
        hub.ask("user_create", name="jiro", password="short")
    with pytest.raises(UkihashiError, match="logs in otherwise than by password"):
        hub.ask("user_create", name="jiro", password="long enough", anonymous=True)
    assert [row["name"] for row in hub.ask("users")] == ["taro"]


def test_a_deleted_user_loses_running_sessions(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    hub.ask("user_create", name="hanako")
    hub.worker.rows["sessions"] = [
        {"session": "SID-HANAKO-1", "hub": "LAN", "user": "hanako"},
        {"session": "SID-TARO-2", "hub": "LAN", "user": "taro"},
    ]
    hub.ask("user_delete", name="HANAKO")
    asked = hub.worker.wait_for(lambda message: isinstance(message, Asked) and message.what == "disconnect")
    assert (asked.hub, asked.name) == ("LAN", "SID-HANAKO-1")


def test_a_link_is_made_listed_used_and_revoked(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    row = hub.ask("invite", user="guest", host_name="[2001:db8::1]:444")[0]
    link = Link.parse(row["link"])
    assert (link.location, row["command"]) == ("[2001:db8::1]:444", f"ukihashi card join '{row['link']}'")
    again = Link.parse(hub.ask("invite", user="GUEST", days=1)[0]["link"])
    assert again.addresses == link.addresses
    assert again.token != link.token
    assert Link.parse(hub.ask("invite", user="other")[0]["link"]).addresses != link.addresses
    mine = {"invite_token": link.token, "invite_hash": hash_password("guest", "of-the-card")}
    assert hub.worker.login("guest", "of-the-card", 1, **mine).error == 0
    assert hub.worker.login("guest", "of-the-card", 2).error == 0
    hub.ask("invite_revoke", invite=3)
    assert [row["state"] for row in hub.ask("invites")] == ["used", "open", "revoked"]
    with pytest.raises(UkihashiError, match="no join link number 99"):
        hub.ask("invite_revoke", invite=99)
    with pytest.raises(UkihashiError, match="at most 3650 days"):
        hub.ask("invite", user="guest", days=0)
    hub.ask("user_create", name="open", anonymous=True)
    with pytest.raises(UkihashiError, match="does not log in by password"):
        hub.ask("invite", user="open")
    with pytest.raises(UkihashiError, match="hub's own administrator"):
        hub.ask("invite", user="ADMINISTRATOR")


def test_a_link_brings_paths_to_the_hub_and_never_a_password(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    wanted = ["http://Proxy.example:3128/", "direct:", "ssh://gate.example", "http://proxy.example:3128"]
    link = Link.parse(hub.ask("invite", user="guest", via=wanted)[0]["link"])
    assert link.via == ("http://proxy.example:3128", "ssh://gate.example")
    assert Link.parse(hub.ask("invite", user="guest")[0]["link"]).via == ()
    longest = [f"http://{number}{'x' * 254}@{'.'.join(['h' * 60] * 4)}:3128" for number in range(8)]
    told = hub.ask("invite", user="guest", via=longest)[0]["link"]
    assert Link.parse(told).via == tuple(longest)
    too_long = [one.replace("@", "@w.") for one in longest]
    for wrong in (too_long, [f"http://p:{number}" for number in range(1, 10)]):
        with pytest.raises(UkihashiError, match="at most 8 paths"):
            hub.ask("invite", user="guest", via=wrong)
    with pytest.raises(UkihashiError, match="a password in a URL") as refused:
        hub.ask("invite", user="guest", via=["http://taro:s3cr3t@proxy.example:3128"])
    assert "s3cr3t" not in str(refused.value)
    with pytest.raises(UkihashiError, match="is no path to a hub"):
        hub.ask("invite", user="guest", via=["quic://proxy.example:3128"])
    assert len(hub.ask("invites")) == 3


def test_where_several_hubs_are_one_must_be_named(hub: Hub) -> None:
    with pytest.raises(UkihashiError, match="no virtual hub yet; make one with: ukihashi hub create LAN"):
        hub.ask("invite", user="guest")
    hub.ask("create", name="A")
    hub.ask("create", name="B")
    with pytest.raises(UkihashiError, match="name one of: A, B"):
        hub.ask("invite", user="guest")


def test_the_administrators_secret_becomes_a_password_and_can_be_reset(hub: Hub) -> None:
    secret = hub.births[0].secret
    with pytest.raises(UkihashiError, match="password is wrong"):
        hub.ask("admin_check", secret="wrong")
    with pytest.raises(UkihashiError, match="12 to 256"):
        hub.ask("admin_set_password", old=secret, new="short")
    hub.ask("admin_set_password", old=secret, new="a sentence of mine")
    with pytest.raises(UkihashiError, match="password is wrong"):
        hub.ask("admin_check", secret=secret)
    assert hub.ask("admin_check", secret="a sentence of mine") == [{"one_time": False}]
    renewed = hub.ask("admin_reset")[0]["secret"]
    assert hub.ask("admin_check", secret=renewed) == [{"one_time": True}]


def test_a_new_worker_is_told_every_hub_and_answers_go_on(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    ours, theirs = socket.socketpair()
    hub.worker.close()
    send_with_fd(hub.supervisor, PeerLink("worker"), [theirs.fileno()])
    theirs.close()
    hub.worker = Worker(ours)
    assert hub.worker.wait_for(lambda message: isinstance(message, HubPut)).hub == "LAN"
    hub.worker.rows["mac_table"] = [{"mac": "02:00:5e:10:00:01"}]
    assert hub.ask("mac_table", hub="lan") == [{"mac": "02:00:5e:10:00:01"}]


def test_who_is_let_in_at_the_start_finds_a_worker_that_knows_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Hub(tmp_path)
    before.wish(Ready)
    before.ask("create", name="LAN")
    password = before.ask("user_create", hub="LAN", name="ann")[0]["password"]
    before.stop()
    announce = Desk.announce_all

    async def slowly(desk: Desk, **options: bool) -> None:
        await asyncio.sleep(0.3)
        await announce(desk, **options)

    monkeypatch.setattr(Desk, "announce_all", slowly)
    hub = Hub(tmp_path)
    try:
        assert not hub.worker.login("ann", password).error
        kinds = [type(message) for message in hub.worker.told]
        assert kinds.index(HubPut) < kinds.index(LoginAnswered)
    finally:
        hub.stop()


def granted(hub: Hub, answer: dict[str, Any], do: str, **arguments: Any) -> tuple[Wish, list[dict[str, Any]]]:
    """What the supervisor is asked when a command asks `do`, and what the command gets for that answer."""
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(hub.ask, do, **arguments)
        wish = hub.wish(Wish)
        send_with_fd(hub.supervisor, Granted(wish.ask, **answer))
        return wish, asking.result(PATIENCE_S)


@pytest.mark.parametrize("do", ["options", "reload", "upgrade"])
def test_what_is_the_supervisors_is_asked_of_it(hub: Hub, do: str) -> None:
    rows = [{"from": "1", "to": "2", "number": 1}]
    wish, got = granted(hub, {"rows": rows}, do)
    assert (wish.what, wish.key, wish.value) == (do, "", "")
    assert got == rows


def test_an_option_is_set_by_the_supervisor_and_its_no_is_told(hub: Hub) -> None:
    wish, got = granted(hub, {"rows": [{"option": "times.dead_s"}]}, "set_option", key="times.dead_s", value="20")
    assert (wish.what, wish.key, wish.value) == ("set_option", "times.dead_s", "20")
    assert got == [{"option": "times.dead_s"}]
    no = {"template": "{key} can't be {value}", "values": {"key": "listen", "value": 3}, "exit_status": 2}
    with pytest.raises(UkihashiError, match="listen can't be 3") as refused:
        granted(hub, no, "set_option", key="listen", value="3")
    assert refused.value.exit_status == 2


def test_new_options_are_passed_on_and_named_in_links(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    send_with_fd(hub.supervisor, OptionsPut("other.example:444", 7.0, 11.0, [{"option": "x", "old": 1, "new": 2}]))
    put = hub.worker.wait_for(lambda message: isinstance(message, HubPut) and message.ageing_s == 11.0)
    assert put.session_timeout_s == 7.0
    link = Link.parse(hub.ask("invite", user="guest")[0]["link"])
    assert link.location == "other.example:444"


def test_how_an_upgrade_went_is_in_the_status(hub: Hub) -> None:
    assert hub.ask("status")[0]["upgrade"] is None
    send_with_fd(hub.supervisor, Upgraded(2, "1.0", 5, 0.02))
    # packets come in order: what is asked of the supervisor after it is answered after it
    granted(hub, {"rows": []}, "options")
    assert hub.ask("status")[0]["upgrade"] == {"number": 2, "from": "1.0", "sessions": 5, "pause_s": 0.02}


def test_a_control_that_is_replaced_does_not_wait_for_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LAST_WORDS_S", 10 * PATIENCE_S)
    made = Hub(tmp_path)
    made.wish(Ready)
    send_with_fd(made.supervisor, Stop(worker_stays=True))
    made.thread.join(PATIENCE_S)
    assert made.status == [0]
    assert made.stop() == 0


def test_without_a_worker_questions_are_answered_with_a_sentence(hub: Hub) -> None:
    hub.ask("create", name="LAN")
    hub.worker.close()
    with pytest.raises(UkihashiError, match="worker"):
        hub.ask("sessions")
    assert hub.ask("status")[0]["sessions"] is None
    assert hub.ask("list")[0]["sessions"] is None


def test_the_page_asks_by_the_same_verbs_and_a_no_is_no_exception(tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    asked = threading.Event()

    async def web(_listener: socket.socket, api: control.WebApi) -> None:
        answers.append(await api.ask("admin_check", secret="wrong"))
        answers.append(await api.ask("list"))
        asked.set()

    made = Hub(tmp_path, web=web)
    made.wish(Ready)
    assert asked.wait(PATIENCE_S)
    assert answers[0]["ok"] is False
    assert answers[1] == {"ok": True, "rows": []}
    assert made.ask("list") == []  # the page's end was not the hub's
    made.stop()


def test_a_database_that_can_not_be_used_is_told_to_the_supervisor(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"not a database" * 100)
    made = Hub(tmp_path)
    assert "hub.db can't be used" in made.wish(Failed).sentence
    assert made.stop() == 3


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = Hub(tmp_path)
    made.wish(Ready)
    assert made.stop() == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_tools_of_others_are_let_in_when_allowed_and_their_calls_answered(hub: Hub) -> None:
    def let_in(number: int, password: str) -> LoginAnswered:
        secure = secure_password(admin_hash(password), CHALLENGE)
        hub.worker.send(AdminAsked(number, "", CHALLENGE, secure, peer="192.0.2.7:1"))
        answer: LoginAnswered = hub.worker.wait_for(lambda one: isinstance(one, LoginAnswered) and one.ask == number)
        return answer

    assert let_in(1, "").error == Code.ACCESS_DENIED
    password = hub.ask("tools_on")[0]["password"]
    assert let_in(2, password).error == 0
    call = Pack()
    call.add_str("function_name", "EnumHub")
    hub.ask("create", name="LAN")
    hub.worker.send(RpcAsked(3, "", call.encode(), peer="192.0.2.7:1"))
    answer = hub.worker.wait_for(lambda one: isinstance(one, RpcAnswered))
    assert Pack.decode(answer.answer).get_str("HubName") == "LAN"
    hub.worker.send(RpcAsked(4, "", b"junk", peer="192.0.2.7:1"))
    assert hub.worker.wait_for(lambda one: isinstance(one, RpcAnswered) and one.ask == 4).answer == b""
