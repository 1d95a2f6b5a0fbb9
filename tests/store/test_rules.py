from ukihashi.store import hubs, rules
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.switch.access import Rule


def test_rules_come_by_priority_then_by_age(db: Database, hub: Hub) -> None:
    last = rules.put_access(db, hub, Rule(priority=20, note="last", source_ports=(1, 9)))
    first = rules.put_access(db, hub, Rule(priority=10, established=False))
    second = rules.put_access(db, hub, Rule(priority=10, ipv6=True))
    assert rules.access_list(db, hub) == [first, second, last]
    assert last is not None
    moved = rules.put_access(db, hub, Rule(priority=1, active=False), last.id)
    assert rules.access_list(db, hub) == [moved, first, second]


def test_a_rule_of_another_hub_is_out_of_reach(db: Database, hub: Hub) -> None:
    other = hubs.create(db, "WAN", subnet4="4", subnet6="6", now=1.0)
    rule = rules.put_access(db, hub, Rule())
    source = rules.add_source(db, hub, priority=1, network="192.0.2.0/24", deny=True)
    assert rule is not None
    assert rules.put_access(db, other, Rule(), rule.id) is None
    assert not rules.remove_access(db, other, rule.id)
    assert not rules.remove_source(db, other, source.id)
    assert rules.remove_access(db, hub, rule.id)
    assert rules.remove_source(db, hub, source.id)


def test_a_whole_list_takes_the_place_of_another(db: Database, hub: Hub) -> None:
    rules.put_access(db, hub, Rule(note="old"))
    rules.replace_access(db, hub, [Rule(note="b", priority=2), Rule(note="a", priority=1)])
    assert [one.rule.note for one in rules.access_list(db, hub)] == ["a", "b"]
    rules.add_source(db, hub, priority=5, network="192.0.2.0/24", deny=False)
    rules.add_source(db, hub, priority=1, network="2001:db8::/32", deny=True)
    assert [(one.network, one.deny) for one in rules.sources(db, hub)] == [
        ("2001:db8::/32", True),
        ("192.0.2.0/24", False),
    ]
    rules.clear_sources(db, hub)
    assert rules.sources(db, hub) == []
