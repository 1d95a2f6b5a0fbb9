"""A policy is the same as values and on the wire."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import UsageError
from ukihashi.wire.policy import DEFAULT, FLAGS, RANGES, WIRE, Policy

POLICIES = st.builds(
    Policy,
    **{
        field: st.booleans() if field in FLAGS else st.integers(*RANGES.get(field, (0, 0xFFFFFFFF)))
        for field in WIRE
        if field != "vlan_id"
    },
)


def test_every_field_has_one_name_on_the_wire() -> None:
    assert [field.name for field in msgspec.structs.fields(Policy)] == list(WIRE)
    assert len(set(WIRE.values())) == len(WIRE)


@given(POLICIES)
def test_what_goes_out_comes_back(policy: Policy) -> None:
    assert Policy.from_wire(policy.to_wire()) == policy
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def test_the_names_are_those_of_a_real_welcome(repository: Path) -> None:
    vectors = json.loads((repository / "tests/wire/softether-vectors.json").read_text())["vectors"]
    welcome = next(one for one in vectors if one["id"] == "pack-welcome")
    names = {one["name"].removeprefix("policy:") for one in welcome["elements"] if one["name"].startswith("policy:")}
    assert names == set(WIRE.values()) | {"Ver3"}


def test_a_name_in_any_case_is_known_and_a_missing_one_is_off() -> None:
    assert Policy.from_wire({"aCCess": 1, "MAXCONNECTION": 4}) == Policy(max_connection=4, timeout_s=0)
    assert not Policy.from_wire({}).access
    assert DEFAULT.to_wire()["Access"] == 1


@pytest.mark.parametrize(("name", "value"), [("TimeOut", 4), ("TimeOut", 61), ("MaxConnection", 33), ("VLanId", 4095)])
def test_a_value_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=name):
        Policy.from_wire({name: value})
