"""What tests of connections share: a certificate."""

from pathlib import Path
from typing import NamedTuple

import pytest
import trustme


class Certificate(NamedTuple):
    certificate: Path
    key: Path
    authority: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """PEM files of a server certificate for `hub.example` and 127.0.0.1, and of the authority that signed it."""
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    leaf = authority.issue_cert("hub.example", "127.0.0.1")
    files = Certificate(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    leaf.cert_chain_pems[0].write_to_path(files.certificate)
    leaf.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.authority)
    return files
