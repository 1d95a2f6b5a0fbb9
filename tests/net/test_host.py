from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ukihashi.net.host import interfaces, own_address, used_networks

ROUTE = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000000A	00000000	0001	0	0	0	000000FF	0	0	0
"""
ADDRESSES = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "if_inet6").write_text(ADDRESSES)
    return tmp_path


def test_networks_in_use_without_the_default_route(proc: Path) -> None:
    expected = {ip_network(text) for text in ("192.0.2.0/24", "10.0.0.0/8", "::1/128", "2001:db8::/64")}
    assert set(used_networks(proc)) == expected


def test_a_machine_without_these_files_uses_nothing(tmp_path: Path) -> None:
    assert used_networks(tmp_path) == []


def test_damaged_lines_are_left_out(proc: Path) -> None:
    (proc / "route").write_text(ROUTE + "x\nx y z\n" + "eth0 ZZ 0 0 0 0 0 00FFFFFF\n")
    assert len(used_networks(proc)) == 4


def test_there_is_always_an_address_to_name() -> None:
    ip_address(own_address(set()))  # raises for anything else
    assert "lo" in interfaces()
