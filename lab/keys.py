"""Certificates and settings of TLS for the programs of others."""

from pathlib import Path

from lab.net import Host


def make_certificate(host: Host, name: str) -> tuple[Path, Path]:
    """A certificate of its own making for `name`, and its key (PEM)."""
    certificate, key = host.folder / "user.pem", host.folder / "user.key"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
    host.run(["openssl", "req", *words, "-keyout", key, "-out", certificate])
    return certificate, key


def only_version(host: Host, version: str) -> Path:
    """A configuration of the TLS library for an official program: this version alone."""
    path = host.folder / "openssl.cnf"
    path.write_text(
        "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = only\n"
        f"[only]\nMinProtocol = {version}\nMaxProtocol = {version}\n"
    )
    return path
