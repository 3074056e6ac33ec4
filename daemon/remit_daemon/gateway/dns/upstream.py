"""Asking the machine's own nameservers: UDP, and TCP where an answer was cut off.

Every query has a random identifier and a fresh connected socket (so a random port, and replies of that very address
only); a reply that is no answer to it is passed over, and the wait goes on. A server that refuses, fails or is silent
hands over to the next.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.message import MessageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remit_daemon.gateway.dns.message import Answer

MAX_SERVERS = 3  # MAXNS of resolv.conf(5)
ROUNDS = 2  # `attempts` of resolv.conf(5)
UDP_WAIT = 2.0  # seconds for one server; clients themselves give up after 5
TCP_WAIT = 5.0  # seconds for connecting and the whole answer
MAX_ASKING = 128  # queries on their way at once: each is a descriptor
MAX_REPLY = 65_535


class NoAnswer(Exception):
    """No nameserver gave an answer."""


def server(text: str) -> tuple[str, int]:
    """Return (address, port) of ``text``: `1.1.1.1`, `1.1.1.1:5300`, `fe80::1%eth0`, `[::1]:5300`. Raises ValueError."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    number = int(port) if port else 53
    if not host or not 0 < number < 65_536:
        raise ValueError(f"no nameserver: {text!r}")
    return host, number


class Upstream:
    """The nameservers, in their order. Those whose text means nothing are passed over."""

    def __init__(
        self, nameservers: Sequence[str], *, udp_wait: float = UDP_WAIT, tcp_wait: float = TCP_WAIT
    ) -> None:
        self._servers: list[tuple[str, int]] = []
        for text in nameservers:
            try:
                self._servers.append(server(text))
            except ValueError:
                continue
        del self._servers[MAX_SERVERS:]
        self._udp_wait = udp_wait
        self._tcp_wait = tcp_wait
        self._asking = asyncio.Semaphore(MAX_ASKING)

    async def ask(self, name: str, type: int) -> Answer:
        """Return the answer for ``name`` and ``type``. Raises NoAnswer, MessageError when ``name`` cannot be asked."""
        message.wire_name(name)
        last: Answer | None = None
        async with self._asking:
            for _ in range(ROUNDS):
                for where in self._servers:
                    found = await self._one(where, name, type)
                    if found is None:
                        continue
                    if found.rcode in (message.NOERROR, message.NXDOMAIN):
                        return found
                    last = found
                if last is not None:
                    return last
        raise NoAnswer(f"no nameserver answers for {name}")

    async def _one(self, where: tuple[str, int], name: str, type: int) -> Answer | None:
        """Return one server's answer, None when it gives none."""
        try:
            async with asyncio.timeout(self._udp_wait):
                found = await self._udp(where, name, type)
            if found.truncated:
                async with asyncio.timeout(self._tcp_wait):
                    found = await self._tcp(where, name, type)
        except (OSError, TimeoutError, MessageError):
            return None
        return None if found.truncated else found

    async def _udp(self, where: tuple[str, int], name: str, type: int) -> Answer:
        loop = asyncio.get_running_loop()
        with await _socket(where, socket.SOCK_DGRAM) as sock:
            ident = int.from_bytes(os.urandom(2), "big")
            await loop.sock_sendall(sock, message.write_query(ident, name, type))
            while True:
                raw = await loop.sock_recv(sock, MAX_REPLY)
                try:
                    return message.read_answer(raw, ident, name, type)
                except MessageError:
                    continue  # forged or broken: the real one may still come

    async def _tcp(self, where: tuple[str, int], name: str, type: int) -> Answer:
        loop = asyncio.get_running_loop()
        with await _socket(where, socket.SOCK_STREAM) as sock:
            ident = int.from_bytes(os.urandom(2), "big")
            raw = message.write_query(ident, name, type)
            await loop.sock_sendall(sock, len(raw).to_bytes(2, "big") + raw)
            size = int.from_bytes(await exactly(sock, 2), "big")
            return message.read_answer(await exactly(sock, size), ident, name, type)


async def _socket(where: tuple[str, int], kind: int) -> socket.socket:
    """Return a socket connected to ``where``, an address literal. Raises OSError."""
    family, _, _, _, target = socket.getaddrinfo(
        *where, type=kind, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


async def exactly(sock: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes from a stream. Raises OSError, also when it ends before."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while len(got) < size:
        data = await loop.sock_recv(sock, size - len(got))
        if not data:
            raise ConnectionResetError("the connection was closed")
        got += data
    return bytes(got)
