"""A card's own certificate and key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from tests.card.keys import Keys, make

from ukihashi.card.credentials import load
from ukihashi.errors import EnvironmentLacks, PeerViolation, UsageError


def test_the_signature_is_the_protocols(keys: Keys) -> None:
    signature = keys.credentials.sign(bytes(range(20)))
    assert len(signature) == 256
    keys.credentials.key.public_key().verify(signature, bytes(range(20)), padding.PKCS1v15(), hashes.SHA1())


@pytest.mark.parametrize("length", [0, 19, 21, 4096])
def test_nothing_but_a_challenge_is_signed(keys: Keys, length: int) -> None:
    with pytest.raises(PeerViolation):
        keys.credentials.sign(bytes(length))


def test_files_that_do_not_fit_are_named(keys: Keys, tmp_path: Path) -> None:
    certificate, key = str(keys.certificate_file), str(keys.key_file)
    other = make(tmp_path, "bob")
    with pytest.raises(UsageError, match="does not belong"):
        load(certificate, str(other.key_file))
    with pytest.raises(EnvironmentLacks, match="nowhere"):
        load(str(tmp_path / "nowhere"), key)
    with pytest.raises(UsageError, match="is no certificate"):
        load(key, key)
    with pytest.raises(UsageError, match="is no key"):
        load(certificate, certificate)


@pytest.mark.parametrize("kind", ["locked", "elliptic", "huge"])
def test_keys_that_no_hub_takes(keys: Keys, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    secret: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = keys.credentials.key
    if kind == "locked":
        lock = serialization.BestAvailableEncryption(b"pass")
    elif kind == "elliptic":
        secret = ec.generate_private_key(ec.SECP256R1())
    else:
        monkeypatch.setattr("ukihashi.card.credentials._MOST", 1024)
    path.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    with pytest.raises(UsageError, match="passphrase" if kind == "locked" else "RSA keys of at most"):
        load(str(keys.certificate_file), str(path))
