"""What a person reads of a card."""

import time
from typing import Any

import pytest

from ukihashi.card.status import State
from ukihashi.cli import card_status

ROW: dict[str, Any] = {
    "account": "lan", "state": "online", "reason": None, "hub": "LAN", "user": "ann", "address": "h:443", "peer": "",
    "session": "SID-ANN-1", "tls": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "interface": "uklan", "mac": "02:00",
    "addresses": ["10.9.0.2/24"], "frames_in": 4, "bytes_in": 400, "frames_out": 5, "bytes_out": 500,
    "dropped_by_kernel": 3, "dropped_toward_kernel": 0, "dropped_oversized": 1, "reconnects": 2, "cut_s": 0.0,
    "gap_s": 0.123, "waiting_bytes": 2048, "last_loss": None,
    "ledger": {
        "sent": 50, "acknowledged": 48, "waiting": 2, "replayed": 7, "received": 40, "cuts": 2, "resumes": 2, "lost": 0,
        "dropped": {"kernel": 3, "refused": 0, "oversized": 1, "of_tomorrow": 5},
    },
}  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], **changes: Any) -> dict[str, str]:
    card_status.show({**ROW, **changes})
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"lan: {card_status.state_word(changes.get('state', 'online'))}"
    return dict(line.strip().split(": ", 1) for line in lines)


def test_the_ledger_stands_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys)
    assert lines["Ledger"] == (
        "50 frames sent, 48 acknowledged, 2 waiting (2.00 KiB), 7 sent again, 40 received, 0 lost"
    )
    assert lines["Dropped"] == "9 (3 by the interface's queue, 1 too long, 5 of_tomorrow)"
    assert lines["Reconnections"] == "2, the last after 0.12 s"
    assert "Lost" not in lines


def test_a_cut_is_shown_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, state="reconnecting", cut_s=4.2)["Reconnections"] == "2, cut for 4.2 s now"


def test_a_loss_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    lost = said(capsys, last_loss={"at": 1.0, "lost": 3, "carried": 8, "reason": None})["Lost"]
    assert lost.startswith("3 frames sent before a cut may or may not have arrived; 8 frames kept")
    assert "nobody counted" in said(capsys, last_loss={"at": 1.0, "lost": None, "carried": 0, "reason": None})["Lost"]


def test_a_reason_of_a_card_of_another_version_is_shown_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"text": "as it came", "template": "{new}", "values": {}}
    assert said(capsys, reason=reason)["Reason"] == "as it came"


def test_a_session_with_a_standard_hub_has_no_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, ledger={})
    assert "Ledger" not in lines
    assert lines["Dropped"] == "4 (3 by the interface's queue, 1 too long)"


def test_every_state_has_a_word() -> None:
    assert {str(state) for state in State} < set(card_status.STATES)
    assert card_status.state_word("of_tomorrow") == "of_tomorrow"


STANDARD: dict[str, Any] = {
    "ledger": {}, "product": "SoftEther VPN Server (64 bit)", "connections": 4, "max_connections": 8,
    "directions": ["out", "in", "in", "out"], "half_duplex": True, "compression": True, "encrypted": True, "udp": False,
    "dropped_garbled": 2, "dropped_crowded": 0,
}  # fmt: skip


def test_what_a_standard_hub_granted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, **STANDARD)
    assert lines["Hub's program"] == "SoftEther VPN Server (64 bit)"
    assert lines["Connections"] == "4 of 8, 2 outward, 2 inward, compressed"
    assert lines["Dropped"] == "6 (3 by the interface's queue, 1 too long, 2 not to be decompressed)"
    plain = {**STANDARD, "half_duplex": False, "compression": False, "max_connections": 1, "connections": 1}
    assert "Connections" not in said(capsys, **plain)
    assert said(capsys, **{**plain, "udp": True})["Connections"] == "UDP acceleration"


def test_a_card_that_the_hub_has_blocked_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    for other, words in (("SID-BOB-2", "a loop with SID-BOB-2"), ("SID-ANN-1", "frames come back on this port")):
        card_status.show({**ROW, "blocked": {"with": other, "since": time.time() - 65}})
        out = capsys.readouterr().out
        assert f"warning: no frame passes; the hub has this card blocked for 1 min 5 s: {words}" in out


def test_plaintext_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**ROW, **STANDARD, "encrypted": False, "tls": "", "cipher": ""}
    card_status.show(row)
    out = capsys.readouterr().out
    assert "Encryption: none" in out
    assert "warning: frames are NOT ENCRYPTED" in out
    assert "NOT ENCRYPTED" in card_status.remarks(row)[-1]
    assert card_status.remarks({**row, "state": "reconnecting"}) == []


def test_the_congestion_control_in_use_is_shown_and_one_that_is_not_there_is_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said(capsys, congestion="bbr")["TCP congestion control"] == "bbr"
    lacks = {"template": "no “{name}” here", "values": {"name": "nosuch"}, "text": ""}
    row = {**ROW, "congestion": "cubic", "congestion_lacks": lacks}
    assert card_status.remarks(row) == ["warning: no “nosuch” here"]
    card_status.show(row)
    assert "warning: no “nosuch” here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("checksum, TSO4, TSO6", "checksum, TSO4, TSO6"),
        ("off: option", "off, as the account says (interface.offload)"),
        ("off: kernel", "off: this kernel's TAP driver can't"),
        ("off: hub", "off: the hub takes none"),
        ("off: of_tomorrow", "off: of_tomorrow"),
    ],
)
def test_super_frames_are_shown_or_who_does_without(capsys: pytest.CaptureFixture[str], told: str, words: str) -> None:
    assert said(capsys, offload=told)["Super-frames"] == words
    assert "Super-frames" not in said(capsys, offload="")


def test_frames_with_an_unfit_header_are_among_the_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 with an unfit offload header" in said(capsys, dropped_offload_header=2)["Dropped"]


def test_the_hubs_word_is_shown_without_what_would_move_the_cursor() -> None:
    assert card_status.remarks({**ROW, "banner": "Hello\n\x1b[2Jyou"}) == [
        "the hub says: Hello",
        "the hub says: \\x1b[2Jyou",
    ]
    assert len(card_status.remarks({**ROW, "banner": "\n" * 500})) <= 20
