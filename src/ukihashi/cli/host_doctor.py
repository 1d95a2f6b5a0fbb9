"""`ukihashi doctor`: is this machine fit to be a hub, or to hold a card?"""

import click

from ukihashi.cli.output import cell, print_json, write
from ukihashi.cli.user import json_option
from ukihashi.errors import N_, UsageError
from ukihashi.locale import _, say


@click.command(
    "doctor",
    help=_(
        "Look at this machine before trouble does: rights, kernel, files, keys, database, ports, addresses that clash,"
        " firewalls, leftovers. Each line says what was seen and what to do. Nothing is changed, nothing is sent."
        " With names, those checks only. Exit status: 0 nothing fails, 1 something does."
    ),
)
@click.argument("names", metavar="[CHECK]...", nargs=-1)
@click.option("--strict", is_flag=True, help=_("Exit status 1 also if there is a warning only."))
@click.option("-q", "--quiet", is_flag=True, help=_("Show warnings and failures only."))
@json_option
def doctor(names: tuple[str, ...], strict: bool, quiet: bool, as_json: bool) -> int:
    """Exit status: 0 nothing fails, 1 something does (with --strict: or warns), 2 no such check."""
    from ukihashi.ops.doctor import Level, Look, checks, examine, worst  # here: other commands need none of it

    known = checks()
    if lost := [name for name in names if name not in known]:
        raise UsageError(N_("there is no check “{name}”; there are: {names}"), name=lost[0], names=", ".join(known))
    findings = []
    for finding in examine(Look(), {name: known[name] for name in names or known}):
        findings.append(finding)
        if quiet and finding.level in {Level.OK, Level.SKIP}:
            continue
        if as_json:
            print_json(
                {
                    "name": finding.name,
                    "level": finding.level.value,
                    "text": str(finding.sentence),
                    "values": {
                        name: value if isinstance(value, int | float) else str(value)
                        for name, value in finding.values.items()
                    },
                }
            )
        else:
            write(f"{finding.level.value:<4}  {finding.name:<12}  {cell(say(finding.sentence))}")
    bad = {Level.FAIL, Level.WARN} if strict else {Level.FAIL}
    return 1 if worst(findings) in bad else 0
