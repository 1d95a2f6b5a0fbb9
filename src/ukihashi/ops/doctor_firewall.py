"""What `doctor` asks of firewalls: chains that drop what no rule allows, and no rule for what a hub needs."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ukihashi.errors import N_
from ukihashi.ops.doctor import Answer, Check, Look, ok, skip, warn

OURS: Final = "ukihashi"  # our own tables begin with it


class Chain(NamedTuple):
    """A base chain with the policy drop, and what its table's rules say."""

    family: str
    table: str
    name: str
    hook: str
    rules: Sequence[Any]

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def dropping(ruleset: Any) -> list[Chain]:
    """The base chains of `nft -j list ruleset` that drop by policy, ours left out."""
    entries = ruleset.get("nftables", [])
    rules: dict[tuple[str, str], list[Any]] = {}
    for entry in entries:
        if rule := entry.get("rule"):
            rules.setdefault((rule["family"], rule["table"]), []).append(rule.get("expr", []))
    return [
        Chain(
            chain["family"],
            chain["table"],
            chain["name"],
            chain["hook"],
            rules.get((chain["family"], chain["table"]), []),
        )
        for chain in (entry["chain"] for entry in entries if "chain" in entry)
        if chain.get("policy") == "drop" and not chain["table"].startswith(OURS)
    ]


def names_port(rules: Any, port: int) -> bool:
    """Does any of these rules speak of that TCP port: alone, in a set, in a range, or in iptables' own words?"""
    if isinstance(rules, dict):
        match = rules.get("match")
        if isinstance(match, dict) and _field(match.get("left")) == "dport":
            return holds(match.get("right"), port)
        return any(names_port(value, port) for value in rules.values())
    return isinstance(rules, list) and any(names_port(rule, port) for rule in rules)


def _field(left: Any) -> str:
    payload = left.get("payload") if isinstance(left, dict) else None
    return str(payload.get("field", "")) if isinstance(payload, dict) else ""


def holds(right: Any, port: int) -> bool:
    """nftables' right side of a comparison: a number, {"range": [a, b]}, {"set": [...]}, a list."""
    if isinstance(right, dict):
        if isinstance(bounds := right.get("range"), list) and len(bounds) == 2:
            return all(isinstance(bound, int) for bound in bounds) and bounds[0] <= port <= bounds[1]
        return holds(right.get("set"), port)
    if isinstance(right, list):
        return any(holds(one, port) for one in right)
    return bool(right == port) or (isinstance(right, str) and right.startswith("@"))  # a named set: its owner knows


def firewall(look: Look) -> Iterator[Answer]:
    """Would a firewall of this machine drop what the hub needs?"""
    nft = look.program("nft")
    if not look.root:
        yield skip(N_("only root may see the firewall's rules"))
        return
    chains = dropping(json.loads(look.ask([nft, "-j", "list", "ruleset"]))) if nft else []
    found = False
    ports = sorted({endpoint.port for endpoint in look.hub_config.endpoints()}) if look.is_hub else []
    for chain in chains:
        if chain.hook == "input":
            for port in ports:
                if not names_port(chain.rules, port):
                    found = True
                    yield warn(
                        N_(
                            "the firewall ({chain}) drops what no rule allows, and none names TCP port {port}; allow it"
                        ),
                        chain=chain,
                        port=port,
                    )
        elif chain.hook == "forward" and look.hub_config.uplink:
            found = True
            yield warn(
                N_("the firewall ({chain}) drops what no rule allows to pass; let through what comes from uk*"),
                chain=chain,
            )
    for port in _legacy(look, ports):
        found = True
        yield warn(
            N_("the firewall ({chain}) drops what no rule allows, and none names TCP port {port}; allow it"),
            chain="iptables INPUT",
            port=port,
        )
    filters_bridges = look.number(look.proc / "sys/net/bridge/bridge-nf-call-iptables") == 1
    if look.bridges and filters_bridges and any(chain.hook == "forward" for chain in chains):
        found = True
        yield warn(
            N_(
                "the firewall judges frames of bridges, too, and drops what no rule allows to pass:"
                " sysctl net.bridge.bridge-nf-call-iptables=0"
            )
        )
    if not found:
        yield ok(N_("no firewall of this machine stands in the way"))


def _legacy(look: Look, ports: Sequence[int]) -> list[int]:
    """Ports that an old iptables drops; it is asked only if it has tables already."""
    program = look.program("iptables-legacy-save")
    if not program or "filter" not in look.text(look.proc / "net/ip_tables_names").split():
        return []
    told = look.ask([program, "-t", "filter"])
    if not re.search(r"^:INPUT DROP", told, re.MULTILINE):
        return []
    return [port for port in ports if not re.search(rf"--dports? (?:\S*,)?{port}\b", told)]


CHECKS: Final[dict[str, Check]] = {"firewall": firewall}
