"""Every sentence of the hub's web pages, in English; the Japanese is in `locale/ja/web.po` (D15).

The templates name a sentence by its key, so that the catalogue is collected from Python alone.
"""

from collections.abc import Mapping
from typing import Final

from ukihashi.errors import N_
from ukihashi.web.alert_texts import ALERT

COMMON: Final = {
    "skip": N_("Skip to the content"),
    "languages": N_("Language"),
    "home": N_("Front page"),
    "picture": N_("A floating bridge: a line of moored boats carries a wooden path across a calm river."),
    "administration": N_("For the administrator"),
    "licence": N_("Open source, Apache License 2.0"),
}

LANDING: Final = {
    "title": N_("ukihashi: a virtual HUB"),
    "heading": N_("A virtual HUB floats here"),
    "lead": N_(
        "Machines that are far apart meet at this address and share one Ethernet, as if they were plugged into the same"
        " switch. Every frame between them crosses inside ordinary HTTPS."
    ),
    "join": N_("How to join"),
    "join_lead": N_("Joining takes an account on this hub. Its administrator makes one for you."),
    "card": N_("With ukihashi, on Linux"),
    "card_ask": N_("Ask the administrator for a join link. It is made for you and works once."),
    "card_run": N_("Run this command, with your link in place of LINK."),
    "card_done": N_("Your machine now has a virtual LAN card with an address of its own. That is all."),
    "client": N_("With the official SoftEther VPN Client"),
    "client_lead": N_(
        "Make a new connection setting with these values. The administrator says which password authentication to"
        " choose."
    ),
    "client_host": N_("Host name"),
    "client_port": N_("Port number"),
    "client_hub": N_("Virtual Hub name"),
    "client_user": N_("User name and password"),
    "client_told": N_("the administrator tells you"),
    "about": N_("What this address is"),
    "about_hub": N_("One Ethernet"),
    "about_hub_text": N_(
        "A virtual HUB is a network switch made of software. Whatever runs over a LAN cable runs here: IPv4, IPv6, file"
        " shares, printers, games, protocols without a name. The hub learns which station is where and sends each"
        " frame only there."
    ),
    "about_https": N_("Real HTTPS, plain to see"),
    "about_https_text": N_(
        "Each connection opens with TLS and an HTTP/1.1 request, on the same port as this page. It does not disguise"
        " itself: whoever looks after a network can find such tunnels with the detector that comes with ukihashi."
        " Use it where the network's manager agrees."
    ),
    "about_private": N_("Nothing listed here"),
    "about_private_text": N_(
        "This page shows no virtual hubs, no users and no addresses, sets no cookie, and loads nothing from elsewhere."
    ),
    "warning": N_("Did your browser warn you?"),
    "warning_text": N_(
        "The hub made its certificate itself, so a browser does not know it. A join link carries the fingerprint of the"
        " hub's key: with it, the ukihashi card tells this hub from an impostor without asking any authority."
    ),
    "trademark": N_("SoftEther is a trademark of its owner; ukihashi is an independent project."),
}

PROBLEM: Final = {
    "404_title": N_("Nothing at this address"),
    "404_text": N_("The hub has no page by this name. The front page says what this place is."),
    "405_title": N_("This page can't do that"),
    "405_text": N_("The page exists, but it does not take requests of this kind."),
    "403_title": N_("Not from here"),
    "403_text": N_("The form was not sent from a page of this hub, or it is too old. Open the page again and repeat."),
    "413_title": N_("Too much at once"),
    "413_text": N_("The request is larger than this page takes."),
    "500_title": N_("Something went wrong inside the hub"),
    "500_text": N_("The log of the hub says what. The tunnels do not depend on this page."),
    "501_title": N_("WebSockets don't pass here"),
    "501_text": N_("The hub passes on ordinary requests to the web server behind it, but no WebSocket."),
    "502_title": N_("The web server behind the hub does not answer"),
    "502_text": N_("Try again in a moment. The log of the hub says more. The tunnels do not depend on this page."),
    "504_title": N_("The web server behind the hub takes too long"),
    "504_text": N_("Try again in a moment. The log of the hub says more. The tunnels do not depend on this page."),
    "503_title": N_("The hub does not answer its own page"),
    "503_text": N_("Try again in a moment. On the hub machine, `ukihashi hub status` tells more."),
}

ADMIN: Final = {
    "title": N_("Administration"),
    "sign_in": N_("Sign in"),
    "sign_in_lead": N_("The hub printed a one-time secret at its first start. Afterwards, your own password."),
    "secret": N_("Password or one-time secret"),
    "choose": N_("Choose your password"),
    "choose_lead": N_("The one-time secret has done its work: the password you choose now takes its place."),
    "new_password": N_("New password"),
    "new_password_hint": N_("At least {minimum} characters. A sentence is easier to keep in mind than signs."),
    "again": N_("The same once more"),
    "save": N_("Save the password"),
    "sign_out": N_("Sign out"),
    "state": N_("The hub now"),
    "version": N_("Version"),
    "uptime": N_("Running for"),
    "session_count": N_("Sessions"),
    "hub_count": N_("Virtual hubs"),
    "hubs": N_("Virtual hubs"),
    "hub": N_("Virtual hub"),
    "hub_state": N_("State"),
    "online": N_("online"),
    "offline": N_("offline"),
    "users": N_("Users"),
    "subnet": N_("Subnet"),
    "no_hubs": N_("No virtual hub yet. On the hub machine: `ukihashi hub create NAME`"),
    "sessions": N_("Sessions"),
    "no_sessions": N_("Nobody is connected. Invite someone, on the hub machine: `ukihashi hub invite HUB --user NAME`"),
    "session": N_("Session"),
    "user": N_("User"),
    "peer": N_("From"),
    "client": N_("Client"),
    "since": N_("Since"),
    "received": N_("Received"),
    "sent": N_("Sent"),
    "dropped": N_("Dropped frames"),
    "more_sessions": N_("The first {shown} of {total} sessions are shown; `ukihashi hub sessions` lists all."),
    "more_users": N_("The first {shown} of {total} users are shown; `ukihashi hub user list` lists all."),
    "group": N_("Group"),
    "last_login": N_("Last login"),
    "no_users": N_("No users yet. Invite someone, on the hub machine: `ukihashi hub invite HUB --user NAME`"),
    "read_only": N_("Virtual hubs and users are changed with the `ukihashi hub` command on the hub machine."),
    "options": N_("Options"),
    "reload": N_("Reload"),
    "as_of": N_("As of {time}"),
}

OPTIONS: Final = {
    "title": N_("Options"),
    "hub_lead": N_(
        "Every option of this hub machine. What takes effect at once can be changed here; the rest with `ukihashi hub"
        " set KEY VALUE` on the machine."
    ),
    "card_lead": N_(
        "Every option of this account. Secrets are changed with `ukihashi card set`, routes with `ukihashi card route`."
    ),
    "option": N_("Option"),
    "value": N_("Value"),
    "default": N_("Default"),
    "meaning": N_("Meaning"),
    "effect": N_("Takes effect"),
    "change": N_("Change"),
    "changed": N_("Changed."),
    "back": N_("The hub now"),
    "sign_out": N_("Sign out"),
    "reload": N_("Reload"),
    "card_title": N_("The virtual LAN card “{account}”"),
    "state": N_("State"),
    "hub": N_("Virtual hub"),
    "server": N_("Server"),
    "interface": N_("Interface"),
    "ledger": N_("Ledger of the session"),
    "ledger_lead": N_("Every record is counted: what was sent is acknowledged, waiting, or named as lost or dropped."),
    "closed_title": N_("Closed"),
    "closed_text": N_(
        "`ukihashi card page` prints an address that opens this page once, in one browser. For another, start the"
        " command again."
    ),
}

CARD_STATES: Final = {
    "connecting": N_("connecting"),
    "online": N_("online"),
    "suspect": N_("online, but the hub is silent"),
    "reconnecting": N_("reconnecting"),
    "refused": N_("refused"),
    "leaving": N_("leaving"),
    "down": N_("down"),
}

LEDGER: Final = {
    "sent": N_("Sent"),
    "acknowledged": N_("Acknowledged"),
    "waiting": N_("Waiting"),
    "replayed": N_("Sent again"),
    "received": N_("Received"),
    "cuts": N_("Cuts"),
    "resumes": N_("Resumed"),
    "lost": N_("Lost"),
    "dropped": N_("Dropped"),
}

UNITS: Final = {
    "days": N_("{days} d {hours} h"),
    "hours": N_("{hours} h {minutes} min"),
    "minutes": N_("{minutes} min {seconds} s"),
}

NOTICES: Final = {
    "wrong": N_("This is not the administrator's password or secret."),
    "wait": N_("Too many wrong attempts from your address. Wait {minutes} min, or use the command on the hub machine."),
    "busy": N_("Too many sign-ins are being checked just now. Try again in a moment."),
    "short": N_("The password needs at least {minimum} characters."),
    "long": N_("The password may have at most {maximum} characters."),
    "differ": N_("The two entries differ. Type the same password twice."),
    "same": N_("The password must be another one than the one-time secret."),
    "refused": N_("The hub did not take the password: the one-time secret is no longer valid. Sign in again."),
    "ended": N_("Your session has ended. Sign in again."),
    "out": N_("You are signed out."),
    "saved": N_("Your password is set. The one-time secret is void now."),
}

PAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "landing": LANDING,
    "problem": PROBLEM,
    "admin": ADMIN,
    "options": OPTIONS,
    "alert": ALERT,
}
