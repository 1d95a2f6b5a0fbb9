import subprocess

import pytest

from ukihashi.tap import reverse_path
from ukihashi.tap.reverse_path import LOOSE

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network")]


@pytest.mark.parametrize(
    ("of_all", "own", "strict"), [(0, 0, False), (1, 0, True), (0, 1, True), (2, 1, False), (1, 2, False)]
)
def test_the_higher_one_of_two_settings_holds(of_all: int, own: int, strict: bool) -> None:
    reverse_path.write("all", of_all)
    reverse_path.write("lo", own)
    assert reverse_path.is_strict("lo") == strict
    shown = subprocess.run(["sysctl", "-n", "net.ipv4.conf.lo.rp_filter"], capture_output=True, text=True, check=True)
    assert int(shown.stdout) == own


def test_an_interface_that_has_gone() -> None:
    assert reverse_path.read("uknone") == 0
    with pytest.raises(OSError, match="uknone"):
        reverse_path.write("uknone", LOOSE)
