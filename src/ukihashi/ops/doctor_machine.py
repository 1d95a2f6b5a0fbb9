"""What `doctor` asks of the machine itself: rights, kernel, programs, clock, memory."""

import ctypes
import fcntl
import os
import platform
import resource
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

from ukihashi.errors import N_, UkihashiError
from ukihashi.net.tls import client_context, tls_library
from ukihashi.ops.doctor import Answer, Check, Look, fail, ok, skip, warn
from ukihashi.tap import netlink
from ukihashi.tap.device import IFF_TAP, IFF_VNET_HDR, TUNGETFEATURES

NET_ADMIN: Final = 12  # linux/capability.h
OLD_PYTHON: Final = (3, 11)
OLD_TLS: Final = (3, 0, 0)
BUILT: Final = 1_767_225_600  # 2026-01-01: no clock that is right shows less
TIME_ERROR: Final = 5  # adjtimex(2): not synchronized
TIMEX_BYTES: Final = 512  # more than struct timex has
FEW_FILES: Final = 4096
MIB: Final = 1 << 20
LITTLE_MIB: Final = 64  # a hub and its first sessions
NFT_TRY: Final = (
    "table inet ukihashi-check {\nchain out { type nat hook postrouting priority srcnat; masquerade; }\n"
    "chain stop { type filter hook output priority filter; meta mark 0x1 accept; }\n}\n"
)


def rights(look: Look) -> Iterator[Answer]:
    """Root, and what root may do here."""
    if not look.root:
        yield warn(
            N_("runs without root rights: hubs and cards need them, and some checks here see less; use sudo"),
        )
        return
    effective = next(
        (line.split()[1] for line in look.text(look.proc / "self/status").splitlines() if line.startswith("CapEff:")),
        "0",
    )
    if not int(effective, 16) >> NET_ADMIN & 1:
        yield fail(
            N_("root may not change the network here (no CAP_NET_ADMIN); start the container with --cap-add NET_ADMIN")
        )
    else:
        yield ok(N_("root, and allowed to change the network"))


def tun(look: Look) -> Iterator[Answer]:
    """The device that interfaces are made by; it is opened, and no interface is made."""
    device = look.dev / "net/tun"
    if not device.exists():
        yield fail(N_("{device} does not exist; modprobe tun, or give the container --device {device}"), device=device)
        return
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if look.root:
            yield fail(
                N_("{device} can't be opened ({reason}); let the container have it, with --device {device}"),
                device=device,
                reason=error.strerror,
            )
        else:
            yield skip(N_("{device} is there; only root may say whether it works"), device=device)
        return
    try:
        features = struct.unpack("I", fcntl.ioctl(fd, TUNGETFEATURES, bytes(4)))[0]
    finally:
        os.close(fd)
    if not features & IFF_TAP:
        yield fail(N_("the kernel makes no TAP interfaces"))
    elif not features & IFF_VNET_HDR:
        yield warn(N_("the kernel's TAP knows no super-frames: each frame costs a call, and bulk traffic is slower"))
    else:
        yield ok(N_("TAP interfaces can be made, with super-frames"))


def kernel(look: Look) -> Iterator[Answer]:
    """Bridges and policy rules."""
    release = platform.release()
    try:
        netlink.all_rules()
    except (UkihashiError, OSError) as error:
        yield fail(
            N_("the kernel {release} answers nothing about routing rules ({reason}): cards can't set routes"),
            release=release,
            reason=error,
        )
        return
    has_bridge = (look.sys / "module/bridge").exists() or any((look.sys / "class/net").glob("*/bridge"))
    if not has_bridge and look.program("modprobe"):
        try:
            look.ask([look.program("modprobe"), "-n", "-q", "bridge"])
            has_bridge = True
        except UkihashiError:
            pass
    if has_bridge:
        yield ok(N_("Linux {release}, with routing rules and bridges"), release=release)
    else:
        yield warn(
            N_("Linux {release} shows no bridge module: joining a LAN (card bridge, hub bridge) may not work"),
            release=release,
        )


def nftables(look: Look) -> Iterator[Answer]:
    """A transaction that is checked and thrown away."""
    nft = look.program("nft")
    if not nft:
        yield warn(N_("nftables is not installed: no way out (hub uplink) and no kill switch; apt install nftables"))
    elif not look.root:
        yield skip(N_("only root may ask nftables"))
    else:
        try:
            look.ask([nft, "-c", "-f", "-"], NFT_TRY)
        except UkihashiError as error:
            yield warn(
                N_("nftables refuses what the way out (hub uplink) and the kill switch need: {reason}"), reason=error
            )
        else:
            yield ok(N_("nftables takes masquerading and filters"))


def ipv6(look: Look) -> Iterator[Answer]:
    """Whether there is any."""
    if not (look.proc / "net/if_inet6").exists() or look.number(look.proc / "sys/net/ipv6/conf/all/disable_ipv6"):
        yield warn(N_("IPv6 is off: no IPv6 addresses on virtual LANs here, and no listening on it"))
    else:
        yield ok(N_("IPv6 is on"))


def congestion(look: Look) -> Iterator[Answer]:
    """The TCP congestion controls, and whether those that were asked for are there."""
    folder = look.proc / "sys/net/ipv4"
    known = look.text(folder / "tcp_available_congestion_control").split()
    if not known:
        yield skip(N_("the kernel does not tell its congestion controls"))
        return
    wanted = {look.hub_config.congestion, *(card.connection.congestion for card in look.cards.values())} - {""}
    if lost := sorted(wanted - set(known)):
        yield warn(
            N_("congestion control {wanted} is set and the kernel lacks it; there are: {known}; modprobe tcp_{first}"),
            wanted=", ".join(lost),
            known=", ".join(known),
            first=lost[0],
        )
    else:
        now = look.text(folder / "tcp_congestion_control")
        yield ok(N_("TCP congestion control: {now}; there are: {known}"), now=now or "-", known=", ".join(known))


def files(_look: Look) -> Iterator[Answer]:
    """Open files: each session of a hub needs one, and more while it comes in."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < FEW_FILES:
        yield warn(
            N_("a process may open {hard} files only, about as many sessions; raise the limit (LimitNOFILE)"),
            hard=hard,
        )
    else:
        yield ok(N_("a process may open {hard} files"), hard="∞" if hard < 0 else hard)


def python(_look: Look) -> Iterator[Answer]:
    """Of which version."""
    version = platform.python_version()
    if sys.version_info < OLD_PYTHON:
        yield fail(N_("Python {version} is too old; 3.11 is the least"), version=version)
    else:
        yield ok(N_("Python {version}"), version=version)


def tls(look: Look) -> Iterator[Answer]:
    """The library, and what the processor does for it."""
    if ssl.OPENSSL_VERSION_INFO[:3] < OLD_TLS:
        yield warn(N_("{library} is old and gets no more care; upgrade the system"), library=ssl.OPENSSL_VERSION)
    cpu = look.text(look.proc / "cpuinfo")
    flags = {word for line in cpu.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    if flags and "aes" not in flags:
        yield warn(
            N_(
                "the processor has no AES instructions; ChaCha20 is faster here: set tls.ciphers to"
                " TLS_CHACHA20_POLY1305_SHA256 and others"
            )
        )
    else:
        yield ok(N_("{library}; AES by the processor"), library=tls_library(client_context()))


def clock(_look: Look) -> Iterator[Answer]:
    """A wrong clock makes certificates invalid and logs useless."""
    now = time.time()
    if now < BUILT:
        yield fail(
            N_("the clock says {date}, which can't be: certificates will not be valid; set it (timedatectl set-time)"),
            date=time.strftime("%Y-%m-%d", time.gmtime(now)),
        )
        return
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)  # modes = 0: only asked
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) == TIME_ERROR:
        yield warn(N_("nobody keeps the clock right; let systemd-timesyncd or chrony do it (timedatectl set-ntp true)"))
    else:
        yield ok(N_("the clock is kept right"))


def memory(look: Look) -> Iterator[Answer]:
    """What is free, and what the hub may keep for sessions that are cut."""
    rows = {
        line.split(":")[0]: line.split()[1] for line in look.text(look.proc / "meminfo").splitlines() if ":" in line
    }
    whole, free = (int(rows.get(name, 0)) // 1024 for name in ("MemTotal", "MemAvailable"))
    if not whole:
        yield skip(N_("the memory can't be seen"))
        return
    limit = look.text(look.sys / "fs/cgroup/memory.max")
    if limit.isdigit():
        whole = min(whole, int(limit) // MIB)
        free = min(free, whole)
    kept = look.hub_config.resume.memory_mib
    if free < LITTLE_MIB:
        yield warn(
            N_("{free} MiB of {whole} MiB of memory are free; a hub needs {need} MiB"),
            free=free,
            whole=whole,
            need=LITTLE_MIB,
        )
    elif kept > whole // 2:
        yield warn(
            N_("resume.memory_mib is {kept}, more than half of the {whole} MiB here: many cut sessions could fill it"),
            kept=kept,
            whole=whole,
        )
    else:
        yield ok(N_("{free} MiB of {whole} MiB of memory are free"), free=free, whole=whole)


CHECKS: Final[dict[str, Check]] = {
    "rights": rights,
    "tun": tun,
    "kernel": kernel,
    "nftables": nftables,
    "ipv6": ipv6,
    "congestion": congestion,
    "files": files,
    "python": python,
    "tls": tls,
    "clock": clock,
    "memory": memory,
}
