"""How a secret's value could come back, a budget be passed over, and what was revoked go on: none of them does."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest

from remit_daemon.gateway.http import secrets as vault
from remit_daemon.gateway.http import serve
from remit_policy.model import ALLOW, USER, Rule, Secret, Snapshot
from unit.gateway.http.worlds import AT, GET, HOST, PORT, RULES, Agent, Server, World, plain, run, snapshot

VALUE = "tok_Ab/12+cd34EF56=="
SECRETS = RULES + "allow use secret:it"


def secret(position: str, value: str = VALUE) -> tuple[Secret, ...]:
    command = ("/usr/bin/printf", value)
    return (Secret("it", "command", command, "TOKEN", (AT,), position, "", "test:9"),)


def line(position: str, placeholder: str) -> str:
    if position == "basic":
        return "Authorization: Basic " + base64.b64encode(f"me:{placeholder}".encode()).decode()
    return f"Authorization: Bearer {placeholder}"


def said(raw: bytes) -> bytes:
    return raw.split(b"Authorization: ")[1].split(b"\r")[0]


def body(text: bytes, *fields: bytes) -> bytes:
    head = b"".join(f + b"\r\n" for f in (b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(text), *fields))
    return head + b"\r\n" + text


def chunks(raw: bytes) -> bytes:
    """The echo, a byte a chunk, and once more in a trailer."""
    text = said(raw)
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % c for c in text)
        + b"0\r\nX-Said: " + text + b"\r\n\r\n"
    )  # fmt: skip


ECHOES: dict[str, Callable[[bytes], bytes]] = {
    "body": lambda raw: body(said(raw)),
    "field": lambda raw: body(b"", b"X-Said: " + said(raw)),
    "field's name": lambda raw: body(b"", base64.b16encode(said(raw))[:1] + b": x"),
    "reason": lambda raw: b"HTTP/1.1 200 " + said(raw) + b"\r\nContent-Length: 0\r\n\r\n",
    "redirect": lambda raw: b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /?" + quote(said(raw)).encode() + b"\r\n\r\n",
    "continue": lambda raw: b"HTTP/1.1 103 Early\r\nLink: " + said(raw) + b"\r\n\r\n" + body(b""),
    "chunks and trailer": chunks,
    "no status line": lambda raw: said(raw) + b"\r\n\r\n",
    "field with a NUL": lambda raw: body(b"", b"X-Said: \0" + said(raw)),
    "compressed": lambda raw: body(gzip.compress(said(raw)), b"Content-Encoding: gzip"),
    "in a URL": lambda raw: body(quote(said(raw), safe="").encode()),
    "in a URL, lower": lambda raw: body(b"key=" + quote(said(raw), safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d").encode()),
    "in JSON": lambda raw: body(said(raw).replace(b"/", b"\\/")),
    "in base64": lambda raw: body(base64.b64encode(b"x" + VALUE.encode())),
}  # fmt: skip


def betrayed(text: bytes, value: bytes) -> bool:
    """Tell whether ``value`` can be had from ``text``; what is unpacked here is what servers packed."""
    forms = [text, text.replace(b"\\/", b"/")]
    forms += [unquote_to_bytes(f) for f in forms]
    for f in list(forms):
        for word in f.split():
            for cut in range(4):
                try:
                    forms.append(base64.b64decode(word[: len(word) - cut], validate=True))
                except ValueError:
                    pass
    packed = text.find(b"\x1f\x8b")
    if packed >= 0:
        forms.append(gzip.decompress(text[packed:]))
    return any(value in f for f in forms)


@pytest.mark.parametrize("position", ["bearer", "basic"])
@pytest.mark.parametrize("how", ECHOES)
def test_the_value_does_not_come_back(tmp_path: Path, how: str, position: str) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET, line(position, world.ctx.placeholders["TOKEN"]), "Connection: close")
        answer = await agent.rest()
        sent = server.seen[0]
        assert betrayed(sent, VALUE.encode())
        assert answer.startswith(b"HTTP/1.1 ")
        assert not betrayed(answer, VALUE.encode())

    world = run(tmp_path, act, policy=SECRETS, answer=ECHOES[how], secrets=secret(position))
    assert VALUE.encode() not in world.journal.read_bytes()


def test_parts_and_compression_are_not_asked_for(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET, "Range: bytes=0-9", "If-Range: x", "Accept-Encoding: br")
        await agent.hear()
        head = server.seen[0].lower()
        assert b"range" not in head
        assert b"accept-encoding: identity" in head

    run(tmp_path, act, policy=SECRETS, secrets=secret("bearer"))


def test_a_web_socket_does_not_say_it(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(
            "GET /socket HTTP/1.1", f"Host: {AT}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Extensions: permessage-deflate", line("bearer", world.ctx.placeholders["TOKEN"]),
        )  # fmt: skip
        assert (await agent.hear())[0] == 101
        assert b"deflate" not in server.seen[0]
        agent.writer.write(b"\x81\x00")
        assert VALUE.encode() not in await agent.reader.readexactly(2 + len(VALUE))

    def answer(raw: bytes) -> bytes:
        switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        return switch if b"GET" in raw else b"\x81%c" % len(VALUE) + VALUE.encode()

    run(tmp_path, act, policy=SECRETS, answer=answer, secrets=secret("bearer"))


def test_a_value_that_no_field_can_have_is_not_repeated(tmp_path: Path) -> None:
    value = "first line\nsecond line"

    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET, line("bearer", world.ctx.placeholders["TOKEN"]))
        answer = await agent.rest()
        assert b"second line" not in answer
        assert b"cannot be had" in answer
        assert not server.seen

    world = run(tmp_path, act, policy=SECRETS, secrets=secret("bearer", value))
    assert b"second line" not in world.journal.read_bytes()


def test_a_long_value_is_looked_for_in_little_time() -> None:
    value = b"{" + b"a" * 16_000
    found = vault.Scrub([vault.Entry(secret("bearer")[0], value, "")])
    assert found.feed(b"a" * (1 << 20)) + found.feed(b"", last=True) == b"a" * (1 << 20)


def budget(text: str, size: int, op: str) -> Snapshot:
    """Return rules whose ``op`` may move ``size`` bytes an hour."""
    rules = tuple(
        Rule(USER, ALLOW, r.op, r.pattern, budget=(size, 3600), source=r.source) if r.op == op else r
        for r in snapshot(text).rules
    )
    return Snapshot("t", rules, hold=1)


def test_a_budget_counts_bodies(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        world.authority.adopt(budget(RULES, 20_000, "request"))
        sock, _ = world.connect(HOST)
        agent = await Agent(sock).plain()
        for _ in range(8):
            await agent.say("POST /ok/1 HTTP/1.1", f"Host: {AT}", "Content-Length: 9000", body=b"x" * 9000)
            if not await asyncio.wait_for(agent.reader.read(100), 5):
                break
        assert sum(map(len, server.seen)) < 40_000

    run(tmp_path, act)


def proxied(world: World) -> tuple[socket.socket, asyncio.Task[None]]:
    """Return a client's connection to the explicit proxy, and who serves it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    async def run() -> None:
        with theirs:  # as whoever accepts does
            await serve.serve_proxy(world.ctx, theirs, world.origin)

    return ours, asyncio.ensure_future(run())


POST = (f"POST http://free.example:{PORT}/x HTTP/1.1", f"Host: free.example:{PORT}", "Content-Length: 9000")
FREE = f"allow connect free.example:{PORT}"


def test_a_budget_counts_what_goes_through_the_proxy(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        world.authority.adopt(budget(FREE, 20_000, "connect"))
        sock, _serving = proxied(world)
        agent = await Agent(sock).plain()
        for _ in range(8):
            await agent.say(*POST, body=b"x" * 9000)
            if not (await agent.rest() if agent.reader.at_eof() else await agent.reader.read(100)):
                break
        assert 9000 < sum(map(len, server.seen)) < 40_000

    run(tmp_path, act)


def test_each_connection_of_the_proxy_is_recorded(tmp_path: Path) -> None:
    """By turns to two hosts: each time there is a new connection."""

    async def act(world: World, server: Server) -> None:
        sock, _serving = proxied(world)
        agent = await Agent(sock).plain()
        for host in ("free.example", "more.example") * 3:
            await agent.say(f"GET http://{host}:{PORT}/x HTTP/1.1", f"Host: {host}:{PORT}")
            assert (await agent.hear())[0] == 200

    world = run(tmp_path, act, policy=f"{FREE}\nallow connect more.example:{PORT}")
    assert len([r for r in world.rows() if r[0] == "connect"]) == 6


@pytest.mark.parametrize("kind", ["tunnel", "request"])
def test_what_is_revoked_ends_in_the_proxy(tmp_path: Path, kind: str) -> None:
    async def act(world: World, server: Server) -> None:
        sock, serving = proxied(world)
        agent = await Agent(sock).plain()
        if kind == "tunnel":
            await agent.say(f"CONNECT free.example:{PORT} HTTP/1.1", f"Host: free.example:{PORT}")
            assert (await agent.hear())[0] == 200
            agent.writer.write(b"\0raw\0")
            await agent.reader.readexactly(4)
        else:
            await agent.say(*POST, body=b"x" * 9000)
            assert (await agent.hear())[0] == 200
        before = len(server.seen)
        world.authority.adopt(snapshot(f"deny connect free.example:{PORT}"))
        await asyncio.wait({serving}, timeout=5)
        assert serving.cancelled()
        agent.writer.write(b"\0more\0")
        assert await agent.rest() == b""
        assert len(server.seen) == before

    run(tmp_path, act, policy=FREE)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host"])
def test_connection_takes_away_nothing_that_frames(tmp_path: Path, name: str) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(
            "POST /ok/1 HTTP/1.1", f"Host: {AT}", "Content-Length: 3", f"Connection: x, {name}", body=b"abc"
        )
        assert (await agent.refused())["rule"] == "built-in: HTTP"
        assert not server.seen

    run(tmp_path, act)


def test_a_malformed_chunk_is_a_refusal_not_a_fault(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        sock, serving = world.connect(HOST)
        agent = await Agent(sock).plain()
        await agent.say(
            "POST /ok/1 HTTP/1.1", f"Host: {AT}", "Transfer-Encoding: chunked", body=b"zz\r\nabc"
        )
        assert (await agent.refused())["rule"] == "built-in: HTTP"
        await serving

    run(tmp_path, act, answer=lambda raw: b"")


def test_nothing_is_said_in_the_middle_of_a_response(tmp_path: Path) -> None:
    """An error after its head would be read as its body."""

    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET)
        assert b"X-Remit" not in await agent.rest()

    run(
        tmp_path,
        act,
        answer=lambda raw: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    )
