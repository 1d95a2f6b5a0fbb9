"""Rules for every file of the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = sorted((ROOT / "src" / "ukihashi").rglob("*.py"))
MIRRORED = ("src", "lab", "bench", "fuzz", "packaging")
MAX_LINES = 500

# Spelled in pieces, or this file would be what it looks for.
PLACES = ["/wo" + "rk/", "/tmp" + "/uk", "/ro" + "ot/", "iss" + "ue #", ".libr" + "ary", "pypi" + ".org"]
PLACES += [
    "pythonhosted" + ".org",
    "deb.debian" + ".org",
    "registry.npm" + "js",
    "proxy.golang" + ".org",
    "../" + "seeds",
]


def tracked() -> list[Path]:
    """Every file that git knows, or would take."""
    argv = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCE, ids=module_id)
def test_every_module_says_what_it_is_for_and_is_short_or_says_why_not(path: Path) -> None:
    text = path.read_text()
    said = ast.get_docstring(ast.parse(text)) or ""
    if text.strip():  # an empty __init__.py needs no words
        assert said, "no docstring"
    assert len(text.splitlines()) <= MAX_LINES or "Long because" in said


@pytest.mark.parametrize("path", SOURCE, ids=module_id)
def test_every_public_class_and_function_has_a_docstring(path: Path) -> None:
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    public = [node for node in ast.parse(path.read_text()).body if isinstance(node, kinds) and node.name[0] != "_"]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_nothing_names_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            continue  # pictures, captures
        text = data.decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in PLACES if word in text]
    assert found == []


def test_no_blanket_exemption_from_a_check() -> None:
    blanket = re.compile(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[)|ruff:\s*noqa|mypy:\s*ignore-errors)")
    paths = [path for path in tracked() if path.suffix == ".py" and path != Path(__file__)]
    assert [module_id(path) for path in paths if blanket.search(path.read_text())] == []


def test_a_test_file_stands_where_its_module_stands() -> None:
    """`tests/wire/test_pack.py` tests `wire/pack.py`; tests of the whole have folders of their own."""
    free = {"house", "netns", "system", "corpus", "web", "conformance"}  # tests of the whole, not of one module
    lost = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.relative_to(ROOT / "tests").parent
        if folder.parts and folder.parts[0] in free:
            continue
        top = ROOT if folder.parts and folder.parts[0] in MIRRORED else ROOT / "src" / "ukihashi"
        if not (top / folder).is_dir():
            lost.append(module_id(path))
    assert lost == []


def test_programs_of_the_house_are_executable() -> None:
    for name in ("run", ".ci/run", "packaging/lock"):
        assert (ROOT / name).stat().st_mode & 0o111 == 0o111, name
