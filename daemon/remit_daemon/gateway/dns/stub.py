"""The resolver's two doors: a UDP socket and a TCP listener on loopback, both made by the supervisor.

Who asks is known by the port that the supervisor announced; a query of anybody else is passed over, a connection of
anybody else closed.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from remit_daemon.gateway.dns.message import MAX_QUERY
from remit_daemon.gateway.dns.upstream import exactly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remit_daemon.gateway.authority import Origin
    from remit_daemon.gateway.dns.resolver import Resolver

MAX_QUERIES = 512  # answered at once; a client that sees one dropped asks again after 5 s
MAX_BATCH = 64  # datagrams read in one go, so that a flood leaves time for the rest of the loop
IDLE = 10.0  # seconds that a TCP connection may be silent (RFC 7766 6.2.3: a few seconds)
MAX_DATAGRAM = MAX_QUERY + 1  # one more than we take shows that it was longer


class UdpStub:
    """The UDP door. ``who(port)`` waits for the announcement of the sender's port; None: unknown."""

    def __init__(
        self, sock: socket.socket, resolver: Resolver, who: Callable[[int], Awaitable[Origin | None]]
    ) -> None:
        self._sock = sock
        self._resolver = resolver
        self._who = who
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._ready)

    def _ready(self) -> None:
        for _ in range(MAX_BATCH):
            try:
                raw, sender = self._sock.recvfrom(MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error for an earlier answer
            if len(self._tasks) < MAX_QUERIES:
                task = self._loop.create_task(self._serve(raw, sender))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, raw: bytes, sender: tuple[str, int]) -> None:
        origin = await self._who(sender[1])
        if origin is None:
            return
        answer = await self._resolver.respond(raw, origin, udp=True)
        if answer:
            try:
                self._sock.sendto(answer, sender)
            except OSError:
                pass  # gone, or its queue is full: it will ask again

    def close(self) -> None:
        """Stop serving."""
        self._loop.remove_reader(self._sock.fileno())
        for task in self._tasks:
            task.cancel()
        self._sock.close()


async def serve_tcp(resolver: Resolver, client: socket.socket, origin: Origin) -> None:
    """Answer the queries of one TCP connection, one after another (RFC 1035 4.2.2), and close it."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            async with asyncio.timeout(IDLE):
                size = int.from_bytes(await exactly(client, 2), "big")
                if size > MAX_QUERY:
                    return
                raw = await exactly(client, size)
            answer = await resolver.respond(raw, origin, udp=False)
            if not answer:
                return
            async with asyncio.timeout(IDLE):
                await loop.sock_sendall(client, len(answer).to_bytes(2, "big") + answer)
    except (OSError, TimeoutError):
        pass
    finally:
        client.close()
