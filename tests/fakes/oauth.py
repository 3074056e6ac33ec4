"""A client of OAuth that speaks HTTP to the real server, over TCP or its Unix socket, and follows nothing by itself."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
from typing import Any
from urllib.parse import parse_qsl, urlencode

from remit_daemon.runtime.oauth.codes import challenge_of

RESOURCE = "http://127.0.0.1:3000/mcp"
REDIRECT = "http://127.0.0.1:40123/callback"
SETTINGS = f"""
loopback = %d
[client.inspector]
name = "MCP Inspector"
redirect_uris = ["http://127.0.0.1/callback", "https://app.example/cb?x=1"]
[client.other]
redirect_uris = ["http://127.0.0.1/callback"]
[resource."{RESOURCE}"]
scope = "log:read"
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]

    @property
    def location(self) -> tuple[str, dict[str, str]]:
        """Where it sends the browser, and the parameters, none of which comes twice."""
        where, _, query = self.headers["location"].partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        assert len(dict(pairs)) == len(pairs)
        return where, dict(pairs)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


class FakeClient:
    """``place`` is a port, or the path of a socket."""

    def __init__(self, place: int | str, client_id: str = "inspector") -> None:
        self.place = place
        self.client_id = client_id
        self.verifier = secrets.token_urlsafe(32)
        self.redirect = REDIRECT

    def send(self, method: str, target: str, body: str | bytes | None = None, **headers: str) -> Answer:
        there = (
            http.client.HTTPConnection("127.0.0.1", self.place, timeout=10)
            if isinstance(self.place, int)
            else _Unix(self.place)
        )
        try:
            there.request(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
            got = there.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            there.close()

    def get(self, target: str, **headers: str) -> Answer:
        return self.send("GET", target, **headers)

    def post(self, target: str, headers: dict[str, str] | None = None, **params: str) -> Answer:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", target, urlencode(params), **(form | (headers or {})))

    # -- the flow --

    def link(self, **changed: str | None) -> str:
        params: dict[str, str | None] = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": self.redirect, "state": "s t&ate", "resource": RESOURCE,
            "code_challenge": challenge_of(self.verifier), "code_challenge_method": "S256", "scope": "log:read",
        }  # fmt: skip
        return "/authorize?" + urlencode({k: v for k, v in (params | changed).items() if v is not None})

    def begin(self, **changed: str | None) -> str:
        """Open the link; return where the page waits."""
        got = self.get(self.link(**changed))
        assert got.status == 303, got.body
        where = got.headers["location"]
        assert where.startswith("/wait?ticket="), where
        return where

    def token(self, code: str, **changed: str) -> Answer:
        params = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect, "client_id": self.client_id,
            "code_verifier": self.verifier, "resource": RESOURCE,
        }  # fmt: skip
        return self.post("/token", **(params | changed))
