"""What a network's manager has to do about a finding, as the manual of 2004 advised (requirement B38)."""

from typing import Final

from ukihashi.errors import N_

HEADING: Final = N_("What to do next:")
ASK: Final = N_("Ask the person at the client's address first; the tunnel may be known and allowed.")
DUTIES: Final = (
    N_("Tell the users which tunnels the rules of this network allow, and which they forbid."),
    N_("Give no administrator's rights on their computers to users who do not need them."),
    N_("Let no private notebooks and other private devices onto this network."),
    N_("Keep account of the software that is installed on the computers of this network."),
)
