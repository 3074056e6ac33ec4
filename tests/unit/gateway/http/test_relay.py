"""Bytes between two sockets that go past us, and the streams for those that do not."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from remit_daemon.gateway.http.relay import PIPE, relay
from remit_daemon.gateway.http.streams import Plain, Tls
from system.site import certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Sockets = tuple[socket.socket, socket.socket]


LIMIT = 20.0  # seconds for one test


def pairs() -> tuple[Sockets, Sockets]:
    """Return an agent's connection and a server's, each as (their end, ours)."""
    made = socket.socketpair(), socket.socketpair()
    for sock in (*made[0], *made[1]):
        sock.setblocking(False)
    return made


def go(test: Callable[[Sockets, Sockets], Awaitable[None]]) -> None:
    """Run ``test``; no descriptor is left open by what it tests."""

    async def whole() -> None:
        agent, server = pairs()
        before = len(os.listdir("/proc/self/fd"))
        try:
            await asyncio.wait_for(test(agent, server), LIMIT)
            assert len(os.listdir("/proc/self/fd")) == before
        finally:
            for sock in (*agent, *server):
                sock.close()

    asyncio.run(whole())


async def all_of(sock: socket.socket) -> bytes:
    out = b""
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        out += data
    return out


def test_each_direction_ends_by_itself() -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        loop = asyncio.get_running_loop()
        relaying = asyncio.ensure_future(relay(agent[1], server[1]))
        await loop.sock_sendall(agent[0], b"question")
        agent[0].shutdown(socket.SHUT_WR)
        assert await all_of(server[0]) == b"question"
        assert not relaying.done()
        await loop.sock_sendall(server[0], b"answer")
        server[0].shutdown(socket.SHUT_WR)
        assert await all_of(agent[0]) == b"answer"
        await relaying

    go(test)


def test_nothing_is_lost_towards_one_who_reads_late() -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        loop = asyncio.get_running_loop()
        told: list[int] = []
        relaying = asyncio.ensure_future(relay(agent[1], server[1], lambda n: told.append(n) or True))  # type: ignore[func-returns-value]
        data = os.urandom(8 * PIPE + 12345)

        async def say() -> None:
            await loop.sock_sendall(agent[0], data)
            agent[0].shutdown(socket.SHUT_WR)

        saying = asyncio.ensure_future(say())
        for _ in range(50):  # both pipes fill up meanwhile
            await asyncio.sleep(0)
        assert not saying.done()
        assert sum(told) < len(data)
        assert await all_of(server[0]) == data
        server[0].shutdown(socket.SHUT_WR)
        await asyncio.gather(saying, relaying)
        assert sum(told) == len(data)

    go(test)


def test_a_spent_budget_ends_it() -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        left = [10]

        def count(amount: int) -> bool:
            left[0] -= amount
            return left[0] >= 0

        relaying = asyncio.ensure_future(relay(agent[1], server[1], count))
        await asyncio.get_running_loop().sock_sendall(agent[0], b"12345")
        assert await asyncio.get_running_loop().sock_recv(server[0], 100) == b"12345"
        await asyncio.get_running_loop().sock_sendall(server[0], b"123456")
        with pytest.raises(OSError, match="budget"):
            await relaying
        with pytest.raises(BlockingIOError):
            agent[0].recv(100)  # what is beyond it does not arrive

    go(test)


@pytest.mark.parametrize("reader", [True, False])
def test_one_that_is_gone_ends_it(reader: bool) -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        relaying = asyncio.ensure_future(relay(agent[1], server[1]))
        loop = asyncio.get_running_loop()
        if reader:  # what it said before it went arrives; what is said to it does not
            await loop.sock_sendall(server[0], b"last words")
            server[0].close()
            assert await loop.sock_recv(agent[0], 100) == b"last words"
            await loop.sock_sendall(agent[0], b"x" * 100)
        else:
            server[0].close()
            agent[0].close()
        try:
            await relaying
        except OSError as e:
            assert e.errno in (errno.EPIPE, errno.ECONNRESET)  # noqa: PT017

    # The ends that the test itself closes are its own.
    async def whole() -> None:
        agent, server = pairs()
        try:
            await asyncio.wait_for(test(agent, server), LIMIT)
        finally:
            for sock in (*agent, *server):
                sock.close()

    asyncio.run(whole())


def test_a_relay_that_is_cancelled_lets_go_of_the_sockets() -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        relaying = asyncio.ensure_future(relay(agent[1], server[1]))
        await asyncio.sleep(0)
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        await asyncio.get_running_loop().sock_sendall(agent[0], b"still here")
        assert await asyncio.get_running_loop().sock_recv(agent[1], 100) == b"still here"

    go(test)


# -- TLS over a socket ---------------------------------------------------------------------------------


def serving(pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def shaken(tmp_path: Path, agent: Sockets) -> tuple[Tls, Tls]:
    authority, pem = certificate(str(tmp_path))
    context = ssl.create_default_context(cafile=authority)
    one = Tls(Plain(agent[0]), context, server_side=False, name="localhost")
    other = Tls(Plain(agent[1]), serving(pem), server_side=True)
    await asyncio.gather(one.handshake(), other.handshake())
    return one, other


def test_tls_carries_both_ways_at_once(tmp_path: Path) -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        one, other = await shaken(tmp_path, agent)
        data = os.urandom(3_000_000)

        async def heard(stream: Tls) -> bytes:
            out = b""
            while chunk := await stream.recv():
                out += chunk
            return out

        async def say(stream: Tls) -> None:
            await stream.send(data)
            await stream.end()

        _, _, left, right = await asyncio.gather(say(one), say(other), heard(one), heard(other))
        assert left == right == data

    go(test)


def test_what_is_no_tls_is_a_fault_of_the_connection(tmp_path: Path) -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        _, other = await shaken(tmp_path, agent)
        await asyncio.get_running_loop().sock_sendall(agent[0], b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(OSError, match="TLS"):
            await other.recv()

    go(test)


@pytest.mark.parametrize("said", [b"", b"\x16\3\1", b"\x16\3\1\0\5hello", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_handshake_that_breaks_off_is_an_error(tmp_path: Path, said: bytes) -> None:
    async def test(agent: Sockets, server: Sockets) -> None:
        context = serving(certificate(str(tmp_path))[1])
        await asyncio.get_running_loop().sock_sendall(agent[0], said)
        agent[0].shutdown(socket.SHUT_WR)
        with pytest.raises(OSError):  # of which ssl.SSLError is one
            await Tls(Plain(agent[1]), context, server_side=True).handshake()

    go(test)
