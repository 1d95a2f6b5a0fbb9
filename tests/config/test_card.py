from typing import Any

import msgspec
import pytest

from ukihashi.config.card import CardConfig, EchoGuard, Hub, Interface, Login, Route, Standard, check, plain
from ukihashi.errors import UsageError


def config(*routes: Route, target: str = "auto") -> CardConfig:
    return CardConfig(
        hub=Hub(host="hub.example", hub="LAN", user="alice"),
        login=Login(method="anonymous"),
        interface=Interface(name="uklan", mac="02:00:00:00:00:02", routes=list(routes)),
        echo_guard=EchoGuard(target=target),
    )


@pytest.mark.parametrize("to", ["default", "default6", "0.0.0.0/0", "::/0", "10.8.0.0/16", "fd00:8::/48"])
def test_routes_that_can_be(to: str) -> None:
    check(config(Route(to=to)))


@pytest.mark.parametrize(
    "route", [Route(to="10.8.0.1/16"), Route(to="x"), Route(to="10.8.0.0/16", via="fd00::1"), Route(to="::/0", via="y")]
)
def test_a_route_that_can_not_be_is_told_before_anything_is_done(route: Route) -> None:
    with pytest.raises(UsageError, match="is no route"):
        check(config(Route(to="10.0.0.0/8"), route))


@pytest.mark.parametrize("target", ["auto", "keepalive.example", "192.0.2.1", "fd00::1"])
def test_targets_of_the_echo_guard(target: str) -> None:
    check(config(target=target))


@pytest.mark.parametrize("target", ["", "two words", "[fd00::1]", "10.0.0.1:80"])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(UsageError, match=r"echo_guard\.target"):
        check(config(target=target))


@pytest.mark.parametrize("login", [
    Login(method="certificate"),
    Login(method="certificate", certificate="/a.pem"),
    Login(method="certificate", key="/a.key"),
    Login(method="plain"),
    Login(),
])  # fmt: skip
def test_a_login_that_lacks_its_proof(login: Login) -> None:
    with pytest.raises(UsageError, match="login"):
        check(msgspec.structs.replace(config(), login=login))


def test_a_login_by_certificate() -> None:
    check(msgspec.structs.replace(config(), login=Login(method="certificate", certificate="/a.pem", key="/a.key")))


def test_what_is_asked_of_standard_hubs_is_written_only_where_it_was_chosen() -> None:
    assert "standard" not in plain(config())
    asked = msgspec.structs.replace(config(), standard=Standard(max_connections=8, compression=True))
    assert plain(asked)["standard"] == {"max_connections": 8, "compression": True}


@pytest.mark.parametrize("network", ["192.168.1.0/24", "fd00::/8", "192.0.2.7"])
def test_networks_beside_the_kill_switch(network: str) -> None:
    interface = msgspec.structs.replace(config().interface, kill_switch=True, kill_switch_allow=[network])
    check(msgspec.structs.replace(config(), interface=interface))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kill_switch_allow": ["192.168.1.1/24"]}, "is no network"),
        ({"kill_switch_allow": ["home"]}, "is no network"),
        ({"kill_switch": True, "bridge": "eth1"}, "don't go together"),
    ],
)
def test_kill_switches_that_can_not_be(changes: dict[str, Any], told: str) -> None:
    interface = msgspec.structs.replace(config().interface, **changes)
    with pytest.raises(UsageError, match=told):
        check(msgspec.structs.replace(config(), interface=interface))
