"""A real server's configuration becomes ours: its users come in with their old passwords, by the official client."""

import json
import stat
from pathlib import Path

import pytest

from lab import peers
from lab.net import Net
from lab.ukihashi import Hub
from lab.wait import until
from ukihashi.errors import InputUnreadable

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnserver", "vpnclient", "vpncmd")]

FILE = "vpn_server.config"


@pytest.mark.timeout(180)
def test_users_of_a_real_server_come_in_with_their_old_passwords(net: Net, tmp_path: Path) -> None:
    machine, host = net.lan("hub", "a")
    old = peers.Server(machine)
    old.start()
    old.create_hub("OFFICE")
    old.create_user("OFFICE", "hanako", "old password 1".replace(" ", "-"))
    old.create_user("OFFICE", "guest")
    old.say(
        "Hub OFFICE",
        'GroupCreate staff /REALNAME:"Our staff" /NOTE:none',
        "GroupPolicySet staff /NAME:MultiLogins /VALUE:2",
        "GroupJoin staff /USERNAME:hanako",
        "UserCreate mail /GROUP:none /REALNAME:none /NOTE:none",
        "UserRadiusSet mail /ALIAS:none",
        "SetMaxSession 9",
    )
    client = peers.Client(host)
    client.start()
    for name, password in (("hanako", "old-password-1"), ("guest", None)):
        client.create_account(name, server=machine.ipv4, port=443, hub="OFFICE", user=name, password=password)
    client.connect("hanako")  # so it did before
    client.disconnect("hanako")
    old.stop()
    (config,) = old.folder.rglob(FILE)

    hub = Hub(machine)
    hub.start(first=False)
    said = hub.run("hub", "import", config, "--dry-run")
    assert "OFFICE" in said
    assert hub.rows("hub", "list") == []
    keys = tmp_path / "keys"
    said = hub.run("hub", "import", config, "--hub", "office", "--certificate-to", keys)
    assert "mail" in said
    assert "RADIUS" in said
    (row,) = hub.rows("hub", "list")
    assert (row["name"], row["online"], row["users"]) == ("OFFICE", True, 2)
    hanako = json.loads(hub.run("hub", "user", "show", "hanako", "--hub", "OFFICE", "--json"))
    assert (hanako["group"], hanako["policy_of"]) == ("staff", "group")
    assert stat.S_IMODE((keys / "server.key").stat().st_mode) == 0o600
    again = hub.ask("hub", "import", config, "--hub", "OFFICE")
    assert (again.returncode, "OFFICE" in again.stderr) == (2, True)

    # the server's own certificate goes on, too
    hub.stop()
    hub.configure({"tls": {"certificate": str(keys / "server.crt"), "key": str(keys / "server.key")}})
    keys.chmod(0o755)
    hub.start(first=False)
    for name in ("hanako", "guest"):
        client.connect(name)
    until(lambda: {row["user"] for row in hub.sessions("OFFICE")} == {"hanako", "guest"}, seconds=20, what="both")
    for name in ("hanako", "guest"):
        client.disconnect(name)
    wrong = peers.Client(host, "second")
    client.stop()
    wrong.start()
    wrong.create_account("bad", server=machine.ipv4, port=443, hub="OFFICE", user="hanako", password="another")
    with pytest.raises(Exception, match="online"):
        wrong.connect("bad", seconds=6.0)


def test_a_file_of_another_kind_is_refused_and_nothing_is_made(net: Net, tmp_path: Path) -> None:
    (machine,) = net.lan("hub")
    hub = Hub(machine)
    hub.start(first=False)
    bad = tmp_path / FILE
    bad.write_text("declare root\n{\n\tuint A many\n}\n")
    done = hub.ask("hub", "import", bad)
    assert done.returncode == InputUnreadable.exit_status
    assert "line 3" in done.stderr
    assert hub.ask("hub", "import", tmp_path / "absent").returncode == done.returncode
    assert hub.rows("hub", "list") == []
