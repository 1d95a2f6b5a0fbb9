"""JSON-RPC on the hub's pages: who is let in, what is a request, how an answer looks."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ukihashi.errors import Refused
from ukihashi.web.app import build_app
from ukihashi.web.json_rpc import MAX_BODY
from ukihashi.wire.constants import Code, sentence

PASSWORD = "k7m2q-x9a4d"


class Tools:
    """The hub's side: one password for the whole, one for LAN."""

    def __init__(self) -> None:
        self.called: list[tuple[str, str, Mapping[str, Any], str]] = []
        self.tried: list[tuple[str, str]] = []

    async def password_login(self, hub: str, password: str, peer: str) -> int:
        self.tried.append((hub, peer))
        return 0 if (hub, password) in {("", PASSWORD), ("LAN", "lan")} else int(Code.ACCESS_DENIED)

    async def call_json(self, hub: str, name: str, params: Mapping[str, Any], peer: str) -> dict[str, Any]:
        self.called.append((hub, name, params, peer))
        if name == "Unknown":
            raise Refused(sentence(Code.NOT_SUPPORTED), code=Code.NOT_SUPPORTED)
        return {"StrValue_str": "日本", **params}


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def client(tools: Tools, hub: Any, new_visitor: Any) -> Any:
    return new_visitor(build_app(hub, page_dir=None, version="9", json_rpc=tools), x_forwarded_for="192.0.2.7")


def post(client: Any, body: object, path: str = "/api/", **headers: str) -> Any:
    given = {"x-vpnadmin-password": PASSWORD} | {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.ask("POST", path, data, given)


CALL = {"jsonrpc": "2.0", "id": "7", "method": "Test", "params": {"IntValue_u32": 5}}


@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_a_call_is_answered(client: Any, tools: Tools, path: str) -> None:
    answer = post(client, CALL, path)
    assert (answer.status, answer["content-type"], answer["cache-control"]) == (200, "application/json", "no-store")
    assert json.loads(answer.body) == {
        "jsonrpc": "2.0",
        "id": "7",
        "result": {"StrValue_str": "日本", "IntValue_u32": 5},
    }
    assert tools.called == [("", "Test", {"IntValue_u32": 5}, "192.0.2.7:0")]


def test_the_get_form(client: Any, tools: Tools) -> None:
    answer = client.get("/api/EnumUser?HubName_str=LAN", x_vpnadmin_password=PASSWORD)
    assert answer["content-type"].startswith("text/plain")
    assert json.loads(answer.body)["result"]["HubName_str"] == "LAN"
    assert json.loads(answer.body)["id"] == "0"


def test_nothing_is_changed_by_get(client: Any, tools: Tools) -> None:
    for name in ("DeleteHub", "SetUser", "CreateHub", "AddAccess"):
        assert client.get(f"/api/{name}?HubName_str=LAN", x_vpnadmin_password=PASSWORD).status == 405
    assert tools.called == []


def test_an_error_has_its_code(client: Any) -> None:
    answer = post(client, CALL | {"method": "Unknown"})
    assert answer.status == 200
    assert json.loads(answer.body)["error"]["code"] == 33
    assert json.loads(answer.body)["id"] == "7"


@pytest.mark.parametrize(
    ("headers", "hub"),
    [
        ({"x-vpnadmin-password": PASSWORD}, ""),
        ({"x-vpnadmin-password": "lan", "x-vpnadmin-hubname": "LAN"}, "LAN"),
        ({"authorization": "Basic " + base64.b64encode(f"administrator:{PASSWORD}".encode()).decode()}, ""),
        ({"authorization": "basic " + base64.b64encode(f":{PASSWORD}".encode()).decode()}, ""),
        ({"authorization": "Basic " + base64.b64encode(b"LAN:lan").decode()}, "LAN"),
    ],
)
def test_who_proves_it_is_let_in(client: Any, tools: Tools, headers: dict[str, str], hub: str) -> None:
    assert client.ask("POST", "/api/", json.dumps(CALL).encode(), headers).status == 200
    assert tools.called[0][0] == hub


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-vpnadmin-password": "wrong"},
        {"x-vpnadmin-password": PASSWORD, "x-vpnadmin-hubname": "LAN"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic " + base64.b64encode(b"nocolon").decode()},
        {"authorization": "Bearer x"},
    ],
)
def test_others_get_401_and_are_not_heard(client: Any, tools: Tools, headers: dict[str, str]) -> None:
    answer = client.ask("POST", "/api/", json.dumps(CALL).encode(), headers)
    assert answer.status == 401
    assert answer["www-authenticate"].startswith("Basic ")
    assert answer["content-type"].startswith("text/html")
    assert tools.called == []


def test_pages_of_other_sites_are_kept_out(client: Any, tools: Tools) -> None:
    """A browser adds a Basic password by itself, so the origin decides."""
    for origin in ("https://evil.example", "null", "https://hub.example"):
        assert post(client, CALL, origin=origin).status == 403
        assert client.get("/api/EnumHub", origin=origin, x_vpnadmin_password=PASSWORD).status == 403
    assert tools.called == []
    assert post(client, CALL, origin="https://hub.example:8443").status == 200
    answer = client.ask("OPTIONS", "/api/", b"", {"origin": "https://evil.example"})
    assert (answer.status, answer["allow"]) == (204, "GET, POST, OPTIONS")
    assert "access-control-allow-origin" not in answer


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b"1" * 5000, -32700),
        ([], -32600),
        ({"id": "1"}, -32600),
        ({"method": 7}, -32600),
        ({"method": "Test", "params": []}, -32602),
        ({"method": "Test", "params": None}, -32602),
    ],
)
def test_what_is_no_request_is_said_to_be_none(client: Any, tools: Tools, body: object, code: int) -> None:
    answer = post(client, body)
    assert json.loads(answer.body)["error"]["code"] == code
    assert tools.called == []


def test_a_missing_id_is_0_and_a_number_stays_one(client: Any) -> None:
    assert json.loads(post(client, {"method": "Test"}).body)["id"] == "0"
    assert json.loads(post(client, {"method": "Test", "id": 5}).body)["id"] == 5
    assert json.loads(post(client, {"method": "Test", "id": [1]}).body)["id"] == "0"


def test_a_request_that_is_too_large_is_refused(client: Any, tools: Tools) -> None:
    assert post(client, b" " * (MAX_BODY + 1)).status == 413
    assert tools.called == []


def test_without_calls_there_is_no_such_page(hub: Any, new_visitor: Any) -> None:
    assert new_visitor(build_app(hub, page_dir=None, version="9")).get("/api/Test").status == 404
