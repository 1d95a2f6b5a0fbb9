"""Findings in words, for the terminal and the page. `translate` is gettext in the reader's language."""

import math
from datetime import datetime
from typing import Final

from ukihashi.alert.page_state import Found, text
from ukihashi.errors import N_, Translate

FAMILIES: Final = {"softether": "SoftEther VPN", "ukihashi": "ukihashi"}  # names, the same in every language
TRANSPORTS: Final = {
    "TCP": N_("direct"),
    "HTTP Proxy": N_("HTTP proxy"),
    "SOCKS Proxy": N_("SOCKS proxy"),
    "SSH": N_("inside SSH"),
}
CONFIRMED: Final = N_("confirmed")
PROBABLE: Final = N_("probable")
ALLOWED: Final = N_("allowed")
MAX_FACTOR: Final = 6  # powers of ten; beyond, only "more than" is said

EXPLANATIONS: Final = {  # of a reason's name (`detect/`)
    "login dialogue": N_(
        "The first exchanges after the TLS greeting had the order, the sizes and the pace of a login to a virtual hub."
    ),
    "login dialogue inside SSH": N_(
        "Inside the SSH connection, exchanges had the order, the sizes and the pace of a login to a virtual hub."
    ),
    "further connection": N_(
        "Soon afterwards the same client opened another connection to the same server, and it began like a further"
        " connection of one session."
    ),
    "further connection inside SSH": N_(
        "Soon afterwards a further connection of the same session began inside the same SSH connection."
    ),
    "keep-alive timers": N_(
        "When nothing else is sent, small messages of random size come by the tunnel's own clock, in each direction for"
        " itself. Programs that ask and answer do not sound like this."
    ),
    "never silent for long": N_(
        "For a minute neither direction was silent for longer than the tunnel's clock allows. It lets the rest count"
        " and adds nothing by itself."
    ),
    "acknowledgements of records": N_(
        "Short segments of always the same size come by the tunnel's own clock while the other side goes on sending:"
        " the tunnel's word that it has received something. Programs that ask and answer do not sound like this."
    ),
    "SSH client identification": N_(
        "The SSH client named itself as the manager's list says. Its traffic was not weighed."
    ),
}


def family(found: Found) -> str:
    """Whose tunnel."""
    name = text(found.about.get("family"))
    return FAMILIES.get(name, name)


def transport(found: Found, translate: Translate) -> str:
    """How it travels."""
    name = text(found.about.get("transport"))
    return translate(TRANSPORTS[name]) if name in TRANSPORTS else name


def verdict(found: Found, translate: Translate) -> str:
    """How sure, or that it is allowed."""
    return translate(ALLOWED if found.allowed else CONFIRMED if found.confirmed else PROBABLE)


def span(seconds: float, translate: Translate) -> str:
    """A time span in its largest unit."""
    whole = max(0, int(seconds))
    if whole < 60:
        return translate(N_("{count} s")).format(count=whole)
    if whole < 3600:
        return translate(N_("{count} min")).format(count=whole // 60)
    if whole < 172_800:
        return translate(N_("{count} h")).format(count=whole // 3600)
    return translate(N_("{count} d")).format(count=whole // 86_400)


def life(found: Found, now: float, translate: Translate) -> str:
    """Alive for how long, or ended how long ago."""
    if found.ended is None:
        return translate(N_("alive {span}")).format(span=span(now - found.begin, translate))
    return translate(N_("ended {span} ago")).format(span=span(now - found.ended, translate))


def clock(time: float, now: float) -> str:
    """This machine's local time; the date too where it is not today's."""
    moment, today = datetime.fromtimestamp(time).astimezone(), datetime.fromtimestamp(now).astimezone()
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def likelihood(score: float, translate: Translate) -> str:
    """A natural-log likelihood ratio as a sentence without logarithms."""
    if abs(score) < 0.1:
        return translate(N_("as likely in other traffic"))
    power = abs(score) / math.log(10)
    if power >= MAX_FACTOR:
        factor = translate(N_("more than a million times"))
    else:
        exact = math.exp(abs(score))
        digits = 1 if exact < 10 else 10 ** (int(math.log10(exact)) - (exact < 20))
        told = f"{exact:.1f}" if exact < 3 else f"{round(exact / digits) * digits:,.0f}"
        factor = translate(N_("{factor} times")).format(factor=told)
    if score > 0:
        return translate(N_("{factor} likelier in a tunnel than elsewhere")).format(factor=factor)
    return translate(N_("{factor} likelier elsewhere than in a tunnel")).format(factor=factor)


def share(part: float | None) -> str:
    """0..1 as per cent; never rounded up to 100."""
    if part is None:
        return "-"
    if part >= 1:
        return "100 %"
    return f"{math.floor(part * 10_000) / 100:.2f} %"
