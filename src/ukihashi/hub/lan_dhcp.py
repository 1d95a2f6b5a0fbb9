"""What the address service says: DHCP messages (RFC 2131, section 4.3) and router advertisements."""

from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

from ukihashi.ether import dhcp, dns, ndp
from ukihashi.ether.frame import BROADCAST
from ukihashi.hub.lan_plan import LanService, label
from ukihashi.hub.messages import LeaseAnswered

ELSEWHERE: Final = -1  # number of an address that is not of the hub's subnet
MS_ROUTES: Final = 249  # Windows before Vista asked for routes under this code
HOST_LETTERS: Final = 64  # of a name that a station gives itself, more are not looked at
ROUTER_S: Final = 1800  # how long the way out told by an advertisement is used
NAMES_S: Final = 1800  # how long resolvers told by an advertisement are used
DEFAULT_ROUTE: Final = IPv4Network("0.0.0.0/0")


class Asked(NamedTuple):
    """What a client wants, in numbers of the hub's subnet."""

    wanted: int  # 0 = any; ELSEWHERE
    chosen: bool  # it answers our offer
    host: str


def asked(plan: LanService, message: dhcp.Message) -> Asked | None:
    """What to ask control; None: the message is not for us, or for nobody."""
    if message.op != dhcp.BOOT_REQUEST or message.relay != dhcp.NOWHERE:
        return None
    server, requested = message.address(dhcp.SERVER_ID), message.address(dhcp.REQUESTED)
    if server is not None and server != plan.address4:
        return None
    match message.kind:
        case dhcp.DISCOVER:
            address = requested
        case dhcp.REQUEST:  # selecting and rebooting name the address in an option, renewing and rebinding have it
            address = requested if message.client == dhcp.NOWHERE else message.client
            if address is None:
                return None
        case dhcp.DECLINE:
            address = requested
        case dhcp.RELEASE | dhcp.INFORM:
            address = message.client
        case _:
            return None
    name = message.text(dhcp.HOST_NAME)[:HOST_LETTERS] or _full_name(message)
    return Asked(_number(plan, address), server is not None, label(name.split(".", 1)[0]))


def _full_name(message: dhcp.Message) -> str:
    """What option 81 says, as text or as a name of the DNS (RFC 4702)."""
    value = message.options.get(dhcp.FULL_NAME, b"")
    if len(value) < 4:
        return ""
    if value[0] & 4:
        size = value[3]
        return value[4 : 4 + size].decode("utf-8", "replace")
    return value[3:].decode("utf-8", "replace")[:HOST_LETTERS]


def _number(plan: LanService, address: IPv4Address | None) -> int:
    if address is None or address == dhcp.NOWHERE:
        return 0
    return int(address) - int(plan.network4.network_address) if address in plan.network4 else ELSEWHERE


def reply(plan: LanService, message: dhcp.Message, answer: LeaseAnswered) -> bytes:
    """The frame that tells the client."""
    is_no, is_inform = answer.kind == dhcp.NAK, message.kind == dhcp.INFORM
    your = dhcp.NOWHERE if is_no or not answer.number else plan.network4.network_address + answer.number
    told = dhcp.Message(
        dhcp.BOOT_REPLY,
        message.xid,
        message.mac,
        flags=message.flags,
        client=message.client if answer.kind == dhcp.ACK else dhcp.NOWHERE,
        your=dhcp.NOWHERE if is_inform else your,
        server=dhcp.NOWHERE,
        options=_options(plan, message, answer),
    )
    to, station = dhcp.EVERYBODY, BROADCAST
    if not is_no and message.client != dhcp.NOWHERE:
        to, station = message.client, message.mac
    elif not is_no and not message.wants_broadcast and your != dhcp.NOWHERE:
        to, station = your, message.mac
    return dhcp.server_frame(told, mac=plan.mac, source=plan.address4, destination=to, destination_mac=station)


def _options(plan: LanService, message: dhcp.Message, answer: LeaseAnswered) -> dict[int, bytes]:
    options = {dhcp.MESSAGE_TYPE: bytes([answer.kind]), dhcp.SERVER_ID: plan.address4.packed}
    if dhcp.CLIENT_ID in message.options:  # RFC 6842
        options[dhcp.CLIENT_ID] = message.options[dhcp.CLIENT_ID]
    if answer.kind == dhcp.NAK:
        return options
    if answer.lease_s:
        for code, seconds in (
            (dhcp.LEASE_TIME, answer.lease_s),
            (dhcp.RENEWAL_TIME, answer.lease_s // 2),
            (dhcp.REBINDING_TIME, answer.lease_s * 7 // 8),
        ):
            options[code] = seconds.to_bytes(4, "big")
    room = max(message.number(dhcp.MAX_SIZE) or 0, dhcp.DEFAULT_MAX + 28) - 28 - 240 - 1
    room -= len(dhcp.encode_options(options))
    for code, value in _settings(plan, message).items():  # the important ones first
        size = len(value) + 2 * (1 + max(0, len(value) - 1) // 255)
        if value and size <= room:
            options[code] = value
            room -= size
    return options


def _settings(plan: LanService, message: dhcp.Message) -> dict[int, bytes]:
    network, router = plan.network4, plan.router4
    settings = {dhcp.MASK: network.netmask.packed}
    if router is not None:
        settings[dhcp.ROUTER] = router.packed
    settings[dhcp.DNS] = dhcp.write_addresses(plan.servers4)
    if plan.routes4:
        # who heeds this list heeds no other router (RFC 3442)
        ways = [*([(DEFAULT_ROUTE, router)] if router is not None else []), *plan.routes4]
        settings[dhcp.ROUTES] = dhcp.write_routes(ways)
        if MS_ROUTES in message.options.get(dhcp.WANTED, b""):
            settings[MS_ROUTES] = settings[dhcp.ROUTES]
    if plan.dns:
        settings[dhcp.DOMAIN] = plan.domain.encode("ascii", "replace")
        settings[dhcp.SEARCH] = dns.write_names([plan.domain])
    settings[dhcp.BROADCAST_ADDRESS] = network.broadcast_address.packed
    return settings


def advertisement(plan: LanService) -> ndp.RouterAdvertisement:
    """The hub's prefix and resolvers. Nobody's way out goes by the service, so it is no default router (`way_out`)."""
    return ndp.RouterAdvertisement(
        plan.mac,
        plan.link_local,
        prefixes=(ndp.Prefix(plan.network6),),
        dns=plan.servers6,
        search=(plan.domain,) if plan.dns else (),
        names_s=NAMES_S,
    )


def way_out(plan: LanService, *, lifetime_s: int = ROUTER_S) -> ndp.RouterAdvertisement:
    """The hub machine is the router to other networks: said for it, since its kernel says nothing of the kind."""
    source = ndp.link_local(plan.router6)
    return ndp.RouterAdvertisement(plan.router6, source, router_lifetime_s=lifetime_s, sender=plan.mac)


def farewell(plan: LanService) -> ndp.RouterAdvertisement:
    """What was advertised is not to be used any more."""
    return ndp.RouterAdvertisement(
        plan.mac,
        plan.link_local,
        prefixes=(ndp.Prefix(plan.network6, valid_s=0, preferred_s=0),),
        dns=plan.servers6,
        search=(plan.domain,) if plan.dns else (),
        names_s=0,
    )
