"""The administrator's folder: what is found, and that nothing outside ever is."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.web import own_page
from ukihashi.web.own_page import find

if TYPE_CHECKING:
    from tests.web.conftest import Visitor

SECRET = b"outside the folder"


@pytest.fixture
def folder(page_dir: Path) -> Path:
    (page_dir.parent / "secret.txt").write_bytes(SECRET)
    (page_dir / "index.html").write_text("plain")
    (page_dir / "index.ja.html").write_text("和")
    (page_dir / "style.css").write_text("p{}")
    (page_dir / ".hidden").write_text("hidden")
    (page_dir / "sub").mkdir()
    (page_dir / "sub" / "index.html").write_text("sub")
    (page_dir / "sub" / "絵.png").write_bytes(b"\x89PNG")
    (page_dir / ".git").mkdir()
    (page_dir / ".git" / "config").write_text("hidden")
    (page_dir / "out").symlink_to(page_dir.parent)
    (page_dir / "link.txt").symlink_to(page_dir.parent / "secret.txt")
    os.mkfifo(page_dir / "pipe")
    return page_dir


@pytest.mark.parametrize(
    ("path", "language", "body", "media_type"),
    [
        ("/", "ja", "和", "text/html; charset=utf-8"),
        ("/", "en", "plain", "text/html; charset=utf-8"),
        ("/style.css", "en", "p{}", "text/css; charset=utf-8"),
        ("/sub/", "ja", "sub", "text/html; charset=utf-8"),
    ],
)
def test_files_are_found(folder: Path, path: str, language: str, body: str, media_type: str) -> None:
    found = find(folder, path, language)
    assert found is not None
    assert (found.body.decode(), found.media_type) == (body, media_type)


def test_a_name_may_be_japanese(folder: Path) -> None:
    found = find(folder, "/sub/絵.png", "ja")
    assert found is not None
    assert found.media_type == "image/png"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/sub/../index.html",
        "//etc/passwd",
        "/./index.html",
        "/.hidden",
        "/.git/config",
        "/out/secret.txt",
        "/link.txt",
        "/pipe",
        "/sub",
        "/missing",
        "/style.css/",
        "/a\x00b",
        "/..\\secret.txt",
        "/" + "a" * 5000,
        "/" + "sub/" * 50,
        "",
        "\ud800",
    ],
)
def test_nothing_else_is(folder: Path, path: str) -> None:
    found = find(folder, path, "en")
    assert found is None or path == ""


@given(st.lists(st.sampled_from(["..", ".", "", "out", "sub", "link.txt", "secret.txt", "%2e%2e", "\\"]), max_size=6))
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "walk"
    if not base.exists():
        (base / "own" / "sub").mkdir(parents=True)
        (base / "secret.txt").write_bytes(SECRET)
        (base / "own" / "out").symlink_to(base)
        (base / "own" / "link.txt").symlink_to(base / "secret.txt")
    found = find(base / "own", "/" + "/".join(parts), "en")
    assert found is None or found.body != SECRET


def test_a_large_file_comes_in_pieces_and_is_closed(own_visitor: "Visitor", page_dir: Path) -> None:
    data = os.urandom(own_page.MAX_HELD + 70_000)
    (page_dir / "big.bin").write_bytes(data)
    before = open_files(page_dir)
    answer = own_visitor.get("/big.bin")
    assert (answer.status, answer.body, answer["content-length"]) == (200, data, str(len(data)))
    assert answer["content-type"] == "application/octet-stream"
    again = own_visitor.get("/big.bin", if_none_match=answer["etag"])
    assert (again.status, again.body) == (304, b"")
    assert "content-length" not in again
    assert open_files(page_dir) == before == []
    os.truncate(page_dir / "big.bin", len(data) - 1)
    assert own_visitor.get("/big.bin", if_none_match=answer["etag"]).status == 200


def open_files(folder: Path) -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(f"{folder}/")]


def test_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    assert find(tmp_path / "nowhere", "/", "en") is None


def test_the_own_page_takes_the_place_of_ours(own_visitor: "Visitor", folder: Path) -> None:
    answer = own_visitor.get("/", accept_language="ja")
    assert (answer.status, answer.text, answer["content-language"]) == (200, "和", "ja")
    assert own_visitor.get("/?lang=en").text == "plain"
    assert "'unsafe-inline'" in answer["content-security-policy"]
    assert "script-src" not in answer["content-security-policy"]
    assert own_visitor.ask("HEAD", "/style.css")["content-type"] == "text/css; charset=utf-8"
    assert own_visitor.get("/link.txt").status == 404
    assert own_visitor.get("/admin").status == 200
    assert "A virtual HUB" not in answer.text


def test_without_an_index_ours_is_shown(own_visitor: "Visitor", page_dir: Path) -> None:
    (page_dir / "style.css").write_text("p{}")
    assert "9C37197CA7C2428388C2E6E59B829B30" in own_visitor.get("/").text
    assert own_visitor.get("/style.css").status == 200


def test_ours_keep_their_own_prefix(own_visitor: "Visitor", page_dir: Path) -> None:
    (page_dir / "ukihashi").mkdir()
    (page_dir / "ukihashi" / "page.css").write_text("stolen")
    (page_dir / "admin").mkdir()
    (page_dir / "admin" / "index.html").write_text("stolen")
    (page_dir / "admin" / "help.html").write_text("stolen")
    assert "stolen" not in own_visitor.get("/admin/").text
    assert own_visitor.get("/admin/help.html").status == 404
    assert "stolen" not in own_visitor.get("/ukihashi/page.css").text
