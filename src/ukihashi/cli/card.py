"""`ukihashi card`: the virtual LAN card. Exit status: 0 done, 2 usage, 3 this machine lacks something, 4 not up,
5 the hub refused, 6 the hub's key is not the one we trust, 7 no connection or no hub there."""

import asyncio
import contextlib
import ipaddress
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ukihashi.auth.link import Link
from ukihashi.card import account
from ukihashi.card.addressing import forget, wish_of
from ukihashi.card.control import client
from ukihashi.cli.arguments import hide_argument
from ukihashi.cli.card_accept import accepted, ask_what_to_accept
from ukihashi.cli.card_bridge import bridge
from ukihashi.cli.card_clean import clean
from ukihashi.cli.card_page import card_page
from ukihashi.cli.card_status import remarks, state_word
from ukihashi.cli.card_status import show as show_status
from ukihashi.cli.ciphers import card_ciphers
from ukihashi.cli.doctor import doctor
from ukihashi.cli.options import CARD_COMMANDS
from ukihashi.cli.output import DASH, Column, print_json, say_aside, show, write
from ukihashi.cli.path_options import check_one_stdin, path_changes, via_options
from ukihashi.cli.user import json_option
from ukihashi.config import places
from ukihashi.config.card import (
    CardConfig,
    Hub,
    Interface,
    Login,
    Route,
    Trust,
    account_name_for,
    check_account_name,
    interface_name_for,
    parse_pin,
)
from ukihashi.config.hub import parse_public
from ukihashi.config.options import applied
from ukihashi.errors import (
    N_,
    DaemonUnreachable,
    EnvironmentLacks,
    InputUnreadable,
    Refused,
    UkihashiError,
    UsageError,
)
from ukihashi.locale import _, say
from ukihashi.ops.notify import Notifier
from ukihashi.tap import netlink
from ukihashi.wire.constants import Code

LEAVE_S: Final = 45.0  # seconds that `leave` waits for the interface to go; a hook may take 30
DEFAULT_PORT: Final = 443

NO_ACCOUNT: Final = N_("no account yet; make one with `ukihashi card join LINK`")


_folder = click.Path(path_type=Path, file_okay=False)
_pem = click.Path(path_type=Path, exists=True, dir_okay=False)


congestion_option: Final = click.option(
    "--congestion", default="", metavar="NAME", help=_("TCP congestion control, such as bbr [the machine's own].")
)
dhcp_option: Final = click.option(
    "--dhcp", type=click.Choice(["auto", "on", "off"]), default="auto", help=_("Whether DHCP is asked [auto].")
)
accept_option: Final = click.option(
    "--accept",
    default="",
    metavar="dns,routes,default|all|none",
    help=_("Of what the hub offers, what is applied: name servers, routes, the default route [nothing]."),
)
no_offload_option: Final = click.option("--no-offload", is_flag=True, help=_("Ordinary frames only, no super-frames."))


@click.group(help=_("The virtual LAN card: this machine gets a network interface on a virtual hub's LAN."))
@click.option("--state-dir", type=_folder, metavar="DIR", help=_("Where cards keep their logs."))
@click.option("--runtime-dir", type=_folder, metavar="DIR", help=_("Where the control sockets are."))
@click.option("--config-dir", type=_folder, metavar="DIR", help=_("Where card.d with the accounts is."))
def card(state_dir: Path | None, runtime_dir: Path | None, config_dir: Path | None) -> None:
    """Options win over UKIHASHI_STATE_DIR, UKIHASHI_RUNTIME_DIR and UKIHASHI_CONFIG_DIR."""
    places.override(state=state_dir, runtime=runtime_dir, config=config_dir)


for _command in (bridge, card_ciphers, clean, doctor, card_page, *CARD_COMMANDS):
    card.add_command(_command)


# -- joining and leaving ------------------------------------------------------------------------------------------


@card.command(
    help=_(
        "Join by a link that the hub's admin gave you. With - the link is read from standard input. "
        "The account is kept: later `ukihashi card up` is enough."
    )
)
@click.argument("link", metavar="LINK|-")
@click.option("--name", default="", metavar="ACCOUNT", help=_("Name of the new account [the virtual hub's name]."))
@click.option("--interface", default="", metavar="NAME", help=_("Name of the network interface [uk + account]."))
@via_options
@congestion_option
@no_offload_option
@dhcp_option
@accept_option
@click.option("--foreground", is_flag=True, help=_("Stay in the foreground; Ctrl-C leaves."))
def join(
    *,
    link: str,
    name: str,
    interface: str,
    via: str,
    via_password_file: Any,
    congestion: str,
    no_offload: bool,
    dhcp: str,
    accept: str,
    foreground: bool,
) -> None:
    """Account first, then the login that spends the link's token: a lost answer can be repeated."""
    if link == "-":
        check_one_stdin(sys.stdin, via_password_file)
        link = sys.stdin.readline()
    else:
        hide_argument(link)
    parsed = Link.parse(link)
    name = check_account_name(name) if name else account_name_for(parsed.hub)
    config = _account_for(parsed, name, interface)
    config = _changed(config, path_changes(via, via_password_file), congestion=congestion, no_offload=no_offload)
    config = applied(config, {"interface.dhcp": dhcp, "interface.accept": accepted(accept)})
    account.write(name, config)
    try:
        bring_up(name, config, foreground=foreground)
    except Refused as error:
        if error.code == Code.AUTH_FAILED and account.read(name).login.invite:
            account.remove(name)  # it never worked and never will
        raise
    if not accept and dhcp != "off" and not foreground and sys.stdin.isatty() and sys.stdout.isatty():
        ask_what_to_accept(name)


@card.command(help=_("Bring an account's card up."))
@click.argument("name", metavar="ACCOUNT")
@click.option("--foreground", is_flag=True, help=_("Stay in the foreground; Ctrl-C leaves."))
@click.option("--keep-trying", is_flag=True, help=_("Stay even if the first try fails, e.g. at boot."))
def up(name: str, foreground: bool, keep_trying: bool) -> None:
    """Returns when online, or says why not."""
    config = account.read(name)
    if account.open_to_others(name):
        say_aside(
            _("warning: {path} can be read by others and holds a secret; do chmod 600").format(
                path=account.path_of(name)
            ),
        )
    bring_up(name, config, foreground=foreground, keep_trying=keep_trying)


@card.command(help=_("Leave the hub: the interface, its addresses and routes go away; the account stays."))
@click.argument("name", metavar="[ACCOUNT]", default="")
@click.option("--all", "every", is_flag=True, help=_("All cards that are up."))
def leave(name: str, every: bool) -> None:
    """Returns when the interface is gone."""
    if bool(name) == every:
        raise UsageError(N_("name one account, or give --all"))
    for one in account.names() if every else [name]:
        try:
            _leave(one)
        except DaemonUnreachable:
            if not every:
                account.read(one)  # no such account: say that instead
                raise


def _leave(name: str) -> None:
    row = client(check_account_name(name)).ask("leave")[0]
    interface = str(row["interface"])
    deadline = time.monotonic() + LEAVE_S
    while netlink.exists(interface) or places.card_socket(name).exists():
        if time.monotonic() > deadline:
            raise EnvironmentLacks(
                N_("the interface {interface} is still there after {seconds:g} s; the card's log says more"),
                interface=interface,
                seconds=LEAVE_S,
            )
        time.sleep(0.02)
    write(_("left: {name} ({interface} is gone)").format(name=name, interface=interface))


# -- looking ------------------------------------------------------------------------------------------------------


@card.command(help=_("Show cards: state, session, addresses, counters."))
@click.argument("name", metavar="[ACCOUNT]", default="")
@json_option
def status(name: str, as_json: bool) -> int:
    """One account, or all. Exit status: 0 shown, 2 no such account, 4 the named card is not up."""
    rows = [status_of(one) for one in ([name] if name else account.names())]
    for row in rows:
        if as_json:
            print_json(row)
        else:
            show_status(row)
    if not rows and not as_json:
        say_aside(_(NO_ACCOUNT))
    return DaemonUnreachable.exit_status if name and rows[0]["state"] == "down" else 0


@card.command("list", help=_("List the accounts of this machine."))
@json_option
def list_(as_json: bool) -> None:
    """Exit status: 0 listed."""
    keys = ("account", "state", "hub", "user", "address", "interface")
    rows = [{key: row.get(key, "") for key in keys} for row in map(status_of, account.names())]
    columns = [
        Column("account", _("ACCOUNT")),
        Column("state", _("STATE"), state_word),
        Column("hub", _("HUB")),
        Column("user", _("USER")),
        Column("address", _("SERVER")),
        Column("interface", _("INTERFACE")),
    ]
    show(rows, columns, as_json=as_json, empty=_(NO_ACCOUNT))


# -- accounts by hand ---------------------------------------------------------------------------------------------


@card.command(help=_("Make an account without a join link, e.g. for a SoftEther VPN server."))
@click.argument("name", metavar="ACCOUNT")
@click.option("--server", required=True, metavar="HOST[:PORT]", help=_("Where the hub is; port 443 if not given."))
@click.option("--hub", required=True, help=_("Name of the virtual hub."))
@click.option("--user", required=True, help=_("User name there."))
@click.option("--password-file", type=click.File("r"), help=_("File with the password in its first line; - is stdin."))
@click.option("--anonymous", is_flag=True, help=_("The user needs no password."))
@click.option(
    "--certificate",
    type=_pem,
    metavar="FILE",
    help=_("Log in by this certificate (PEM); --key goes with it."),
)
@click.option("--key", type=_pem, metavar="FILE", help=_("The RSA key of --certificate (PEM)."))
@click.option("--plain", is_flag=True, help=_("Send the password itself inside TLS (for chosen passwords, RADIUS)."))
@click.option("--pin", default="", metavar="SHA256", help=_("Trust only the key with this fingerprint."))
@click.option("--ca", default="", metavar="FILE|system", help=_("Trust keys certified by these authorities."))
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS/LENGTH", help=_("Address of the interface."))
@click.option("--route", "routes", multiple=True, metavar="NET[,GATEWAY]", help=_("Network behind the virtual LAN."))
@click.option("--interface", default="", metavar="NAME", help=_("Name of the network interface [uk + account]."))
@via_options
@congestion_option
@no_offload_option
@dhcp_option
@accept_option
def create(
    *,
    name: str,
    server: str,
    hub: str,
    user: str,
    password_file: Any,
    anonymous: bool,
    certificate: Path | None,
    key: Path | None,
    plain: bool,
    pin: str,
    ca: str,
    addresses: Sequence[str],
    routes: Sequence[str],
    interface: str,
    via: str,
    via_password_file: Any,
    congestion: str,
    no_offload: bool,
    dhcp: str,
    accept: str,
) -> None:
    """Without --pin and --ca the hub's key is trusted on first use, shown, and held to from then on."""
    if account.exists(name):
        raise _exists(name)
    if pin and ca:
        raise UsageError(N_("give --pin or --ca, not both"))
    host, port = parse_public(server, DEFAULT_PORT)
    trust = Trust()
    if pin:
        trust = Trust(mode="pin", pin=parse_pin(pin).hex())
    elif ca:
        trust = Trust(mode="ca", ca_file="" if ca == "system" else str(Path(ca).absolute()))
    if bool(certificate) != bool(key):
        raise UsageError(N_("give --certificate and --key together"))
    if sum(map(bool, (anonymous, certificate, plain))) > 1:
        raise UsageError(N_("give only one of --anonymous, --certificate and --plain"))
    check_one_stdin(password_file, via_password_file)
    path = path_changes(via, via_password_file)
    own: dict[str, Any]
    if certificate and key:
        own = {"method": "certificate", "certificate": str(certificate.absolute()), "key": str(key.absolute())}
    elif anonymous:
        own = {"method": "anonymous"}
    else:
        own = {"method": "plain" if plain else "password", "password": _password(password_file)}
    config = CardConfig(
        hub=Hub(host=host, port=port, hub=hub, user=user),
        trust=trust,
        login=Login(**own),
        interface=Interface(
            name=interface or interface_name_for(name),
            mac=account.make_mac(),
            addresses=[str(ipaddress.ip_interface(text)) if _is_address(text) else text for text in addresses],
            routes=[_route(text) for text in routes],
        ),
    )
    config = _changed(config, path, congestion=congestion, no_offload=no_offload)
    account.write(name, applied(config, {"interface.dhcp": dhcp, "interface.accept": accepted(accept)}))
    write(_("account {name} is written to {path}").format(name=name, path=account.path_of(name)))


@card.command(help=_("Delete an account and its secret from this machine."))
@click.argument("name", metavar="ACCOUNT")
def delete(name: str) -> None:
    """A card that is up leaves first."""
    account.path_of(name)
    with contextlib.suppress(DaemonUnreachable):
        _leave(name)
    if not account.remove(name):
        account.read(name)  # says that there is none
    forget(name)
    write(_("account {name} is deleted").format(name=name))


# -- the daemon ---------------------------------------------------------------------------------------------------


def bring_up(name: str, config: CardConfig, *, foreground: bool, keep_trying: bool = False) -> None:
    """Start the card; return once it is online (foreground: once it has left). Raises: UkihashiError."""
    from ukihashi.card.dialler import Card  # here: most commands only ask, and would pay half a second for it
    from ukihashi.cli import background, card_service

    if foreground:
        background.log_to(sys.stderr)
        notifier = Notifier()
        standing = card_service.ToldStanding(notifier)

        async def live() -> None:
            def report(error: UkihashiError | None) -> None:
                _greet(name, error, one.addresses)
                standing.first(error, keep_trying=keep_trying)

            one = Card(name, config, keep_trying=keep_trying, report=report, standing=standing)
            await card_service.run_card(one, notifier)

        asyncio.run(live())
        return
    error = background.start(name, config, keep_trying=keep_trying)
    if error is not None and keep_trying:
        say_aside(_("not online yet: {reason}").format(reason=say(error)))
        return
    if error is not None:
        raise error
    row = status_of(name)
    _greet(name, None, row.get("addresses"))
    for line in remarks(row):
        say_aside(line)
    if config.trust.mode == "first-use" and not config.trust.pin:
        write(
            _("the hub's key, trusted from now on: SHA-256 {pin}").format(pin=account.read(name).pin.hex(":").upper())
        )


def _greet(name: str, error: UkihashiError | None, addresses: Sequence[str] | None = None) -> None:
    if error is None:
        config = account.read(name)
        interface = config.interface
        found = " ".join(addresses or interface.addresses)
        if not found:
            found = _("(no address yet)") if wish_of(config).mode == "ask" else f"({interface.bridge or DASH})"
        told = _("online: {interface} {addresses}; leave with `ukihashi card leave {name}`")
        write(told.format(interface=interface.name, addresses=found, name=name))


# -- small help ---------------------------------------------------------------------------------------------------


def _account_for(link: Link, name: str, interface: str) -> CardConfig:
    """A new account, or the one a broken-off join of the same link left behind."""
    if not account.exists(name):
        return account.from_link(link, name, interface=interface)
    known = account.read(name)
    if not known.login.invite:
        raise _exists(name)
    if known.login.invite == link.token and known.hub.user == link.user and known.pin == link.pin:
        return known
    return account.from_link(link, name, interface=interface)


def _changed(config: CardConfig, path: Mapping[str, Any], *, congestion: str, no_offload: bool) -> CardConfig:
    changes = {**path, **({"connection.congestion": congestion} if congestion else {})}
    if no_offload:
        changes["interface.offload"] = False
    return applied(config, changes)


def _exists(name: str) -> UsageError:
    return UsageError(
        N_("there is an account “{name}” already; bring it up with `ukihashi card up {name}`, or choose another name"),
        name=name,
    )


def _password(file: Any) -> str:
    if file is None:
        text = click.prompt(_("Password"), hide_input=True, err=True)
    else:
        try:
            text = file.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise InputUnreadable(N_("{path} can't be read: {reason}"), path=file.name, reason=error) from error
    password = str(text).rstrip("\r\n")
    if not password:
        raise UsageError(N_("the password is empty; a user without one joins with --anonymous"))
    return password


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def _route(text: str) -> Route:
    to, _comma, via = text.partition(",")
    netlink.check_route(to, via)
    return Route(to=to, via=via)


def status_of(name: str) -> dict[str, Any]:
    """What the running card says of itself, or what its account says."""
    try:
        return client(check_account_name(name)).ask("status")[0]
    except DaemonUnreachable:
        pass
    try:
        config = account.read(name)
    except UkihashiError as error:
        if not account.exists(name):
            raise
        return {"account": name, "state": "down", "hub": "", "user": "", "address": "", "interface": "",
                "reason": {"text": str(error), "template": error.template, "values": {}}}  # fmt: skip
    hub = config.hub
    address = f"[{hub.host}]:{hub.port}" if ":" in hub.host else f"{hub.host}:{hub.port}"
    return {
        "account": name,
        "state": "down",
        "hub": hub.hub,
        "user": hub.user,
        "address": address,
        "interface": config.interface.name,
        "mac": config.interface.mac,
        "addresses": list(config.interface.addresses),
    }
