"""Reach a listener on the loopback, which no rule permits.

Escape: the listener's token comes back, or a socket of a family that nobody needs is made.
Trap: MPTCP, fast open and UDP pass Landlock's rules on TCP; options of a socket that is connected here send its datagrams elsewhere.
"""

import os
import socket

from _attack import ARENA, leak, run

TCP = ("127.0.0.1", ARENA["tcp"])
UDP = ("127.0.0.1", ARENA["udp"])


def tcp(protocol: int = 0, port: int = ARENA["tcp"]) -> object:
    def act() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as s:
            s.settimeout(1)
            s.connect(("127.0.0.1", port))
            return leak(s.recv(4096))

    return act


def tcp6() -> str:
    with socket.socket(socket.AF_INET6) as s:
        s.settimeout(1)
        s.connect(("::1", ARENA["tcp6"]))
        return leak(s.recv(4096))


def mapped() -> str:
    with socket.socket(socket.AF_INET6) as s:
        s.settimeout(1)
        s.connect(("::ffff:127.0.0.1", ARENA["tcp"]))
        return leak(s.recv(4096))


def fast_open(how: str) -> object:
    def act() -> str:
        with socket.socket() as s:
            s.settimeout(1)
            if how == "sendto":
                s.sendto(b"x", socket.MSG_FASTOPEN, TCP)
            elif how == "sendmsg":
                s.sendmsg([b"x"], [], socket.MSG_FASTOPEN, TCP)
            else:
                s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
                s.connect(TCP)
                s.send(b"x")
            return leak(s.recv(4096))

    return act


def non_blocking() -> str:
    import select

    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(TCP)
    select.select([s], [], [], 1)
    return leak(s.recv(4096))


def udp(how: str) -> object:
    def act() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.7)
            if how == "sendto":
                s.sendto(b"x", UDP)
            elif how == "sendmsg":
                s.sendmsg([b"x"], [], 0, UDP)
            elif how == "empty":
                s.sendto(b"", UDP)
            elif how == "bound":
                s.bind(("127.0.0.1", 0))
                s.sendto(b"x", UDP)
            else:
                s.connect(UDP)
                s.send(b"x")
            return leak(s.recv(4096))

    return act


def nameserver() -> tuple[str, int]:
    with open("/etc/resolv.conf") as f:
        return next(line.split()[1] for line in f if line.startswith("nameserver")), 53


def detour(family: int, level: int, option: int, value: bytes) -> object:
    """A datagram to where any may go, by a way that leads elsewhere first: whoever is there reads it."""

    def act() -> str:
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.setsockopt(level, option, value)
            s.connect(("::1", ARENA["udp"]) if family == socket.AF_INET6 else nameserver())
            return f"{s.send(b'x')} byte took another way"

    return act


def joins() -> str:
    """The report of a membership carries 28 bits of one's choice to the network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(0, socket.IP_ADD_MEMBERSHIP, bytes((239, 1, 2, 3, 127, 0, 0, 1)))
        return "a group was joined"


def segments(*hosts: str) -> bytes:
    """A segment routing header (RFC 8754 2)."""
    last = len(hosts) - 1
    head = bytes((0, 2 * len(hosts), 4, last, last, 0, 0, 0))
    return head + b"".join(socket.inet_pton(socket.AF_INET6, h) for h in hosts)


DETOURS = {
    "options of IP": (socket.AF_INET, 0, 4, b"\x07\x07\x04\0\0\0\0\1"),
    "a source route": (socket.AF_INET, 0, 4, b"\x83\x07\x04\x7f\0\0\5\1"),
    "an interface for unicast": (socket.AF_INET, 0, 50, (1).to_bytes(4, "big")),
    "a segment route": (socket.AF_INET6, 41, 57, segments("::1", "::1")),
    "an interface and a source": (socket.AF_INET6, 41, 50, bytes(16) + (1).to_bytes(4, "little")),
    "an interface for unicast over IPv6": (socket.AF_INET6, 41, 76, (1).to_bytes(4, "big")),
    "a device": (socket.AF_INET, 1, 25, b"lo\0"),
    "a device by number": (socket.AF_INET, 1, 62, (1).to_bytes(4, "little")),
}


def beside() -> str:
    """Who means that program by the name localhost reaches this one first."""
    with socket.socket(socket.AF_INET6) as s:
        s.bind(("::1", ARENA["tcp"]))
        s.listen()
        return "a namesake of another program's listener"


def makes(family: int, kind: int, protocol: int = 0) -> object:
    def act() -> str:
        socket.socket(family, kind, protocol).close()
        return f"family {family}, kind {kind}, protocol {protocol}"

    return act


FAMILIES = {
    "packet": (17, socket.SOCK_RAW, 0),
    "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
    "ping": (socket.AF_INET, socket.SOCK_DGRAM, 1),
    "sctp": (socket.AF_INET, socket.SOCK_STREAM, 132),
    "udplite": (socket.AF_INET, socket.SOCK_DGRAM, 136),
    "vsock": (40, socket.SOCK_STREAM, 0),
    "alg": (38, socket.SOCK_SEQPACKET, 0),
    "netlink audit": (16, socket.SOCK_RAW, 9),
    "netlink uevent": (16, socket.SOCK_RAW, 15),
    "netlink netfilter": (16, socket.SOCK_RAW, 12),
    "bluetooth": (31, socket.SOCK_RAW, 1),
    "kcm": (41, socket.SOCK_DGRAM, 0),
    "tipc": (30, socket.SOCK_DGRAM, 0),
    "xdp": (44, socket.SOCK_RAW, 0),
}


def _native(name: str) -> bool:
    try:
        socket.socket(*FAMILIES[name]).close()
    except OSError:
        return False
    return True


RARE = "not offered to ordinary users by every kernel"
run(
    {
        "tcp": tcp(),
        "tcp, no waiting": non_blocking,
        "tcp over IPv6": tcp6,
        "tcp, mapped address": mapped,
        "mptcp": tcp(262),
        "fast open, sendto": fast_open("sendto"),
        "fast open, sendmsg": fast_open("sendmsg"),
        "fast open, connect": fast_open("connect"),
        "a listener beside another's": beside,
        "a group of multicast": joins,
        "udp sendto": udp("sendto"),
        "udp sendmsg": udp("sendmsg"),
        "udp empty": udp("empty"),
        "udp bound": udp("bound"),
        "udp connect": udp("connect"),
        **{name: makes(*triple) for name, triple in FAMILIES.items()},
        **{f"udp, by {name}": detour(*how) for name, how in DETOURS.items()},
    },
    native={
        **dict.fromkeys(FAMILIES, RARE),
        **{f"udp, by {name}": RARE for name in DETOURS},
        "tcp over IPv6": "where there is IPv6",
        "a group of multicast": RARE,
        "a listener beside another's": "where there is IPv6",
        "mptcp": "where the kernel has it",
        "fast open, sendto": "where the kernel permits it",
        "fast open, sendmsg": "where the kernel permits it",
    },
    seconds=2,
)
os._exit(0)
