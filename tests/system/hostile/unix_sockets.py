"""Reach a socket of another program of the same user.

Escape: the listener's token comes back, or a descriptor that it hands over reads the secret.
Trap: Landlock does not cover path-name sockets, and a datagram needs no connect.
"""

import os
import socket
import struct

from _attack import ARENA, ask_socket, leak, run

STREAM = ARENA["sock_stream"]
DGRAM = ARENA["sock_dgram"]
PROJECT = ARENA["project"]
RUN = ARENA["run"]


def take_descriptor() -> str:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        s.connect(STREAM)
        _, fds, _, _ = socket.recv_fds(s, 4096, 4)
        return leak(os.pread(fds[0], 4096, 0))


def bound() -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = f"{PROJECT}/me{os.getpid()}"
    s.bind(path)
    s.settimeout(1)
    return s


def datagram(address: object, how: str) -> object:
    def act() -> str:
        s = bound()
        if how == "connect":
            s.connect(address)  # type: ignore[arg-type]
            s.send(b"x")
        elif how == "sendmsg":
            s.sendmsg([b"x"], [], 0, address)
        elif how == "writev":
            s.connect(address)  # type: ignore[arg-type]
            os.writev(s.fileno(), [b"x"])
        else:
            s.sendto(b"x", address)  # type: ignore[arg-type]
        return leak(s.recv(4096))

    return act


def sent(act: object) -> object:
    """The far side cannot answer; that the sending succeeded is evidence enough."""

    def go() -> str:
        act()  # type: ignore[operator]
        return "a datagram went out"

    return go


def pair_sendto() -> None:
    a, _b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.sendto(b"x", DGRAM)


def pair_sendmsg() -> None:
    a, _b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.sendmsg([b"x"], [], 0, DGRAM)


def pair_sendmmsg() -> None:
    import ctypes

    from _attack import call

    a, _b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = struct.pack("H", socket.AF_UNIX) + DGRAM.encode() + b"\0"
    address = ctypes.create_string_buffer(name, len(name))
    data = ctypes.create_string_buffer(b"x", 1)
    iov = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(data), 1), 16)
    header = struct.pack(
        "QI4xQQQQi4xI4x", ctypes.addressof(address), len(name), ctypes.addressof(iov), 1, 0, 0, 0, 0
    )
    call(307 if os.uname().machine == "x86_64" else 269, a.fileno(), header, 1, 0)


def pair_reconnect() -> None:
    a, _b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.connect(DGRAM)
    a.send(b"x")


def renamed() -> str:
    path = PROJECT + "/s"
    if os.path.lexists(path):
        os.unlink(path)
    os.rename(STREAM, path)
    try:
        return ask_socket(path)
    finally:
        os.rename(path, STREAM)


def hard_link() -> str:
    path = PROJECT + "/hl"
    if os.path.lexists(path):
        os.unlink(path)
    os.link(STREAM, path)
    return ask_socket(path)


def into_own_directory(act: object) -> object:
    def go() -> str:
        path = os.environ.get("TMPDIR", PROJECT) + "/moved"
        act(STREAM, path)  # type: ignore[operator]
        try:
            return ask_socket(path)
        finally:
            os.rename(path, STREAM)

    return go


def symlinked() -> str:
    path = PROJECT + "/sl"
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(STREAM, path)
    return ask_socket(path)


def namesake() -> str:
    """Names of streams and of datagrams do not collide: the name is ours, and what is connected to is another's."""
    name = "\0" + ARENA["sock_abstract"]
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    mine.bind(name)
    return ask_socket(name)


def relative() -> str:
    os.chdir(RUN)
    return ask_socket("helper")


def by_fd() -> str:
    fd = os.open(RUN, os.O_PATH)
    return ask_socket(f"/proc/self/fd/{fd}/helper")


run(
    {
        "stream": lambda: ask_socket(STREAM),
        "descriptor handed over": take_descriptor,
        "seqpacket": lambda: ask_socket(ARENA["sock_seqpacket"], socket.SOCK_SEQPACKET),
        "relative": relative,
        "through /proc/self/root": lambda: ask_socket("/proc/self/root" + STREAM),
        "through O_PATH": by_fd,
        "through a symlink": symlinked,
        "through a hard link": hard_link,
        "moved into the project": renamed,
        "moved into the session's directory": into_own_directory(os.rename),
        "linked into the session's directory": into_own_directory(os.link),
        "abstract": lambda: ask_socket("\0" + ARENA["sock_abstract"]),
        "abstract, by a namesake of another type": namesake,
        "abstract datagram": datagram("\0" + ARENA["sock_abstract"] + ".dgram", "sendto"),
        "datagram sendto": datagram(DGRAM, "sendto"),
        "datagram sendmsg": datagram(DGRAM, "sendmsg"),
        "datagram connect": datagram(DGRAM, "connect"),
        "datagram writev": datagram(DGRAM, "writev"),
        "pair sendto": sent(pair_sendto),
        "pair sendmsg": sent(pair_sendmsg),
        "pair sendmmsg": sent(pair_sendmmsg),
        "pair connected anew": sent(pair_reconnect),
        "session bus": lambda: ask_socket(RUN + "/bus"),
        "systemd's private socket": lambda: ask_socket(RUN + "/systemd/private"),
        "agent of keys": lambda: ask_socket(RUN + "/ssh-agent"),
        "docker": lambda: ask_socket(RUN + "/docker.sock"),
    }
)
