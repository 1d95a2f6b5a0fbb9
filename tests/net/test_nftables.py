"""The packet filter itself, in a namespace: owned tables go with their socket, plain ones stay."""

import os

import pytest

from lab.net import Host, Net
from ukihashi.errors import EnvironmentLacks
from ukihashi.net.nftables import Dropper, Nftables, is_word, quoted

pytestmark = [pytest.mark.peer("nft")]


@pytest.fixture
def host(net: Net) -> Host:
    return net.host("one")


def ruleset(host: Host) -> str:
    return host.run(["nft", "list", "ruleset"])


def test_an_owned_table_is_nobody_elses_and_goes_with_its_socket(host: Host) -> None:
    with host.inside(), Nftables() as ours:
        ours.run("table inet t { flags owner; chain c { type filter hook forward priority 0; }; }")
        assert ours.tables("inet") == {"t"}
        assert ours.tables("ip") == set()
        with Nftables() as other, pytest.raises(EnvironmentLacks, match="nftables refused: "):
            other.run("delete table inet t")
        assert host.ask(["nft", "delete", "table", "inet", "t"]).returncode != 0
    assert ruleset(host) == ""
    ours.close()


def test_whoever_holds_the_socket_holds_the_table(host: Host) -> None:
    with host.inside():
        ours = Nftables()
        ours.run("table inet t { flags owner; }")
        kept = os.dup(ours.fileno())
        ours.close()
        assert "table inet t" in ruleset(host)
        os.close(kept)
    assert ruleset(host) == ""


def test_a_plain_table_stays(host: Host) -> None:
    with host.inside(), Nftables() as ours:
        ours.run("table inet t { chain c { type filter hook output priority 0; policy drop; }; }")
    assert "policy drop" in ruleset(host)


def test_all_of_it_or_nothing(host: Host) -> None:
    with host.inside(), Nftables() as ours, pytest.raises(EnvironmentLacks):
        ours.run("add table inet t\nadd rule inet t nowhere drop")
    assert ruleset(host) == ""


def test_chains_that_drop_are_found(host: Host) -> None:
    host.run(["nft", "add table ip shop; add chain ip shop way { type filter hook forward priority 0; policy drop; }"])
    host.run(["nft", "add chain ip shop in { type filter hook input priority 0; policy drop; }"])
    host.run(["nft", "add table inet open; add chain inet open way { type filter hook forward priority 0; }"])
    with host.inside(), Nftables() as ours:
        assert ours.droppers("forward") == [Dropper("ip", "shop", "way")]
        assert str(ours.droppers("input")[0]) == "ip shop in"


def test_names() -> None:
    assert is_word("uk-lan_7.x")
    assert not is_word("7")
    assert not is_word("a b")
    assert quoted("uklan") == '"uklan"'
    for bad in ('a"b', "a*", "", "a\\b", "a\nb"):
        with pytest.raises(EnvironmentLacks):
            quoted(bad)
