"""Events that the hub's control process logs, by their stable names; the sentences are for the text form of the log."""

from typing import Final

from ukihashi.errors import N_

EVENTS: Final = {
    "hub_started": N_("the hub serves"),
    "hub_stopped": N_("the hub has ended"),
    "session_opened": N_("a session began"),
    "session_closed": N_("a session ended"),
    "session_cut": N_("a session lost its link and waits for its card"),
    "session_resumed": N_("a session goes on over a new link"),
    "login_refused": N_("a login was refused"),
    "login_delayed": N_("many wrong logins; the next answer is delayed"),
    "invite_made": N_("a join link was made"),
    "invite_used": N_("a join link was used"),
    "invite_revoked": N_("a join link was revoked"),
    "hub_created": N_("a virtual hub was made"),
    "hub_changed": N_("a virtual hub was changed"),
    "hub_deleted": N_("a virtual hub was deleted"),
    "user_created": N_("a user was made"),
    "user_deleted": N_("a user was deleted"),
    "password_set": N_("a user's password was set"),
    "admin_refused": N_("a wrong administrator's password was given"),
    "admin_password_set": N_("the administrator's password was set"),
    "admin_secret_reset": N_("a new one-time administrator's secret was made"),
    "session_disconnected": N_("a session was ended by the administrator"),
    "worker_lost": N_("the switch worker is gone"),
    "supervisor_lost": N_("the supervisor is gone"),
    "worker_replaced": N_("the switch worker was started anew"),
    "web_ended": N_("the page server ended; the tunnels go on without it"),
    "option_changed": N_("an option was changed"),
    "option_set": N_("an option was set by the administrator"),
    "hub_upgrades": N_("the hub is being upgraded"),
    "hub_upgraded": N_("the hub was upgraded"),
    "state_lost": N_("the saved sessions could not be restored"),
    "internal_error": N_("internal error"),
    "internal error": N_("internal error"),  # the worker's loop
}
