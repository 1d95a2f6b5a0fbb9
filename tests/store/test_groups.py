from dataclasses import replace

import pytest

from ukihashi.errors import UsageError
from ukihashi.store import groups, users
from ukihashi.store.db import Database
from ukihashi.store.hubs import Hub
from ukihashi.wire.policy import DEFAULT, Policy


def test_a_group_is_found_in_any_case_and_its_name_is_taken_once(db: Database, hub: Hub) -> None:
    group = groups.create(db, hub, "営業 Sales", note="third floor")
    assert groups.find(db, hub, "営業 SALES") == group
    with pytest.raises(UsageError, match="has a group “営業 sales” already"):
        groups.create(db, hub, "営業 sales")
    with pytest.raises(UsageError, match="no group “x”"):
        groups.get(db, hub, "x")


def test_what_is_set_is_kept(db: Database, hub: Hub) -> None:
    group = groups.create(db, hub, "sales")
    assert group.policy is None
    wanted = replace(group, real_name="Sales", note="n", policy=Policy(access=False, max_upload=5))
    groups.put(db, wanted)
    assert groups.all_groups(db, hub) == [wanted]


def test_a_user_has_its_own_policy_else_the_groups_else_a_new_users(db: Database, hub: Hub) -> None:
    group = groups.create(db, hub, "sales", policy=Policy(max_mac=9))
    user = users.create(db, hub, "hanako", now=1.0)
    assert users.effective_policy(db, user) == DEFAULT
    users.put(db, replace(user, group_id=group.id), 2.0)
    user = users.get(db, hub, "hanako")
    assert (user.group, users.effective_policy(db, user)) == ("sales", Policy(max_mac=9))
    users.put(db, replace(user, policy=DEFAULT), 3.0)
    assert users.get(db, hub, "hanako").effective_policy == DEFAULT


def test_a_deleted_group_leaves_its_users_in_none(db: Database, hub: Hub) -> None:
    group = groups.create(db, hub, "sales", policy=Policy(access=False))
    user = users.create(db, hub, "hanako", now=1.0)
    users.put(db, replace(user, group_id=group.id), 2.0)
    assert groups.count_members(db, hub) == {group.id: 1}
    groups.delete(db, group)
    user = users.get(db, hub, "hanako")
    assert (user.group_id, user.group, user.effective_policy) == (0, "", DEFAULT)
    assert groups.count_members(db, hub) == {}
