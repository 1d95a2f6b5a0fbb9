"""Structures of the administration calls: what is written is read, as PACK and as JSON, and both say the same."""

import json
from ipaddress import ip_address
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import UsageError
from ukihashi.wire import rpc_structs
from ukihashi.wire.pack import Pack
from ukihashi.wire.policy import DEFAULT, FLAGS, Policy
from ukihashi.wire.rpc import MAX_U32, Field, Kind, Struct, error_pack

ALL: Final = {name: value for name, value in vars(rpc_structs).items() if isinstance(value, Struct)}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(str.strip)
VALUES: Final[dict[Kind, st.SearchStrategy[Any]]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT: st.integers(0, 2**32 - 1),
    Kind.INT64: st.integers(0, 2**64 - 1),
    Kind.TIME: st.just(0.0) | st.integers(32_400_001, 4_000_000_000_000).map(lambda ms: ms / 1000),
    Kind.STR: texts,
    Kind.UNISTR: texts,
    Kind.DATA: st.binary(max_size=40),
    Kind.IP: st.ip_addresses(),
}
policies = st.builds(Policy, **{name: st.booleans() for name in FLAGS}, max_upload=st.integers(0, MAX_U32))


def values_of(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {field.name: st.lists(VALUES[field.kind], max_size=4) if field.many else VALUES[field.kind] for field in fields}
    )


@given(st.sampled_from(sorted(ALL)), st.data())
def test_what_is_written_is_read(name: str, data: st.DataObject) -> None:
    struct = ALL[name]
    values = data.draw(values_of(struct.fields))
    if struct.rows:
        values[struct.rows] = data.draw(st.lists(values_of(struct.columns), max_size=3))
    if struct.policy:
        values["policy"] = data.draw(st.none() | policies)
    assert struct.from_pack(Pack.decode(struct.to_pack(values).encode())) == values
    assert struct.from_json(json.loads(json.dumps(struct.to_json(values)))) == values


def test_the_proven_call_is_read_and_written() -> None:
    """Vector jsonrpc-test and rpc-test: what a real server was asked and answered."""
    call = {"IntValue_u32": 5}
    values = rpc_structs.TEST.from_json(call)
    assert rpc_structs.TEST.to_json(values | {"StrValue": "5"}) == {
        "Int64Value_u64": 0,
        "IntValue_u32": 5,
        "StrValue_str": "5",
        "UniStrValue_utf": "",
    }


def test_an_address_travels_reversed() -> None:
    pack = Struct("Ip a").to_pack({"Ip": ip_address("10.77.0.2")})
    assert pack.get_int("Ip") == 33574154
    assert pack.get_ip("Ip") == ip_address("10.77.0.2")
    rows = Struct(rows="Rows", columns="Ip a").to_pack({"Rows": [{"Ip": ip_address("fd77::3")}, {"Ip": None}]})
    assert [rows.get_ip("Ip", index) for index in range(2)] == [ip_address("fd77::3"), ip_address("0.0.0.0")]


def test_an_empty_list_leaves_its_columns_out() -> None:
    assert "Name" not in rpc_structs.GROUPS.to_pack({"HubName": "LAN"})


def test_a_missing_field_is_nothing_and_an_optional_one_absent() -> None:
    assert Struct("A i, B s, C d?").from_pack(Pack()) == {"A": 0, "B": ""}
    assert Struct("A i, B s, C d?").from_json({}) == {"A": 0, "B": ""}
    assert "C" not in Struct("C d?").to_pack({})


def test_names_are_read_in_any_case() -> None:
    assert rpc_structs.HUB.from_json({"hubname_STR": "LAN"}) == {"HubName": "LAN"}


def test_the_get_form_knows_only_text() -> None:
    assert Struct("A i, B b, C q").from_json({"A_u32": "7", "B_bool": "true", "C_u64": "9"}) == {
        "A": 7,
        "B": True,
        "C": 9,
    }


def test_times_in_a_pack_are_nine_hours_behind_and_those_in_json_are_not() -> None:
    """What vpncmd 5.01 sent for 2030-01-02 03:04:05 UTC, and what stands in a real server's file for it."""
    struct = Struct("At t")
    assert struct.to_pack({"At": 1893553445.0}).get_int64("At") == 1893521045000
    assert struct.from_pack(struct.to_pack({"At": 1893553445.0})) == {"At": 1893553445.0}
    assert struct.to_pack({"At": 0.0}).get_int64("At") == 0  # never
    assert struct.from_pack(struct.to_pack({"At": 0.0})) == {"At": 0.0}
    assert struct.to_json({"At": 1.25}) == {"At_dt": "1970-01-01T00:00:01.250Z"}
    assert struct.from_json({"At_dt": "1970-01-01T00:00:01.250"}) == {"At": 1.25}
    assert struct.from_json({"At_dt": "1970-01-01T09:00:00+09:00"}) == {"At": 0.0}


def test_no_millisecond_is_lost() -> None:
    struct = Struct("At t")
    assert struct.to_pack({"At": 32_401.001}).get_int64("At") == 1001


@pytest.mark.parametrize("at", [52_785_180_467.84, 0.001, 1_795_372_601.999, 253_402_300_798.123])
def test_a_time_loses_nothing_from_text_to_text(at: float) -> None:
    struct = Struct("At t")
    said = struct.to_json({"At": at})
    assert struct.from_json(said)["At"] == pytest.approx(at, abs=1e-4)
    assert struct.to_json(struct.from_json(said)) == said


def test_a_time_beyond_all_years_is_the_last_one() -> None:
    pack = Pack()
    pack.add_int64("At", 2**64 - 1)
    values = Struct("At t").from_pack(pack)
    assert Struct("At t").to_json(values)["At_dt"].startswith("9999-12-31")


def test_counters_end_at_what_fits() -> None:
    assert Struct("A i").to_pack({"A": 2**40}).get_int("A") == MAX_U32
    assert Struct("A i").to_json({"A": -1}) == {"A_u32": 0}


def test_one_row_may_come_without_its_list() -> None:
    """As a PACK of one row: AddAccess sends single values."""
    values = rpc_structs.ACCESS_LIST.from_json({"HubName_str": "LAN", "Priority_u32": 3, "Discard_bool": True})
    assert [(row["Priority"], row["Discard"]) for row in values["AccessList"]] == [(3, True)]


def test_no_policy_and_a_whole_policy() -> None:
    assert rpc_structs.GROUP.from_pack(Pack())["policy"] is None
    assert (
        rpc_structs.GROUP.from_json(
            {"policy:Access_bool": True, "policy:MaxConnection_u32": 32, "policy:TimeOut_u32": 20}
        )["policy"]
        == DEFAULT
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("A_u32", -1),
        ("A_u32", 2**32),
        ("A_u32", 1.5),
        ("A_u32", "x"),
        ("A_u32", "1" * 5000),
        ("A_u32", None),
        ("B_bool", "perhaps"),
        ("C_str", 7),
        ("C_str", "\ud800"),
        ("D_bin", "not base64!"),
        ("E_ip", "300.1.1.1"),
        ("F_dt", "yesterday"),
        ("G_u32", 7),
        ("Rows", {}),
        ("Rows", [7]),
        ("policy:TimeOut_u32", 1),
    ],
)
def test_a_value_that_cannot_be_is_refused(field: str, value: object) -> None:
    struct = Struct("A i, B b, C s, D d, E a, F t, G i[]", rows="Rows", columns="X i", policy=True)
    with pytest.raises(UsageError):
        struct.from_json({field: value})


def test_an_error_says_its_code() -> None:
    assert error_pack(33).get_int("error") == 33
