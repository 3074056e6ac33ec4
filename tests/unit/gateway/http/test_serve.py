"""Connections that are looked into: which requests pass, which are held, and what is made of those that say two things."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway.http import exchange, serve
from remit_policy.model import Secret
from unit.gateway.http.worlds import HOST, OK, PORT, Agent, Server, World, snapshot, trusting

__all__ = ["trusting"]

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


def test_requests_of_one_connection_are_decided_one_by_one(tmp_path: Path, trusting: Trust) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await Agent(world.connect(HOST)[0]).tls(world)
        await agent.say(*GET)
        assert await agent.hear() == (200, b"fine")
        await agent.say("POST /ok/2 HTTP/1.1", f"Host: {AT}", "Content-Length: 3", body=b"abc")
        assert await agent.hear() == (200, b"fine")
        await agent.say("POST /other HTTP/1.1", f"Host: {AT}", "Content-Length: 3", body=b"abc")
        pending = asyncio.ensure_future(agent.refused())
        while not world.asked:
            await asyncio.sleep(0)
        world.authority.answered(world.asked[0]["seq"], "deny", "not that", "p1")
        refusal = await pending
        assert refusal["resource"] == f"POST https://{AT}/other"
        assert "not that" in refusal["reason"]
        assert b"/other" not in b"".join(server.seen)
        assert await agent.rest() == b""

    world = run(tmp_path, act, trusting)
    assert [r[:4] for r in world.rows() if r[0] == "request"] == [
        ["request", "allow", "pending", f"GET https://{AT}/ok/1"],
        ["request", "allow", "pending", f"POST https://{AT}/ok/2"],
        ["request", "ask", "held", f"POST https://{AT}/other"],
    ]


def test_a_held_request_goes_on_when_it_is_allowed(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say("GET /asked HTTP/1.1", f"Host: {AT}")
        while not world.asked:
            await asyncio.sleep(0)
        assert not server.seen
        world.authority.answered(world.asked[0]["seq"], "allow", "", "p1")
        assert await agent.hear() == (200, b"fine")

    run(tmp_path, act)


def test_a_held_request_ends_with_its_client(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        sock, serving = world.connect(HOST)
        agent = await Agent(sock).plain()
        await agent.say("GET /asked HTTP/1.1", f"Host: {AT}")
        while not world.asked:
            await asyncio.sleep(0)
        agent.writer.transport.abort()
        await serving
        assert [f["type"] for f in world.asked] == ["ask", "cancel"]
        assert not server.seen

    run(tmp_path, act)


def test_a_later_snapshot_holds_for_the_next_request(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET)
        assert await agent.hear() == (200, b"fine")
        world.authority.adopt(snapshot(f"allow connect {AT}\ndeny request * {AT}/**"), 2)
        await agent.say(*GET)
        assert (await agent.refused())["rule"] == "test:2"
        assert len(server.seen) == 1

    run(tmp_path, act)


def test_pipelined_requests_are_answered_in_turn(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET, "", *GET, "", "DELETE /ok/1 HTTP/1.1", f"Host: {AT}", "", *GET)
        assert await agent.hear() == (200, b"fine")
        assert await agent.hear() == (200, b"fine")
        while not world.asked:
            await asyncio.sleep(0)
        world.authority.answered(world.asked[0]["seq"], "deny", "", "p1")
        assert (await agent.refused())["op"] == "request"
        assert await agent.rest() == b""
        assert b"DELETE" not in b"".join(server.seen)

    run(tmp_path, act)


@pytest.mark.parametrize(
    "host", ["other.example", f"other.example:{PORT}", f"{HOST}:80", "127.0.0.2", f"{HOST}.other.example"]
)
def test_host_must_be_the_one_that_led_here(tmp_path: Path, host: str) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world, "led.example")
        await agent.say("GET /ok/1 HTTP/1.1", f"Host: {host}")
        assert (await agent.refused())["rule"] == "built-in: the host that is meant"
        assert not server.seen

    run(tmp_path, act, policy=RULES + "allow connect *\nallow request GET led.example/**")


def test_host_must_be_the_one_that_tls_named(tmp_path: Path, trusting: Trust) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await Agent(world.connect(HOST, "other.example")[0]).tls(world)
        await agent.say("GET /ok/1 HTTP/1.1", f"Host: other.example:{PORT}")
        assert "TLS named localhost" in (await agent.refused())["reason"]
        assert not server.seen

    run(tmp_path, act, trusting, RULES + "allow connect *")


def test_tls_must_name_what_led_here(tmp_path: Path, trusting: Trust) -> None:
    """The refusal is said over TLS, to a client that trusts the session's certificates."""

    async def act(world: World, server: Server) -> None:
        agent = await Agent(world.connect("led.example")[0]).tls(world)
        await agent.say(*GET)
        assert "looked up as led.example" in (await agent.refused())["reason"]
        assert not server.seen

    run(tmp_path, act, trusting, RULES + "allow connect *")


def test_tls_without_a_name_is_a_host_unknown(tmp_path: Path, trusting: Trust) -> None:
    async def act(world: World, server: Server) -> None:
        with pytest.raises(OSError):
            await Agent(world.connect(HOST)[0]).tls(world, None)
        assert not server.seen

    world = run(tmp_path, act, trusting)
    assert any("the host is unknown" in r[4] for r in world.rows())


def test_a_server_that_cannot_prove_itself_is_not_told_anything(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await Agent(world.connect(HOST)[0]).tls(world)
        await agent.say(*GET)
        refusal = await agent.refused()
        assert refusal["error"] == "bad gateway"
        assert "certificate" in refusal["reason"]

    async def over_tls(world: World, server: Server) -> None:
        async with Server(lambda raw: OK, world.tls) as untrusted:
            world.to = untrusted.port
            await act(world, untrusted)
            assert not untrusted.seen

    serve._trusting.cache_clear()
    run(tmp_path, over_tls)
    serve._trusting.cache_clear()


def test_a_client_that_pins_is_told_why_in_the_ledger(tmp_path: Path) -> None:
    import ssl

    async def act(world: World, server: Server) -> None:
        sock, serving = world.connect(HOST)
        with pytest.raises(OSError):
            await asyncio.open_connection(sock=sock, ssl=ssl.create_default_context(), server_hostname=HOST)
        await serving

    world = run(tmp_path, act)
    assert any("pinning" in r[4] for r in world.rows())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 9\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nfine",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 4\r\n\r\nfine",
        b"no HTTP at all\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_ends_the_connection(tmp_path: Path, answer: bytes) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET, "", *GET)
        rest = await agent.rest()
        assert b"fine" not in rest, rest
        assert len(server.seen) == 1, rest

    run(tmp_path, act, answer=lambda raw: answer)


def test_what_follows_an_answer_answers_nothing(tmp_path: Path) -> None:
    """A server that sends a second answer early does not choose what the next request gets."""

    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET)
        assert await agent.hear() == (200, b"fine")
        await agent.say(*GET)
        status, body = await agent.hear()
        assert (status, body) != (200, b"evil")

    evil = OK.replace(b"fine", b"evil")
    run(tmp_path, act, answer=lambda raw: OK + evil)


@pytest.mark.parametrize(
    "line",
    [
        "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin", "Transfer-Encoding: chunked, identity", "Content-Length: 3, 4",
    ],
)  # fmt: skip
def test_a_second_meaning_is_refused(tmp_path: Path, line: str) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say("POST /ok/1 HTTP/1.1", f"Host: {AT}", line)
        assert (await agent.refused())["rule"] == "built-in: HTTP"
        assert not server.seen

    run(tmp_path, act)


def test_what_connection_names_goes_no_further(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(
            *GET, "Connection: keep-alive, X-Hop", "X-Hop: 1", "X-Kept: 1", "Upgrade: h2c", "TE: trailers"
        )
        assert await agent.hear() == (200, b"fine")
        head = server.seen[0].lower()
        assert b"x-kept" in head
        assert not any(name in head for name in (b"x-hop", b"upgrade", b"te:"))

    run(tmp_path, act)


def test_a_chunked_body_arrives_without_its_extensions(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        body = b'3;x="\r\n'.replace(b'"', b"") + b"abc\r\n0\r\n\r\n"
        await agent.say("POST /ok/1 HTTP/1.1", f"Host: {AT}", "Transfer-Encoding: chunked", body=body)
        assert await agent.hear() == (200, b"fine")
        assert b"abc" in b"".join(server.seen)
        assert b";x=" not in b"".join(server.seen)

    run(tmp_path, act)


def test_a_web_socket_is_a_permission_of_its_own(tmp_path: Path) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    upgrade = (f"Host: {AT}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")

    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say("GET /socket HTTP/1.1", *upgrade)
        assert (await agent.hear())[0] == 101
        agent.writer.write(b"\x81\x00")
        assert await agent.reader.readexactly(4) == b"echo"
        agent.writer.close()
        other = await plain(world)
        await other.say("GET /ok/1 HTTP/1.1", *upgrade)
        while not world.asked:
            await asyncio.sleep(0)
        assert world.asked[0]["path"] == f"WEBSOCKET http://{AT}/ok/1"
        world.authority.answered(world.asked[0]["seq"], "deny", "", "p1")
        assert (await other.refused())["op"] == "request"

    run(tmp_path, act, answer=lambda raw: switch if b"GET" in raw else b"echo")


def test_a_head_must_come_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly it is sent on: the time is for the whole head."""
    monkeypatch.setattr(exchange, "HEAD_WITHIN", 0.5)

    async def act(world: World, server: Server) -> None:
        sock, serving = world.connect(HOST)
        agent = await Agent(sock).plain()
        await agent.say(*GET[:1])
        agent.writer.write(b"X: ")
        while not serving.done():
            await asyncio.wait({serving}, timeout=0.1)
            agent.writer.write(b"y")
        assert not server.seen

    run(tmp_path, act)


def test_another_protocol_goes_to_a_host_without_rules_alone(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world, "free.example")
        agent.writer.write(b"\0binary\0")
        assert await agent.reader.readexactly(len(OK)) == OK
        assert server.seen == [b"\0binary\0"]
        other = await plain(world)
        other.writer.write(b"\0binary\0")
        assert await other.rest() == b""
        assert len(server.seen) == 1

    world = run(tmp_path, act, policy=RULES + f"allow connect free.example:{PORT}")
    assert any("this is no HTTP" in r[4] for r in world.rows())


def test_every_name_that_led_here_must_be_allowed_where_none_is_named(tmp_path: Path) -> None:
    """Two names of one address: what names no host could be for either."""

    async def act(world: World, server: Server) -> None:
        agent = await plain(world, "free.example", "denied.example")
        agent.writer.write(b"\0binary\0")
        assert await agent.rest() == b""
        assert not server.seen

    run(tmp_path, act, policy=f"allow connect free.example:{PORT}\ndeny connect denied.example")


# -- secrets ---------------------------------------------------------------------------------------

VALUE = "sk-" + "0123456789abcdef" * 2


def secret(position: str = "bearer", *hosts: str) -> tuple[Secret, ...]:
    command = ("/bin/echo", VALUE)
    return (Secret("it", "command", command, "TOKEN", hosts or (AT,), position, "", "test:9"),)


def test_the_value_goes_to_its_host_alone(tmp_path: Path) -> None:
    async def act(world: World, server: Server) -> None:
        placeholder = world.ctx.placeholders["TOKEN"]
        agent = await plain(world)
        await agent.say(*GET, f"Authorization: Bearer {placeholder}")
        status, body = await agent.hear()
        assert (status, body) == (200, placeholder.encode())  # the server's echo of it, taken out again
        assert f"Bearer {VALUE}".encode() in server.seen[0]
        other = await plain(world, "free.example")
        await other.say(
            "GET / HTTP/1.1", f"Host: free.example:{PORT}", f"Authorization: Bearer {placeholder}"
        )
        assert (await other.refused())["resource"] == "secret:it"
        assert len(server.seen) == 1

    def echo(raw: bytes) -> bytes:
        said = raw.split(b"Bearer ")[1].split(b"\r")[0]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said

    rules = (
        RULES
        + f"allow use secret:it\nallow connect free.example:{PORT}\nallow request GET free.example:{PORT}/**"
    )
    world = run(tmp_path, act, policy=rules, answer=echo, secrets=secret())
    assert VALUE.encode() not in world.journal.read_bytes()
    assert ["use", "deny", "refused", "secret:it"] in [r[:4] for r in world.rows()]


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_placeholder_in_a_body_is_found_however_it_is_cut(tmp_path: Path, cut: int) -> None:
    async def act(world: World, server: Server) -> None:
        placeholder = world.ctx.placeholders["TOKEN"].encode()
        agent = await plain(world)
        await agent.say("POST /ok/1 HTTP/1.1", f"Host: {AT}", "Transfer-Encoding: chunked")
        for piece in (placeholder[:cut], placeholder[cut:]):
            agent.writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await agent.writer.drain()
            await asyncio.sleep(0.01)
        agent.writer.write(b"0\r\n\r\n")
        await agent.rest()
        assert placeholder not in b"".join(server.seen).replace(b"\r\n", b"")

    world = run(
        tmp_path, act, policy=RULES + "allow use secret:it", answer=lambda raw: b"", secrets=secret()
    )
    assert ["use", "deny", "refused", "secret:it"] in [r[:4] for r in world.rows()]


@pytest.mark.parametrize(
    ("position", "line"),
    [
        ("bearer", "X-Token: Bearer {}"),
        ("bearer", "Authorization: Basic {}"),
        ("bearer", "Authorization: Bearer x{}"),
        ("header:X-Key", "X-Other: {}"),
        ("header:X-Key", "Cookie: a={}"),
        ("query:key", "X-Key: {}"),
    ],
)
def test_a_placeholder_in_another_place_is_refused(tmp_path: Path, position: str, line: str) -> None:
    async def act(world: World, server: Server) -> None:
        agent = await plain(world)
        await agent.say(*GET, line.format(world.ctx.placeholders["TOKEN"]))
        assert "in a place that is not its own" in (await agent.refused())["reason"]
        assert not server.seen

    run(tmp_path, act, policy=RULES + "allow use secret:it", secrets=secret(position))
