"""Calls about cascades: other hubs that a virtual hub joins as a bridge."""

from ukihashi.hub.rpc.method import Backing, Method


def methods(backing: Backing) -> list[Method]:  # noqa: ARG001 - to come
    """The family."""
    return []
