"""One session's gateway in this process: a real Authority, journal and HTTP part; scripted servers on loopback in place of
the internet. ``World.connect`` is an agent's own connection, ``World.proxy`` one to the explicit proxy.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from remit_daemon.gateway.accept import revoke
from remit_daemon.gateway.authority import Authority, Origin, Permit, Refused
from remit_daemon.gateway.context import Context
from remit_daemon.gateway.http import ca, serve
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_policy.layers import PolicySet
from remit_policy.model import USER, Snapshot
from remit_policy.reading import read_document

ORIGIN = Origin(7, "99", "/usr/bin/agent", "agent", ("agent",))
SECONDS = 20.0  # for a whole test; none waits for it
VARIABLES = dict.fromkeys(
    ("HOME", "PROJECT", "TMPDIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
    "/home/ada",
)  # fmt: skip


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine to its end."""
    return asyncio.run(asyncio.wait_for(work, SECONDS))


def policy(text: str) -> Snapshot:
    """Return the snapshot of agent ``probe`` under a user's policy ``text``, without packs."""
    head = 'version = 1\n[agent.probe]\nmatch = { name = "probe" }\nroles = ["probe"]\n[role.probe]\n'
    source = read_document("user.toml", (head + text).encode())
    return PolicySet([(USER, source)]).snapshot("probe", "", "", VARIABLES)


Handler = Callable[["Heard"], Awaitable[None]]


class Heard:
    """One request at a server: its head, and how to read on and to answer."""

    def __init__(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, site: Site
    ) -> None:
        self.head = head
        self.line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.fields = [tuple(f.split(": ", 1)) for f in fields]
        self.reader = reader
        self.writer = writer
        self.site = site

    def get(self, name: str) -> str:
        return ", ".join(v for n, v in self.fields if n.lower() == name.lower())

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def say(self, body: bytes = b"fine", *fields: str, status: str = "200 OK") -> None:
        more = "".join(f"{f}\r\n" for f in fields)
        await self.send(f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def body(self) -> bytes:
        """Return the whole body by its framing."""
        if self.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(self.get("content-length") or 0))
        out = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            out += (await self.reader.readexactly(size + 2))[:-2]
        while await self.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return out


class Site:
    """A server: ``handler`` answers each request; ``heard`` has them, ``open`` how many connections came."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.heard: list[Heard] = []
        self.connections = 0

    async def start(self, tls: ssl.SSLContext | None) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heard.append(Heard(head, reader, writer, self))
                await self.handler(self.heard[-1])
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        self._server.close()

    @property
    def lines(self) -> list[str]:
        return [h.line for h in self.heard]


class Echo(Site):
    """No HTTP: says ``greeting``, then whatever it hears, in capitals."""

    def __init__(self, greeting: bytes = b"") -> None:
        super().__init__(fine)
        self.greeting = greeting
        self.got = b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            writer.write(self.greeting)
            while data := await reader.read(1 << 16):
                self.got += data
                writer.write(data.upper())
        except OSError:
            pass
        writer.close()


async def fine(heard: Heard) -> None:
    await heard.body()
    await heard.say()


class Client:
    """The agent's end of a connection."""

    def __init__(self, sock: socket.socket, world: World, serving: asyncio.Task[None] | None) -> None:
        self.sock = sock
        self.world = world
        self.serving = serving
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(sock=self.sock)
        return self

    async def tls(self, name: str | None, alpn: tuple[str, ...] = (), ca: bytes | None = None) -> Client:
        """Shake hands for ``name``, trusting remit's authority, or ``ca``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=(ca or serve.certificates(self.world.ctx).pem).decode())
        context.check_hostname = name is not None
        if alpn:
            context.set_alpn_protocols(list(alpn))
        await self.writer.start_tls(context, server_hostname=name)
        return self

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data if isinstance(data, bytes) else data.encode("latin-1"))
        await self.writer.drain()

    async def ask(self, line: str, host: str, *fields: str, body: bytes = b"") -> Reply:
        """Send a request and return its whole response."""
        await self.send(request(line, host, *fields, body=body))
        return await self.reply(head_only=line.startswith("HEAD"))

    async def reply(self, head_only: bool = False) -> Reply:
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = Reply(head)
        if head_only or found.status in (100, 101, 204, 304):
            return found
        if found.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                found.body += (await self.reader.readexactly(size + 2))[:-2]
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                found.trailers.append(line.strip())
        elif found.get("content-length"):
            found.body = await self.reader.readexactly(int(found.get("content-length")))
        else:
            found.body = await self.reader.read()
        return found

    async def rest(self) -> bytes:
        """Return what comes until the end; b"RESET" is put behind it when that is none in order."""
        out = b""
        try:
            while data := await self.reader.read(1 << 16):
                out += data
        except (ConnectionError, ssl.SSLError):
            out += b"RESET"
        return out

    def close(self) -> None:
        self.writer.transport.abort()


class Reply:
    def __init__(self, head: bytes) -> None:
        self.head = head
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.status = int(line.split(" ")[1])
        self.fields = [tuple(f.split(": ", 1)) for f in fields]
        self.body = b""
        self.trailers: list[bytes] = []

    def get(self, name: str) -> str:
        return ", ".join(v for n, v in self.fields if n.lower() == name.lower())

    @property
    def refusal(self) -> dict[str, str]:
        """The refusal that it is, in JSON."""
        assert self.status in (400, 403, 502), (self.head, self.body)
        return dict(json.loads(self.body))


def request(line: str, host: str, *fields: str, body: bytes = b"") -> bytes:
    more = [f"Content-Length: {len(body)}"] if body else []
    lines = [line + " HTTP/1.1", *([f"Host: {host}"] if host else []), *fields, *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class World:
    """The session. ``sites`` are reached by name and port, whatever addresses they have."""

    def __init__(self, path: Path, text: str, env: dict[str, str] | None = None) -> None:
        for name in ("state", "internet"):
            (path / name).mkdir()
        self.path = path
        self.outside = ca.ensure(str(path / "internet"))  # who vouches for servers
        self.asked: list[dict[str, Any]] = []  # frames said to remitd
        self.dialled: list[tuple[str, int]] = []
        self.sites: dict[tuple[str, int], int] = {}
        self.logged: list[str] = []
        self._sites: list[Site] = []
        self._clients: list[Client] = []
        self.authority = Authority(policy(text), Journal(str(path / "journal")), agent="probe")
        self.authority.say = self.asked.append
        log = logging.Logger("test")
        handler = logging.Handler()
        handler.emit = lambda record: self.logged.append(record.getMessage())  # type: ignore[method-assign]
        log.addHandler(handler)
        self.ctx = Context(
            self.authority, self, session="s", agent="probe", state=str(path / "state"), env=env, log=log
        )

    async def __aenter__(self) -> World:
        await serve.prepare_secrets(self.ctx)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.sock.close()
        tasks = [c.serving for c in self._clients if c.serving is not None]
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for site in self._sites:
            site.close()
        faults = [
            d
            for d in done
            if isinstance(d, BaseException)
            and not isinstance(d, Refused | OSError | asyncio.CancelledError)
        ]
        assert not faults, faults  # whatever a client does is a refusal or a closed connection

    async def site(self, host: str, port: int, handler: Handler | Site = fine, *, cert: str = "") -> Site:
        """Start a server for ``host``: TLS where the port is 443, with a certificate for ``cert``."""
        made = handler if isinstance(handler, Site) else Site(handler)
        tls = self.outside.context(cert or host) if port in (443, 8443) else None
        self.sites[host, port] = await made.start(tls)
        self._sites.append(made)
        return made

    # -- the dialler's part ------------------------------------------------------------------------

    async def resolve(self, name: str, origin: Origin) -> list[str]:
        return ["192.0.2.1"]

    async def dial(
        self, host: str, port: int, origin: Origin, *, gone: asyncio.Event | None = None
    ) -> socket.socket:
        self.dialled.append((host, port))
        if (host, port) not in self.sites:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.sites[host, port]))
        return sock

    # -- connections -------------------------------------------------------------------------------

    async def connect(self, *names: str, port: int = 443, ip: str = "192.0.2.1") -> Client:
        """Return a client that connected to an address which ``names`` led to; the bare address without names."""
        agent, ours = await _pair()
        chosen = names[0] if names else ip
        resource = f"{chosen}:{port}"
        permit = await self.authority.permit("connect", resource, ORIGIN)
        upstream = await self.dial(chosen, port, ORIGIN)
        client = Client(agent, self, None)
        client.serving = asyncio.ensure_future(self._transparent(ours, ip, port, names, upstream, permit))
        permit.on_revoked = lambda: revoke(client.serving, ours, upstream)  # type: ignore[arg-type]
        self._clients.append(client)
        return await client.open()

    async def _transparent(
        self, ours: socket.socket, ip: str, port: int, names: tuple[str, ...], upstream: socket.socket, permit: Permit
    ) -> None:  # fmt: skip
        try:
            await serve.serve_transparent(self.ctx, ours, ORIGIN, ip, port, names, upstream, permit)
            permit.done()
        finally:
            upstream.close()
            ours.close()

    async def proxy(self) -> Client:
        """Return a client connected to the explicit proxy."""
        agent, ours = await _pair()

        async def served() -> None:
            try:
                await serve.serve_proxy(self.ctx, ours, ORIGIN)
            finally:
                ours.close()

        client = Client(agent, self, asyncio.ensure_future(served()))
        self._clients.append(client)
        return await client.open()

    async def tunnel(self, target: str) -> Client:
        """Return a client whose CONNECT to ``target`` is answered with 200."""
        client = await self.proxy()
        await client.send(request(f"CONNECT {target}", target))
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        return client

    # -- what is known of it -----------------------------------------------------------------------

    async def question(self) -> dict[str, Any]:
        """Return the first question that is said to remitd, once it is."""
        while not any(f["type"] == "ask" for f in self.asked):
            await asyncio.sleep(0.002)
        return next(f for f in self.asked if f["type"] == "ask")

    async def settled(self, *rows: tuple[str, str, str, str], op: str = "request") -> None:
        """Return when the journal's rows of ``op`` are these."""
        for _ in range(500):
            if self.rows(op) == list(rows):
                return
            await asyncio.sleep(0.002)
        assert self.rows(op) == list(rows)

    def answer(self, verdict: str) -> None:
        """Answer every open question as the person does."""
        for frame in self.authority.questions.frames():
            self.authority.questions.answered(frame["seq"], verdict, "", "p1")

    def answer_soon(self, verdict: str) -> None:
        """Answer the next question when it comes."""

        def said(frame: dict[str, Any]) -> None:
            self.asked.append(frame)
            if frame["type"] == "ask":
                asyncio.get_running_loop().call_soon(self.answer, verdict)

        self.authority.say = said

    def adopt(self, text: str) -> None:
        self.authority.adopt(policy(text))

    def rows(self, op: str = "") -> list[tuple[str, str, str, str]]:
        """Return verdict, outcome, resource and note of the journal's acts, completed as they are now."""
        acts: dict[str, list[str]] = {}
        for fields, _ in records.unpack((self.path / "journal").read_bytes()):
            if fields[0] == "act":
                acts[fields[1]] = fields
            else:
                acts[fields[1]][5] = fields[3]
        return [(f[4], f[5], f[10], f[14]) for f in acts.values() if not op or f[3] == op]

    def everywhere(self) -> bytes:
        """Return all that this gateway wrote or said, but to servers."""
        return (
            (self.path / "journal").read_bytes()
            + json.dumps(self.asked).encode()
            + "\n".join(self.logged).encode()
        )


async def _pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        agent = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    for sock in (agent, ours):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return agent, ours


__all__ = [
    "ORIGIN",
    "Client",
    "Echo",
    "Heard",
    "Reply",
    "Site",
    "World",
    "fine",
    "policy",
    "request",
    "run",
]
