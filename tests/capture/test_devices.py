from pathlib import Path

import pytest

from ukihashi.capture.devices import CardState, Device, devices, find


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


def test_the_state_of_a_card_is_read_from_files_that_were_opened_before(tmp_path: Path) -> None:
    card(tmp_path, "eth0", 2)
    counters = tmp_path / "eth0" / "statistics"
    counters.mkdir()
    for name, count in {"rx_missed_errors": 100, "rx_fifo_errors": 5, "rx_dropped": 77}.items():
        (counters / name).write_text(f"{count}\n")
    device = find("eth0", tmp_path)
    assert device is not None
    state = CardState(device, tmp_path)
    assert (state.is_up(), state.lost()) == (True, 0)
    for path in (counters / "rx_missed_errors", counters / "rx_dropped"):
        path.chmod(0)
        with path.open("r+") as file:
            file.write("142\n")
    assert state.lost() == 42
    (tmp_path / "eth0" / "flags").write_text("0x1002\n")
    assert not state.is_up()


def test_a_card_that_tells_nothing_is_up_and_loses_nothing(tmp_path: Path) -> None:
    state = CardState(Device("nosuch0", 9, "nosuch0", has_ethernet=True), tmp_path)
    assert (state.is_up(), state.lost()) == (True, 0)
