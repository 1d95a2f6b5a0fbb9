from pathlib import Path

import pytest

from ukihashi.config.alert import AlertConfig, load_alert
from ukihashi.errors import ConfigError


def test_no_file_means_all_defaults(tmp_path: Path) -> None:
    assert load_alert(tmp_path / "alert.toml") == AlertConfig()


def test_every_field(tmp_path: Path) -> None:
    path = tmp_path / "alert.toml"
    path.write_text('label = "classic"\nprobable = true\nlog = "a.log"\njson = "eve.json"\nmax_flows = 4096\n')
    with path.open("a") as file:
        file.write('ssh_clients = ["SSH-2.0-*VPN*"]\n')
    assert load_alert(path) == AlertConfig(
        label="classic", probable=True, log="a.log", json="eve.json", max_flows=4096, ssh_clients=("SSH-2.0-*VPN*",)
    )


@pytest.mark.parametrize("line", ['label = "old"', "max_flows = 1", "probable = 1", 'lable = "classic"'])
def test_a_mistake_names_file_and_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "alert.toml"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"alert\.toml"):
        load_alert(path)
