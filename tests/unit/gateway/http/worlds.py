"""A gateway's HTTP part with real policy, a real journal and real servers on the loopback; only the way there is made up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway.authority import Authority, Origin, Refused
from remit_daemon.gateway.context import Context
from remit_daemon.gateway.http import serve
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_policy.model import USER, VERDICTS, Rule, Secret, Snapshot
from system.site import certificate

PORT = 8443  # that the agent means, whatever the servers of the test really have
HOST = "localhost"  # the name on the test's certificate
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"


def snapshot(text: str, secrets: tuple[Secret, ...] = ()) -> Snapshot:
    """Return the rules of ``text``: lines of verdict, operation, pattern."""
    rules = [
        Rule(USER, VERDICTS.index(verdict), op, pattern, source=f"test:{n}")
        for n, (verdict, op, pattern) in enumerate((w.split(None, 2) for w in text.strip().splitlines()), 1)
    ]
    return Snapshot("t", tuple(rules), hold=20, secrets=secrets)


class Server:
    """Answers each request head (or first bytes) with what ``answer`` makes of it; ``seen`` has them all."""

    def __init__(self, answer: Callable[[bytes], bytes], tls: ssl.SSLContext | None) -> None:
        self.seen: list[bytes] = []
        self._answer = answer
        self._tls = tls
        self.port = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.seen.append(data)
                writer.write(self._answer(data))
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


class World:
    """One session's gateway. ``asked`` has the questions that went to remitd."""

    def __init__(self, directory: Path, policy: str, secrets: tuple[Secret, ...] = ()) -> None:
        self.directory = directory
        self.journal = directory / "journal"
        self.authority = Authority(snapshot(policy, secrets), Journal(str(self.journal)))
        self.asked: list[dict[str, Any]] = []
        self.authority.say = self.asked.append
        self.origin = Origin(7, "99", "/usr/bin/x", "x")
        self.ctx = Context(self.authority, self, state=str(directory), session="s")
        self._serving: list[asyncio.Task[None]] = []
        self.to = 0  # where every host really is
        self.trust, server = certificate(str(directory))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(server)

    async def dial(self, host: str, port: int, origin: Origin, **_: object) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.to))
        return sock

    async def resolve(self, name: str, origin: Origin) -> list[str]:
        return ["127.0.0.1"]

    def connect(self, *names: str, ip: str = "192.0.2.1") -> tuple[socket.socket, asyncio.Task[None]]:
        """Return the agent's end of a connection that ``names`` led to, and who serves it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        async def run() -> None:
            try:
                await serve.serve_transparent(self.ctx, theirs, self.origin, ip, PORT, names, None, None)
            except (Refused, OSError):
                pass
            finally:
                theirs.close()

        serving = asyncio.ensure_future(run())
        self._serving.append(serving)  # the loop itself keeps none
        return ours, serving

    def rows(self) -> list[list[str]]:
        """Return (op, verdict, outcome, resource, note) of the acts."""
        found = [f for f, _ in records.unpack(self.journal.read_bytes()) if f[0] == "act"]
        return [[f[3], f[4], f[5], f[10], f[14]] for f in found]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    """Have the gateway trust the world's certificates, as by the person's SSL_CERT_FILE."""

    def trust(world: World) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", world.trust)
        serve._trusting.cache_clear()

    return trust


class Agent:
    """A client over a connection of a ``World``: what it sends, and what comes back."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def tls(self, world: World, name: str | None = HOST) -> Agent:
        """Speak TLS from now on, trusting what sessions trust."""
        context = ssl.create_default_context(cafile=os.path.join(world.directory, "ca.pem"))
        if name is None:
            context.check_hostname = False
        self.reader, self.writer = await asyncio.open_connection(
            sock=self._sock, ssl=context, server_hostname=name or ""
        )
        return self

    async def plain(self) -> Agent:
        self.reader, self.writer = await asyncio.open_connection(sock=self._sock)
        return self

    async def say(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body)
        await self.writer.drain()

    async def hear(self) -> tuple[int, bytes]:
        """Return the status and the body of one answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        size = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        return int(head.split()[1]), await self.reader.readexactly(size)

    async def refused(self) -> dict[str, str]:
        """Return the body of a refusal."""
        status, body = await self.hear()
        assert status in (400, 403, 502), body
        found: dict[str, str] = json.loads(body)
        return found

    async def rest(self) -> bytes:
        """Return what comes until the end."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""


AT = f"{HOST}:{PORT}"
RULES = f"""
allow connect {AT}
allow request GET {AT}/ok/**
allow request POST {AT}/ok/**
ask request GET {AT}/asked
allow request WEBSOCKET {AT}/socket
"""
GET = ("GET /ok/1 HTTP/1.1", f"Host: {AT}")
Trust = Callable[[World], None]


def run(
    tmp_path: Path,
    act: Callable[[World, Server], Coroutine[Any, Any, None]],
    trusting: Trust | None = None,
    policy: str = RULES,
    answer: Callable[[bytes], bytes] = lambda raw: OK,
    secrets: tuple[Secret, ...] = (),
) -> World:
    """Run ``act`` with a world and a server, over TLS when it is ``trusting``."""

    async def main() -> World:
        world = World(tmp_path, policy, secrets)
        if trusting:
            trusting(world)
        await serve.prepare_secrets(world.ctx)
        serve.certificates(world.ctx)
        async with Server(answer, world.tls if trusting else None) as server:
            world.to = server.port
            await asyncio.wait_for(act(world, server), 20)
        return world

    return asyncio.run(main())


async def plain(world: World, *names: str) -> Agent:
    return await Agent(world.connect(*(names or (HOST,)))[0]).plain()
