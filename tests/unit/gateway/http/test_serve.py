"""What an agent's connections may mean: pass-through, ended TLS, requests decided one by one, disagreement refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import pytest

from fakes.gateway import Client, Echo, World, request, run
from remit_daemon.gateway.authority import Refused
from remit_daemon.gateway.http import serve

Make = Callable[..., World]


def vector(size: int, raw: bytes) -> bytes:
    return len(raw).to_bytes(size, "big") + raw


def extension(kind: int, raw: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, raw)


def server_name(name: bytes) -> bytes:
    return extension(0, vector(2, b"\0" + vector(2, name)))


def hello(*extensions: bytes) -> bytes:
    """Return a ClientHello of these extensions, in one record."""
    body = (
        b"\3\3"
        + bytes(32)
        + b"\0"
        + vector(2, b"\x13\1")
        + vector(1, b"\0")
        + vector(2, b"".join(extensions))
    )
    return b"\x16\3\1" + vector(2, b"\1" + vector(3, body))


PASS = (
    '[role.probe.net]\nconnect = { allow = ["pass.example", "other.example"], deny = ["denied.example"] }\n'
)
RULES = PASS + (
    '[role.probe.net."api.example"]\n'
    'GET = { allow = ["/open/**", "/events"], ask = ["/asked/**"] }\n'
    'POST = { allow = ["/open/**"] }\n'
    'WEBSOCKET = { allow = ["/open/socket", "/open/not"] }\n'
)


def test_tls_passes_through_undecrypted(world: Make) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            site = await w.site("pass.example", 443)
            client = await w.connect("pass.example")
            await client.tls("pass.example", ca=w.outside.pem)  # the server's own certificate
            assert (await client.ask("GET /x", "pass.example")).body == b"fine"
            assert site.lines == ["GET /x HTTP/1.1"]
            assert w.rows() == [("allow", "pending", "pass.example:443", "")]
            client.close()
            assert client.serving is not None
            await client.serving
            assert w.rows() == [("allow", "ok", "pass.example:443", "")]

    run(test())


def test_requests_of_one_connection_are_decided_one_by_one(world: Make) -> None:
    async def test() -> None:
        async with world(RULES) as w:
            site = await w.site("api.example", 443)
            client = await (await w.connect("api.example")).tls("api.example")
            assert (await client.ask("GET /open/a?q=1", "api.example")).body == b"fine"
            assert (await client.ask("POST /open/b", "api.example", body=b"abc")).body == b"fine"
            assert site.lines == ["GET /open/a?q=1 HTTP/1.1", "POST /open/b HTTP/1.1"]
            assert site.connections == 1
            await w.settled(
                ("allow", "ok", "GET https://api.example/open/a", ""),
                ("allow", "ok", "POST https://api.example/open/b", ""),
            )

    run(test())


def test_a_refusal_is_json(world: Make) -> None:
    async def test() -> None:
        async with world(RULES + 'DELETE = { deny = ["/**"] }\n') as w:
            site = await w.site("api.example", 443)
            client = await (await w.connect("api.example")).tls("api.example")
            found = (await client.ask("DELETE /open/a", "api.example")).refusal
            assert set(found) == {"error", "op", "resource", "reason", "rule", "how"}
            assert (found["op"], found["resource"]) == ("request", "DELETE https://api.example/open/a")
            assert found["rule"].startswith("user.toml:")
            assert await client.rest() == b""
            assert not site.heard

    run(test())


@pytest.mark.parametrize(("verdict", "status"), [("allow", 200), ("deny", 403)])
def test_what_is_asked_is_held_and_answered(world: Make, verdict: str, status: int) -> None:
    async def test() -> None:
        async with world(RULES) as w:
            site = await w.site("api.example", 443)
            client = await (await w.connect("api.example")).tls("api.example")
            reply = asyncio.ensure_future(client.ask("GET /asked/x", "api.example"))
            question = await w.question()
            assert question["path"] == "GET https://api.example/asked/x"
            assert not site.heard
            assert not reply.done()
            w.answer(verdict)
            assert (await reply).status == status
            assert len(site.heard) == (verdict == "allow")

    run(test())


def test_a_client_that_gives_up_cancels_its_question(world: Make) -> None:
    async def test() -> None:
        async with world(RULES) as w:
            site = await w.site("api.example", 443)
            client = await (await w.connect("api.example")).tls("api.example")
            await client.send(request("GET /asked/x", "api.example"))
            await w.question()
            client.close()
            while w.authority.questions.frames():
                await asyncio.sleep(0.002)
            assert w.asked[-1]["type"] == "cancel"
            assert not site.heard

    run(test())


# -- which host is meant ---------------------------------------------------------------------------


async def reset_or_words(w: World, client: Client, name: str | None) -> str:
    """Return the reason that a client of TLS is given; "" when its connection is reset instead."""
    try:
        await client.tls(name)
        return (await client.ask("GET /", name or "x.example")).refusal["reason"]
    except (OSError, EOFError, ssl.SSLError):
        return ""


@pytest.mark.parametrize(
    ("names", "sni", "why"),
    [
        (("pass.example",), "denied.example", "looked up as pass.example"),
        (("pass.example",), "elsewhere.example", "looked up as pass.example"),
        (("pass.example", "denied.example"), "denied.example", "the policy denies it"),
    ],
)
def test_a_server_name_that_did_not_lead_here(
    world: Make, names: tuple[str, ...], sni: str, why: str
) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            site = await w.site("pass.example", 443)
            assert why in await reset_or_words(w, await w.connect(*names), sni)
            assert not site.heard
            assert any(r[0] == "deny" and sni in r[2] for r in w.rows("connect"))

    run(test())


def test_a_name_that_led_here_too_counts(world: Make) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            site = await w.site("pass.example", 443, cert="other.example")
            client = await (await w.connect("pass.example", "other.example")).tls(
                "other.example", ca=w.outside.pem
            )
            assert (await client.ask("GET /", "other.example")).status == 200
            assert [r[2] for r in w.rows("connect")] == ["pass.example:443", "other.example:443"]
            assert len(site.heard) == 1

    run(test())


@pytest.mark.parametrize("spelling", ["PASS.example", "pass.EXAMPLE."])
def test_spellings_of_a_server_name(world: Make, spelling: str) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            echo = await w.site("pass.example", 80, Echo())
            raw = hello(server_name(spelling.encode()))
            client = await w.connect("pass.example", port=80)
            await client.send(raw)
            assert await client.reader.readexactly(len(raw)) == raw.upper()
            assert isinstance(echo, Echo)
            assert echo.got == raw  # as it was sent

    run(test())


@pytest.mark.parametrize(
    "name", [b"-pass.example", b"pass..example", b"256.1.1.1", b"pass.example/x", b"*"]
)
def test_a_server_name_that_is_none(world: Make, name: bytes) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            echo = await w.site("pass.example", 80, Echo())
            client = await w.connect("pass.example", port=80)
            await client.send(hello(server_name(name)))
            await client.rest()
            assert isinstance(echo, Echo)
            assert echo.got == b""
            assert w.rows("connect")[-1][0] == "deny"

    run(test())


def test_no_server_name_is_a_host_unknown(world: Make) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            site = await w.site("pass.example", 443)
            client = await w.connect("pass.example")
            with pytest.raises((OSError, EOFError, ssl.SSLError)):
                await client.tls(None, ca=w.outside.pem)
            assert not site.heard
            assert "host is unknown" in w.rows("connect")[-1][3]

    run(test())


def test_no_server_name_to_an_address_that_is_allowed(world: Make) -> None:
    async def test() -> None:
        async with world('[role.probe.net]\nconnect = { allow = ["192.0.2.1:443"] }\n') as w:
            await w.site("192.0.2.1", 443)
            client = await (await w.connect()).tls(None, ca=w.outside.pem)
            assert (await client.ask("GET /", "x.example")).status == 200

    run(test())


ECH = extension(0xFE0D, b"\0" * 20)


def test_an_encrypted_hello_is_a_host_unknown(world: Make) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            site = await w.site("pass.example", 443)
            client = await w.connect("pass.example")
            await client.send(hello(server_name(b"pass.example"), ECH))
            await client.rest()
            assert "encrypted" in w.rows("connect")[-1][3]
            assert not site.heard

    run(test())


@pytest.mark.parametrize("extensions", [(server_name(b"api.example"), ECH), (ECH,), ()])
@pytest.mark.parametrize("names", [("localhost",), ("api.example",), ()])
def test_rules_for_requests_are_not_gone_round(
    world: Make, names: tuple[str, ...], extensions: tuple[bytes, ...]
) -> None:
    """Where the host cannot be told, neither its rules nor those of the names that led here are passed over."""
    rules = RULES.replace('"other.example"', '"192.0.2.1:443"') + (
        '[role.probe.net."localhost:443"]\nGET = { allow = ["/open"] }\n'
        '[role.probe.net."192.0.2.1"]\nGET = { allow = ["/open"] }\n'
        if not names or names == ("localhost",)
        else ""
    )

    async def test() -> None:
        async with world(rules) as w:
            ip = "127.0.0.1" if names == ("localhost",) else "192.0.2.1"
            echo = Echo()
            w.sites[names[0] if names else ip, 443] = await echo.start(None)
            client = await w.connect(*names, ip=ip)
            await client.send(hello(*extensions))
            client.writer.write_eof()
            await client.rest()
            assert echo.got == b""
            echo.close()

    run(test())


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.0.0.1:{}",
        "[::1]:{}",
        "localhost:{}",
        "LOCALHOST.:{}",
        "127.1:{}",
        "a.localhost:{}",
    ],
)
@pytest.mark.parametrize("proxied", [False, True])
def test_every_spelling_of_this_machine_is_this_machine(world: Make, text: str, proxied: bool) -> None:
    async def test() -> None:
        port = 80 if "{}" not in text else 3000
        async with world(f'[role.probe.net]\nconnect = {{ ask = ["localhost:{port}"] }}\n') as w:
            for name in ("localhost", "127.0.0.1", "::1"):
                await w.site(name, port)
            host = text.format(port)
            if proxied:
                opening = asyncio.ensure_future(w.tunnel(f"127.0.0.1:{port}"))
            else:
                opening = asyncio.ensure_future(w.connect("localhost", port=port, ip="127.0.0.1"))
            await w.question()
            w.answer("allow")
            assert (await (await opening).ask("GET /", host)).status == 200
            assert len(w.asked) == 1

    run(test())


def test_plain_http_needs_a_host_that_led_here(world: Make) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            site = await w.site("pass.example", 80)
            client = await w.connect("pass.example", port=80)
            assert (await client.ask("GET /", "pass.example")).status == 200
            for host in ("denied.example", "pass.example:81"):
                client = await w.connect("pass.example", port=80)
                assert (await client.ask("GET /", host)).status == 403
            assert len(site.heard) == 1

    run(test())


def test_host_and_server_name_must_agree(world: Make) -> None:
    async def test() -> None:
        async with world(RULES + '[role.probe.net."b.example"]\nGET = { allow = ["/**"] }\n') as w:
            site = await w.site("api.example", 443)
            client = await (await w.connect("api.example", "b.example")).tls("api.example")
            assert (await client.ask("GET /open/a", "api.example")).status == 200
            assert "TLS named api.example" in (await client.ask("GET /x", "b.example")).refusal["reason"]
            assert len(site.heard) == 1

    run(test())


@pytest.mark.parametrize(
    "first",
    [
        b"\r\nGET / HTTP/1.1\r\nHost: denied.example\r\n\r\n",
        b"\n\nGET / HTTP/1.1\r\nHost: denied.example\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: denied.example\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: denied.example\r\n\r\n",
        b"GET / http/1.1\r\nHost: denied.example\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: denied.example\r\n\r\n",
        b"GET / HTTP/1.1\nHost: denied.example\n\n",
        b"GET / HTTP/1.1\r\nHost: pass.example\r\nHost: denied.example\r\n\r\n",
        b"VERYLONGMETHODNAMETHATISNONE / HTTP/1.1\r\nHost: denied.example\r\n\r\n",
        b"GET http://denied.example/ HTTP/1.1\r\nHost: pass.example\r\n\r\n",
        b"CONNECT denied.example:443 HTTP/1.1\r\nHost: pass.example\r\n\r\n",
    ],
)
def test_what_a_lenient_server_takes_for_http_is_held_to_its_host(world: Make, first: bytes) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            echo = await w.site("pass.example", 80, Echo())
            assert isinstance(echo, Echo)
            client = await w.connect("pass.example", port=80)
            await client.send(first)
            assert b"refused by remit" in await client.rest()
            assert echo.got == b""

    run(test())


@pytest.mark.parametrize(
    "line", [b"EHLO me.example\r\n", b"USER anonymous\r\n", b"NICK me\r\n", b"GET key\r\n", b"SET a b\r\n", b"a1 LOGIN me\r\n",
             b"PING\r\n", b"*1\r\n$4\r\nPING\r\n", b"AMQP\0\0\x09\x01", b"\0\1\2", b"\x16\x02not tls", b"SSH-2.0-x y\r\n",
             b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0030git-upload-pack /p\0host=pass.example\0"],
)  # fmt: skip
@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"])
def test_other_protocols_pass_when_all_names_may(world: Make, line: bytes, greeting: bytes) -> None:
    async def test() -> None:
        async with world(PASS) as w:
            await w.site("pass.example", 2525, Echo(greeting))
            client = await w.connect("pass.example", "other.example", port=2525)
            if greeting:
                assert await client.reader.readexactly(len(greeting)) == greeting
            await client.send(line)
            assert await client.reader.readexactly(len(line)) == line.upper()
            client.writer.write_eof()
            assert await client.rest() == b""
            bad = await w.connect("pass.example", "denied.example", port=2525)
            await bad.send(line)
            assert line.upper() not in await bad.rest()

    run(test())


@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"])
def test_a_beginning_that_does_not_go_on_has_an_end(
    world: Make, monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    """It could be a request for another host, so it waits; not for ever."""
    monkeypatch.setattr(serve, "SILENT", 0.02)
    monkeypatch.setattr(serve, "HELLO_WITHIN", 0.1)

    async def test() -> None:
        async with world(PASS) as w:
            echo = await w.site("pass.example", 2525, Echo(greeting))
            assert isinstance(echo, Echo)
            client = await w.connect("pass.example", port=2525)
            assert await client.reader.readexactly(len(greeting)) == greeting
            await asyncio.sleep(0.3)  # a client that says nothing may wait
            await client.send(b"x")
            assert await client.rest() == b"RESET"
            assert echo.got == b""
            assert "does not go on" in w.rows("connect")[-1][3]

    run(test())


def test_the_greeting_counts_against_the_budget(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "SILENT", 0.02)
    rules = '[role.probe.net]\nconnect = { allow = ["pass.example"], budget = "100kB/day" }\n'

    async def test() -> None:
        async with world(rules) as w:
            await w.site("pass.example", 2525, Echo(bytes(1_000_000)))
            client = await w.connect("pass.example", port=2525)
            assert len(await client.rest()) <= 100_000

    run(test())


def test_only_http_goes_where_requests_have_rules(world: Make) -> None:
    async def test() -> None:
        async with world(RULES.replace('"api.example"', '"api.example:80"')) as w:
            echo = await w.site("api.example", 80, Echo(b"hello"))
            assert isinstance(echo, Echo)
            for first in (b"EHLO x\r\n", b"\0\1\2\3", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
                client = await w.connect("api.example", port=80)
                await client.send(first)
                await client.rest()
            assert echo.got == b""

    run(test())


def test_a_client_that_offers_h2_alone_is_told(world: Make) -> None:
    async def test() -> None:
        async with world(RULES) as w:
            await w.site("api.example", 443)
            client = await w.connect("api.example")
            await client.tls("api.example", alpn=("h2",))
            assert "offers h2 alone" in (await client.ask("GET /", "api.example")).refusal["reason"]
            assert "read as HTTP/1.1" in w.rows("connect")[-1][3]

    run(test())


def test_a_client_that_pins_is_told_how(world: Make) -> None:
    async def test() -> None:
        async with world(RULES) as w:
            await w.site("api.example", 443)
            client = await w.connect("api.example")
            with pytest.raises(ssl.SSLError):
                await client.tls("api.example", ca=w.outside.pem)
            client.close()
            with pytest.raises(Refused, match="pinning") as refused:
                await client.serving  # type: ignore[misc]
            assert "SSL_CERT_FILE" in refused.value.how

    run(test())


def test_a_server_whose_certificate_is_not_valid(world: Make) -> None:
    async def test() -> None:
        async with world(RULES) as w:
            site = await w.site("api.example", 443, cert="other.example")
            client = await (await w.connect("api.example")).tls("api.example")
            reply = await client.ask("GET /open/a", "api.example")
            assert reply.status == 502
            assert "certificate is not valid" in reply.refusal["reason"]
            assert not site.heard

    run(test())
