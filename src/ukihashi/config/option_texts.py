"""What each setting means and when a change of it takes effect, said once: the command line, the pages and the comments
of the example files all take their words from here.

Type, range and default are not here: the structures in `card.py`, `hub.py` and `alert.py` have them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from ukihashi.errors import N_


class Effect(StrEnum):
    """When a changed setting is heeded."""

    NOW = "now"
    NEXT_CONNECTION = "next connection"
    NEXT_START = "next start"
    RELOAD = "reload"  # of hub.toml, which only root can have changed: it touches the machine


class About(NamedTuple):
    """What the structures don't know about a setting."""

    meaning: str  # sentences
    effect: Effect
    unit: str = ""  # one of UNITS
    secret: bool = False  # never shown, never given on a command line


NOW, NEXT_CONNECTION, NEXT_START = Effect.NOW, Effect.NEXT_CONNECTION, Effect.NEXT_START
RELOAD = Effect.RELOAD

EFFECTS: Final[Mapping[Effect, str]] = {
    NOW: N_("at once"),
    NEXT_CONNECTION: N_("with the next connection"),
    NEXT_START: N_("at the next start"),
    RELOAD: N_("when hub.toml is read again"),
}

UNITS: Final[Mapping[str, str]] = {
    "s": N_("seconds"),
    "B": N_("bytes"),
    "KiB": N_("KiB"),
    "MiB": N_("MiB"),
    "frames": N_("frames"),
}

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "card": {
        "hub": N_("Where to join."),
        "trust": N_("How the hub proves that it is the right one."),
        "login": N_("How the card proves who it is."),
        "path": N_("How the hub is reached: directly, through a proxy, or through an SSH server."),
        "connection": N_("The TCP connections to the hub."),
        "interface": N_("The network interface that the card makes."),
        "interface.routes": N_("Networks that are reached through the card: any number of them, or none."),
        "times": N_("Periods and deadlines. The first four rule between two ukihashi ends only."),
        "resume": N_("What is kept while the link is cut."),
        "echo_guard": N_("Small ICMP Echos on the virtual LAN, so that routes through it are never held to be dead."),
        "tls": N_("The card's side of TLS."),
        "standard": N_("What is asked of a hub that can't resume exactly, as official servers can't."),
        "hooks": N_("Programs that run as the card's owner, so root, when it comes and goes."),
    },
    "hub": {
        "": N_("The hub as a whole."),
        "tls": N_("The hub's side of TLS."),
        "times": N_("Periods between two ukihashi ends."),
        "resume": N_("What is kept of a session whose link is cut."),
        "limits": N_("Bounds against strangers and mistakes."),
        "front": N_("What stands between the hub and the Internet."),
        "web": N_("What else browsers find at the hub's address."),
        "standard": N_("What official clients get of what they ask for, in sessions that begin afterwards."),
    },
    "alert": {"": N_("The detector.")},
}

CARD: Final[Mapping[str, About]] = {
    "hub.host": About(N_("A name, an IPv4 address, or an IPv6 address without brackets."), NEXT_CONNECTION),
    "hub.port": About(N_("The hub's TCP port."), NEXT_CONNECTION),
    "hub.hub": About(N_("Name of the virtual hub."), NEXT_CONNECTION),
    "hub.user": About(N_("Name of the user there."), NEXT_CONNECTION),
    "trust.mode": About(
        N_(
            "“pin”: by its public key's SHA-256. “ca”: by certificate and name. “first-use”: the key that is seen first"
            " is written into trust.pin and held to."
        ),
        NEXT_CONNECTION,
    ),
    "trust.pin": About(N_("SHA-256 of the hub's public key, 64 hexadecimal digits."), NEXT_CONNECTION),
    "trust.ca_file": About(N_("For “ca”: a PEM file. Empty: the system's authorities."), NEXT_CONNECTION),
    "login.method": About(
        N_(
            "“password”: a generated one, or the standard password of a SoftEther hub. “plain”: the password itself"
            " inside TLS, for chosen ones. “anonymous”: an open account. “certificate”: an RSA key of one's own."
        ),
        NEXT_CONNECTION,
    ),
    "login.password": About(N_("The password; `card join` generates one."), NEXT_CONNECTION, secret=True),
    "login.certificate": About(N_("For “certificate”: a PEM file."), NEXT_CONNECTION),
    "login.key": About(
        N_("For “certificate”: a PEM file with its RSA key, without a passphrase; only the card's dialler reads it."),
        NEXT_CONNECTION,
    ),
    "login.invite": About(N_("The token of a join link, until it is spent."), NEXT_CONNECTION, secret=True),
    "path.via": About(
        N_(
            "The path to the hub. “auto”: directly, and by those of path.known and of the environment (HTTPS_PROXY,"
            " ALL_PROXY), whichever gets there first. Or one path: “direct:”, “http://proxy.example:3128”,"
            " “https://taro@proxy.example:3129”, “socks5h://proxy.example”, “ssh://taro@gate.example”."
        ),
        NEXT_CONNECTION,
    ),
    "path.known": About(N_("With “auto”: paths that are tried too, the best first."), NEXT_CONNECTION),
    "path.password": About(N_("Password of the user in path.via."), NEXT_CONNECTION, secret=True),
    "path.secrets": About(
        N_(
            "File with passwords for paths, readable for its owner only; in each line a path as in path.via, a blank,"
            " the password. Empty: the file paths.secret beside card.d, if there is one."
        ),
        NEXT_CONNECTION,
    ),
    "path.authorities": About(
        N_("PEM file with the authorities that may certify an https:// proxy. Empty: the system's authorities."),
        NEXT_CONNECTION,
    ),
    "path.ssh_config": About(
        N_("File with ssh's settings for ssh:// paths. Empty: the usual ones of this machine and user."),
        NEXT_CONNECTION,
    ),
    "connection.congestion": About(
        N_(
            "TCP congestion control towards the hub: “bbr”, “cubic” or another that this machine has. Empty: the"
            " machine's own. BBR carries far more over lines that lose packets; the other direction is the hub's to"
            " set."
        ),
        NEXT_CONNECTION,
    ),
    "interface.name": About(N_("Name of the network interface, up to 15 characters."), NEXT_START),
    "interface.mac": About(N_("Its MAC address, drawn once for each account."), NEXT_START),
    "interface.addresses": About(N_("Its addresses with prefix length, IPv4 and IPv6."), NOW),
    "interface.routes": About(N_("Networks that are reached through the card."), NOW),
    "interface.mtu": About(N_("Largest packet."), NOW, unit="B"),
    "interface.queue": About(
        N_("What the kernel holds while the line is full; the rest it drops. A super-frame counts as one."),
        NOW,
        unit="frames",
    ),
    "interface.offload": About(
        N_(
            "Super-frames where the hub takes them: up to 64 KiB at once between this machine's kernel and the other"
            " end, which makes bulk traffic several times as fast. Off: ordinary frames only."
        ),
        NEXT_CONNECTION,
    ),
    "interface.bridge": About(
        N_(
            "An Ethernet of this machine that is joined to the virtual LAN by the kernel's bridge, so that the hosts"
            " there are on it without any program. This machine then has no addresses or routes by the card. Empty:"
            " the machine itself joins. Best changed by `ukihashi card bridge`."
        ),
        NOW,
    ),
    "interface.bridge_addresses": About(
        N_(
            "If interface.bridge has addresses: they and the routes through it move to the bridge, and back when the"
            " card leaves. Otherwise such an interface is refused."
        ),
        NOW,
    ),
    "interface.dhcp": About(
        N_(
            "DHCP on the virtual LAN. “auto”: ask for an IPv4 address if interface.addresses is empty; else ask only"
            " what the hub offers besides. “off”: no question, and no IPv6 address by router advertisements either."
        ),
        NOW,
    ),
    "interface.accept": About(
        N_(
            "What is applied of that which the hub offers: “dns” (its name servers), “routes” (networks behind it),"
            " “default” (everything goes by the hub). Empty: nothing; `card status` shows the offers."
        ),
        NOW,
    ),
    "interface.dns_domains": About(
        N_("With “dns”: domains whose names the hub's name servers are asked for, besides the one it offers."), NOW
    ),
    "interface.kill_switch": About(
        N_(
            "Nothing leaves this machine but by its cards: while the tunnel is cut or the card was killed, packets are"
            " dropped. Set when the card is first online, removed by `card leave` and `card clean`. Needs nftables."
        ),
        NOW,
    ),
    "interface.kill_switch_allow": About(
        N_("Networks that the kill switch leaves reachable beside the card, such as 192.168.1.0/24."), NOW
    ),
    "times.keepalive": About(N_("After so much silence of our own a keep-alive goes out."), NOW, unit="s"),
    "times.suspect": About(
        N_("After so much silence of the hub's, dials begin beside the link; never later than times.dead."),
        NOW,
        unit="s",
    ),
    "times.dead": About(N_("After so much silence of the hub's the link is given up."), NOW, unit="s"),
    "times.redial": About(N_("Pause between dials for a session that lacks a link."), NOW, unit="s"),
    "times.dial": About(N_("How long a TCP connection may take, and again TLS and login together."), NOW, unit="s"),
    "times.retry_most": About(N_("Longest pause between two logins."), NOW, unit="s"),
    "times.refused": About(N_("Pause after a refusal that will hardly change."), NOW, unit="s"),
    "resume.buffer_kib": About(
        N_("Kept toward the hub; beyond it the interface is not read, and the kernel drops and counts."),
        NOW,
        unit="KiB",
    ),
    "echo_guard.enabled": About(N_("Whether Echos are sent."), NOW),
    "echo_guard.target": About(
        N_("Where to: a name or an address, IPv4 or IPv6; “auto” is the virtual LAN's gateway."), NOW
    ),
    "echo_guard.period": About(N_("Time from one Echo to the next."), NOW, unit="s"),
    "tls.ciphers": About(
        N_("Cipher suites by their OpenSSL names, the first liked best. Empty: modern ones."), NEXT_CONNECTION
    ),
    "standard.max_connections": About(
        N_("TCP connections of one session; they are opened a second apart, as far as the hub grants them."),
        NEXT_CONNECTION,
    ),
    "standard.half_duplex": About(
        N_("Each connection carries frames one way only; there are two at least."), NEXT_CONNECTION
    ),
    "standard.compression": About(
        N_("Every frame is compressed; costs time, and helps on slow lines."), NEXT_CONNECTION
    ),
    "standard.udp_acceleration": About(
        N_("Frames go as UDP datagrams where they get through; the TCP connections stay."), NEXT_CONNECTION
    ),
    "standard.allow_plaintext": About(
        N_(
            "Asks for a tunnel WITHOUT ENCRYPTION: everybody on the way reads and alters the frames. For one's own"
            " laboratory only; without it such a tunnel is refused."
        ),
        NEXT_CONNECTION,
    ),
    "standard.bridge": About(
        N_("Asks to be a bridge: any number of stations may be behind the card."), NEXT_CONNECTION
    ),
    "standard.monitor": About(
        N_("Asks for a copy of every frame of the virtual hub; the card can send nothing then."), NEXT_CONNECTION
    ),
    "hooks.up": About(
        N_(
            "A command that runs when the card is up, and again when addresses or offers have changed. No shell reads"
            " it: for one, write sh -c '...'. It learns of the card by variables UKIHASHI_..., and has 30 s."
        ),
        NOW,
    ),
    "hooks.down": About(N_("A command that runs before the card's interface goes; as hooks.up."), NOW),
}

ROUTE: Final[Mapping[str, str]] = {
    "to": N_("The network: 10.8.0.0/16, fd00:8::/48."),
    "via": N_("A gateway on the virtual LAN. Empty: directly."),
    "metric": N_("The lower, the better; 0 is the kernel's default."),
}

HUB: Final[Mapping[str, About]] = {
    "listen": About(
        N_(
            "Where to listen: 443 (IPv4 and IPv6), 192.0.2.1:443, [2001:db8::1]:443; any number of them."
            " `ukihashi hub upgrade` changes it without a cut."
        ),
        NEXT_START,
    ),
    "public_address": About(
        N_("What join links name: hub.example.jp, hub.example.jp:443. Empty: the address this machine goes out by."),
        NOW,
    ),
    "page_dir": About(
        N_(
            "A folder whose index.html (or index.ja.html, index.en.html) takes the place of the built-in page; the"
            " account `ukihashi` must be able to read it. Empty: the built-in page."
        ),
        NEXT_START,
    ),
    "log_format": About(N_("How the log on standard error is written."), NEXT_START),
    "session_timeout_s": About(
        N_(
            "A session of a standard client ends after so long without any connection, and a connection that brings"
            " nothing for so long is closed. Holds for sessions that begin afterwards."
        ),
        NOW,
        unit="s",
    ),
    "mac_ageing_s": About(N_("The switch forgets a station so long after its last frame."), NOW, unit="s"),
    "workers": About(
        N_(
            "How many processes carry frames, 1 to 16; at most one for each processor. With several, an official client"
            " gets one connection, no half duplex and no monitor mode."
        ),
        NEXT_START,
    ),
    "super_frames": About(
        N_(
            "Super-frames with ukihashi cards that offer them: up to 64 KiB at once, which makes bulk traffic several"
            " times as fast. Everybody else gets ordinary frames, made of them here. Holds for sessions that begin"
            " afterwards, and for this machine's own port from the next start on."
        ),
        NOW,
    ),
    "congestion": About(
        N_(
            "TCP congestion control towards cards and clients, for connections that come afterwards: “bbr”, “cubic” or"
            " another that this machine has. Empty: the machine's own. BBR carries far more over lines that lose"
            " packets."
        ),
        NOW,
    ),
    "bridges": About(
        N_(
            "Ethernets of this machine that are joined to virtual hubs by the kernel's bridge, so that the hosts there"
            ' are members without any program: LAN = ["eth1"]. Best changed by `ukihashi hub bridge`.'
        ),
        RELOAD,
    ),
    "bridge_addresses": About(
        N_(
            "Those of them whose addresses and routes may move to the bridge, and back in the end. Others that have"
            " addresses are refused."
        ),
        RELOAD,
    ),
    "uplink": About(
        N_(
            "Virtual hubs whose members reach other networks through this machine, hidden behind its addresses: HUB"
            " takes the way of the default routes, HUB:eth1 that interface. Best changed by `ukihashi hub uplink`."
        ),
        RELOAD,
    ),
    "tls.certificate": About(
        N_(
            "A PEM file, the hub's own certificate first. Empty: the hub makes one itself. Goes with tls.key."
            " `ukihashi hub reload` takes over a renewed one around the same key."
        ),
        NEXT_START,
    ),
    "tls.key": About(
        N_("A PEM file with the key of tls.certificate. Empty: the hub makes a key once and keeps it."), NEXT_START
    ),
    "tls.ciphers": About(
        N_("Cipher suites by their OpenSSL names, the first liked best. Empty: modern ones."), NEXT_START
    ),
    "times.keepalive_s": About(N_("After so much silence of our own a keep-alive goes out."), NOW, unit="s"),
    "times.dead_s": About(N_("After so much silence of the card's its link is given up."), NOW, unit="s"),
    "resume.grace_s": About(N_("How long a session waits for its card to come back."), NOW, unit="s"),
    "resume.buffer_kib": About(
        N_("Kept toward one card; beyond it the newest frames are dropped and counted."), NOW, unit="KiB"
    ),
    "resume.memory_mib": About(
        N_(
            "Kept of all sessions together; beyond it the session cut longest loses its buffer first."
            " 0: an eighth of this machine's memory."
        ),
        NOW,
        unit="MiB",
    ),
    "limits.opening_s": About(N_("How long a stranger may take for each step of an opening."), NOW, unit="s"),
    "limits.half_open": About(
        N_("Connections that are not yet in; beyond it the one that stood still longest is closed."), NOW
    ),
    "front.proxies": About(
        N_(
            "Networks of load balancers before this hub, such as 10.0.0.0/8 or 192.0.2.7, that say where a client comes"
            " from by the PROXY protocol (HAProxy, nginx). A connection of theirs must begin so; from anybody else it"
            " is not heeded."
        ),
        NOW,
    ),
    "web.upstream": About(
        N_(
            "A web server, http://127.0.0.1:8080 for example, that answers what browsers ask for and the hub does not"
            " know, “/” included; the hub's own front page is at /ukihashi/ then. Not together with page_dir. Empty:"
            " none."
        ),
        NEXT_START,
    ),
    "standard.max_connections": About(N_("TCP connections of one session, at most."), NOW),
    "standard.half_duplex": About(N_("Connections that carry frames in one direction only."), NOW),
    "standard.compression": About(N_("Each frame compressed by itself; costs much and helps little."), NOW),
    "standard.udp_acceleration": About(N_("Frames over UDP beside the TCP connections, encrypted too."), NOW),
    "standard.udp_ports": About(N_("Where UDP acceleration may listen: the first free port of this range."), NOW),
    "standard.allow_plaintext": About(
        N_(
            "Whether a client that asks for it may send frames unencrypted after the login. Everybody on the way can"
            " read and change them: for a laboratory only."
        ),
        NOW,
    ),
}

ALERT: Final[Mapping[str, About]] = {
    "label": About(
        N_(
            "“modern”: lines name what was found, SoftEther VPN or ukihashi. “classic”: SoftEther 1.0 for both, as in"
            " 2004."
        ),
        NEXT_START,
    ),
    "probable": About(N_("Whether what is only PROBABLE is logged too."), NEXT_START),
    "log": About(
        N_("A log file for `ukihashi alert`. Empty: none. `sealert` always writes sealert.log where it was started."),
        NEXT_START,
    ),
    "eve": About(
        N_("A file that gets an event for each finding, as JSON lines in the shape of Suricata's EVE. Empty: none."),
        NEXT_START,
    ),
    "json": About(N_("The older name of “eve”, used if that is empty."), NEXT_START),
    "syslog": About(
        N_("Where log lines go by syslog: /dev/log, udp://HOST:PORT or tcp://HOST:PORT. Empty: nowhere."), NEXT_START
    ),
    "metrics": About(N_("ADDRESS:PORT where Prometheus can ask for the counters. Empty: none."), NEXT_START),
    "bus": About(
        N_("Socket for top, web and block. Empty: alert.sock in the runtime folder; “off”: none."), NEXT_START
    ),
    "evidence": About(N_("A folder that gets a signed bundle for each finding. Empty: none."), NEXT_START),
    "evidence_per_day": About(N_("Bundles made in 24 hours; later findings get none."), NEXT_START),
    "evidence_mib": About(N_("MiB of all bundles in the folder; later findings get none."), NEXT_START),
    "report": About(N_("How often it is said how much of the traffic was seen, such as 1h. Empty: never."), NEXT_START),
    "community_id_seed": About(N_("Seed of the Community ID; the same in all your tools."), NEXT_START),
    "send_on_capture_card": About(N_("Whether syslog and metrics may use a card that is captured on."), NEXT_START),
    "filter": About(N_("Look only at packets that match, as in tcpdump. Empty: at all."), NEXT_START),
    "workers": About(N_("Processes that share the packets of the cards."), NEXT_START),
    "snaplen": About(N_("Bytes kept of each packet of a card."), NEXT_START),
    "ring": About(N_("MiB of memory for packets that wait, for each process."), NEXT_START),
    "ssh_clients": About(
        N_(
            "Patterns of SSH client identifications that are always reported, such as “SSH-2.0-*VPN*”; * stands for any"
            " text."
        ),
        NEXT_START,
    ),
    "max_flows": About(N_("TCP connections known at once; when full, those silent longest are forgotten."), NEXT_START),
}

TEXTS: Final[Mapping[str, Mapping[str, About]]] = {"card": CARD, "hub": HUB, "alert": ALERT}
