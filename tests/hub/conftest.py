"""A whole worker in a thread, with a control process that is only a few rules, and members made of the wire modules."""

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import pytest
import trustme
from tests.hub.cards import QUICK as QUICK_FIELD
from tests.hub.cards import Field
from tests.hub.processes import DEADLINE as PATIENCE
from tests.hub.processes import Supervised

from ukihashi.auth.password import check_secure_password, hash_password, secure_password
from ukihashi.errors import Refused
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import (
    AdminAsked,
    Answered,
    AnyMessage,
    Asked,
    HubPut,
    LoginAnswered,
    LoginAsked,
    Message,
    Ready,
    Stop,
)
from ukihashi.hub.pipes import Pipe, receive_with_fds, send_with_fd
from ukihashi.hub.worker import Worker, WorkerStart
from ukihashi.net.listen import listen_tcp
from ukihashi.net.tls import client_context, server_context
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.http import ClientSide, Response, pack_request, read_pack, signature_request
from ukihashi.wire.messages import AdditionalConnect, ErrorAnswer, Hello, Login, Welcome, read_answer, read_hello
from ukihashi.wire.pack import Pack
from ukihashi.wire.policy import DEFAULT

DEADLINE = 10.0  # seconds; for what is expected to come at once
PASSWORD = "correct horse"
QUICK = Limits(opening_s=1.5, login_s=1.0, relay_s=1.0, linger_s=0.2, idle_s=0.5, dead_s=1.5, first_s=0.25)


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE) -> Any:
    """Ask `condition` until it is true (or gives something); no longer than `deadline_s`."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        pause.wait(0.005)
    return result


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PEM files of a certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    leaf = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("hub.example", key_type=trustme.KeyType.RSA)
    leaf.cert_chain_pems[0].write_to_path(folder / "hub.pem")
    leaf.private_key_pem.write_to_path(folder / "hub.key")
    return folder / "hub.pem", folder / "hub.key"


class FakeControl:
    """Lets in user `a`, `b`, ... of hub LAN with PASSWORD or anonymously as `guest`; remembers what it was told."""

    def __init__(self, sock: socket.socket) -> None:
        self.told: deque[AnyMessage] = deque()
        self.silent = False  # doesn't answer logins
        self.max_sessions = 0
        self.policy = DEFAULT
        self._answers: dict[int, Answered] = {}
        self._pipe = Pipe(sock)
        self._lock = threading.Lock()
        self._asks = 0
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        with self._lock:
            self._pipe.send(message)

    def ask(self, what: str, hub: str = "", name: str = "") -> Answered:
        self._asks += 1
        ask = self._asks
        self.send(Asked(ask, what, hub, name))
        answer: Answered = wait_until(lambda: self._answers.pop(ask, None), f"answer to {what}")
        return answer

    def rows(self, what: str, hub: str = "", name: str = "") -> list[dict[str, Any]]:
        return self.ask(what, hub, name).rows

    def events(self, kind: type[Message]) -> list[Any]:
        return [message for message in list(self.told) if isinstance(message, kind)]

    def close(self) -> None:
        self._waker.send(b"x")
        self._thread.join()
        self._pipe.close()
        self._wake.close()
        self._waker.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._pipe.fileno(), self._wake.fileno()], [], [])
            if self._wake.fileno() in ready:
                return
            try:
                with self._lock:
                    messages = self._pipe.receive()
            except Exception:  # noqa: BLE001 - the worker is gone; the test sees it elsewhere
                return
            for message in messages:
                if isinstance(message, LoginAsked) and not self.silent:
                    self.told.append(message)
                    self.send(self._decide(message))
                elif isinstance(message, AdminAsked):
                    self.told.append(message)
                    self.send(LoginAnswered(message.ask, hub=message.hub))
                elif isinstance(message, Answered):
                    self._answers[message.ask] = message
                else:
                    self.told.append(message)

    def _decide(self, asked: LoginAsked) -> LoginAnswered:
        if asked.hub.casefold() not in {"lan", "other"}:
            return LoginAnswered(asked.ask, error=8)
        hashed = hash_password(asked.user, PASSWORD)
        good = (
            (asked.authtype == 1 and check_secure_password(hashed, asked.challenge, asked.secure_password))
            or (asked.authtype == 2 and asked.plain_password == PASSWORD)
            or (asked.authtype == 0 and asked.user == "guest")
        )
        if not good:
            return LoginAnswered(asked.ask, error=9)
        return LoginAnswered(
            asked.ask,
            hub=asked.hub.upper(),
            user=asked.user.lower(),
            max_sessions=self.max_sessions,
            policy=self.policy,
        )


class RunningHub:
    """A worker in a thread, listening on 127.0.0.1."""

    def __init__(self, certificate: tuple[Path, Path], limits: Limits = QUICK, web: Path | None = None) -> None:
        self._supervisor, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, theirs = socket.socketpair()
        listener = listen_tcp("127.0.0.1", 0)
        self.address: tuple[str, int] = listener.getsockname()
        self.worker = Worker(WorkerStart(there, theirs, [listener], server_context(*certificate), web, limits))
        self.control = FakeControl(control)
        self.control.send(HubPut("LAN"))
        self._there = there
        self._supervisor.settimeout(DEADLINE)
        self._thread = threading.Thread(target=self.worker.run, daemon=True)
        self._thread.start()
        assert receive_with_fds(self._supervisor) == (Ready(who="worker"), [])
        wait_until(lambda: self.control.rows("status")[0]["hubs"] == 1, "the virtual hub")

    def supervise(self, message: Message, fds: list[int] | None = None) -> None:
        send_with_fd(self._supervisor, message, fds or [])

    def stop(self) -> None:
        self.supervise(Stop())
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        assert self.worker.loop.faults == 0

    def close(self) -> None:
        if self._thread.is_alive():
            self.stop()
        self.control.close()
        self._supervisor.close()
        self._there.close()

    def socket(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=DEADLINE)

    def call(self, *, receive_buffer: int = 0) -> "Caller":
        return Caller(self, receive_buffer=receive_buffer)

    def member(self, user: str = "a", **login: Any) -> "Member":
        return Member.join(self, user, **login)


class Reachable(Protocol):
    def socket(self) -> socket.socket: ...


class Caller:
    """One TLS connection to the hub, before and after it is a tunnel."""

    def __init__(self, hub: Reachable, *, receive_buffer: int = 0) -> None:
        self.hub = hub
        sock = hub.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock = client_context().wrap_socket(sock, server_hostname="hub.example", suppress_ragged_eofs=False)
        self.http = ClientSide("hub.example")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def exchange(self, request: bytes) -> Response:
        self.sock.sendall(request)
        response = None
        while response is None:
            data = self.sock.recv(65536)
            response = self.http.receive(data) if data else self.http.end()
            assert data or response, "the hub hung up"
        return response

    def get(self, target: str, **headers: str) -> Response:
        return self.exchange(self.http.request("GET", target, list(headers.items())))

    def hello(self) -> Hello:
        pack = read_pack(self.exchange(signature_request(self.http)))
        assert pack is not None
        hello = read_hello(pack)
        assert isinstance(hello, Hello)
        return hello

    def pack(self, pack: Pack) -> Pack:
        answer = read_pack(self.exchange(pack_request(self.http, pack)))
        assert answer is not None
        return answer

    def login(self, user: str, challenge: bytes, hub: str = "LAN", password: str = PASSWORD, **more: Any) -> Welcome:
        """Raises Refused with the hub's code."""
        values: dict[str, Any] = {
            "authtype": 1,
            "secure_password": secure_password(hash_password(user, password), challenge),
            "client": "test card",
        }
        answer = read_answer(self.pack(Login(hub, user, **{**values, **more}).to_pack(os.urandom(7))))
        if isinstance(answer, ErrorAnswer):
            raise answer.refusal()
        assert isinstance(answer, Welcome)
        return answer

    def refusal(self, pack: Pack) -> int:
        """The code that `pack` is answered with; the hub must hang up after it."""
        code = self.pack(pack).get_int("error")
        self.expect_end()
        return code

    def expect_end(self, deadline_s: float = DEADLINE) -> bytes:
        """Read until the hub's close_notify and FIN; what came before."""
        self.sock.settimeout(deadline_s)
        rest = bytearray()
        while data := self.sock.recv(65536):
            rest += data
        return bytes(rest)


class Member:
    """A session: one tunnel, or several."""

    def __init__(self, caller: Caller, welcome: Welcome) -> None:
        self.hub = caller.hub
        self.welcome = welcome
        self.callers = [caller]
        self.decoder = BlockDecoder()
        self.frames: list[bytes] = self.decoder.feed(caller.http.take_over())

    @classmethod
    def join(cls, running: Reachable, user: str, **login: Any) -> Self:
        caller = Caller(running)
        try:
            return cls(caller, caller.login(user, caller.hello().random, **login))
        except Refused:
            caller.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self.callers:
            caller.sock.close()

    def connect_more(self) -> Caller:
        """`additional_connect`; the new connection is not read by `receive`. Raises Refused."""
        caller = Caller(self.hub)
        self.callers.append(caller)
        caller.hello()
        answer = caller.pack(AdditionalConnect(self.welcome.session_key).to_pack(b""))
        if answer.get_int("error"):
            raise ErrorAnswer.from_pack(answer).refusal()
        return caller

    def send(self, *frames: bytes) -> None:
        self.callers[0].sock.sendall(encode_frames(frames))

    def receive(self, count: int) -> list[bytes]:
        """Wait for `count` frames in all on the first connection; take them."""
        sock = self.callers[0].sock
        while len(self.frames) < count:
            data = sock.recv(262144)
            assert data, "the hub hung up"
            self.frames += self.decoder.feed(data)
        taken, self.frames = self.frames[:count], self.frames[count:]
        return taken

    def await_keepalives(self, count: int) -> None:
        sock = self.callers[0].sock
        while self.decoder.keepalives < count:
            data = sock.recv(262144)
            assert data, "the hub hung up"
            self.frames += self.decoder.feed(data)

    def row(self) -> dict[str, Any]:
        assert isinstance(self.hub, RunningHub)
        return next(row for row in self.hub.control.rows("sessions") if row["session"] == self.welcome.session_name)


@pytest.fixture
def hub(certificate: tuple[Path, Path]) -> Iterator[RunningHub]:
    running = RunningHub(certificate)
    yield running
    running.close()


@pytest.fixture
def make_hub(certificate: tuple[Path, Path]) -> Iterator[Callable[..., RunningHub]]:
    """Make hubs with other limits or a page server."""
    made: list[RunningHub] = []

    def make(limits: Limits = QUICK, web: Path | None = None) -> RunningHub:
        made.append(RunningHub(certificate, limits, web))
        return made[-1]

    yield make
    for running in made:
        running.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    """`until(condition, what)`: ask until it is true."""
    return wait_until


@pytest.fixture
def quick() -> Limits:
    """The limits of `hub`: the defaults divided by about ten."""
    return QUICK


@pytest.fixture
def call(hub: RunningHub) -> Iterator[Callable[[], Caller]]:
    """Open TLS connections to `hub`."""
    callers: list[Caller] = []

    def make() -> Caller:
        callers.append(Caller(hub))
        return callers[-1]

    yield make
    for caller in callers:
        caller.sock.close()


class MemberTypes(NamedTuple):
    member: type[Member]
    caller: type[Caller]


@pytest.fixture
def member_types() -> MemberTypes:
    """For hubs that a test starts in another way: anything with `socket()`."""
    return MemberTypes(Member, Caller)


@pytest.fixture
def launch(
    tmp_path: Path, certificate: tuple[Path, Path], repository: Path, until: Callable[..., Any]
) -> Iterator[Callable[..., Supervised]]:
    """Start a supervised hub; with `wait=False` don't wait until it serves."""
    made: list[Supervised] = []

    def make(*, wait: bool = True, **more: Any) -> Supervised:
        hub = Supervised(tmp_path, certificate, repository, **more)
        made.append(hub)
        if wait:
            ready = until(lambda: hub.told("ready"), "the hub serves", PATIENCE)
            hub.address = (ready[0][0][0], ready[0][0][1])
        return hub

    yield make
    for hub in made:
        hub.close()


@pytest.fixture
def make_field(certificate: tuple[Path, Path]) -> Iterator[Callable[..., Field]]:
    """Sets up workers without a process, on a clock of the test's own."""
    made: list[Field] = []

    def make(limits: Limits = QUICK_FIELD) -> Field:
        made.append(Field(server_context(*certificate), limits))
        return made[-1]

    yield make
    for field in made:
        field.close()


@pytest.fixture
def field(make_field: Callable[..., Field]) -> Field:
    return make_field()
