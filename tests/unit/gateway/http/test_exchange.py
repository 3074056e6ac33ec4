"""Requests carried out: streaming, early and broken answers, upgrades, smuggling both ways, revocation, budgets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gateway import Client, Heard, Site, World, fine, request, run
from remit_daemon.gateway.http import exchange, streams

Make = Callable[..., World]

RULES = (
    '[role.probe.net."api.example"]\n'
    'GET = { allow = ["/**"], deny = ["/closed/**"], ask = ["/asked"] }\n'
    'POST = { allow = ["/**"] }\n'
    'WEBSOCKET = { allow = ["/socket"] }\n'
)


def session(world: Make, handler: Callable[[Heard], Any], rules: str = RULES) -> Callable[..., None]:
    """Return a decorator that runs a test with a world, a client of api.example over ended TLS, and its server."""

    def decorated(test: Callable[[World, Client, Site], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with world(rules) as w:
                site = await w.site("api.example", 443, handler)
                client = await (await w.connect("api.example")).tls("api.example")
                await test(w, client, site)

        run(whole())

    return decorated


# -- streaming -------------------------------------------------------------------------------------


def test_events_arrive_before_their_stream_ends(world: Make) -> None:
    async def events(heard: Heard) -> None:
        await heard.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(3):
            await heard.send(b"c\r\ndata: tick\n\n\r\n")
            await heard.reader.readuntil(b"next")  # the client has it: so it says, in its own body

    @session(world, events)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("POST /events", "api.example", "Transfer-Encoding: chunked"))
        await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(3):
            assert b"data: tick" in await client.reader.readuntil(b"tick\n\n")
            await client.send(b"4\r\nnext\r\n")


def test_a_large_body_both_ways(world: Make) -> None:
    async def back(heard: Heard) -> None:
        await heard.say(await heard.body())

    body = bytes(range(256)) * (1 << 13)  # 2 MB

    @session(world, back)
    async def _(w: World, client: Client, site: Site) -> None:
        sending = asyncio.ensure_future(client.send(request("POST /up", "api.example", body=body)))
        assert (await client.reply()).body == body
        await sending
        assert (await client.ask("GET /more", "api.example")).status == 200  # and the connection goes on


def test_expect_100_continue_is_the_servers_own(world: Make) -> None:
    async def expecting(heard: Heard) -> None:
        assert heard.get("expect") == "100-continue"
        if "no" in heard.line:
            await heard.say(b"", "Connection: close", status="417 Expectation Failed")
            raise OSError
        await heard.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await heard.say(await heard.body())

    @session(world, expecting)
    async def _(w: World, client: Client, site: Site) -> None:
        for path in ("/yes", "/no"):
            head = request(f"POST {path}", "api.example", "Expect: 100-continue", "Content-Length: 3")
            await client.send(head)
            first = await client.reply()
            assert first.status == (100 if path == "/yes" else 417)
            if first.status == 100:
                await client.send(b"abc")
                assert (await client.reply()).body == b"abc"


def test_an_answer_before_the_body_is_heard(world: Make) -> None:
    """A server that refuses an upload and closes is heard, however much is on its way."""

    async def refusing(heard: Heard) -> None:
        await heard.say(b"too large", "Connection: close", status="413 Content Too Large")
        raise OSError

    @session(world, refusing)
    async def _(w: World, client: Client, site: Site) -> None:
        sending = asyncio.ensure_future(
            client.send(request("POST /up", "api.example", body=bytes(4_000_000)))
        )
        reply = await client.reply()
        assert (reply.status, reply.body) == (413, b"too large")
        await asyncio.gather(sending, return_exceptions=True)


def test_a_refusal_is_read_whatever_is_still_sent(world: Make) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        # a body in small buffers: its client is in the middle of sending when it is refused
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sending = asyncio.ensure_future(
            client.send(request("PUT /x", "api.example", body=bytes(3_000_000)))
        )
        w.answer_soon("deny")
        assert (await client.reply()).refusal["op"] == "request"
        await sending  # and is let say it all: who is reset in the middle does not read on
        assert not site.heard


# -- several requests ------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_turn(world: Make) -> None:
    async def path(heard: Heard) -> None:
        await heard.say(heard.line.split()[1].encode() + await heard.body())

    @session(world, path)
    async def _(w: World, client: Client, site: Site) -> None:
        whole = b"".join(
            [request("GET /a", "api.example"), request("POST /b", "api.example", body=b"!"), request("GET /c", "api.example"),
             request("GET /closed/d", "api.example"), request("GET /never", "api.example")]
        )  # fmt: skip
        await client.send(whole)
        assert [(await client.reply()).body for _ in range(3)] == [b"/a", b"/b!", b"/c"]
        assert (await client.reply()).status == 403
        assert await client.rest() == b""
        assert site.lines == ["GET /a HTTP/1.1", "POST /b HTTP/1.1", "GET /c HTTP/1.1"]


def test_a_kept_connection_that_its_server_closed(world: Make) -> None:
    async def once(heard: Heard) -> None:
        await heard.say()
        raise OSError  # closes without having said so

    @session(world, once)
    async def _(w: World, client: Client, site: Site) -> None:
        for _ in range(3):
            assert (await client.ask("GET /x", "api.example")).status == 200
            await asyncio.sleep(0.02)
        assert site.connections == 3


def test_what_a_server_says_unasked_answers_nothing(world: Make) -> None:
    async def more(heard: Heard) -> None:
        await heard.say(b"first")
        await heard.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    @session(world, more)
    async def _(w: World, client: Client, site: Site) -> None:
        for _ in range(3):
            assert (await client.ask("GET /x", "api.example")).body == b"first"
            await asyncio.sleep(0.01)


def test_hosts_of_one_proxy_connection(world: Make) -> None:
    async def test() -> None:
        rules = '[role.probe.net]\nconnect = { allow = ["a.example", "b.example"], deny = ["c.example"] }\n'
        async with world(rules) as w:
            a, b = await w.site("a.example", 80), await w.site("b.example", 81)
            client = await w.proxy()
            for url, host in (
                ("http://a.example/1", "a.example"),
                ("http://B.example:81/2", "b.example:81"),
                ("http://a.example/3", "a.example"),
            ):
                assert (await client.ask(f"GET {url}", host)).status == 200
            assert (await client.ask("GET http://c.example/", "c.example")).refusal[
                "resource"
            ] == "c.example:80"
            assert [s.lines for s in (a, b)] == [
                ["GET /1 HTTP/1.1", "GET /3 HTTP/1.1"],
                ["GET /2 HTTP/1.1"],
            ]
            assert {h.get("host") for s in (a, b) for h in s.heard} == {"a.example", "b.example:81"}

    run(test())


def test_a_tunnel_is_held_to_its_host(world: Make) -> None:
    async def test() -> None:
        rules = '[role.probe.net]\nconnect = { allow = ["a.example"], deny = ["c.example"] }\n' + RULES
        async with world(rules) as w:
            await w.site("a.example", 443)
            api = await w.site("api.example", 443)
            client = await (await w.tunnel("a.example:443")).tls("a.example", ca=w.outside.pem)
            assert (await client.ask("GET /", "a.example")).status == 200
            client = await (await w.tunnel("a.example:443")).tls("c.example")
            assert "looked up as a.example" in (await client.ask("GET /", "c.example")).refusal["reason"]
            client = await (await w.tunnel("api.example:443")).tls("api.example")
            assert (await client.ask("GET /x", "api.example")).status == 200
            assert (await client.ask("GET /closed/x", "api.example")).status == 403
            assert api.lines == ["GET /x HTTP/1.1"]
            client = await w.proxy()
            await client.send(request("CONNECT c.example:443", "c.example:443"))
            assert (await client.reply()).refusal["resource"] == "c.example:443"
            client = await w.proxy()
            await client.send(request("CONNECT a.example:444", "a.example:444"))
            assert (await client.reply()).status == 502
            assert ("c.example", 443) not in w.dialled

    run(test())


# -- changes of protocol ---------------------------------------------------------------------------

UPGRADE = ("Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: x")


async def socket_server(heard: Heard) -> None:
    if heard.get("upgrade") != "websocket":
        await heard.body()
        await heard.say(b"plain")
        return
    await heard.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly"
    )
    while data := await heard.reader.read(100):
        await heard.send(data.upper())


def test_websocket_is_a_permission_of_its_own(world: Make) -> None:
    @session(world, socket_server)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("GET /socket", "api.example", *UPGRADE) + b"frame")
        assert (await client.reply()).status == 101
        assert await client.reader.readexactly(10) == b"earlyFRAME"
        await client.send(b"more")
        assert await client.reader.readexactly(4) == b"MORE"
        assert w.rows("request") == [("allow", "pending", "WEBSOCKET https://api.example/socket", "")]
        other = await (await w.connect("api.example")).tls("api.example")
        await other.send(request("GET /elsewhere", "api.example", *UPGRADE))
        assert (await w.question())["path"] == "WEBSOCKET https://api.example/elsewhere"


@pytest.mark.parametrize(
    ("line", "fields", "body"),
    [
        ("DELETE /socket", UPGRADE, b""),
        ("WEBSOCKET /socket", (), b""),
        ("POST /socket", UPGRADE, b"abc"),
        ("GET /socket", UPGRADE, b"abc"),
        ("GET /socket", (*UPGRADE, "Transfer-Encoding: chunked"), b""),
    ],
)
def test_what_is_called_a_websocket_is_one(
    world: Make, line: str, fields: tuple[str, ...], body: bytes
) -> None:
    """Else who may open a socket might do whatever he likes at its path."""

    @session(world, socket_server)
    async def _(w: World, client: Client, site: Site) -> None:
        assert (await client.ask(line, "api.example", *fields, body=body)).status == 400
        assert not site.heard


@pytest.mark.parametrize(
    ("path", "status"),
    [("/@scope%2fname", 200), ("/closed%2fx", 403), ("/open/x", 200), ("/closed/x", 403), ("/a%2f..%2fclosed", 400)],
)  # fmt: skip
def test_an_escaped_slash_is_decided_by_both_readings(world: Make, path: str, status: int) -> None:
    """A registry's scoped names have one; whether the server takes it for a slash is its own affair."""

    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        assert (await client.ask(f"GET {path}", "api.example")).status == status
        assert len(site.heard) == (status == 200)


def test_no_websocket_no_answer(world: Make) -> None:
    @session(world, fine, RULES.replace('"/closed/**"', '"/socket"'))
    async def _(w: World, client: Client, site: Site) -> None:
        reply = await client.ask("GET /socket", "api.example", *UPGRADE)
        assert "did not change" in reply.refusal["reason"]


@pytest.mark.parametrize(
    "fields",
    [("Connection: Upgrade", "Upgrade: h2c"), ("Upgrade: websocket",), ("Connection: x-upgrade", "Upgrade: websocket"),
     ("Connection: upgrade", "Upgrade: h2c, websocket")],
)  # fmt: skip
def test_no_other_change(world: Make, fields: tuple[str, ...]) -> None:
    @session(world, socket_server)
    async def _(w: World, client: Client, site: Site) -> None:
        assert (await client.ask("GET /x", "api.example", *fields)).body == b"plain"
        assert site.heard[0].get("upgrade") == site.heard[0].get("connection") == ""


# -- smuggling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"5\nabcde\n0\n\n\r\n", b"5\r\nabcdeX", b"+5\r\nabcde\r\n0\r\n\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n", b"-1\r\n\r\n", b"\r\n0\r\n\r\n",
        b"5 \x00\r\nabcde\r\n0\r\n\r\n", b"5;\n\r\nabcde\r\n0\r\n\r\n", b"fffffffffffffffffffff\r\n", b"5" * 100_000, b"0\r\nX : y\r\n\r\n",
        b"0\r\n\tfold\r\n\r\n", b"z\r\n", b"5\r\nabcde\r\n0\r\nno colon\r\n\r\n",
    ],
)  # fmt: skip
def test_chunks_of_two_meanings(world: Make, body: bytes) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("POST /x", "api.example", "Transfer-Encoding: chunked") + body)
        assert b" 400 " in (await client.rest()).partition(b"\r\n")[0]
        assert w.rows("request")[-1][0] == "deny"
        assert not w.logged


def test_what_is_sent_on_has_one_reading(world: Make) -> None:
    """Extensions of chunks, trailers, and what Connection names end here."""

    async def body(heard: Heard) -> None:
        await heard.say(await heard.body())

    @session(world, body)
    async def _(w: World, client: Client, site: Site) -> None:
        head = request(
            "POST /x",
            "api.example",
            "Transfer-Encoding: chunked",
            "X-Hop: 1",
            "Connection: x-hop, close",
            "TE: trailers",
            "Trailer: X",
        )
        await client.send(
            head + b'3;a="b\r\nabc\r\n0003\r\ndef\r\n0\r\nX-HTTP-Method-Override: DELETE\r\n\r\n'
        )
        reply = await client.reply()
        assert reply.body == b"abcdef"
        assert {n.lower() for n, _ in site.heard[0].fields} == {"host", "transfer-encoding"}


@pytest.mark.parametrize("named", ["Host", "content-length", "Transfer-Encoding", "close, HOST"])
def test_connection_names_no_framing(world: Make, named: str) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        assert (
            await client.ask("POST /x", "api.example", f"Connection: {named}", body=b"abc")
        ).status == 400
        assert not site.heard


@pytest.mark.parametrize(
    "field",
    [
        "X-HTTP-Method-Override: DELETE",
        "x-method-override: PUT",
        "X-Original-URL: /closed/x",
        "X-Rewrite-URL: /closed/x",
    ],
)
def test_no_other_request_in_a_field(world: Make, field: str) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        assert (await client.ask("POST /x", "api.example", field)).status == 400
        assert not site.heard


def test_no_other_method_in_a_query(world: Make) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        assert (await client.ask("POST /x?a=b&%5Fmethod=DELETE", "api.example")).status == 400
        assert not site.heard


def test_an_empty_host_is_the_one_that_was_decided(world: Make) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(b"GET /x HTTP/1.1\r\nHost:\r\n\r\n")
        assert (await client.reply()).status == 200
        assert site.heard[0].get("host") == "api.example:443"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", 502),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 502),
        (b"HTTP/1.1 99 Low\r\n\r\n", 502),
        (b"nothing of HTTP\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", 502),
        (b"", 502),
    ],
)  # fmt: skip
def test_answers_of_two_meanings(world: Make, answer: bytes, status: int) -> None:
    async def bad(heard: Heard) -> None:
        await heard.send(answer)
        raise OSError

    @session(world, bad)
    async def _(w: World, client: Client, site: Site) -> None:
        reply = await client.ask("GET /x", "api.example")
        assert reply.status == status
        assert not (reply.get("content-length") and reply.get("transfer-encoding"))
        if status == 200:
            assert reply.body == b"abcde"
        else:
            assert reply.refusal["error"] == "bad gateway"
        assert not w.logged


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ],
)  # fmt: skip
def test_a_begun_answer_is_never_followed_by_another(world: Make, answer: bytes) -> None:
    async def broken(heard: Heard) -> None:
        await heard.send(answer)
        raise OSError

    @session(world, broken)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("GET /x", "api.example"))
        found = await client.rest()
        assert found.count(b"HTTP/1.1") == 1
        assert b"abc" in found
        assert b"refused" not in found
        assert b"gateway" not in found
        assert found.endswith(b"RESET")


def test_nothing_is_said_in_the_middle_of_an_answer(world: Make) -> None:
    async def early(heard: Heard) -> None:
        await heard.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await heard.reader.read()

    @session(world, early)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("POST /x", "api.example", "Transfer-Encoding: chunked"))
        await client.reader.readuntil(b"abc\r\n")
        await client.send(b"no chunk\r\n")
        assert await client.rest() == b"RESET"


def test_a_head_that_does_not_end(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "HEAD_WITHIN", 0.2)

    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        async def dribble() -> None:
            for byte in request("GET /x", "api.example", "X: " + "y" * 1000):
                await client.send(bytes([byte]))
                await asyncio.sleep(0.005)

        sending = asyncio.ensure_future(dribble())
        await client.rest()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert not site.heard


def test_a_head_of_many_lines_is_refused_before_it_ends(world: Make) -> None:
    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(b"GET /x HTTP/1.1\r\n" + b"a:\r\n" * 1000)
        assert (await client.reply()).refusal["reason"] == "too many fields"


# -- ends ------------------------------------------------------------------------------------------


async def endless(heard: Heard) -> None:
    await heard.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert await heard.reader.read() == b""
    heard.site.heard.clear()  # it has seen the end
    raise OSError


def test_a_permission_that_is_taken_back_ends_its_request(world: Make) -> None:
    @session(world, endless)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("GET /x", "api.example"))
        await client.reader.readuntil(b"abc\r\n")
        w.adopt(RULES.replace('GET = { allow = ["/**"]', 'GET = { allow = ["/other"]'))
        assert await client.rest() == b"RESET"
        while site.heard:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("kept", [True, False])
def test_a_host_that_is_taken_back_ends_its_tunnels(world: Make, kept: bool) -> None:
    async def test() -> None:
        rules = '[role.probe.net]\nconnect = {{ allow = ["a.example", "{}"] }}\n'
        async with world(rules.format("b.example")) as w:
            await w.site("a.example", 443)
            await w.site("b.example", 80)
            client = await (await w.tunnel("a.example:443")).tls("a.example", ca=w.outside.pem)
            assert (await client.ask("GET /", "a.example")).status == 200
            plain = await w.proxy()
            assert (await plain.ask("GET http://b.example/", "b.example")).status == 200
            w.adopt(
                rules.format("b.example").replace("a.example", "c.example")
                if kept
                else rules.format("c.example")
            )
            gone, stays = (client, plain) if kept else (plain, client)
            assert await gone.rest() == b"RESET"
            line, host = ("GET http://b.example/", "b.example") if kept else ("GET /", "a.example")
            assert (await stays.ask(line, host)).status == 200

    run(test())


def test_a_client_that_leaves_ends_its_request(world: Make) -> None:
    @session(world, endless)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("GET /x", "api.example"))
        await client.reader.readuntil(b"abc\r\n")
        client.close()
        while site.heard:
            await asyncio.sleep(0.002)
        await w.settled(("allow", "gone", "GET https://api.example/x", ""))


def test_a_client_that_only_ends_its_side_is_answered(world: Make) -> None:
    async def test() -> None:
        async def slow(heard: Heard) -> None:
            await asyncio.sleep(0.05)
            await heard.say()

        async with world('[role.probe.net]\nconnect = { allow = ["a.example"] }\n') as w:
            await w.site("a.example", 80, slow)
            client = await w.connect("a.example", port=80)
            await client.send(request("GET /", "a.example", "Connection: close"))
            client.writer.write_eof()
            assert (await client.reply()).body == b"fine"

    run(test())


def test_a_client_of_http_1_0(world: Make) -> None:
    async def chunked(heard: Heard) -> None:
        await heard.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
        )

    @session(world, chunked)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(b"GET /x HTTP/1.0\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert body == b"abc"
        assert b"chunked" not in head
        assert site.heard[0].get("host") == "api.example:443"


@pytest.mark.parametrize("where", ["host", "request", "proxy"])
@pytest.mark.parametrize("up", [True, False])
def test_budgets_count_bodies(world: Make, where: str, up: bool) -> None:
    size = 200_000

    async def big(heard: Heard) -> None:
        await heard.body()
        await heard.say(b"" if up else bytes(size))

    budget = 'budget = "100kB/day"'
    rules = {
        "host": f'[role.probe.net]\nconnect = {{ allow = ["a.example"], {budget} }}\n',
        "proxy": f'[role.probe.net]\nconnect = {{ allow = ["a.example"], {budget} }}\n',
        "request": f'[role.probe.net."a.example"]\nPOST = {{ allow = ["/**"], {budget} }}\n',
    }[where]

    async def test() -> None:
        async with world(rules) as w:
            await w.site("a.example", 80, big)
            client = await (w.proxy() if where == "proxy" else w.connect("a.example", port=80))
            line = "POST http://a.example/x" if where == "proxy" else "POST /x"
            sending = asyncio.ensure_future(
                client.send(request(line, "a.example", body=bytes(size if up else 1)))
            )
            found = await client.rest()
            await asyncio.gather(sending, return_exceptions=True)
            assert len(found) < size
            assert (b"the budget is spent" in found) == up
            assert w.rows()[-1][3] == "the budget is spent"
            again = asyncio.ensure_future(
                w.proxy() if where == "proxy" else w.connect("a.example", port=80)
            )
            if where != "host":
                await (await again).send(request(line, "a.example", body=b"1"))
            assert (await w.question())["path"].endswith(("a.example:80", "a.example/x"))
            w.answer("deny")
            await asyncio.gather(again, return_exceptions=True)

    run(test())


# -- whatever comes --------------------------------------------------------------------------------

PIECES = [
    b"GET ", b"POST ", b"/x", b"/closed/x", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: api.example\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"abcde", b"\n",
    b"\0", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"CONNECT api.example:443", b"GET /x HTTP/1.1\r\nHost: api.example\r\n\r\n",
]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12))
def test_whatever_a_client_says_is_answered_or_ended(pieces: list[bytes]) -> None:
    """No fault of ours, and nothing that was not decided reaches the server."""
    import tempfile
    from pathlib import Path

    async def test() -> None:
        with tempfile.TemporaryDirectory() as directory:
            rules = RULES.replace('"api.example"', '"api.example:80"')
            async with World(Path(directory), rules, {}) as w:
                site = await w.site("api.example", 80, fine)
                client = await w.connect("api.example", port=80)
                await client.send(b"".join(pieces))
                client.writer.write_eof()
                await client.rest()
                await asyncio.gather(client.serving, return_exceptions=True)  # type: ignore[arg-type]
                allowed = [r[2] for r in w.rows("request") if r[0] == "allow"]
                assert len(site.heard) <= len(allowed)
                assert not any("closed" in line for line in site.lines)

    run(test())


def test_lingering_is_bounded(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LINGER", 0.05)

    @session(world, fine)
    async def _(w: World, client: Client, site: Site) -> None:
        await client.send(request("GET /closed/x", "api.example"))
        await asyncio.gather(client.serving, return_exceptions=True)  # type: ignore[arg-type]


def test_budgets_count_heads(world: Make) -> None:
    rules = '[role.probe.net]\nconnect = { allow = ["a.example"], budget = "100kB/day" }\n'

    async def test() -> None:
        async with world(rules) as w:
            site = await w.site("a.example", 80)
            client = await w.connect("a.example", port=80)
            for _ in range(20):
                if (await client.ask("GET /x", "a.example", "X-Data: " + "a" * 10_000)).status == 403:
                    break
            assert 5 < len(site.heard) < 11

    run(test())
