import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.proxy_auth import Basic, Challenge, Digest, choose, parse_challenges
from ukihashi.net.dial.via import Kind, Via

VIA = Via(Kind.HTTP, "proxy.example", 3128, "taro")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["Basic"], [Challenge("basic", "", {})]),
        (['Basic realm="a, b\\"c"'], [Challenge("basic", "", {"realm": 'a, b"c'})]),
        (["NTLM", "Negotiate"], [Challenge("ntlm", "", {}), Challenge("negotiate", "", {})]),
        (["NTLM TlRMTQ=="], [Challenge("ntlm", "TlRMTQ==", {})]),
        (["Negotiate, NTLM, Basic realm=x"], [Challenge("negotiate", "", {}), Challenge("ntlm", "", {}),
                                              Challenge("basic", "", {"realm": "x"})]),
        (['Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"'],
         [Challenge("newauth", "", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
          Challenge("basic", "", {"realm": "simple"})]),
        (['Digest realm = "r" , nonce="n",, qop="auth"'],
         [Challenge("digest", "", {"realm": "r", "nonce": "n", "qop": "auth"})]),
        ([""], []),
        (['="x"'], []),
    ],
)  # fmt: skip
def test_what_proxies_offer(values: list[str], found: list[Challenge]) -> None:
    assert parse_challenges(values) == found


@given(st.lists(st.text(st.sampled_from('aB1=," \\\t'), max_size=30), max_size=3))
def test_no_offer_breaks_the_reader(values: list[str]) -> None:
    parse_challenges(values)


def fields(header: str) -> dict[str, str]:
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+\*?)=(?:"([^"]*)"|([^",]+))', header)}


def test_digest_by_the_book() -> None:
    """RFC 2617's numbers, with its method: the same hashes with another first word."""
    challenge = Challenge(
        "digest", "", {"realm": "r", "nonce": "n", "qop": "auth,auth-int", "algorithm": "SHA-256", "opaque": "o"}
    )
    told = fields(Digest(challenge, "taro", "secret").header("hub.example:443", cnonce="c"))

    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    assert told["response"] == h(f"{h('taro:r:secret')}:n:00000001:c:auth:{h('CONNECT:hub.example:443')}")
    assert (told["nc"], told["qop"], told["opaque"], told["algorithm"]) == ("00000001", "auth", "o", "SHA-256")


def test_digest_without_qop_and_with_a_session() -> None:
    def h(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    old = fields(Digest(Challenge("digest", "", {"realm": "r", "nonce": "n"}), "taro", "s").header("h:1"))
    assert old["response"] == h(f"{h('taro:r:s')}:n:{h('CONNECT:h:1')}")
    assert "qop" not in old
    session = Challenge("digest", "", {"realm": "r", "nonce": "n", "algorithm": "MD5-sess", "qop": "auth"})
    told = fields(Digest(session, "taro", "s").header("h:1", cnonce="c"))
    first = h(f"{h('taro:r:s')}:n:c")
    assert told["response"] == h(f"{first}:n:00000001:c:auth:{h('CONNECT:h:1')}")


def test_a_name_that_is_not_ascii_and_a_hidden_one() -> None:
    plain = Challenge("digest", "", {"realm": "r", "nonce": "n", "qop": "auth"})
    assert "username*=UTF-8''%E5%A4%AA%E9%83%8E" in Digest(plain, "太郎", "s").header("h:1")
    hidden = Challenge("digest", "", {"realm": "r", "nonce": "n", "qop": "auth", "userhash": "true"})
    header = Digest(hidden, "taro", "s").header("h:1")
    assert fields(header)["username"] == hashlib.md5(b"taro:r").hexdigest()
    assert "userhash=true" in header


def test_the_best_is_chosen() -> None:
    offers = ["Basic realm=x", 'Digest realm="r", nonce="n"', 'Digest realm="r", nonce="n", algorithm=SHA-256']
    chosen = choose(parse_challenges(offers), VIA, "s")
    assert isinstance(chosen, Digest)
    assert "algorithm=SHA-256" in chosen.header("h:1")
    assert isinstance(choose(parse_challenges(offers[:1]), VIA, "s"), Basic)
    unknown = 'Digest realm="r", nonce="n", algorithm=SHA-999'
    assert isinstance(choose(parse_challenges([unknown, *offers[:1]]), VIA, "s"), Basic)
    with pytest.raises(PathRefused, match="it takes Basic, Digest") as told:
        choose(parse_challenges(offers), VIA, None)
    assert told.value.kind is Failure.CREDENTIALS_WANTED


def test_ntlm_goes_on_with_what_the_proxy_answers() -> None:
    via = Via(Kind.HTTP, "proxy.example", 3128, "CORP\\taro")
    proof = choose(parse_challenges(["NTLM", "Basic realm=x"]), via, "s")
    assert proof.bound
    first = base64.b64decode(proof.header("h:1").removeprefix("NTLM "))
    assert first.startswith(b"NTLMSSP\0\1\0\0\0")
    assert not proof.goes_on(parse_challenges(["NTLM"]))
    with pytest.raises(PathRefused) as told:
        proof.goes_on(parse_challenges(["NTLM " + base64.b64encode(b"NTLMSSP\0\2\0\0\0").decode()]))
    assert told.value.kind is Failure.CREDENTIALS_REFUSED
