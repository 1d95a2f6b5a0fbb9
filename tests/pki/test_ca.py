import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest

from ukihashi.errors import ConfigError
from ukihashi.net.tls import spki_pin
from ukihashi.pki import ca

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ca.Identity:
    return ca.load_or_make(tmp_path_factory.mktemp("pki") / "new", name="hub.example.jp", now=NOW)


@pytest.fixture
def copy(made: ca.Identity, tmp_path: Path) -> Path:
    shutil.copytree(made.key.parent, tmp_path / "pki")
    return tmp_path / "pki"


def test_the_first_start_makes_a_key_only_its_owner_reads(made: ca.Identity) -> None:
    assert made.made_key
    assert made.made_certificate
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert made.certificate.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in sorted(made.key.parent.iterdir())] == ["hub.crt", "hub.key"]


def test_the_pin_is_what_a_card_computes(made: ca.Identity) -> None:
    import ssl

    assert spki_pin(ssl.PEM_cert_to_DER_cert(made.certificate.read_text())) == made.pin
    assert len(ca.pin_text(made.pin)) == 95


@pytest.mark.peer("openssl")
def test_openssl_finds_the_certificate_in_order(made: ca.Identity) -> None:
    told = subprocess.run(
        ["openssl", "x509", "-in", made.certificate, "-noout", "-text", "-checkhost", "hub.example.jp"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "rsaEncryption" in told
    assert "CA:FALSE" in told
    assert "does match certificate" in told


def test_the_second_start_changes_nothing(copy: Path, made: ca.Identity) -> None:
    again = ca.load_or_make(copy, name="other", now=NOW)
    assert (again.pin, again.fingerprint, again.made_key, again.made_certificate) == (
        made.pin,
        made.fingerprint,
        False,
        False,
    )


def test_a_renewal_keeps_the_key(copy: Path, made: ca.Identity) -> None:
    late = NOW + dt.timedelta(days=ca.LIFE_DAYS - ca.RENEW_DAYS + 1)
    again = ca.load_or_make(copy, name="hub.example.jp", now=late)
    assert again.pin == made.pin
    assert again.fingerprint != made.fingerprint
    assert again.made_certificate
    assert not again.made_key
    assert again.not_after > late + dt.timedelta(days=3000)


def test_a_key_open_to_others_is_closed(copy: Path) -> None:
    (copy / "hub.key").chmod(0o644)
    ca.load_or_make(copy, name="x", now=NOW)
    assert (copy / "hub.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_never_replaced(copy: Path) -> None:
    (copy / "hub.key").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="cards know the hub by this key"):
        ca.load_or_make(copy, name="x", now=NOW)
    assert (copy / "hub.key").read_bytes() == b"damaged"
    (copy / "hub.key").unlink()
    with pytest.raises(ConfigError, match=r"its key .* is not"):
        ca.load_or_make(copy, name="x", now=NOW)


def test_a_lost_certificate_is_made_anew_around_the_key(copy: Path, made: ca.Identity) -> None:
    (copy / "hub.crt").unlink()
    assert ca.load_or_make(copy, name="x", now=NOW).pin == made.pin
    (copy / "hub.crt").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="PEM"):
        ca.load_or_make(copy, name="x", now=NOW)


def test_the_administrators_own_files_are_checked(copy: Path, made: ca.Identity, tmp_path: Path) -> None:
    assert ca.load_given(copy / "hub.crt", copy / "hub.key").pin == made.pin
    other = ca.load_or_make(tmp_path / "other", name="x", now=NOW)
    with pytest.raises(ConfigError, match="another key"):
        ca.load_given(copy / "hub.crt", other.key)
    with pytest.raises(ConfigError, match=r"absent\.crt can't be read"):
        ca.load_given(copy / "absent.crt", other.key)
