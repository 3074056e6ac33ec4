"""What the endpoints refuse, in the RFCs' own words, and what HTTP and a browser may not do."""

from __future__ import annotations

import os
import socket
import time

from fakes.machine import Machine, until
from fakes.oauth import REDIRECT, RESOURCE, SETTINGS, FakeClient
from remit_daemon.runtime.oauth.server import MAX_BODY, MAX_CONNECTIONS, MAX_HEAD

NOWHERE = [
    {"client_id": None}, {"client_id": "nobody"}, {"client_id": "https://evil.example/c.json"}, {"client_id": "<script>"},
    {"redirect_uri": None}, {"redirect_uri": "https://evil.example/"}, {"redirect_uri": "https://app.example/cb"},
    {"redirect_uri": "http://127.0.0.1:1@evil.example/callback"}, {"redirect_uri": "//evil.example"}, {"redirect_uri": "javascript:x"},
]  # fmt: skip
BACK = [
    ({"response_type": None}, "unsupported_response_type"), ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code token"}, "unsupported_response_type"), ({"response_mode": "fragment"}, "invalid_request"),
    ({"code_challenge": None}, "invalid_request"), ({"code_challenge": "short"}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"), ({"code_challenge_method": None}, "invalid_request"),
    ({"resource": None}, "invalid_target"), ({"resource": "/mcp"}, "invalid_target"), ({"resource": RESOURCE + "#x"}, "invalid_target"),
    ({"scope": "no:such"}, "invalid_scope"), ({"scope": "*"}, "invalid_scope"), ({"scope": None, "resource": "https://r.example"}, "invalid_scope"),
    ({"scope": "grants:revoke"}, "access_denied"), ({"authorization_details": "["}, "invalid_authorization_details"),
    ({"authorization_details": "[1]"}, "invalid_authorization_details"), ({"state": "x" * 5000}, "invalid_request"),
]  # fmt: skip


def test_errors_at_the_authorization_endpoint(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    for changed in NOWHERE:
        got = client.get(client.link(**changed))
        assert (got.status, "location" in got.headers) == (400, False), changed
        assert b"<script>" not in got.body
    for twice in ("client_id=inspector", "redirect_uri=x", "state=x"):
        got = client.get(client.link() + "&" + twice)
        assert (got.status, "location" in got.headers) == (400, False)
    for changed, error in BACK:
        got = client.get(client.link(**changed))
        assert got.status == 303, changed
        where, params = got.location
        assert (where, params["error"]) == (REDIRECT, error), changed
        assert params["state"] == changed.get("state", "s t&ate")
        assert params["iss"] == f"http://127.0.0.1:{client.place}"
        assert "code" not in params
    assert machine.person().call("prompts") == []
    # A registered address with a query of its own keeps it.
    where, params = client.get(client.link(redirect_uri="https://app.example/cb?x=1", scope="*")).location
    assert (where, params["x"], params["error"]) == ("https://app.example/cb", "1", "invalid_scope")


def test_errors_at_the_others(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    device = "urn:ietf:params:oauth:grant-type:device_code"
    table: list[tuple[dict[str, str], tuple[int, str]]] = [
        ({}, (401, "invalid_client")),
        ({"client_id": "nobody", "grant_type": "refresh_token"}, (401, "invalid_client")),
        ({"client_id": "inspector", "client_secret": "x", "grant_type": "refresh_token"}, (401, "invalid_client")),
        ({"client_id": "inspector"}, (400, "invalid_request")),
        ({"client_id": "inspector", "grant_type": "password", "username": "u", "password": "p"}, (400, "unsupported_grant_type")),
        ({"client_id": "inspector", "grant_type": "client_credentials"}, (400, "unsupported_grant_type")),
        ({"client_id": "inspector", "grant_type": "authorization_code"}, (400, "invalid_request")),
        ({"client_id": "inspector", "grant_type": "authorization_code", "code": "x", "redirect_uri": "x"}, (400, "invalid_request")),
        ({"client_id": "inspector", "grant_type": "authorization_code", "code": "x", "redirect_uri": "x", "code_verifier": "x"}, (400, "invalid_grant")),
        ({"client_id": "inspector", "grant_type": "refresh_token"}, (400, "invalid_request")),
        ({"client_id": "inspector", "grant_type": "refresh_token", "refresh_token": "x"}, (400, "invalid_grant")),
        ({"client_id": "inspector", "grant_type": device}, (400, "invalid_request")),
        ({"client_id": "inspector", "grant_type": device, "device_code": "x"}, (400, "invalid_grant")),
    ]  # fmt: skip
    for params, expected in table:
        got = client.post("/token", **params)
        assert got.error == expected, params
        assert "www-authenticate" not in got.headers
        assert (got.headers["cache-control"], got.headers["pragma"]) == ("no-store", "no-cache")
        assert "access-control-allow-origin" not in got.headers
    got = client.post(
        "/token",
        {"Authorization": "Basic aW5zcGVjdG9yOng="},
        client_id="inspector",
        grant_type="refresh_token",
    )
    assert got.error == (401, "invalid_client")
    assert got.headers["www-authenticate"].startswith("Basic ")
    form = "application/x-www-form-urlencoded"
    for body, kind in (
        (b"{}", "application/json"),
        (b"client_id=inspector", "text/plain"),
        (b"\xff=1", form),
        (b"a=%ff", form),
        (b"a&" * 99, form),
    ):
        assert client.send("POST", "/token", body, Content_Type=kind).error == (400, "invalid_request")
    twice = "client_id=inspector&grant_type=refresh_token&grant_type=refresh_token"
    assert client.send("POST", "/token", twice, Content_Type=form).error == (400, "invalid_request")
    twice = f"client_id=inspector&resource={RESOURCE}&resource=https://r.example&scope=log:read"
    assert client.send("POST", "/device_authorization", twice, Content_Type=form).error == (
        400,
        "invalid_target",
    )
    assert client.post("/revoke", client_id="inspector").error == (400, "invalid_request")
    assert client.post("/revoke", token="x").error == (401, "invalid_client")
    assert client.post("/device_authorization", client_id="inspector", scope="log:read").error == (
        400,
        "invalid_target",
    )
    person = machine.person()
    assert (person.call("prompts"), person.call("token.list")) == ([], [])


def test_what_a_browser_is_made_to_do(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    own = f"127.0.0.1:{client.place}"
    for host in (
        "evil.example",
        f"evil.example:{client.place}",
        f"localhost:{client.place}",
        "127.0.0.1",
        f"127.0.0.1:{client.place}.evil.example",
    ):
        for target in ("/jwks", client.link(), "/.well-known/oauth-authorization-server"):
            assert client.get(target, Host=host).status == 421
    for origin in (
        "https://evil.example",
        "null",
        f"http://localhost:{client.place}",
        f"http://{own}, https://evil.example",
    ):
        got = client.post(
            "/token",
            {"Origin": origin},
            client_id="inspector",
            grant_type="refresh_token",
            refresh_token="x",
        )
        assert (got.status, "access-control-allow-origin" in got.headers) == (403, False)
        assert client.send("OPTIONS", "/token", Origin=origin).status == 403
    for kind in ("image", "iframe", "empty", "script"):
        assert client.get(client.link(), Sec_Fetch_Dest=kind).status == 403
    assert machine.person().call("prompts") == []
    got = client.get(client.begin(), Sec_Fetch_Dest="document")
    assert got.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
    assert got.headers["referrer-policy"] == "no-referrer"


def raw(client: FakeClient, data: bytes, end: bool = True) -> bytes:
    assert isinstance(client.place, int)
    with socket.create_connection(("127.0.0.1", client.place), 10) as s:
        try:
            s.sendall(data)
            if end:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has its answer already
        out = b""
        try:
            while piece := s.recv(1 << 16):
                out += piece
        except ConnectionResetError:
            pass
        return out


def test_what_is_no_http(served: tuple[Machine, FakeClient]) -> None:
    _, client = served
    host = f"Host: 127.0.0.1:{client.place}\r\n".encode()
    assert raw(client, b"") == b""
    bad = [
        b"\x16\x03\x01\x00\xa5\x01\x00", b"GET\r\n\r\n", b"GET /jwks HTTP/1.1\r\n\r\n", b"GET /jwks HTTP/1.1\r\n" + host + host + b"\r\n",
        b"GET http://evil.example/jwks HTTP/1.1\r\n" + host + b"\r\n", b"GET /jwks#x HTTP/1.1\r\n" + host + b"\r\n",
        b"POST /token HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n\r\nab", b"POST /token HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n",
        b"POST /token HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /token HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]  # fmt: skip
    for data in bad:
        assert raw(client, data).startswith(b"HTTP/1.1 400 "), data
    assert raw(client, b"GET /jwks HTTP/1.1\r\n" + host + b"X: " + b"x" * MAX_HEAD * 2).startswith(
        b"HTTP/1.1 431 "
    )
    large = (
        b"POST /token HTTP/1.1\r\n"
        + host
        + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1)
        + b"x" * (MAX_BODY + 1)
    )
    assert raw(client, large).startswith(b"HTTP/1.1 413 ")
    assert raw(client, b"GET /jwks HTTP/1.1\r\n" + host + b" folded: x\r\n\r\n").startswith(
        b"HTTP/1.1 421 "
    )
    assert raw(client, b"GET /jwks HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")
    two = b"GET /jwks HTTP/1.1\r\n" + host + b"\r\n"
    assert raw(client, two * 2).count(b"HTTP/1.1 200") == 1, "one request a connection"
    assert raw(client, b"HEAD /jwks HTTP/1.1\r\n" + host + b"\r\n").startswith(b"HTTP/1.1 405 ")
    assert raw(client, b"CONNECT evil.example:443 HTTP/1.1\r\n" + host + b"\r\n").startswith(
        b"HTTP/1.1 400 "
    )
    with socket.create_connection(("127.0.0.1", client.place), 10) as s:
        s.sendall(
            b"POST /revoke HTTP/1.1\r\n" + host + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        )
        assert s.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        s.sendall(b"a")
        assert s.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    assert (client.get("/").status, client.get("/wait").status, client.get("/wait?ticket=x").status) == (
        404,
        404,
        404,
    )
    assert client.get("/token").headers["allow"] == "POST"


def test_the_slow_keep_nobody_out(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    slow = [socket.create_connection(("127.0.0.1", client.place)) for _ in range(3 * MAX_CONNECTIONS)]
    try:
        for s in slow:
            try:
                s.sendall(b"GET /jwks HT")
            except OSError:
                pass
        started = time.monotonic()
        assert client.get("/jwks").status == 200
        assert time.monotonic() - started < 10, "before the slow ones' time is over"
        assert machine.process is not None
        fds = f"/proc/{machine.process.pid}/fd"
        until(lambda: len(os.listdir(fds)) < 2 * MAX_CONNECTIONS + 40, "those who gave way are gone")
    finally:
        for s in slow:
            s.close()
    assert client.get("/jwks").status == 200


def test_one_client_cannot_fill_the_list(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    got = [client.get(client.link()) for _ in range(14)]
    assert (
        sum("ticket" in g.headers["location"] for g in got) == len(machine.person().call("prompts")) == 10
    )
    assert got[-1].location[1]["error"] == "access_denied"
    FakeClient(client.place, "other").begin()


def test_without_the_persons_word_there_is_no_port(machine: Machine) -> None:
    assert machine.process is not None
    client = FakeClient(machine.paths.oauth)
    said = client.get("/.well-known/oauth-authorization-server").json
    assert said["issuer"].startswith("http+unix://%2F")
    assert said["token_endpoint"] == said["issuer"] + "/token"
    assert not said["client_id_metadata_document_supported"]
    assert client.get(client.link()).status == 400, "no client is known"
    with open("/proc/net/tcp") as f:
        inodes = {line.split()[9] for line in f if line.split()[3] == "0A"}
    fds = f"/proc/{machine.process.pid}/fd"
    held = {os.readlink(f"{fds}/{n}") for n in os.listdir(fds)}
    assert not held & {f"socket:[{i}]" for i in inodes}


def test_a_port_that_is_taken_is_said(machine: Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        os.makedirs(machine.paths.config, exist_ok=True)
        with open(machine.paths.config + "/oauth.toml", "w") as f:
            f.write(SETTINGS % port)
        machine.kill(15)
        machine.start()
        assert f"port {port}: Address already in use" in machine.log()
        assert FakeClient(machine.paths.oauth).get("/jwks").status == 200
