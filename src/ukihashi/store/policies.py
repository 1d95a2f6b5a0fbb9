"""Policies as they stand in the database: JSON, with what differs from a new user's alone."""

import msgspec

from ukihashi.wire.policy import Policy


def read(text: str | None) -> Policy | None:
    """None: no policy of its own."""
    return None if text is None else msgspec.json.decode(text, type=Policy)


def written(policy: Policy | None) -> str | None:
    """The column's value."""
    return None if policy is None else msgspec.json.encode(policy).decode()
