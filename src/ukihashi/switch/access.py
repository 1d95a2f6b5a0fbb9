"""A virtual hub's access list: which frames pass."""

import msgspec


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a frame must be for this rule to decide about it; what is left at its default is not asked."""

    discard: bool = True  # else: let pass, and ask no later rule
    note: str = ""
    active: bool = True
    priority: int = 1000  # the lowest is asked first
    ipv6: bool = False  # which of both the rule is about, if it asks for addresses, protocol or ports
    source: str = ""  # network, "192.0.2.0/24"
    destination: str = ""
    protocol: int = 0  # of IP; 0 = any
    source_ports: tuple[int, int] = (0, 0)  # first and last; 0 = any
    destination_ports: tuple[int, int] = (0, 0)
    source_user: str = ""  # the member it comes from
    destination_user: str = ""  # the member it goes to
    source_mac: str = ""  # "02:00:5e:00:00:01" or with a mask, "02:00:00:00:00:00/ff:00:00:00:00:00"
    destination_mac: str = ""
    established: bool | None = None  # TCP: belongs to a connection, or begins one
