from pathlib import Path

import pytest

from ukihashi.capture.devices import devices, find


def card(folder: Path, name: str, ifindex: int, *, flags: int = 0x1003, kind: int = 1, **files: str) -> None:
    path = folder / name
    path.mkdir()
    for file, text in {"flags": hex(flags), "type": str(kind), "ifindex": str(ifindex), **files}.items():
        (path / file).write_text(text + "\n")


def test_cards_that_are_up_come_once_in_the_kernels_order_with_readable_names(tmp_path: Path) -> None:
    card(tmp_path, "uklan", 7, tun_flags="0x1002")
    card(tmp_path, "tun9", 8, tun_flags="0x1001", kind=65534)
    card(tmp_path, "eth0", 2, ifalias="uplink of floor 3")
    card(tmp_path, "lo", 1, kind=772)
    card(tmp_path, "eth1", 3, flags=0x1002)  # down
    card(tmp_path, "veth", 9, uevent="DEVTYPE=veth")
    (tmp_path / "bonding_masters").write_text("")
    found = devices(tmp_path)
    assert [device.name for device in found] == [
        "lo (loopback)",
        "eth0 (uplink of floor 3)",
        "uklan (TAP)",
        "tun9 (TUN)",
        "veth (veth)",
    ]
    assert [device.has_ethernet for device in found] == [True, True, True, False, True]


def test_a_machine_without_sysfs_has_no_cards(tmp_path: Path) -> None:
    assert devices(tmp_path / "nothing") == []


@pytest.mark.parametrize(("name", "there"), [("lo", True), ("eth9", False)])
def test_a_card_is_found_by_its_interface(tmp_path: Path, name: str, there: bool) -> None:
    card(tmp_path, "lo", 1, kind=772)
    assert (find(name, tmp_path) is not None) is there
