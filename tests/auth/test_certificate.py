import base64
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.auth.certificates import CHALLENGE, DAY, HANAKO, NOW, certify, der, key, named, shown

from ukihashi.auth.certificate import Shown, Trust, Wanted, described, read, read_serial, refusal, serial_bytes
from ukihashi.errors import UsageError

VECTORS = json.loads((Path(__file__).parent.parent / "wire" / "softether-vectors.json").read_text())


def vector() -> dict[str, Any]:
    found = [one for one in VECTORS["vectors"] if one["id"] == "cert-sign"]
    assert len(found) == 1
    return dict(found[0])


CA = certify("CA", serial=1)
TRUST = Trust([der(certify("Other CA", by="Other CA")), der(CA)])


def judged(one: Shown, wanted: Wanted, trust: Trust = TRUST) -> str:
    return refusal(one, wanted, trust, NOW.timestamp())


def test_what_the_real_client_signs_is_taken() -> None:
    given_ = vector()
    made, challenge = bytes.fromhex(given_["cert_der_hex"]), bytes.fromhex(given_["random_hex"])
    proof = Shown(made, bytes.fromhex(given_["sign_hex"]), challenge)
    assert judged(proof, Wanted(certificate=made)) == ""
    assert "signature" in judged(Shown(made, proof.signature, challenge[::-1]), Wanted(certificate=made))


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(certificate=der(HANAKO)),
        Wanted(issued=True),
        Wanted(issued=True, common_name="hanako"),
        Wanted(issued=True, serial=b"\x01\x02"),
        Wanted(issued=True, common_name="HANAKO", serial=b"\x01\x02"),
    ],
)
def test_the_right_certificate_is_a_proof(wanted: Wanted) -> None:
    assert judged(shown(HANAKO, key("Hanako")), wanted) == ""


@pytest.mark.parametrize(
    ("one", "wanted", "trust", "why"),
    [
        (shown(HANAKO, key("CA")), Wanted(issued=True), TRUST, "not by the certificate's key"),
        (shown(HANAKO, key("Hanako"), b"other" * 4), Wanted(issued=True), TRUST, "not by the certificate's key"),
        (shown(HANAKO, key("Hanako")), Wanted(), TRUST, "does not log in by certificate"),
        (shown(HANAKO, key("Hanako")), Wanted(certificate=der(CA)), TRUST, "not the certificate"),
        (shown(HANAKO, key("Hanako")), Wanted(issued=True), Trust(), "no trusted authority"),
        (shown(HANAKO, key("Hanako")), Wanted(issued=True), Trust(TRUST.authorities[:1]), "no trusted authority"),
        (shown(HANAKO, key("Hanako")), Wanted(issued=True, common_name="Taro"), TRUST, "is for “Hanako”"),
        (shown(HANAKO, key("Hanako")), Wanted(issued=True, serial=b"\x02"), TRUST, "serial number 0102"),
        (
            shown(HANAKO, key("Hanako")),
            Wanted(issued=True),
            Trust(TRUST.authorities, frozenset({b"\x01\x02"})),
            "revoked",
        ),
        (
            shown(HANAKO, key("Hanako")),
            Wanted(certificate=der(HANAKO)),
            Trust((), frozenset({b"\x01\x02"})),
            "revoked",
        ),
    ],
)
def test_a_wrong_one_is_none(one: Shown, wanted: Wanted, trust: Trust, why: str) -> None:
    assert why in judged(one, wanted, trust)


def test_outside_its_time_it_is_none() -> None:
    for begins, ends in ((NOW - 2 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY)):
        one = certify(begins=begins, ends=ends)
        assert "not valid at this time" in judged(shown(one, key("Hanako")), Wanted(certificate=der(one)))


def test_an_authority_whose_time_is_over_vouches_for_nobody() -> None:
    old = certify("CA", begins=NOW - 2 * DAY, ends=NOW - DAY)
    assert "no trusted authority" in judged(shown(HANAKO, key("Hanako")), Wanted(issued=True), Trust([der(old)]))


def test_an_authority_of_the_same_name_with_another_key_vouches_for_nobody() -> None:
    other = (
        x509.CertificateBuilder()
        .subject_name(named("Hanako"))
        .issuer_name(named("CA"))
        .public_key(key("Hanako").public_key())
        .serial_number(5)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(key("Mallory"), SHA256())
    )
    assert "no trusted authority" in judged(shown(other, key("Hanako")), Wanted(issued=True))


@pytest.mark.slow
def test_keys_of_other_kinds_and_sizes_are_refused() -> None:
    curve = certify(of=ec.generate_private_key(ec.SECP256R1()))
    assert "not RSA" in judged(Shown(der(curve), b"s" * 64, CHALLENGE), Wanted(certificate=der(curve)))
    large = certify(of=key("large", 4104))
    assert "4104 bits" in judged(shown(large, key("large", 4104)), Wanted(certificate=der(large)))
    largest = certify(of=key("largest", 4096))
    assert judged(shown(largest, key("largest", 4096)), Wanted(certificate=der(largest))) == ""


@pytest.mark.parametrize("bad", [b"", b"\x30", b"x" * 1000, b"\x30" * 100_001, der(HANAKO) + b"\0", der(HANAKO)[:-1]])
def test_what_is_no_certificate_is_refused_with_a_reason(bad: bytes) -> None:
    assert judged(Shown(bad, b"s" * 256, CHALLENGE), Wanted(certificate=bad)) != ""


@given(at=st.integers(0, 10_000), to=st.integers(0, 255))
def test_an_altered_certificate_never_breaks_the_check(at: int, to: int) -> None:
    altered = bytearray(der(HANAKO))
    altered[at % len(altered)] = to
    one = Shown(bytes(altered), key("Hanako").sign(CHALLENGE, PKCS1v15(), SHA1()), CHALLENGE)
    same = bytes(altered) == der(HANAKO)
    assert (judged(one, Wanted(issued=True)) == "") is same


def test_a_name_that_stands_twice_is_no_name() -> None:
    twice = x509.Name([*named("Hanako"), *named("Taro")])
    made = (
        x509.CertificateBuilder()
        .subject_name(twice)
        .issuer_name(named("CA"))
        .public_key(key("Hanako").public_key())
        .serial_number(5)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(key("CA"), SHA256())
    )
    assert "is for “”" in judged(shown(made, key("Hanako")), Wanted(issued=True, common_name="Hanako"))


@pytest.mark.parametrize("serial", [b"\x00", b"\x80"])
def test_the_serial_number_0_of_official_programs_is_taken(serial: bytes) -> None:
    positive = der(certify(serial=0x41))
    one = positive.replace(b"\x02\x01\x41", b"\x02\x01" + serial, 1)  # its issuer's signature is not asked for
    assert one != positive
    proof = Shown(one, shown(HANAKO, key("Hanako")).signature, CHALLENGE)
    assert judged(proof, Wanted(certificate=one)) == ""
    assert read(base64.b64encode(one).decode()) == one


def test_certificates_are_read_from_pem_and_base64() -> None:
    pem = HANAKO.public_bytes(Encoding.PEM).decode()
    assert read(f"text before it\n{pem}") == read(base64.b64encode(der(HANAKO)).decode()) == der(HANAKO)
    assert described(der(HANAKO))["subject"] == "CN=Hanako"
    assert described(der(HANAKO))["serial"] == "0102"


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\n", base64.b64encode(b"hello").decode()])
def test_a_file_that_holds_none_is_told(text: str) -> None:
    for authority in (False, True):
        with pytest.raises(UsageError, match=r"no certificate|at most 100000 bytes"):
            read(text, authority=authority)


def test_only_an_authority_may_have_another_kind_of_key() -> None:
    text = base64.b64encode(der(certify(of=ec.generate_private_key(ec.SECP256R1())))).decode()
    with pytest.raises(UsageError, match="not RSA"):
        read(text)
    assert read(text, authority=True)


def test_serial_numbers_have_one_form() -> None:
    assert read_serial("01:A4:7f") == read_serial("0001a47f") == serial_bytes(0x01A47F) == b"\x01\xa4\x7f"
    assert serial_bytes(0) == b"\0"
    big = secrets.randbits(159)
    assert read_serial(f"{big:x}") == serial_bytes(big)
    with pytest.raises(UsageError, match="no serial number"):
        read_serial("seven")
