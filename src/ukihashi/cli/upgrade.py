"""`ukihashi hub upgrade`: the running hub becomes the program that is installed now; cards go on where they were.

Exit status: 0 upgraded, 3 the new program can't take over (the old one goes on) or did not answer, 4 no hub runs.
"""

import time
from typing import Any, Final

import click

from ukihashi.cli import user
from ukihashi.cli.output import print_json, say_aside, write
from ukihashi.cli.user import NO_HUB_RUNS, json_option
from ukihashi.config import places
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks
from ukihashi.locale import _
from ukihashi.net.control_socket import HANDLER_S, Client

PATIENCE_S: Final = 30.0  # for the new program to serve
LOOK_S: Final = 0.1  # between two looks


@click.command("upgrade", help=_("Let the running hub become the program that is installed now; no session is lost."))
@json_option
def upgrade(as_json: bool) -> None:
    """The new program is tried out first; if that fails, the old one goes on."""
    began = time.monotonic()
    client = Client(places.hub_socket(), HANDLER_S + 1.0, absent=NO_HUB_RUNS)
    begun = client.ask("upgrade")[0]
    if not as_json:
        say = _("upgrading from version {old} to {new}; cards go on by themselves")
        say_aside(say.format(old=begun["from"], new=begun["to"]))
    status = _await(int(begun["number"]), time.monotonic() + PATIENCE_S)
    done = status["upgrade"]
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        print_json({**done, "to": status["version"], "seconds": seconds})
        return
    if done["sessions"] is None:
        told = _("version {version} serves after {seconds} s; the sessions did not come along, cards log in again")
    else:
        told = _("version {version} serves after {seconds} s; {count} sessions go on, they paused for {pause} s")
    values = {"version": status["version"], "count": done["sessions"], "pause": done["pause_s"]}
    write(told.format(seconds=seconds, **values))


def _await(number: int, until: float) -> dict[str, Any]:
    """The status of the hub once upgrade `number` is done. Raises: EnvironmentLacks: it takes too long."""
    while time.monotonic() < until:
        try:
            row = user.client().ask("status")[0]
        except DaemonUnreachable:  # between two control processes
            row = {}
        done = row.get("upgrade")
        if done is not None and done["number"] >= number:
            return row
        time.sleep(LOOK_S)
    raise EnvironmentLacks(
        N_("the upgraded hub did not answer within {seconds:g} s; its log says why"), seconds=PATIENCE_S
    )
