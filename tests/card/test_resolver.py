"""Whoever answers for names on this machine: a file, resolvconf, systemd-resolved. The two programs are stand-ins."""

import errno
import os
import stat
from pathlib import Path

import pytest

from ukihashi.card import resolver
from ukihashi.card.resolver import Changed, Names, Resolver, undo
from ukihashi.errors import EnvironmentLacks

BEFORE = b"# by hand\nnameserver 192.168.1.1\nnameserver 9.9.9.9\nsearch home.example\noptions timeout:1\n"
NAMES = Names(("10.5.0.1",), ("lan.internal",), ("lan.internal", "corp.example"))
ALL = Names(("10.5.0.1",), ("lan.internal",), ("lan.internal",), everything=True)


class Kept:
    """What the journal would hold."""

    def __init__(self) -> None:
        self.all: list[Changed] = []

    def __call__(self, changed: Changed) -> None:
        self.all.append(changed)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(resolver, "RESOLVED", tmp_path / "resolve")
    monkeypatch.setattr(resolver, "NAMESPACES", tmp_path / "netns")
    made = tmp_path / "etc" / "resolv.conf"
    made.write_bytes(BEFORE)
    made.chmod(0o640)
    return made


@pytest.fixture
def kept() -> Kept:
    return Kept()


def stand_in(path: Path, name: str, *, fails: bool = False) -> Path:
    """A program that writes down how it was called."""
    log = path.parent.parent / f"{name}.log"
    program = path.parent.parent / "bin" / name
    end = "echo oh no >&2; exit 1" if fails else "exit 0"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n[ -t 0 ] || while read -r line; do echo "| $line" >> {log}; done\n{end}\n'
    )
    program.chmod(0o755)
    return log


class TestTheFile:
    def test_the_hubs_servers_come_first_and_all_else_stays(self, path: Path, kept: Kept) -> None:
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# ukihashi card “lan”")
        assert lines[1:] == [
            "nameserver 10.5.0.1", "nameserver 192.168.1.1", "nameserver 9.9.9.9",
            "search lan.internal home.example", "options timeout:1",
        ]  # fmt: skip
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert undo(changed) == str(path)
        assert path.read_bytes() == BEFORE
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert list(path.parent.iterdir()) == [path]

    def test_with_everything_nobody_else_is_asked(self, path: Path, kept: Kept) -> None:
        Resolver(path).apply("lan", "uklan", ALL, None, kept)
        assert path.read_text().count("nameserver") == 1

    def test_it_is_written_down_before_it_is_done(self, path: Path) -> None:
        seen: list[bytes] = []
        Resolver(path).apply("lan", "uklan", NAMES, None, lambda _changed: seen.append(path.read_bytes()))
        assert seen == [BEFORE]

    def test_a_second_time_what_stood_there_first_is_what_comes_back(self, path: Path, kept: Kept) -> None:
        own = Resolver(path)
        first = own.apply("lan", "uklan", NAMES, None, kept)
        second = own.apply("lan", "uklan", ALL, first, kept)
        assert second.before == BEFORE
        assert own.apply("lan", "uklan", ALL, second, kept) is second  # nothing to do
        assert len(kept.all) == 2
        undo(second)
        assert path.read_bytes() == BEFORE

    def test_what_somebody_else_wrote_is_left(self, path: Path, kept: Kept) -> None:
        own = Resolver(path)
        changed = own.apply("lan", "uklan", NAMES, None, kept)
        assert resolver.meddled(changed) is None
        path.write_bytes(b"nameserver 1.1.1.1\n")
        assert resolver.meddled(changed) is not None
        with pytest.raises(EnvironmentLacks, match="somebody else"):
            undo(changed)
        with pytest.raises(EnvironmentLacks, match="somebody else"):
            own.apply("lan", "uklan", ALL, changed, kept)
        assert path.read_bytes() == b"nameserver 1.1.1.1\n"

    def test_killed_before_it_was_done_there_is_nothing_to_undo(self, path: Path, kept: Kept) -> None:
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        path.write_bytes(BEFORE)
        assert undo(changed) == ""
        assert path.read_bytes() == BEFORE

    def test_where_there_is_none_there_is_none_afterwards(self, path: Path, kept: Kept) -> None:
        path.unlink()
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        assert "nameserver 10.5.0.1" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        undo(changed)
        assert not path.exists()

    def test_a_second_card_is_refused(self, path: Path, kept: Kept) -> None:
        Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        mine = path.read_bytes()
        with pytest.raises(EnvironmentLacks, match="the card “lan” already"):
            Resolver(path).apply("two", "uktwo", NAMES, None, kept)
        assert path.read_bytes() == mine

    def test_behind_a_link_the_real_file_is_changed_and_the_link_stays(self, path: Path, kept: Kept) -> None:
        real = path.with_name("real.conf")
        path.rename(real)
        path.symlink_to(real.name)
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        assert path.is_symlink()
        assert "10.5.0.1" in real.read_text()
        undo(changed)
        assert real.read_bytes() == BEFORE

    def test_a_link_to_nowhere_is_said(self, path: Path, kept: Kept) -> None:
        path.unlink()
        path.symlink_to("nowhere")
        with pytest.raises(EnvironmentLacks, match="nowhere, which does not exist"):
            Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        assert kept.all == []

    @pytest.mark.parametrize(
        ("number", "why"), [(errno.EROFS, "read-only"), (errno.EPERM, "immutable"), (errno.ENOSPC, "space")]
    )
    @pytest.mark.skipif(os.geteuid() != 0, reason="root hears it in other words")
    def test_what_can_not_be_written_is_said(
        self, path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch, number: int, why: str
    ) -> None:
        def refuse(*_words: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(EnvironmentLacks, match=why):
            Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        assert path.read_bytes() == BEFORE
        assert list(path.parent.iterdir()) == [path]

    def test_what_is_mounted_there_is_written_in_place(
        self, path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resolver, "_is_mounted", lambda _path: True)
        inode = path.stat().st_ino
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        undo(changed)
        assert path.stat().st_ino == inode
        assert path.read_bytes() == BEFORE

    def test_in_a_namespace_without_a_file_of_its_own_the_machines_is_not_touched(
        self, path: Path, kept: Kept, tmp_path: Path
    ) -> None:
        (tmp_path / "netns").mkdir()
        (tmp_path / "netns" / "blue").symlink_to("/proc/self/ns/net")
        with pytest.raises(EnvironmentLacks, match=r"/etc/netns/blue/resolv\.conf"):
            Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        assert path.read_bytes() == BEFORE


class TestResolvconf:
    @pytest.fixture(autouse=True)
    def managed(self, path: Path) -> None:
        path.write_bytes(b"# Generated by resolvconf\nnameserver 192.168.1.1\n")

    def test_a_record_of_ours_comes_and_goes(self, path: Path, kept: Kept) -> None:
        log = stand_in(path, "resolvconf")
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        undo(changed)
        assert log.read_text().splitlines() == [
            "-a uklan.ukihashi", "| # ukihashi card “lan”; what stood here before comes back when it leaves",
            "| nameserver 10.5.0.1", "| search lan.internal", "-d uklan.ukihashi",
        ]  # fmt: skip
        assert kept.all == [Changed("resolvconf", "uklan")]

    def test_its_failure_is_said(self, path: Path, kept: Kept) -> None:
        stand_in(path, "resolvconf", fails=True)
        with pytest.raises(EnvironmentLacks, match="oh no"):
            Resolver(path).apply("lan", "uklan", NAMES, None, kept)

    def test_it_is_not_asked_where_the_file_is_nobodys(self, path: Path) -> None:
        stand_in(path, "resolvconf")
        path.write_bytes(BEFORE)
        assert Resolver(path).manner() == "file"

    def test_it_is_not_asked_where_the_file_is_a_namespaces_own(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in(path, "resolvconf")
        monkeypatch.setattr(resolver, "_is_mounted", lambda _path: True)
        assert Resolver(path).manner() == "file"


class TestResolved:
    @pytest.fixture(autouse=True)
    def stub(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "resolve").mkdir()
        (tmp_path / "resolve" / "stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
        path.unlink()
        path.symlink_to("../resolve/stub-resolv.conf")

    def test_names_are_split_by_domain(self, path: Path, kept: Kept) -> None:
        log = stand_in(path, "resolvectl")
        changed = Resolver(path).apply("lan", "uklan", NAMES, None, kept)
        assert log.read_text().splitlines() == [
            "dns uklan 10.5.0.1", "domain uklan lan.internal ~corp.example", "default-route uklan no",
        ]  # fmt: skip
        assert undo(changed) == ""  # it went with the interface

    def test_or_everything_goes_there(self, path: Path, kept: Kept) -> None:
        log = stand_in(path, "resolvectl")
        Resolver(path).apply("lan", "uklan", ALL, None, kept)
        assert log.read_text().splitlines()[1:] == ["domain uklan lan.internal ~.", "default-route uklan yes"]

    def test_while_the_interface_is_there_its_settings_are_taken_back(self, path: Path, kept: Kept) -> None:
        log = stand_in(path, "resolvectl")
        assert undo(Resolver(path).apply("lan", "lo", ALL, None, kept)) == "systemd-resolved"
        assert log.read_text().splitlines()[-1] == "revert lo"

    def test_a_copy_of_its_stub_tells_of_it_too(self, path: Path) -> None:
        stand_in(path, "resolvectl")
        path.unlink()
        path.write_text("nameserver 127.0.0.53\noptions edns0\n")
        assert Resolver(path).manner() == "resolved"
        path.write_text("nameserver 127.0.0.53\nnameserver 9.9.9.9\n")
        assert Resolver(path).manner() == "file"

    def test_without_its_command_its_file_is_not_touched(self, path: Path, kept: Kept) -> None:
        with pytest.raises(EnvironmentLacks, match="resolvectl is missing"):
            Resolver(path).apply("lan", "uklan", NAMES, None, kept)
