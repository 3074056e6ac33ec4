"""Secrets: placeholders of the value's shape, the value at its place towards its host alone, and nowhere else at all."""

from __future__ import annotations

import base64
import secrets as random
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gateway import Client, Heard, Site, World, request, run
from remit_daemon.gateway.http import secrets
from remit_daemon.gateway.http.secrets import Entry, Scrub, Vault, put, shaped
from remit_policy.model import Secret

Make = Callable[..., World]
VALUE = "sk-ant-api03-" + "Ab3" * 12 + "_Z-9q"


def entry(position: str = "bearer", value: str = VALUE, user: str = "") -> Entry:
    return Entry(
        Secret("s", "env", ("S",), "S", ("api.example",), position, user, "t:1"), value.encode(), ""
    )


# -- shape -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (VALUE, "sk-ant-api03-"),
        ("ghp_" + "aB3" * 12, "ghp_"),
        ("github_pat_11ABCDEFG0aBcDeFgHiJkL", "github_pat_"),
        ("xoxb-123456789012-1234567890123-AbCdEf", "xoxb-"),
        ("glpat-" + "x1Y2" * 5, "glpat-"),
        ("AKIAIOSFODNN7EXAMPLE", ""),
        ("550e8400-e29b-41d4-a716-446655440000", ""),
        ("correct-horse-battery-staple", ""),
        ("abcd-efgh-ijkl-mnop-qrst-uvwx", ""),
        ("Tr0ub4dor&3-x", ""),
    ],
)
def test_the_shape_is_kept_and_no_more_than_the_kind(value: str, kept: str) -> None:
    found = shaped(value)
    assert len(found) == len(value)
    assert found != value
    same = value[: next(i for i, (a, b) in enumerate(zip(found, value, strict=True)) if a != b)]
    assert same.startswith(kept)
    assert len(same) <= len(kept) + 6  # by chance
    if kept:
        assert [c in string.ascii_uppercase for c in found] == [c in string.ascii_uppercase for c in value]
        assert [c in string.digits for c in found] == [c in string.digits for c in value]


@pytest.mark.parametrize(
    "value",
    [
        "--------",
        "!!!!!!!!!!",
        "пароль пароль!",
        "密码密码密码密码1",
        "a!@#$%^&*()_+{}|:<>?",
        "        a1b2c3d4 ",
    ],
)
def test_what_letters_and_digits_do_not_hide_is_hidden_whole(value: str) -> None:
    text = value.encode().decode("latin-1")
    found = shaped(text)
    assert len(found) == len(text)
    assert not set(found) & (set(text) - set(string.ascii_letters + string.digits))


@given(st.binary(min_size=secrets.MIN_VALUE, max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_value_has_a_placeholder(value: str) -> None:
    found = shaped(value)
    assert len(found) == len(value)
    assert found != value


# -- places ----------------------------------------------------------------------------------------


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


RULES = """
[role.probe.net]
connect = {{ allow = ["api.example", "other.example", "localhost:3000"] }}
[secret.key]
from = {{ env = "KEY" }}
env = "KEY"
hosts = ["api.example", "localhost:3000"]
as = "{}"
user = "{}"
"""


def session(
    world: Make, position: str = "bearer", user: str = "", value: str = VALUE, rules: str = ""
) -> Callable[..., None]:
    """Return a decorator: a world with one secret, a server of its host that echoes, the placeholder."""

    async def echo(heard: Heard) -> None:
        body = await heard.body()
        await heard.say(heard.head + body, f"X-Echo: {heard.get('authorization')}")

    def decorated(test: Callable[..., object]) -> None:
        async def whole() -> None:
            async with world(RULES.format(position, user) + rules, KEY=value) as w:
                site = await w.site("api.example", 443, echo)
                client = await (await w.connect("api.example")).tls("api.example")
                await test(w, client, site, w.ctx.placeholders["KEY"])  # type: ignore[misc]
                hidden = [value.encode(), base64.b64encode(f"someone:{value}".encode())]
                assert not any(h in w.everywhere() for h in hidden)

        run(whole())

    return decorated


@pytest.mark.parametrize(
    ("position", "line", "field", "arrives"),
    [
        ("bearer", "GET /x", "Authorization: Bearer {}", "Bearer {}"),
        ("bearer", "GET /x", "authorization: token {}", "token {}"),
        ("header:X-Api-Key", "GET /x", "x-api-key: {}", "{}"),
        ("header:X-Api-Key", "GET /x", "X-Api-Key: key={}, v=1", "key={}, v=1"),
    ],
)
def test_a_header(world: Make, position: str, line: str, field: str, arrives: str) -> None:
    @session(world, position)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        reply = await client.ask(line, "api.example", field.format(placeholder))
        assert reply.status == 200
        name = "x-api-key" if "Key" in position else "authorization"
        assert site.heard[0].get(name) == arrives.format(VALUE)
        assert VALUE not in reply.head.decode() + reply.body.decode()
        assert arrives.format(placeholder) in reply.body.decode()
        assert w.rows("use") == [("allow", "ok to api.example", "secret:key", "")]


def test_basic(world: Make) -> None:
    @session(world, "basic", "someone")
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        reply = await client.ask("GET /x", "api.example", "Authorization: " + basic("someone", placeholder))
        assert site.heard[0].get("authorization") == basic("someone", VALUE)
        # an echo of the field, in base64, comes back as it was sent by the agent
        assert reply.get("x-echo") == basic("someone", placeholder)
        assert basic("someone", VALUE) not in reply.body.decode()


@pytest.mark.parametrize("value", [VALUE, "a&b=c#d e+f/%41gh1234"])
def test_a_query(world: Make, value: str) -> None:
    from urllib.parse import parse_qs, quote_plus

    @session(world, "query:key", value=value)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        assert (
            await client.ask(f"GET /x?a=1&key={quote_plus(placeholder)}&b=%20", "api.example")
        ).status == 200
        query = site.heard[0].line.split(" ")[1].partition("?")[2]
        assert parse_qs(query) == {"a": ["1"], "key": [value], "b": [" "]}
        assert "key=" not in "".join(r[2] for r in w.rows())


def test_without_the_placeholder_nothing_is_put(world: Make) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        assert (await client.ask("GET /x", "api.example", "Authorization: Bearer mine")).status == 200
        assert site.heard[0].get("authorization") == "Bearer mine"
        assert w.rows("use") == []


# -- elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fields", "body"),
    [
        ("GET /x", ("X-Other: {}",), ""),
        ("GET /x", ("Authorization: Digest {}",), ""),
        ("GET /x", ("Authorization: Bearer x{}",), ""),
        ("GET /x", ("Authorization: " + "{basic}",), ""),
        ("GET /x", ("Cookie: a={}",), ""),
        ("GET /x?key={}", (), ""),
        ("GET /{}", (), ""),
        ("GET /x", ("{}: x",), ""),
        ("POST /x", (), "body {} body"),
        ("POST /x", (), "{base64}"),
        ("POST /x", (), "{urlsafe}"),
        ("POST /x", ("Authorization: Bearer {}",), "and {}"),
    ],
)
def test_a_placeholder_in_another_place_is_refused_and_flagged(
    world: Make, line: str, fields: tuple[str, ...], body: str
) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        forms = {"basic": basic("u", placeholder), "base64": base64.b64encode(b"x" + placeholder.encode()).decode(),
                 "urlsafe": base64.urlsafe_b64encode(b"xy" + placeholder.encode()).decode()}  # fmt: skip
        whole = [t.replace("{}", placeholder).format_map(forms) for t in (line, body, *fields)]
        await client.send(request(whole[0], "api.example", *whole[2:], body=whole[1].encode()))
        reply = await client.reply()
        assert reply.refusal["resource"] == "secret:key"
        assert "bearer" in reply.refusal["how"]
        assert placeholder.encode() not in b"".join(h.head for h in site.heard)
        assert w.rows("use")[-1][0] == "deny"
        assert "placeholder" in w.rows("use")[-1][3]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_placeholder_over_several_chunks(world: Make, size: int, encoded: bool) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        body = ("...." + placeholder + "....").encode()
        if encoded:
            body = base64.b64encode(body)
        await client.send(request("POST /x", "api.example", "Transfer-Encoding: chunked"))
        try:
            for at in range(0, len(body), size):
                piece = body[at : at + size]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await client.send(b"0\r\n\r\n")
        except OSError:
            pass
        assert b" 403 " in await client.reader.readline()
        assert w.rows("use")[-1][0] == "deny"


def test_a_placeholder_in_a_trailer(world: Make) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        head = request("POST /x", "api.example", "Transfer-Encoding: chunked")
        await client.send(head + f"0\r\nX: {placeholder}\r\n\r\n".encode())
        assert (await client.reply()).refusal["resource"] == "secret:key"


def test_a_placeholder_to_another_host(world: Make) -> None:
    """By any way on which it can be read, and in clear nowhere but on this machine."""

    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        for host, port in (("other.example", 80), ("api.example", 80)):
            other = await w.site(host, port)
            for way, line in ((w.connect(host, port=port), "GET /x"), (w.proxy(), f"GET http://{host}/x")):
                reply = await (await way).ask(line, host, f"Authorization: Bearer {placeholder}")
                assert reply.refusal["resource"] == "secret:key"
            assert not other.heard
        local = await w.site("localhost", 3000)
        for host in ("localhost:3000", "127.0.0.1:3000"):
            there = await w.connect("localhost", port=3000, ip="127.0.0.1")
            assert (await there.ask("GET /x", host, f"Authorization: Bearer {placeholder}")).status == 200
            assert local.heard[-1].get("authorization") == f"Bearer {VALUE}"


def test_a_server_that_is_not_verified_gets_nothing(world: Make) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        false = await w.site("api.example", 443, cert="other.example")
        there = await (await w.connect("api.example")).tls("api.example")
        assert (
            await there.ask("GET /x", "api.example", f"Authorization: Bearer {placeholder}")
        ).status == 502
        assert not false.heard


def test_a_use_may_be_asked_for(world: Make) -> None:
    @session(world, rules='[role.probe.secrets]\nuse = { ask = ["key"] }\n')
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        w.answer_soon("deny")
        reply = await client.ask("GET /x", "api.example", f"Authorization: Bearer {placeholder}")
        assert reply.refusal["resource"] == "secret:key"
        assert not site.heard


# -- what comes back -------------------------------------------------------------------------------


def test_an_answer_that_cannot_be_looked_through(world: Make) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        async def zipped(heard: Heard) -> None:
            assert heard.get("accept-encoding") == "identity"
            await heard.say(b"...", "Content-Encoding: gzip")

        site.handler = zipped
        assert (await client.ask("GET /x", "api.example", "Accept-Encoding: gzip")).status == 200
        used = await client.ask("GET /x", "api.example", f"Authorization: Bearer {placeholder}")
        assert used.status == 502
        assert "encoding" in used.refusal["reason"]


def test_a_value_in_a_trailer_or_over_chunks(world: Make) -> None:
    @session(world)
    async def _(w: World, client: Client, site: Site, placeholder: str) -> None:
        async def sliced(heard: Heard) -> None:
            await heard.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for byte in VALUE.encode():
                await heard.send(b"1\r\n%c\r\n" % byte)
            await heard.send(f"0\r\nX-End: {VALUE}\r\n\r\n".encode())

        site.handler = sliced
        reply = await client.ask("GET /x", "api.example", f"Authorization: Bearer {placeholder}")
        assert reply.body == placeholder.encode()
        assert reply.trailers == [f"x-end: {placeholder}".encode()]


@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(0, 2**32))
def test_scrubbing_at_any_cut(noise: list[bytes], seed: int) -> None:
    one = entry()
    whole = (
        b"".join(n + VALUE.encode()[: (seed >> i) % 60] for i, n in enumerate(noise))
        + VALUE.encode()
        + b"end"
    )
    scrub, out, at = Scrub([one]), b"", 0
    step = seed % 23 + 1
    while at < len(whole):
        out += scrub.feed(whole[at : at + step])
        assert VALUE.encode() not in out
        at += step
    out += scrub.feed(b"", last=True)
    assert out == whole.replace(VALUE.encode(), one.placeholder)


# -- no value --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["", "short", "first line of a key\nsecond line of a key", "with\0nul and more", "x" * 20_000]
)
def test_what_cannot_be_sent_is_no_value_and_is_not_told(world: Make, value: str) -> None:
    async def test() -> None:
        async with world(RULES.format("bearer", ""), KEY=value) as w:
            site = await w.site("api.example", 443)
            client = await (await w.connect("api.example")).tls("api.example")
            placeholder = w.ctx.placeholders["KEY"]
            reply = await client.ask("GET /x", "api.example", f"Authorization: Bearer {placeholder}")
            assert "cannot be had" in reply.refusal["reason"]
            assert not site.heard
            assert w.logged
            for part in value.split("\n") if len(value) > 5 else ():
                assert part.encode() not in w.everywhere() + reply.body

    run(test())


@pytest.mark.parametrize("kind", ["file", "command", "failing", "missing"])
def test_where_values_are_from(world: Make, tmp_path: Path, kind: str) -> None:
    (tmp_path / "value").write_text(VALUE + "\n")
    origin = {
        "file": f'file = "{tmp_path}/value"', "command": f'command = ["/bin/cat", "{tmp_path}/value"]',
        "failing": f'command = ["/bin/sh", "-c", "cat {tmp_path}/value; exit 3"]', "missing": f'file = "{tmp_path}/none"',
    }[kind]  # fmt: skip

    async def test() -> None:
        async with world(RULES.format("bearer", "").replace('env = "KEY" }', origin + " }", 1)) as w:
            vault = secrets.vault_of(w.ctx)
            got = [e.value for e in vault.entries]
            assert got == ([VALUE.encode()] if kind in ("file", "command") else [None])
            assert VALUE.encode() not in w.everywhere()

    run(test())


def test_only_the_hosts_of_a_secret_have_it() -> None:
    vault = Vault([entry()])
    assert [
        len(vault.bound(h, p))
        for h, p in (("api.example", 443), ("api.example", 1), ("x.api.example", 443), ("example", 443))
    ] == [1, 1, 0, 0]


def test_two_placeholders_in_one_request() -> None:
    one = entry("query:key")
    text = one.placeholder.decode()
    fields, query, found = put(one, [], f"key={text}&key={text}&other={text}")
    assert (query.count(VALUE), query.count(text), len(found), fields) == (2, 1, 2, [])


def test_found_in_any_alignment_of_base64() -> None:
    vault = Vault([entry()])
    for size in range(7):
        raw = random.token_bytes(size) + vault.entries[0].placeholder + random.token_bytes(size)
        assert vault.found_in(base64.b64encode(raw))
        assert not vault.found_in(base64.b64encode(raw[: size + 10]))
