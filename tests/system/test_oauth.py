"""A local MCP server that leaves authorization to remit, its client, and what an agent in a session can make of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fakes.machine import Machine, until
from fakes.oauth import SETTINGS, FakeClient, free_port
from remit_daemon.runtime.oauth.codes import challenge_of
from system.harness import PYTHON, Arena

# -- the flow ------------------------------------------------------------------------------------------


class Resource:
    """An MCP server as far as authorization goes: it takes tokens that verify offline and are active online."""

    def __init__(self, issuer: FakeClient, key: str) -> None:
        outer = self
        self.issuer = issuer
        self.key = key

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/.well-known/oauth-protected-resource/mcp":
            body = {
                "resource": self.url,
                "authorization_servers": [f"http://127.0.0.1:{self.issuer.place}"],
            }
            self.reply(request, 200, body)
        elif self.good(request.headers.get("authorization", "").removeprefix("Bearer ")):
            self.reply(request, 200, {"ok": True})
        else:
            where = f"http://127.0.0.1:{self.port}/.well-known/oauth-protected-resource/mcp"
            self.reply(request, 401, {}, f'Bearer resource_metadata="{where}", scope="log:read"')

    def good(self, token: str) -> bool:
        try:
            claims = jwt.decode(
                token, KeySet.import_key_set(self.issuer.get("/jwks").json), algorithms=["Ed25519"]
            ).claims
        except (JoseError, ValueError):
            return False
        said = self.issuer.post("/introspect", {"Authorization": f"Bearer {self.key}"}, token=token).json
        return claims["aud"] == self.url and "log:read" in claims["scope"].split() and said["active"]

    def reply(
        self, request: BaseHTTPRequestHandler, status: int, body: dict[str, Any], challenge: str = ""
    ) -> None:
        request.send_response(status)
        if challenge:
            request.send_header("WWW-Authenticate", challenge)
        request.send_header("Content-Type", "application/json")
        request.end_headers()
        request.wfile.write(json.dumps(body).encode())


@pytest.fixture
def machine() -> Iterator[Machine]:
    root = tempfile.mkdtemp(prefix="remit-")
    found = Machine(root)
    try:
        yield found
        found.stop()
    finally:
        if found.process is not None and found.process.poll() is None:
            found.kill()
        shutil.rmtree(root, ignore_errors=True)


def test_an_mcp_server_leaves_it_to_remit(machine: Machine) -> None:
    port = free_port()
    os.makedirs(machine.paths.config)
    Path(machine.paths.config, "oauth.toml").write_text(SETTINGS % port)
    machine.start()

    def remit(*words: str) -> str:
        argv = [sys.executable, "-m", "remit_daemon.cli.main", *words]
        return subprocess.run(
            argv, env=machine.env, capture_output=True, text=True, timeout=30, check=True
        ).stdout

    server = FakeClient(port)
    resource = Resource(server, "")
    made = remit(
        "key",
        "create",
        "--name",
        "mcp",
        "--scope",
        "policy:read",
        "--audience",
        resource.url,
        "--expires",
        "1d",
        "--json",
    )
    resource.key = json.loads(made)["key"]
    try:
        client = FakeClient(resource.port)
        refused = client.get("/mcp")
        assert refused.status == 401
        where = re.search('resource_metadata="([^"]+)"', refused.headers["www-authenticate"])
        assert where is not None
        about = client.get(urlsplit(where[1]).path).json
        (issuer,) = about["authorization_servers"]
        said = server.get("/.well-known/oauth-authorization-server").json
        assert said["issuer"] == issuer
        assert "S256" in said["code_challenge_methods_supported"]

        waits = server.begin(resource=about["resource"])
        shown = remit("prompts")
        for words in (
            "inspector wants to have a token for",
            "read what was done, and by whom",
            "MCP Inspector",
            "its page shows",
        ):
            assert words in shown
        remit("answer", "p1", "allow", "--for", "1h")
        _, back = server.get(waits).location
        assert back["iss"] == issuer
        given = server.token(back["code"], resource=about["resource"]).json

        def use(token: str) -> int:
            return client.get("/mcp", Authorization=f"Bearer {token}").status

        assert use(given["access_token"]) == 200
        assert use(given["access_token"][:-4] + "AAAA") == 401
        refresh = {"grant_type": "refresh_token", "client_id": "inspector", "resource": about["resource"]}
        later = server.post("/token", refresh_token=given["refresh_token"], **refresh).json
        assert use(later["access_token"]) == 200
        assert server.post("/revoke", token=later["refresh_token"], client_id="inspector").status == 200
        assert (use(given["access_token"]), use(later["access_token"])) == (401, 401)
        assert server.post("/token", refresh_token=later["refresh_token"], **refresh).error == (
            400,
            "invalid_grant",
        )
        rows = [(r["op"], r["outcome"], r["agent"]) for r in json.loads(remit("log", "--json"))]
        assert ("token", "issue", "inspector") in rows
        assert ("token", "revoke", "inspector") in rows
    finally:
        resource.server.shutdown()
        resource.server.server_close()


# -- from inside a session -----------------------------------------------------------------------------

INSIDE = """
import json, os, socket, sys, time, urllib.error, urllib.parse, urllib.request
port, challenge, verifier, resource, redirect = sys.argv[1:]
def unix(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
            return "reached"
        except OSError as e:
            return e.strerror
said = {"socket": unix(os.path.dirname(os.environ["REMIT_SOCKET"]) + "/oauth.sock")}
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_): return None
open_ = urllib.request.build_opener(Stay, urllib.request.ProxyHandler({})).open
base = f"http://127.0.0.1:{port}"
def ask(path, form=None):
    try:
        got = open_(base + path, urllib.parse.urlencode(form).encode() if form else None, 20)
    except urllib.error.HTTPError as e:
        got = e
    return got.status, got.headers.get("location", ""), got.read().decode()
try:
    where = "/authorize?" + urllib.parse.urlencode({"response_type": "code", "client_id": "inspector", "redirect_uri": redirect,
        "resource": resource, "code_challenge": challenge, "code_challenge_method": "S256", "scope": "log:read"})
    status, to, text = ask(where)
    while to.startswith("/wait"):
        where, to = to, ""
        while not to:
            status, to, text = ask(where)
            time.sleep(0.2)
    back = dict(urllib.parse.parse_qsl(to.partition("?")[2]))
    said["error"] = back.get("error", "")
    if "code" in back:
        status, _, text = ask("/token", {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": redirect,
            "client_id": "inspector", "code_verifier": verifier})
        said["token"] = json.loads(text).get("token_type", text)
except OSError as e:
    said["tcp"] = str(e)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Arena, int]]:
    a, port = Arena(), free_port()
    try:
        a.write_policy()
        Path(a.home, ".config/remit/oauth.toml").write_text(SETTINGS % port)
        a._own(a.home + "/.config")
        a.start_daemon()
        yield a, port
    finally:
        a.close()


def inside(
    served: tuple[Arena, int], verdict: str = "allow"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the client in a session, answer what it asks about tokens, and return what it says and was shown."""
    arena, port = served
    flow, got = FakeClient(port), []
    shown: list[dict[str, Any]] = []
    words = (
        str(port),
        challenge_of(flow.verifier),
        flow.verifier,
        "http://127.0.0.1:3000/mcp",
        flow.redirect,
    )
    argv = arena.remit_run(PYTHON, "-c", INSIDE, *words, ask="deny")
    thread = threading.Thread(target=lambda: got.append(arena.communicate(argv, 40)))
    thread.start()

    def over() -> bool:
        out = arena.communicate(arena.remit("prompts", "--json"))[1]
        for prompt in json.loads(out):
            shown.append(prompt)
            arena.communicate(arena.remit("answer", prompt["id"], verdict))
        return not thread.is_alive()

    until(over, "the session ends", 40)
    ((code, out, err),) = got
    assert code == 0, err
    return json.loads(out), shown


def test_without_a_rule_a_session_does_not_reach_it(served: tuple[Arena, int]) -> None:
    served[0].write_policy()
    said, shown = inside(served)
    assert said["socket"] == "Permission denied"
    assert said["tcp"]
    assert shown == []


@pytest.mark.parametrize("unmediated", [False, True])
def test_a_session_that_reaches_it_asks_like_all(served: tuple[Arena, int], unmediated: bool) -> None:
    arena, port = served
    net = (
        "all = true"
        if unmediated
        else f'connect = {{ allow = ["localhost:{port}", "{arena.run_dir}/remit/**"] }}'
    )
    arena.write_policy(more=f"\n[role.probe.net]\n{net}\n")
    said, (shown,) = inside(served)
    assert said == {"socket": "Permission denied", "error": "", "token": "Bearer"}
    facts = {f["label"]: f["text"] for f in shown["facts"]}
    assert facts["asked in"].endswith(" of probe")
    said, _ = inside(served, "deny")
    assert said["error"] == "access_denied"
    # It is known to be a session, so its own policy has a word.
    tokens = "[role.probe.tokens]\nuse = { deny = ['log:read'] }\n"
    arena.write_policy(more=f"\n[role.probe.net]\n{net}\n{tokens}")
    said, none = inside(served)
    assert (said["error"], none) == ("access_denied", [])
