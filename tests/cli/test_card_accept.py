"""What a hub offers, and consent to it, on the command line."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from ukihashi.cli import card_accept
from ukihashi.cli.card_accept import accepted, ask_what_to_accept, offer_lines
from ukihashi.errors import UsageError

OFFERS: list[dict[str, Any]] = [
    {"kind": "default", "to": "0.0.0.0/0", "via": "10.5.0.1", "state": "offered", "reason": None},
    {"kind": "routes", "to": "10.9.0.0/16", "via": "", "state": "applied", "reason": None},
    {"kind": "dns", "servers": ["10.5.0.1"], "domains": ["lan.internal"], "state": "refused", "reason": {"text": "no"}},
]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("none", []),
        ("all", ["dns", "routes", "default"]),
        ("default,dns", ["dns", "default"]),
        (" DNS , ", ["dns"]),
    ],
)
def test_words_of_consent(text: str, wanted: list[str]) -> None:
    assert accepted(text) == wanted


@pytest.mark.parametrize("text", ["everything", "dns,none", "dns;routes"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="dns, routes, default"):
        accepted(text)


def test_offers_are_said_and_what_became_of_them() -> None:
    assert offer_lines(OFFERS) == [
        "default: everything (0.0.0.0/0) by 10.5.0.1",
        "routes: 10.9.0.0/16",
        "dns: name servers 10.5.0.1 for lan.internal",
    ]
    assert offer_lines(OFFERS, lambda reason: reason and reason["text"]) == [
        "default: everything (0.0.0.0/0) by 10.5.0.1 (offered, not applied)",
        "routes: 10.9.0.0/16 (applied)",
        "dns: name servers 10.5.0.1 for lan.internal (refused: no)",
    ]


@pytest.mark.parametrize(
    ("offers", "typed", "wanted"),
    [
        (OFFERS, "dns\n", ["dns"]),
        (OFFERS, "\n", None),
        (OFFERS, "nonsense\nall\n", ["dns", "routes", "default"]),
        ([], "", None),
    ],
)
def test_one_question_where_something_is_offered(
    monkeypatch: pytest.MonkeyPatch, offers: list[dict[str, Any]], typed: str, wanted: list[str] | None
) -> None:
    changes: list[Any] = []
    monkeypatch.setattr(card_accept, "_offers_of", lambda _name: offers)
    monkeypatch.setattr(card_accept, "change", lambda name, what, as_json: changes.append((name, what, as_json)))
    done = CliRunner().invoke(click.command()(lambda: ask_what_to_accept("lan")), input=typed, catch_exceptions=False)
    assert done.exit_code == 0
    assert changes == ([] if wanted is None else [("lan", {"interface.accept": wanted}, False)])
    assert ("The hub offers:" in done.output) == bool(offers)
