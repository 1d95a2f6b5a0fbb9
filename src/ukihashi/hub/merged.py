"""What several workers say of themselves, as one row about the whole."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ukihashi.net.control_socket import Row

SUMS: Final = ("connections", "half_open", "evicted", "tools", "sessions", "cut", "faults")


def merged_status(rows: Mapping[int, Sequence[Row]]) -> Row:
    """By worker, its answer to "status"; the first worker's row, with sums, and all rows in `workers`."""
    each = [{"worker": worker, **row} for worker, its in sorted(rows.items()) for row in its]
    if not each:
        return {}
    whole: dict[str, Any] = {**each[0], "workers": each}
    del whole["worker"]
    if len(each) > 1:
        whole |= {name: sum(int(row.get(name, 0)) for row in each) for name in SUMS}
        whole["hubs"] = max(int(row.get("hubs", 0)) for row in each)
        for ports in ("host_ports", "bridges", "loops"):
            whole[ports] = [one for row in each for one in row.get(ports, [])]
        memory = [row.get("resume_memory") or {} for row in each]
        whole["resume_memory"] = {name: sum(int(one.get(name, 0)) for one in memory) for name in ("used", "limit")}
        whole.pop("trunks", None)
    return whole
