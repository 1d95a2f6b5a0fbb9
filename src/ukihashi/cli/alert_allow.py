"""`ukihashi alert allow`: the list of tunnels that are known and allowed."""

import click

from ukihashi.locale import _


@click.group(help=_("The list of tunnels that are known and allowed."))
def allow() -> None:
    """The allow list."""
