"""The web application without a network: a browser of few lines that speaks ASGI, a hub that answers from memory."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from starlette.types import ASGIApp, Message, Scope

from ukihashi.config.hub import HubConfig
from ukihashi.config.options import applied, parse, rows
from ukihashi.errors import UkihashiError
from ukihashi.web.app import build_app

VERSION = "9.9.9-test"
ONE_TIME = "one-time-0123456789abcdef"


@dataclass
class FakeHub:
    """Answers the verbs of the admin socket; `asked` keeps the verbs in order."""

    secret: str = ONE_TIME
    one_time: bool = True
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    error: UkihashiError | None = None
    silent: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    config: HubConfig = field(default_factory=HubConfig)
    newer: list[dict[str, Any]] = field(default_factory=list)  # options that we do not know

    async def ask(self, do: str, /, **args: Any) -> dict[str, Any]:
        self.asked.append(do)
        if self.error is not None:
            raise self.error
        if do == "admin_check":
            good = args["secret"] == self.secret
            return {"ok": good, "one_time": good and self.one_time}
        if do == "admin_set_password":
            if args["old"] != self.secret:
                return {"ok": False}
            self.secret, self.one_time = args["new"], False
            return {"ok": True}
        if do in self.silent:
            return {"ok": False, "error": self.silent[do]}
        if do == "options":
            return {"ok": True, "rows": rows("hub", self.config) + self.newer}
        if do == "set_option":
            return self.set_option(args["key"], args["value"])
        return {"ok": True, "rows": self.rows.get(do, [])}

    def set_option(self, key: str, value: str) -> dict[str, Any]:
        try:
            self.config = applied(self.config, {key: parse("hub", key, value)})
        except UkihashiError as error:
            return {"ok": False, "error": str(error), "refusal": error}
        return {"ok": True, "rows": []}


@dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def __getitem__(self, name: str) -> str:
        found = [value for key, value in self.fields if key == name.lower()]
        assert len(found) == 1, (name, self.fields)
        return found[0]

    def __contains__(self, name: str) -> bool:
        return any(key == name.lower() for key, _ in self.fields)


class Visitor:
    """One browser: sends requests straight into the application and keeps cookies (by name; no paths)."""

    def __init__(self, app: ASGIApp, **headers: str) -> None:
        self.app = app
        self.headers = {"host": "hub.example:8443"} | {k.replace("_", "-"): v for k, v in headers.items()}
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        sent: list[Message] = []
        path = urlsplit(target)
        fields = self.headers | dict(headers or {})
        if self.cookies:
            fields["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.path,
            "raw_path": path.path.encode(),
            "query_string": path.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
            "client": None,
            "server": None,
        }
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not incoming:  # a browser that stays
                await asyncio.Event().wait()
            return incoming.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        async def exchange() -> None:
            await self.app(scope, receive, send)

        asyncio.run(exchange())
        got = [(name.decode().lower(), value.decode()) for name, value in sent[0]["headers"]]
        for name, value in got:
            if name == "set-cookie":
                self.set_cookies.append(value)
                key, _, rest = value.partition("=")
                kept = rest.partition(";")[0].strip('"')
                self.cookies[key] = kept
                if not kept:
                    del self.cookies[key]
        return Answer(sent[0]["status"], got, b"".join(part.get("body", b"") for part in sent[1:]))

    def get(self, target: str, **headers: str) -> Answer:
        return self.ask("GET", target, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, target: str, fields: Mapping[str, str], **headers: str) -> Answer:
        own = {"content-type": "application/x-www-form-urlencoded"} | headers
        return self.ask("POST", target, urlencode(fields).encode(), {k.replace("_", "-"): v for k, v in own.items()})


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


@pytest.fixture
def page_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


@pytest.fixture
def visitor(hub: FakeHub) -> Visitor:
    return Visitor(build_app(hub, page_dir=None, version=VERSION))


@pytest.fixture
def own_visitor(hub: FakeHub, page_dir: Path) -> Visitor:
    return Visitor(build_app(hub, page_dir=page_dir, version=VERSION))


@pytest.fixture
def new_visitor() -> type[Visitor]:
    return Visitor
