"""What a card's log says of its events, for people."""

from typing import Final

from ukihashi.card import bridging, hooks, lan, path_sources
from ukihashi.errors import N_

LOG_TEXTS: Final = {
    "card_online": N_("online"),
    "card_left": N_("left the hub"),
    "link_lost": N_("the connection was lost"),
    "link_silent": N_("the hub is silent; another connection is tried"),
    "connection_lost": N_("one of the session's connections was lost"),
    "connection_not_added": N_("no further connection for the session came about"),
    "sent_on": N_("the hub sends this card on to a member of its cluster"),
    "link_recovered": N_("the hub speaks again over the same connection"),
    "way_not_watched": N_("changes of the network can't be watched"),
    "not_online": N_("not online"),
    "session_forgotten": N_("the hub no longer knows the session; logging in afresh"),
    "session_lost": N_("a session ended with frames under way: of those sent (lost) each may or may not have arrived"),
    "reloaded": N_("the account was read again"),
    "card_blocked": N_(
        "frames would go round for ever: the hub lets none of this card pass as long as the loop is there"
    ),
    "card_unblocked": N_("the loop is gone; frames pass again"),
    "hub_says": N_("a word from the hub"),
    "not_undone": N_("something could not be undone"),
    "account_not_written": N_("the account could not be written"),
    **bridging.LOG_TEXTS,
    **hooks.LOG_TEXTS,
    **lan.LOG_TEXTS,
    **path_sources.LOG_TEXTS,
}
