"""Numbers and names that the protocol fixes (docs/protocol.md; section numbers are the protocol description's).

`Code` is what an error PACK carries (section 11); `SENTENCES` says each in words: what happened and what to do.
"""

from enum import IntEnum
from typing import Final

from ukihashi.errors import N_
from ukihashi.ether import frame

# -- HTTP (3, 4, 6) -----------------------------------------------------------------------------------------------

SIGNATURE_TARGET: Final = "/vpnsvc/connect.cgi"
PACK_TARGET: Final = "/vpnsvc/vpn.cgi"
SIGNATURE_TYPE: Final = "image/jpeg"
PACK_TYPE: Final = "application/octet-stream"
SHORT_SIGNATURE: Final = b"VPNCONNECT"
BLOB_LENGTH: Final = 1411  # bytes of the picture that real clients send as signature
BLOB_TRAILER_MAX: Final = 2000  # random bytes that may follow it
BLOB_MAGIC: Final = b"GIF89a"
PROBE_TAG: Final = b"9C37197CA7C2428388C2E6E59B829B30"  # in the first 1023 bytes of a page: "this is such a server"
MAX_REQUEST_PACK: Final = 65536  # bytes; a server takes no larger one
MAX_REQUESTS: Final = 19  # HTTP requests on one connection
MAX_NOOPS: Final = 30  # no-op requests on one connection
MAX_PENCORE: Final = 999  # random bytes added to each PACK as size camouflage

# -- PACK (5) -----------------------------------------------------------------------------------------------------

MAX_NAME: Final = 63  # bytes of an element's name; the rest of a longer one is skipped
MAX_TEXT: Final = 255  # bytes of a user, hub, session, connection or client name
MAX_CERTIFICATE: Final = 100_000  # bytes of DER
MAX_SIGNATURE: Final = 512  # bytes, RSA of 4096 bits

# -- hello, login, welcome (7 to 10) ------------------------------------------------------------------------------

CHALLENGE_LENGTH: Final = 20  # bytes of hello's `random`
DIGEST_LENGTH: Final = 20  # bytes of SHA-0
SESSION_KEY_LENGTH: Final = 20
TICKET_LENGTH: Final = 20
NODE_ID_LENGTH: Final = 16  # bytes of node info `UniqueId`
MAX_CONNECTIONS: Final = 32  # TCP connections of one session


class AuthType(IntEnum):
    """How a login proves itself (section 8). 96..98 are a server's internal business and never valid on the wire."""

    ANONYMOUS = 0
    PASSWORD_HASH = 1
    PLAIN_PASSWORD = 2
    CERTIFICATE = 3
    TICKET = 99


class Direction(IntEnum):
    """What an additional connection carries (section 13)."""

    BOTH = 0
    TO_CLIENT = 1
    TO_SERVER = 2


# -- tunnel (12, 14) ----------------------------------------------------------------------------------------------

MIN_FRAME: Final = 14  # bytes of an Ethernet header
MAX_FRAME: Final = frame.MAX_FRAME  # bytes of a frame without FCS
MAX_BLOCK: Final = 3200  # bytes of a block on the wire, compressed or not
MAX_KEEPALIVE: Final = 512  # bytes of a keep-alive's body that a receiver takes
SENT_KEEPALIVE: Final = 511  # bytes of the longest keep-alive body that senders send
KEEPALIVE_MARK: Final = 0xFFFFFFFF
SESSION_TIMEOUT_S: Final = 20  # seconds without a byte, unless the welcome says otherwise
MIN_SESSION_TIMEOUT_S: Final = 5
MAX_SESSION_TIMEOUT_S: Final = 60
NEGOTIATION_TIMEOUT_S: Final = 15

# -- our extension (docs/protocol.md) -----------------------------------------------------------------------------

EXTENSION_VERSION: Final = 1  # newest that we speak
EXTENSION_OLDEST: Final = 1  # oldest that we still speak
MAX_CONTROL: Final = 512  # bytes of a control record


class Code(IntEnum):
    """Error codes of section 11. "local": made by the client itself, never on the wire."""

    NONE = 0
    CONNECT_FAILED = 1  # local
    SERVER_IS_NOT_VPN = 2  # local
    DISCONNECTED = 3
    PROTOCOL_ERROR = 4
    CLIENT_IS_NOT_VPN = 5  # a server's log only
    USER_CANCEL = 6  # local
    AUTHTYPE_NOT_SUPPORTED = 7
    HUB_NOT_FOUND = 8
    AUTH_FAILED = 9
    HUB_STOPPING = 10
    SESSION_REMOVED = 11
    ACCESS_DENIED = 12
    SESSION_TIMEOUT = 13
    INVALID_PROTOCOL = 14
    TOO_MANY_CONNECTION = 15
    HUB_IS_BUSY = 16
    PROXY_CONNECT_FAILED = 17  # local
    PROXY_ERROR = 18  # local
    PROXY_AUTH_FAILED = 19  # local
    TOO_MANY_USER_SESSION = 20
    LICENSE_ERROR = 21
    DEVICE_DRIVER_ERROR = 22  # local
    INTERNAL_ERROR = 23
    OBJECT_NOT_FOUND = 29
    NOT_SUPPORTED = 33
    INVALID_PARAMETER = 38
    NO_CLUSTER_MEMBER = 49
    NULL_PASSWORD_LOCAL_ONLY = 51
    NOT_ENOUGH_RIGHT = 52
    HUB_ALREADY_EXISTS = 57
    TOO_MANY_HUBS = 58
    LINK_ALREADY_EXISTS = 59
    LINK_IS_OFFLINE = 61
    GROUP_NOT_FOUND = 65
    USER_ALREADY_EXISTS = 66
    GROUP_ALREADY_EXISTS = 67
    NOT_A_PASSWORD_USER = 68
    OLD_PASSWORD_WRONG = 69
    CERT_NOT_TRUSTED = 85  # local
    VERSION_INVALID = 87
    SERVER_CANT_ACCEPT = 105
    SERVER_CERT_EXPIRES = 106  # local
    MONITOR_MODE_DENIED = 107
    BRIDGE_MODE_DENIED = 108
    IP_ADDRESS_DENIED = 109
    BRAND_MISMATCH_SERVER = 124
    BRAND_MISMATCH_CLIENT = 125
    AUTO_DISCONNECTED = 126  # local
    CLIENT_ID_REQUIRED = 127
    TOO_MANY_BEHIND_NAT = 131  # local
    HOSTNAME_MISMATCH = 149  # local
    TLS_VERSION = 150  # local
    TLS_CIPHER = 151  # local
    TLS_HANDSHAKE = 152  # local


SENTENCES: Final[dict[int, str]] = {
    Code.CONNECT_FAILED: N_("no connection to the hub came about; check the address, the port and the network"),
    Code.SERVER_IS_NOT_VPN: N_("what answers at this address is not a hub; check the address and the port"),
    Code.DISCONNECTED: N_("the hub could not read the request and hung up; something between may have altered it"),
    Code.PROTOCOL_ERROR: N_("the hub did not understand the request; check that both ends are up to date"),
    Code.CLIENT_IS_NOT_VPN: N_("the peer is not a VPN client; nothing to do"),
    Code.USER_CANCEL: N_("joining was cancelled by the user"),
    Code.AUTHTYPE_NOT_SUPPORTED: N_("the hub does not take this kind of login; use a password or ask its admin"),
    Code.HUB_NOT_FOUND: N_("there is no virtual hub of this name on the server; check the spelling of the hub's name"),
    Code.AUTH_FAILED: N_("user name or password is wrong; check both, or ask the hub's admin for a new link"),
    Code.HUB_STOPPING: N_("the virtual hub is offline; ask its admin to put it online, then try again"),
    Code.SESSION_REMOVED: N_("the hub's admin ended this session; join again"),
    Code.ACCESS_DENIED: N_("this user may not enter now (expired, blocked, or out of quota); ask the hub's admin"),
    Code.SESSION_TIMEOUT: N_("the hub no longer knows this session; join again"),
    Code.INVALID_PROTOCOL: N_("this session takes no further connection; join again"),
    Code.TOO_MANY_CONNECTION: N_("this session has all the connections it may have; use fewer"),
    Code.HUB_IS_BUSY: N_("the hub is full or busy; try again in a minute"),
    Code.PROXY_CONNECT_FAILED: N_("the proxy did not answer; check its address and port"),
    Code.PROXY_ERROR: N_("the proxy would not open a way to the hub; allow CONNECT to the hub's port there"),
    Code.PROXY_AUTH_FAILED: N_("the proxy refused user name or password; check both"),
    Code.TOO_MANY_USER_SESSION: N_("this user has all the sessions it may have; end one of them, or wait for a minute"),
    Code.LICENSE_ERROR: N_("the server refused for a reason of its licence; ask its admin"),
    Code.DEVICE_DRIVER_ERROR: N_("the virtual LAN card did not work; check that this machine allows TAP devices"),
    Code.INTERNAL_ERROR: N_("the hub met an error of its own; its log says more"),
    Code.OBJECT_NOT_FOUND: N_("what was asked for does not exist; check the name"),
    Code.NOT_SUPPORTED: N_("the server does not know this function; it may be too old"),
    Code.INVALID_PARAMETER: N_("a value in the request is not allowed; check the values"),
    Code.NO_CLUSTER_MEMBER: N_("no machine of the cluster can take this virtual hub; ask its admin"),
    Code.NULL_PASSWORD_LOCAL_ONLY: N_("a user with an empty password may not enter from outside; set a password"),
    Code.NOT_ENOUGH_RIGHT: N_("this user may not do that; ask an admin"),
    Code.HUB_ALREADY_EXISTS: N_("a virtual hub of this name exists already; choose another name"),
    Code.TOO_MANY_HUBS: N_("the server has all the virtual hubs it may have; delete one first"),
    Code.LINK_ALREADY_EXISTS: N_("a cascade of this name exists already; choose another name"),
    Code.LINK_IS_OFFLINE: N_("this cascade is offline; put it online first"),
    Code.GROUP_NOT_FOUND: N_("there is no group of this name; check the name"),
    Code.USER_ALREADY_EXISTS: N_("a user of this name exists already; choose another name"),
    Code.GROUP_ALREADY_EXISTS: N_("a group of this name exists already; choose another name"),
    Code.NOT_A_PASSWORD_USER: N_("this user does not log in by password, so there is none to change"),
    Code.OLD_PASSWORD_WRONG: N_("the old password is wrong; type it again"),
    Code.CERT_NOT_TRUSTED: N_("the server's certificate is not one we trust; compare its fingerprint with the admin"),
    Code.VERSION_INVALID: N_("the hub does not take a program this old; upgrade it"),
    Code.SERVER_CANT_ACCEPT: N_("the server takes no connections at the moment; try again later"),
    Code.SERVER_CERT_EXPIRES: N_("the server's certificate has expired; its admin must renew it"),
    Code.MONITOR_MODE_DENIED: N_("this user may not join in monitor mode; leave it off or ask the hub's admin"),
    Code.BRIDGE_MODE_DENIED: N_("this user may not join in bridge mode; leave it off or ask the hub's admin"),
    Code.IP_ADDRESS_DENIED: N_("the hub takes no connection from this address; ask its admin"),
    Code.BRAND_MISMATCH_SERVER: N_("the server takes only a client made for it; ask its admin for that client"),
    Code.BRAND_MISMATCH_CLIENT: N_("this client was made for another server; use an unmodified one"),
    Code.AUTO_DISCONNECTED: N_("the time that the hub grants a session is over; join again"),
    Code.CLIENT_ID_REQUIRED: N_("the hub takes only clients with its id; ask its admin"),
    Code.TOO_MANY_BEHIND_NAT: N_("several servers answer behind the same address; name the port of the one you want"),
    Code.HOSTNAME_MISMATCH: N_("the server's certificate is for another host name; check the address"),
    Code.TLS_VERSION: N_("both ends have no TLS version in common; allow TLS 1.2 or newer on both"),
    Code.TLS_CIPHER: N_("both ends have no TLS cipher suite in common; compare the allowed suites"),
    Code.TLS_HANDSHAKE: N_("the TLS handshake failed; something between may be altering the connection"),
}
UNKNOWN_SENTENCE: Final = N_("the hub refused with code {code}, which we do not know; its log may say more")


def sentence(code: int) -> str:
    """The template that says `code` in words; give it `code=` when it is rendered."""
    return SENTENCES.get(code, UNKNOWN_SENTENCE)


def code_name(code: int) -> str:
    """`AUTH_FAILED` for 9; `CODE_47` for a number that we have no name for."""
    try:
        return Code(code).name
    except ValueError:
        return f"CODE_{code}"
