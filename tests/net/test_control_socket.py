import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pytest

from ukihashi.errors import DaemonUnreachable, Refused, UkihashiError, UsageError
from ukihashi.net.control_socket import Client, Verbs, answer, asker, serve

Row = dict[str, Any]


async def hello(name: str, times: int = 1) -> list[Row]:
    return [{"text": f"こんにちは {name}", "by": asker.get()}] * times


class Paint(TypedDict, total=False):
    colour: str
    coats: int


async def paint(wall: str, **how: Unpack[Paint]) -> list[Row]:
    return [{"wall": wall, **how}]


async def no() -> list[Row]:
    raise Refused("hub {hub} says no", hub="LAN", code=9)


async def broken() -> list[Row]:
    raise ZeroDivisionError


@contextlib.asynccontextmanager
async def daemon(path: Path) -> AsyncIterator[Path]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        task = asyncio.create_task(
            serve(listening, Verbs({"hello": hello, "paint": paint, "no": no, "broken": broken}))
        )
        try:
            yield path
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def with_daemon(tmp_path: Path, do: str, **arguments: Any) -> list[Row]:
    async def run() -> list[Row]:
        async with daemon(tmp_path / "s.sock") as path:
            return await asyncio.to_thread(Client(path).ask, do, **arguments)

    return asyncio.run(run())


def test_a_question_is_answered_with_rows(tmp_path: Path) -> None:
    rows = with_daemon(tmp_path, "hello", name="田中", times=2)
    assert [row["text"] for row in rows] == ["こんにちは 田中"] * 2
    assert rows[0]["by"].startswith("uid ")


def test_what_may_be_left_out_is_given_only_if_it_is_named(tmp_path: Path) -> None:
    assert with_daemon(tmp_path, "paint", wall="north", coats=2) == [{"wall": "north", "coats": 2}]
    verbs = Verbs({"paint": paint})
    with pytest.raises(UkihashiError, match="Expected `int`"):
        asyncio.run(verbs.ask("paint", wall="north", coats="two"))
    with pytest.raises(UkihashiError, match="unknown field `smell`"):
        asyncio.run(verbs.ask("paint", wall="north", smell="fresh"))


def test_an_error_arrives_with_template_values_and_status(tmp_path: Path) -> None:
    with pytest.raises(UkihashiError) as caught:
        with_daemon(tmp_path, "no")
    assert str(caught.value) == "hub LAN says no"
    assert caught.value.template == "hub {hub} says no"
    assert caught.value.exit_status == Refused.exit_status


def test_a_fault_inside_is_told_without_details(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UkihashiError, match="failed inside"):
        with_daemon(tmp_path, "broken")
    assert "ZeroDivisionError" in capsys.readouterr().out  # structlog's default place, until the daemon sets one


@pytest.mark.parametrize(
    "arguments", [{}, {"name": 1}, {"name": "x", "times": "y"}, {"name": "x", "more": 1}], ids=repr
)
def test_arguments_are_checked_by_name_and_type(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UkihashiError, match="request “hello”"):
        with_daemon(tmp_path, "hello", **arguments)


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b"{}", b'{"do": 1}', b'{"do": "hello"', b"\xff", b"[" * 100_000, b'{"do": "zzz"}']
)
def test_any_line_gets_an_answer(line: bytes) -> None:
    told = json.loads(asyncio.run(answer(Verbs({"hello": hello}), line)))
    assert told["ok"] is False
    assert told["error"]["exit_status"] == UsageError.exit_status


def test_no_daemon_is_a_sentence_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match=r"nothing answers on .*s.sock"):
        Client(tmp_path / "s.sock").ask("hello")
    (tmp_path / "s.sock").touch()
    with pytest.raises(DaemonUnreachable, match="start it with"):
        Client(tmp_path / "s.sock", absent="no hub on {path}; start it with X").ask("hello")


def test_a_silent_daemon_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "s.sock"))
        listening.listen()
        with pytest.raises(DaemonUnreachable, match=r"did not answer within 0\.05 s"):
            Client(tmp_path / "s.sock", timeout_s=0.05).ask("hello")


def test_an_overlong_line_closes_only_that_connection(tmp_path: Path) -> None:
    async def run() -> list[Row]:
        async with daemon(tmp_path / "s.sock") as path:
            reader, writer = await asyncio.open_unix_connection(str(path))
            with contextlib.suppress(ConnectionError):
                for _ in range(40):
                    writer.write(b"x" * (1 << 16))
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            return await asyncio.to_thread(Client(path).ask, "hello", name="b")

    assert len(asyncio.run(run())) == 1
