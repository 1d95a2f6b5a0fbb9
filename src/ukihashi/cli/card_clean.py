"""`ukihashi card clean`: take back what killed cards left here. Exit status: 0 done, 2 usage, 3 no right."""

import time
from typing import Final

import click

from ukihashi.card import account, bridging, journal
from ukihashi.card.control import is_up
from ukihashi.cli.output import say_aside, write
from ukihashi.config.card import check_account_name
from ukihashi.errors import N_, UkihashiError, UsageError
from ukihashi.locale import _, say
from ukihashi.tap import netlink

_KILL_SWITCH: Final = "nftables table inet {}"
GOING_S: Final = 3.0  # seconds that the rest of a card killed just now may take to go


@click.command(
    help=_(
        "Remove what a card that was killed left behind: routing rules, name servers, the kill switch, and the kernel's"
        " check of where packets come from. Cards that are up are left alone."
    )
)
@click.argument("name", metavar="[ACCOUNT]", default="")
def clean(name: str) -> None:
    """Of one account; or of all, with those of ours that nobody wrote down."""
    if name and _lives(check_account_name(name)):
        raise UsageError(N_("the card “{name}” is up; take it down with `ukihashi card leave {name}`"), name=name)
    done = [
        what
        for one in ([name] if name else journal.accounts())
        if not _lives(one)
        for what in journal.clean(one, _left)
    ]
    from ukihashi.card import kill_switch  # here: the other commands need not wait for it

    done += [what for one in ([name] if name else account.names()) for what in _kill_switch(one)]
    done += [
        what for one in ([name] if name else bridging.accounts()) if not _lives(one) for what in bridging.clean(one)
    ]
    if not name:
        done += journal.clean_orphans()
        done += [_KILL_SWITCH.format(what) for what in kill_switch.clean_orphans()]
    for what in done:
        write(_("removed: {what}").format(what=what))
    if not done:
        say_aside(_("nothing was left behind"))


def _kill_switch(name: str) -> list[str]:
    """The account's, if no card of it lives."""
    from ukihashi.card import kill_switch

    try:
        interface, deadline = account.read(name).interface.name, time.monotonic() + GOING_S
    except UkihashiError:  # no such account, or a file that can't be read: with all others it goes by its interface
        return []
    while netlink.exists(interface):
        if is_up(name) or time.monotonic() > deadline:
            return []
        time.sleep(0.05)
    return [_KILL_SWITCH.format(what) for what in kill_switch.clean(interface)]


def _left(error: UkihashiError) -> None:
    say_aside(say(error))


def _lives(account: str) -> bool:
    deadline = time.monotonic() + GOING_S
    while journal.in_use(account) or bridging.in_use(account):
        if is_up(account) or time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False
