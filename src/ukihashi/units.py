"""Names for bare numbers and bytes that cross borders."""

from typing import NewType

Mac = NewType("Mac", bytes)  # 6 bytes as on the wire
Seconds = NewType("Seconds", float)
PortId = NewType("PortId", int)  # a port of one virtual hub's switch
SessionKey = NewType("SessionKey", bytes)  # 20 bytes, secret


def mac_text(mac: bytes) -> str:
    """`02:00:5e:10:00:01` for 6 bytes."""
    return mac.hex(":")
