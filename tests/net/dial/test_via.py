import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ukihashi.errors import UsageError
from ukihashi.net.dial.via import DIRECT, Kind, Via, parse, split


@pytest.mark.parametrize(
    ("text", "via"),
    [
        ("direct:", DIRECT),
        ("DIRECT://", DIRECT),
        ("http://proxy.example:3128", Via(Kind.HTTP, "proxy.example", 3128)),
        (" HTTP://Proxy.Example:3128/ ", Via(Kind.HTTP, "proxy.example", 3128)),
        ("https://taro@proxy.example:8443", Via(Kind.HTTPS, "proxy.example", 8443, "taro")),
        ("http://CORP%5Ctaro@10.0.0.1:8080", Via(Kind.HTTP, "10.0.0.1", 8080, "CORP\\taro")),
        ("http://%E5%A4%AA%E9%83%8E@10.0.0.1:8080", Via(Kind.HTTP, "10.0.0.1", 8080, "太郎")),
        ("http://[fd00::1]:3128", Via(Kind.HTTP, "fd00::1", 3128)),
        ("socks5h://[fe80::1%25eth0]", Via(Kind.SOCKS5H, "fe80::1%eth0", 1080)),
        ("socks4://10.0.0.1", Via(Kind.SOCKS4, "10.0.0.1", 1080)),
        ("socks4a://taro@10.0.0.1:9", Via(Kind.SOCKS4A, "10.0.0.1", 9, "taro")),
        ("socks5://10.0.0.1:1081", Via(Kind.SOCKS5, "10.0.0.1", 1081)),
        ("ssh://taro@gate", Via(Kind.SSH, "gate", 0, "taro")),
        ("ssh://gate.example:2222", Via(Kind.SSH, "gate.example", 2222)),
    ],
)
def test_every_kind_of_path(text: str, via: Via) -> None:
    assert parse(text) == via
    assert parse(str(via)) == via


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "known kinds"),
        ("proxy.example:3128", "known kinds"),
        ("ftp://proxy.example:21", "known kinds"),
        ("socks6://proxy.example", "known kinds"),
        ("http:proxy.example:3128", "two slashes"),
        ("direct://somewhere", "names no machine"),
        ("http://proxy.example", "port is missing"),
        ("https://proxy.example/", "port is missing"),
        ("http://proxy.example:", "from 1 to 65535"),
        ("http://proxy.example:0", "from 1 to 65535"),
        ("http://proxy.example:65536", "from 1 to 65535"),
        ("http://proxy.example:٣", "from 1 to 65535"),
        ("http://proxy.example:80x", "from 1 to 65535"),
        ("http://fd00::1:3128", "brackets"),
        ("http://[fd00::1:3128", "brackets"),
        ("http://[fd00::1]3128", "brackets"),
        ("http://[10.0.0.1]:3128", "neither a host name"),
        ("http://:3128", "name is missing"),
        ("http://@proxy.example:3128", "user's name is missing"),
        ("http://a b:3128", "blanks"),
        ("http://a\n:3128", "blanks"),
        ("http://proxy.example:3128/path", "nothing may follow"),
        ("http://proxy.example:3128?x", "nothing may follow"),
        ("http://a%zz@proxy.example:3128", "two hexadecimal digits"),
        ("http://a%ff@proxy.example:3128", "UTF-8"),
        ("http://a%00@proxy.example:3128", "user's name can't"),
        ("ssh://-oProxyCommand=x@gate", "user's name can't"),
        ("ssh://-oProxyCommand=x", "neither a host name"),
        ("ssh://ga%20te", "neither a host name"),
        ("socks5://" + "a" * 256 + "@gate", "user's name can't"),
        ("socks5://" + "a" * 2000, "too long"),
    ],
)
def test_what_is_no_path_says_why(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as told:
        parse(text)
    assert told.value.exit_status == 2


def test_a_password_is_taken_apart_and_refused_where_others_could_see_it() -> None:
    via, secret = split("http://taro:s%40cret%2F@proxy.example:3128")
    assert (via, secret) == (Via(Kind.HTTP, "proxy.example", 3128, "taro"), "s@cret/")
    assert split("http://taro:@proxy.example:3128")[1] == ""
    assert split("http://taro@proxy.example:3128")[1] is None
    with pytest.raises(UsageError, match="seen by everybody") as told:
        parse("http://taro:hidden@proxy.example:3128")
    assert "http://taro@proxy.example:3128" in str(told.value)
    assert "hidden" not in str(told.value)


@given(
    st.sampled_from(["http", "ssh", "ftp", "direct", "socks5", "x"]),
    st.sampled_from([":", "://", "//", ":/"]),
    st.text(st.sampled_from("a1-.%:@[]/?# 2é"), max_size=12),
    st.text(st.sampled_from("a1-.%:[]/?# 2é"), max_size=12),
)
@example("http", ":", "", "://")
@example("http", "://", "a", "@b/c:1")
def test_no_sentence_ever_repeats_a_password(scheme: str, colon: str, user: str, place: str) -> None:
    shown = ""
    try:
        shown = str(split(f"{scheme}{colon}{user}:hidden@{place}")[0])
    except UsageError as error:
        shown = str(error)
    assert "hidden" not in shown


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_user_survives_being_written_and_read(user: str) -> None:
    if not user or not user.isprintable() or user.startswith("-"):
        return
    via = Via(Kind.HTTP, "proxy.example", 3128, user)
    assert parse(str(via)) == via
