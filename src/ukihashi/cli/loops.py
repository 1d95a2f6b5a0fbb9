"""A port that is blocked because frames would go round, in words."""

from collections.abc import Mapping
from typing import Any

from ukihashi.cli.output import cell
from ukihashi.locale import _
from ukihashi.web.status import span


def blocked(row: Mapping[str, Any], own: str) -> str:
    """What a row of a session or cascade says of it; "" if the port passes frames. `own`: the port's name."""
    return in_words(row["loop_with"], own, row["loop_s"]) if row.get("loop") == "blocked" else ""


def in_words(other: str, own: str, seconds: float) -> str:
    """`other`: the port by which the loop comes back, which may be the very one."""
    time = span(seconds, _)
    if other == own:
        return _("blocked for {time}: frames come back on this port").format(time=time)
    return _("blocked for {time}: a loop with {other}").format(time=time, other=cell(other))
