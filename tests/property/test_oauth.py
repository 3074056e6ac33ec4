"""Whatever is sent to the authorization server: nothing is given, nothing raises, and no answer goes to where no client is."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.oauth import REDIRECT, RESOURCE, SETTINGS
from remit_daemon.ledger.store import Ledger
from remit_daemon.runtime.daemon import Daemon
from remit_daemon.runtime.oauth.codes import challenge_of
from remit_daemon.runtime.oauth.endpoints import METADATA, Caller, Door, Endpoints
from remit_daemon.runtime.oauth.messages import Request, Response
from remit_daemon.runtime.oauth.server import exchange
from remit_daemon.runtime.oauth.settings import SettingsFile
from remit_daemon.runtime.policies import Policies, policy_dirs
from remit_daemon.runtime.store import Memory
from remit_daemon.wire.paths import Paths, make_private

DOOR = Door("http://127.0.0.1:8765", held=False)


class World:
    def __init__(self, root: str) -> None:
        self.paths = Paths(root + "/config", root + "/state", root + "/run")
        for place in (self.paths.config, self.paths.state, self.paths.runtime, self.paths.spool):
            make_private(place)
        Path(self.paths.config, "oauth.toml").write_text(SETTINGS % 8765)
        memory = Memory(self.paths.store)
        ledger = Ledger(self.paths.ledger, key=self.paths.state + "/ledger.key")
        self.daemon = Daemon(
            self.paths, memory, ledger, Policies(self.paths, memory, policy_dirs(self.paths))
        )
        self.endpoints = Endpoints(self.daemon, SettingsFile(self.paths.config))

    async def respond(self, request: Request) -> Response:
        async def caller() -> Caller:
            return Caller(7, "/usr/bin/browser", "browser")

        return await self.endpoints.respond(request, DOOR, caller)

    def check(self, status: int, location: str) -> None:
        assert status in (200, 303, 400, 401, 404, 405, 408, 413, 421, 431, 501, 503)
        if location:
            ours = ("/wait?ticket=", REDIRECT + "?", "https://app.example/cb?x=1&")
            assert location.startswith(ours), location
            assert "code=" not in location
            assert "\r" not in location
            assert "\n" not in location
        assert self.daemon.tokens.issuer.live() == []
        assert self.daemon.broker.state.grants == {}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    root = tempfile.mkdtemp(prefix="remit-")
    found = World(root)
    yield found
    asyncio.run(found.daemon.close())
    shutil.rmtree(root)


NAMES = [
    "client_id", "redirect_uri", "response_type", "response_mode", "state", "scope", "resource", "code_challenge", "code_challenge_method",
    "authorization_details", "grant_type", "code", "code_verifier", "refresh_token", "device_code", "token", "client_secret", "ticket", "x",
]  # fmt: skip
VALUES = [
    "inspector", "other", "https://evil.example/c", "https://app.example/c", REDIRECT, "http://127.0.0.1@evil.example/callback",
    "https://evil.example/", "https://app.example/cb?x=1", "code", "token", "query", "log:read", "admin", "*", RESOURCE, RESOURCE + "#x", "S256", "plain",
    challenge_of("x" * 43), "x" * 43, "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "password",
    json.dumps([{"type": "files", "actions": ["read"], "locations": ["/**"]}]), "[" * 2000, "{}", "", "\r\nX: 1", "\ud83d\ude00", "a" * 5000,
]  # fmt: skip
values = st.sampled_from(VALUES) | st.text(max_size=30)
pairs = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=12)
GOOD = {
    "client_id": "inspector", "redirect_uri": REDIRECT, "response_type": "code", "scope": "log:read", "resource": RESOURCE,
    "code_challenge": challenge_of("x" * 43), "code_challenge_method": "S256",
}  # fmt: skip


def encoded(items: list[tuple[str, str]]) -> str:
    return "&".join(f"{n}={quote(v.encode('utf-8', 'surrogatepass'), safe='')}" for n, v in items)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    path=st.sampled_from(["/authorize", "/token", "/wait", "/revoke", "/introspect", "/device_authorization", "/device", "/jwks", METADATA, "/x"]),
    items=pairs,
    good=st.booleans(),
    raw=st.none() | st.binary(max_size=60),
    authorization=st.none() | st.sampled_from(["Basic eDp5", "Bearer remit_x", "Basic", "Bearer", "\xff", "Basic \xff"]),
)  # fmt: skip
def test_a_request_gives_nothing(
    world: World, method: str, path: str, items: list[tuple[str, str]], good: bool, raw: bytes | None, authorization: str | None
) -> None:  # fmt: skip
    changed = {n for n, _ in items}
    if good:
        items = [(n, v) for n, v in GOOD.items() if n not in changed] + items
    body = encoded(items)
    headers = {"content-type": "application/x-www-form-urlencoded"} | (
        {"authorization": authorization} if authorization else {}
    )
    query = raw.decode("ascii", "replace") if raw is not None else body
    request = Request(method, path, query, headers, raw if raw is not None else body.encode())
    got = asyncio.run(world.respond(request))
    world.check(got.status, dict(got.headers()).get("location", ""))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.binary(max_size=80) | st.sampled_from([b"GET /authorize?", b"POST /token", b"GET /wait?ticket=", b"PRI * HTTP/2.0\r\n\r\nSM"]),
    middle=st.binary(max_size=80),
    end=st.sampled_from([b"", b"\r\n\r\n", b" HTTP/1.1\r\nHost: x\r\n\r\n", b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na=1"]),
    cut=st.integers(1, 50),
)  # fmt: skip
def test_bytes_give_nothing(world: World, head: bytes, middle: bytes, end: bytes, cut: int) -> None:
    data = head + middle + end
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    out: list[bytes] = []

    async def run() -> None:
        async def receive() -> bytes:
            return pieces.pop(0) if pieces else b""

        await exchange(receive, out.append, world.respond)

    asyncio.run(run())
    said = b"".join(out)
    if said:
        lines = said.split(b"\r\n\r\n")[0].split(b"\r\n")
        fields: dict[str, Any] = dict(line.decode().split(": ", 1) for line in lines[1:])
        world.check(int(lines[0].split()[1]), fields.get("location", ""))


def test_who_cannot_be_named_is_said_to_be_so(world: World) -> None:
    """A connection that its session's gateway made: nobody may look into that one."""

    async def nobody() -> Caller:
        return Caller()

    query = encoded(list((GOOD | {"client_id": "other"}).items()))
    got = asyncio.run(world.endpoints.respond(Request("GET", "/authorize", query, {}, b""), DOOR, nobody))
    assert got.status == 303
    prompt = max(world.daemon.broker.state.prompts.values(), key=lambda p: p.created)
    assert prompt.consent is not None
    assert "perhaps an agent in a session" in {f.label: f.text for f in prompt.consent.facts}["asked by"]
