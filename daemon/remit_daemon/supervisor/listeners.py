"""The sockets that the agent's connections really end at, and the ports on which the session itself listens.

The first are bound before the agent starts and given to the gateway when it starts: their ports stand in the agent's
environment. They belong to the supervisor, so no process of the session can take one of these ports first.
"""

from __future__ import annotations

import _socket
import os

from remit_daemon.wire.gateway import NAMESERVER

_BACKLOG = 1024  # connections that wait while the gateway starts


class Listeners:
    """Name → (socket, port), for the names of ``wire.gateway.LISTENERS`` that this machine has."""

    def __init__(self) -> None:
        self.sockets: dict[str, _socket.socket] = {}
        stream, datagram = _socket.SOCK_STREAM, _socket.SOCK_DGRAM
        for name, family, kind, address in (
            ("tcp", _socket.AF_INET, stream, "127.0.0.1"),
            ("tcp6", _socket.AF_INET6, stream, "::1"),
            ("proxy", _socket.AF_INET, stream, "127.0.0.1"),
            ("dns_udp", _socket.AF_INET, datagram, NAMESERVER),
            ("dns_tcp", _socket.AF_INET, stream, NAMESERVER),
        ):
            try:
                sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
                sock.bind((address, 0))
                if kind == stream:
                    sock.listen(_BACKLOG)
            except OSError:
                if name == "tcp6":
                    continue  # a machine without IPv6
                raise
            self.sockets[name] = sock
        self.ports = {name: int(sock.getsockname()[1]) for name, sock in self.sockets.items()}
        self._names = {port: name for name, port in self.ports.items() if name != "dns_udp"}

    def name_of(self, port: int) -> str:
        """Return which of the stream listeners has ``port``, "" when none has."""
        return self._names.get(port, "")

    def close(self) -> None:
        """Give the ports back."""
        for sock in self.sockets.values():
            sock.close()

    def fds(self) -> list[int]:
        """Return the descriptors, in the order of ``sockets``."""
        return [sock.fileno() for sock in self.sockets.values()]


class OwnPorts:
    """Which listening sockets the session made, by inode: a port can be given up and be another's later."""

    def __init__(self) -> None:
        self._inodes: set[int] = set()

    def made(self, fd: int) -> None:
        """Remember the socket behind ``fd``, which listens now."""
        if len(self._inodes) >= _MAX_OWN:
            self._inodes.clear()
        self._inodes.add(os.fstat(fd).st_ino)

    def all_made(self, inodes: set[int]) -> bool:
        """Say whether the session made every one of these sockets."""
        return bool(inodes) and inodes <= self._inodes


_MAX_OWN = 4096  # beyond, the session's own ports are asked for like others'
