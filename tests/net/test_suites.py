"""Which suites there are, which may be picked, and what is said of the others, held to the library's own list."""

import base64
import ssl
import subprocess
from collections.abc import Callable
from decimal import Decimal, getcontext

import pytest

from ukihashi.errors import UsageError
from ukihashi.net import suites
from ukihashi.net.suites import NO_PICK, Pick, Suite, available, check_key, check_pick, security_level
from ukihashi.net.tls import DH_GROUP, client_context

WITH_CERTIFICATES = "ALL:!aNULL:!eNULL:!PSK:!SRP"


@pytest.fixture
def listed(lacks: Callable[[str], None]) -> Callable[..., dict[str, dict[str, str]]]:
    """`openssl ciphers` of the very library that this Python uses: name -> protocol, Kx, Au, Enc, Mac."""
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout
    if ssl.OPENSSL_VERSION not in version:
        lacks(f"the program openssl is of another version than this Python's library, {ssl.OPENSSL_VERSION}")

    def run(*words: str) -> dict[str, dict[str, str]]:
        out = subprocess.run(["openssl", "ciphers", "-v", *words], capture_output=True, text=True, check=True).stdout
        rows = (line.split() for line in out.splitlines())
        return {row[0]: {"protocol": row[1], **dict(word.split("=") for word in row[2:])} for row in rows}

    return run


@pytest.mark.peer("openssl")
def test_every_suite_that_openssl_prints_can_be_picked_or_has_its_reason(
    listed: Callable[..., dict[str, dict[str, str]]],
) -> None:
    known = {suite.name: suite for suite in available()}
    tls13 = listed("-s", "-tls1_3")
    tls12 = listed("-s", "-tls1_2", WITH_CERTIFICATES)
    assert len(tls13) >= 3
    assert len(tls12) >= 50
    for name, row in (tls13 | tls12).items():
        suite = known[name]
        assert suite.protocol == ("TLSv1.3" if name in tls13 else "TLSv1.2")
        if row["Enc"].startswith("RC4") or row["Mac"] == "MD5":
            assert suite.reason in {suites.RC4, suites.MD5}
        elif row["Au"] == "DSS":
            assert suite.reason == suites.NEEDS_DSS
        else:
            assert (suite.usable, suite.reason) == (True, ""), name
            assert suite.authentication == row["Au"]
            assert suite.bits == int(row["Enc"].partition("(")[2].rstrip(")"))
    usable12 = {suite.name for suite in available() if suite.usable and suite.protocol == "TLSv1.2"}
    assert usable12 == {name for name in tls12 if known[name].usable}
    assert tls13.keys() <= {suite.name for suite in available() if suite.usable and suite.protocol == "TLSv1.3"}


@pytest.mark.peer("openssl")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("aNULL:!eNULL", suites.NO_AUTHENTICATION),
        ("eNULL:!MD5", suites.NO_ENCRYPTION),
        ("PSK:!eNULL", suites.NEEDS_PSK),
        ("aDSS:!eNULL:!SRP", suites.NEEDS_DSS),
        ("SRP", suites.NEEDS_SRP),
    ],
)
def test_whole_families_are_listed_with_one_reason(
    listed: Callable[..., dict[str, dict[str, str]]], words: str, reason: str
) -> None:
    names = {name for name, row in listed(f"{words}:@SECLEVEL=0").items() if row["protocol"] != "TLSv1.3"}
    assert len(names) >= 4
    known = {suite.name: suite for suite in available()}
    assert {known[name].reason for name in names} == {reason}
    assert not any(known[name].usable or known[name].offered for name in names)


def test_rc4_and_md5_are_known_by_name_even_if_the_library_has_forgotten_them() -> None:
    known = {suite.name: suite for suite in available()}
    by_name = {name for name in known if "RC4" in name or name.endswith("MD5")}
    assert {"RC4-MD5", "RC4-SHA", "ECDHE-RSA-RC4-SHA", "ECDHE-ECDSA-RC4-SHA", "ADH-RC4-MD5", "NULL-MD5"} <= by_name
    for name in by_name:
        assert known[name].reason == (suites.RC4 if "RC4" in name else suites.MD5)
        with pytest.raises(UsageError, match=rf"{name} can't be picked: .* `ukihashi hub ciphers`"):
            check_pick([name])


def test_each_suite_is_listed_once_and_the_offered_come_first() -> None:
    found = available()
    assert len({suite.name for suite in found}) == len(found)
    ranks = [(suite.offered, suite.usable) for suite in found]
    assert ranks == sorted(ranks, reverse=True)
    context = client_context()
    assert [suite.name for suite in found if suite.offered] == [one["name"] for one in context.get_ciphers()]


def test_what_is_offered_is_modern_and_begins_with_aes_128_gcm_in_both_versions() -> None:
    offered = [suite for suite in available() if suite.offered]
    assert all(not suite.remarks and suite.key_exchange in {"any", "ECDHE", "DHE"} for suite in offered)
    for version in ("TLSv1.3", "TLSv1.2"):
        assert next(suite.encryption for suite in offered if suite.protocol == version) == "AES-128-GCM"


def test_risks_are_said() -> None:
    remarks = {suite.name: suite.remarks for suite in available()}
    assert remarks["ECDHE-RSA-AES128-GCM-SHA256"] == ()
    assert remarks["AES128-GCM-SHA256"] == (suites.NO_FORWARD_SECRECY,)
    assert remarks["AES128-SHA"] == (suites.NO_FORWARD_SECRECY, suites.CBC)
    assert remarks["ECDHE-ECDSA-AES128-CCM8"] == (suites.SHORT_TAG,)
    assert remarks["TLS_AES_128_CCM_8_SHA256"] == (suites.SHORT_TAG,)


def test_a_pick_keeps_its_order_and_parts_the_versions() -> None:
    pick = check_pick(["AES256-SHA", "TLS_CHACHA20_POLY1305_SHA256", "AES128-SHA", "TLS_AES_128_CCM_SHA256"])
    assert pick == Pick(("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_CCM_SHA256"), ("AES256-SHA", "AES128-SHA"))
    assert check_pick([]) == NO_PICK
    assert not NO_PICK


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonsense", "has no cipher suite “nonsense”; `ukihashi hub ciphers`"),
        ("ECDHE-RSA-AES128-GCM-SHA257", "did you mean ECDHE-RSA-AES128-GCM-SHA256"),
        ("tls_aes_128_gcm_sha256", "has no cipher suite"),
        ("ALL", "has no cipher suite “ALL”"),
        ("@SECLEVEL=0", "has no cipher suite"),
        ("AES128-SHA:AES256-SHA", "has no cipher suite"),
        ("", "has no cipher suite"),
        ("AECDH-AES128-SHA", "does not prove who the hub is"),
        ("NULL-SHA256", "encrypts nothing"),
        ("PSK-AES128-CBC-SHA", "pre-shared key"),
        ("DHE-DSS-AES128-SHA", "DSA certificate"),
    ],
)
def test_an_impossible_pick_is_refused_by_name(name: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_pick(["TLS_AES_128_GCM_SHA256", name])
    assert words in str(refused.value)
    assert refused.value.exit_status == 2


def test_a_pick_must_fit_the_hubs_key() -> None:
    pick = check_pick(["TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"])
    check_key(pick, "RSA")
    check_key(NO_PICK, "ECDSA")
    with pytest.raises(UsageError, match=r"ECDHE-RSA-AES128-GCM-SHA256 needs a hub with an RSA key.*is ECDSA"):
        check_key(pick, "ECDSA")


@pytest.mark.parametrize(("bits", "usual", "level"), [(128, 2, 2), (112, 2, 2), (80, 2, 1), (56, 2, 0), (128, 1, 1)])
def test_the_security_level_falls_no_lower_than_the_pick_needs(
    monkeypatch: pytest.MonkeyPatch, bits: int, usual: int, level: int
) -> None:
    weak = Suite("WEAK", "TLSv1.2", "RSA", "RSA", "X", bits)
    strong = Suite("STRONG", "TLSv1.2", "RSA", "RSA", "X", 256)
    monkeypatch.setattr(suites, "available", lambda: (weak, strong))
    assert security_level(Pick(tls12=("WEAK", "STRONG")), usual) == level
    assert security_level(Pick(tls12=("STRONG",)), usual) == usual


def test_the_group_for_dhe_is_the_one_of_the_standard() -> None:
    """RFC 7919, appendix A.2: p = 2^3072 - 2^3008 + (floor(2^2942 e) + 2625351) 2^64 - 1."""
    getcontext().prec = 1000
    e = int(Decimal(2) ** 2942 * Decimal(1).exp())
    p = 2**3072 - 2**3008 + (e + 2625351) * 2**64 - 1
    der = base64.b64decode(b"".join(line for line in DH_GROUP.splitlines() if not line.startswith(b"-")))
    assert der == bytes.fromhex("30820188 02820181 00") + p.to_bytes(384, "big") + bytes.fromhex("020102")
