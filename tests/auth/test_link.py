import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.auth.link import Link, is_host
from ukihashi.errors import UsageError

LINK = Link(
    host="hub.example.jp",
    port=443,
    hub="LAN",
    user="hanako",
    token="0123456789abcdefABCDEF",
    pin=bytes(range(32)),
    addresses=("10.81.7.2/24", "fd3c:1:2::2/64"),
)

names = st.text("abcXYZ019 ._本社支店ä", min_size=1, max_size=20).filter(lambda name: name == name.strip())
hosts = st.one_of(
    st.sampled_from(["hub.example.jp", "localhost", "xn--q9jyb4c", "浮橋.example"]),
    st.ip_addresses().map(str),
)


@given(host=hosts, port=st.integers(1, 65535), hub=names, user=names, pin=st.binary(min_size=32, max_size=32))
def test_a_link_says_again_what_was_put_into_it(host: str, port: int, hub: str, user: str, pin: bytes) -> None:
    link = Link(host, port, hub, user, LINK.token, pin, LINK.addresses, ("ssh:gate",))
    assert Link.parse(link.text()) == link


def test_an_ipv6_host_stands_in_brackets() -> None:
    link = Link("2001:db8::1", 8443, "LAN", "u", LINK.token, LINK.pin)
    assert link.text().startswith("ukihashi://[2001:db8::1]:8443/")
    assert Link.parse(link.text()).host == "2001:db8::1"


def test_no_shell_touches_a_link() -> None:
    assert not set(LINK.text()) & set(" \t\n'\"\\$`!&|;<>()[]{}*?#~=%^")


@given(place=st.integers(0, 10_000), letter=st.sampled_from("AZaz09-_.:/[]é\x00"))
def test_one_altered_letter_is_noticed(place: int, letter: str) -> None:
    text = LINK.text()
    place %= len(text)
    altered = text[:place] + letter + text[place + 1 :]
    if altered.lower()[: text.index("/", 11)] == text.lower()[: text.index("/", 11)] and altered[25:] == text[25:]:
        return  # only the case of scheme or host changed
    try:
        parsed = Link.parse(altered)
    except UsageError:
        return
    # the last letter of base64 has spare bits: another letter there may mean the same bytes
    assert parsed == LINK
    assert place == len(text) - 1


@given(end=st.integers(0, len(LINK.text()) - 1))
def test_a_cut_link_is_noticed(end: int) -> None:
    with pytest.raises(UsageError):
        Link.parse(LINK.text()[:end])


@given(st.text(max_size=200))
def test_any_text_gives_a_link_or_one_kind_of_error(text: str) -> None:
    for candidate in (text, "ukihashi://" + text, "ukihashi://hub:443/" + text):
        with pytest.raises(UsageError):
            Link.parse(candidate)


def test_what_mail_and_chat_do_to_a_link_is_forgiven() -> None:
    text = LINK.text()
    assert Link.parse(f"  <{text[:40]}\r\n{text[40:]}>\n") == LINK
    assert Link.parse("UKIHASHI" + text[8:]) == LINK
    assert Link.parse(text.replace("hub.example.jp", "Hub.Example.jp")).user == "hanako"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("https://hub.example.jp/", "begins with ukihashi://"),
        (LINK.text()[:-3], "damaged"),
        (LINK.text().replace(":443", ":444"), "damaged"),
    ],
)
def test_the_sentence_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Link.parse(text)


def test_a_link_of_a_newer_form_says_to_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    from ukihashi.auth import link as module

    class Newer(module._Payload, omit_defaults=False):
        v: int = 2

    with monkeypatch.context() as patch:
        patch.setattr(module, "_Payload", Newer)
        text = LINK.text()
    with pytest.raises(UsageError, match="form 2, this ukihashi reads form 1; upgrade"):
        Link.parse(text)


@pytest.mark.parametrize("host", ["", " ", "a b", "-x", "x-", "a..b", "1.2.3.4/24", "host:443", "[::1]", "a/b"])
def test_what_is_no_host(host: str) -> None:
    assert not is_host(host)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(UsageError, match="no TCP port"):
        Link("h", port, "LAN", "u", LINK.token, LINK.pin)
