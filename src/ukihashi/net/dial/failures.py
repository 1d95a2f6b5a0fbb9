"""What may go wrong on a path, each with a word for machines (`doctor`) and a sentence that says what to do."""

import enum
from typing import Final

from ukihashi.errors import DialError


class Failure(enum.StrEnum):
    """Why a path did not lead to the hub. The words stay as they are: programs read them."""

    PROXY_UNREACHABLE = "proxy-unreachable"  # no connection to the first machine
    PROXY_CLOSED = "proxy-closed"  # it hung up in the middle of the talk
    PROXY_SILENT = "proxy-silent"  # the deadline passed
    NOT_A_PROXY = "not-a-proxy"  # something else answers at that port
    PROXY_TLS = "proxy-tls"  # TLS with an https:// proxy failed, or its certificate isn't trusted
    CREDENTIALS_WANTED = "credentials-wanted"
    CREDENTIALS_REFUSED = "credentials-refused"
    SCHEME_UNKNOWN = "scheme-unknown"  # no way of proving who we are that both ends know
    SSO_MISSING = "sso-missing"  # the extra `sso-proxy` isn't installed
    FORBIDDEN = "forbidden"  # a rule of the proxy or the server
    TARGET_UNREACHABLE = "target-unreachable"  # the proxy found no way to the hub
    TARGET_REFUSED = "target-refused"  # nobody listens there
    TARGET_UNSUPPORTED = "target-unsupported"  # such an address can't be asked for
    CAPTIVE_PORTAL = "captive-portal"
    PROXY_BROKEN = "proxy-broken"  # an answer that says no more than that it failed
    HOST_KEY_UNKNOWN = "host-key-unknown"
    HOST_KEY_CHANGED = "host-key-changed"
    SSH_MISSING = "ssh-missing"
    SSH_UNUSABLE = "ssh-unusable"  # its configuration, or what it said is not known to us


class PathRefused(DialError):
    """The path did not lead to the hub; `kind` says why."""

    def __init__(self, kind: Failure, template: str, **values: object) -> None:
        super().__init__(template, **values)
        self.kind: Final = kind
