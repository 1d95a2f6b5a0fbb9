"""The TLS 1.3 suites of a context, told to the linked OpenSSL through its own configuration (D9).

Python has a call for them from 3.15 on. Before, OpenSSL's configuration is the only public way: what the section named
by `system_default` says holds for each context made afterwards. It is handed over from memory, so there is no file, no
variable that other programs would inherit, and no process to start anew. What the machine's administrator configured
(openssl.cnf, OPENSSL_CONF) stays in force: our line goes into the same section, and is taken out again at once.
"""

import _ssl
import contextlib
import ctypes
import ssl
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, TypeVar

from ukihashi.errors import N_, EnvironmentLacks

C = TypeVar("C", bound=ssl.SSLContext)

TLS13: Final = "TLSv1.3"
KNOWN: Final = (  # RFC 8446, appendix B.4
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)

_pointer, _text, _number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_CALLS: Final = {  # OpenSSL 1.1.1 and 3; manual pages NCONF_new_ex(3), CONF_modules_load(3), config(5)
    "NCONF_new": (_pointer, [_pointer]),
    "NCONF_load": (_number, [_pointer, _text, _pointer]),
    "NCONF_load_bio": (_number, [_pointer, _pointer, _pointer]),
    "NCONF_get_string": (_text, [_pointer, _text, _text]),
    "NCONF_free": (None, [_pointer]),
    "CONF_modules_load": (_number, [_pointer, _text, ctypes.c_ulong]),
    "CONF_get1_default_config_file": (_text, []),
    "BIO_new_mem_buf": (_pointer, [_text, _number]),
    "BIO_free": (_number, [_pointer]),
    "ERR_clear_error": (None, []),
}


def make_context(kind: type[C], protocol: int, suites: Sequence[str]) -> C:
    """A context with exactly these TLS 1.3 suites in this order.

    Raises:
        EnvironmentLacks: the library of this Python does not take them.
    """
    context = _try(kind, protocol, suites)
    if context is None:
        raise EnvironmentLacks(
            N_(
                "the TLS library of this Python can't be told to use {suites}; take a Python that is linked with the"
                " system's OpenSSL, or leave TLS 1.3 suites out of tls.ciphers"
            ),
            suites=", ".join(suites),
        )
    return context


@cache
def usual_suites() -> tuple[str, ...]:
    """TLS 1.3 suites that the library and the machine's configuration offer, the first liked best."""
    return tls13_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@cache
def known_suites() -> tuple[str, ...]:
    """All TLS 1.3 suites that can be had: the usual ones, and those that the library has but does not offer."""
    usual = usual_suites()
    asleep = [one for one in KNOWN if one not in usual]
    return usual + tuple(one for one in asleep if _try(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT, [one]))


def tls13_of(context: ssl.SSLContext) -> tuple[str, ...]:
    """The context's TLS 1.3 suites."""
    return tuple(one["name"] for one in context.get_ciphers() if one["protocol"] == TLS13)


def _try(kind: type[C], protocol: int, suites: Sequence[str]) -> C | None:
    wanted = tuple(suites)
    usual = usual_suites()
    context = kind(protocol)
    tell = getattr(context, "set_ciphersuites", None)  # Python 3.15
    if tell is not None:
        with contextlib.suppress(ssl.SSLError):
            tell(":".join(wanted))
    elif wanted != usual and _configure(wanted):
        try:
            context = kind(protocol)
        except ssl.SSLError:  # a library told to be strict with its configuration, and it lacks one of them
            return None
        finally:
            _configure(usual)  # whoever else makes a context in this process gets what is usual
    return context if tls13_of(context) == wanted else None


def _configure(suites: Sequence[str]) -> bool:
    """Let contexts made from now on have these TLS 1.3 suites; False: the library can't be reached."""
    library = _library()
    if library is None:
        return False
    section = _machines_section()
    lines = (
        b".include = %b" % _default_file() if section else b"",
        b"[default]\nukihashi = ukihashi_modules",
        b"[ukihashi_modules]\nssl_conf = ukihashi_ssl",
        b"[ukihashi_ssl]\nsystem_default = %b" % (section or b"ukihashi_tls"),
        b"[%b]\nCiphersuites = %b\n" % (section or b"ukihashi_tls", ":".join(suites).encode()),
    )
    text = b"\n".join(lines)
    with _configuration(library) as configuration:
        reader = library.BIO_new_mem_buf(text, len(text))
        taken = library.NCONF_load_bio(configuration, reader, None) > 0
        library.BIO_free(reader)
        return bool(taken and library.CONF_modules_load(configuration, b"ukihashi", 0) > 0)


@cache
def _machines_section() -> bytes:
    """The section in which the machine's configuration speaks of all TLS contexts; b"" if it doesn't."""
    library = _library()
    assert library is not None
    with _configuration(library) as configuration:
        if library.NCONF_load(configuration, _default_file(), None) <= 0:
            return b""
        section: bytes | None = None
        for word in (b"openssl_conf", b"ssl_conf", b"system_default"):
            section = library.NCONF_get_string(configuration, section, word)
            if not section:
                return b""
        return section or b""


@contextlib.contextmanager
def _configuration(library: ctypes.CDLL) -> Iterator[int]:
    """An empty configuration object of the library."""
    configuration = library.NCONF_new(None)
    try:
        yield configuration
    finally:
        library.NCONF_free(configuration)
        library.ERR_clear_error()  # what was not found would be held against the next TLS connection


@cache
def _default_file() -> bytes:
    """openssl.cnf, or what OPENSSL_CONF names. Asked for once: the library gives a copy to keep."""
    library = _library()
    return (library and library.CONF_get1_default_config_file()) or b""


@cache
def _library() -> ctypes.CDLL | None:
    """The OpenSSL that Python's `ssl` uses; None where it is hidden inside Python."""
    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        for name, (result, arguments) in _CALLS.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return library
