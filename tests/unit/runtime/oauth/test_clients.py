from __future__ import annotations

import json
from typing import Any

import pytest

from remit_daemon.runtime.oauth.clients import (
    BadClient,
    Client,
    check_redirect,
    check_resource,
    chosen,
    document,
    goes_to,
    host_of,
    shown,
)

OWN = Client(
    "app", "app", "", ("http://127.0.0.1/callback", "http://[::1]:9/cb?a=1", "http://localhost", "https://app.example/cb", "com.example.app:/cb"),
)  # fmt: skip


@pytest.mark.parametrize(
    "uri",
    [
        *OWN.redirects,
        "http://127.0.0.1:51004/callback",  # RFC 8252 7.3: any port
        "http://[::1]:61023/cb?a=1",
        "http://localhost:7/",
    ],
)
def test_an_answer_goes_where_the_list_says(uri: str) -> None:
    assert chosen(OWN, uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "", "http://127.0.0.1:51004/callback/", "http://127.0.0.1:51004/Callback", "http://127.0.0.1:51004/callback?x=1",
        "http://127.0.0.1:0/callback", "http://127.0.0.1:65536/callback", "http://127.0.0.1:80a/callback", "https://127.0.0.1/callback",
        "http://localhost:1/callback", "http://127.0.0.1.evil.example/callback", "http://127.0.0.1:1@evil.example/callback",
        "http://127.0.0.1@evil.example/callback", "http://127.0.0.1:51004/callback#x", "http://127.0.0.1\\@evil.example/callback",
        "http://127.0.0.2/callback", "http://[::1]:61023/cb?a=2", "https://app.example/cb/", "https://app.example:443/cb",
        "https://APP.example/cb", "https://app.example/cb?x=1", "https://app.example.evil.example/cb", "https://evil.example/cb",
        "com.example.app:/cb2", "javascript:alert(1)", "data:text/html,x", "http://127.0.0.1/callback\r\nX: 1", "//evil.example/callback",
    ],
)  # fmt: skip
def test_and_nowhere_else(uri: str) -> None:
    with pytest.raises(BadClient):
        chosen(OWN, uri)


@pytest.mark.parametrize(
    "uri",
    ["javascript:x", "file:///etc/passwd", "http://app.example/cb", "https://u@app.example/cb", "https://app.example/#f", "myapp:/cb", "https://a b/"],
)  # fmt: skip
def test_what_no_client_may_have_in_its_list(uri: str) -> None:
    with pytest.raises(BadClient):
        check_redirect(uri)


def test_a_person_is_told_where_it_goes() -> None:
    assert goes_to("http://127.0.0.1:51004/callback") == "127.0.0.1:51004, whatever listens there"
    assert goes_to("https://App.example:8443/cb") == "app.example"
    assert goes_to("com.example.app:/cb") == "whatever opens com.example.app: links"


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example/c.json", "https://app.example", "https://app.example/", "https://app.example/c?x", "https://app.example/c#x",
        "https://app.example:8443/c", "https://u:p@app.example/c", "https://app.example/a/../c", "https://app.example/./c",
        "https://app.example/%2e%2e/c", "https://[::1]/c", "https://app.example/c\n", "https://" + "a" * 3000 + "/c", "https:app",
    ],
)  # fmt: skip
def test_which_urls_are_no_clients(url: str) -> None:
    with pytest.raises(BadClient):
        host_of(url)


ID = "https://app.example/oauth/client.json"
DOCUMENT = {
    "client_id": ID, "client_name": "App", "redirect_uris": ["http://127.0.0.1:3000/callback", "http://localhost:3000/callback"],
    "grant_types": ["authorization_code"], "response_types": ["code"], "token_endpoint_auth_method": "none",
}  # fmt: skip


def test_a_document_is_read() -> None:
    client = document(ID, json.dumps(DOCUMENT).encode())
    assert client == Client(ID, "app.example", "App", tuple(DOCUMENT["redirect_uris"]))
    assert shown("a\u202e\n" + "b" * 100) == "a??" + "b" * 61


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": ID + "x"}, {"client_id": None}, {"redirect_uris": []}, {"redirect_uris": "x"}, {"redirect_uris": [1]},
        {"redirect_uris": ["javascript:x"]}, {"client_secret": "x"}, {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "private_key_jwt"}, {"client_name": 7}, {"redirect_uris": ["https://a.example/"] * 33},
    ],
)  # fmt: skip
def test_a_document_that_is_none(changed: dict[str, Any]) -> None:
    with pytest.raises(BadClient):
        document(ID, json.dumps(DOCUMENT | changed).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"[" * 10_000, b'"x"'])
def test_what_is_no_document(raw: bytes) -> None:
    with pytest.raises(BadClient):
        document(ID, raw)


def test_resources() -> None:
    for good in (
        "https://api.example.com/app/",
        "https://cal.example.com/",
        "http://127.0.0.1:3000/mcp",
        "urn:x:y",
    ):  # RFC 8707 2
        assert check_resource(good) == good
    for bad in ("", "/mcp", "https://a.example/#x", "https://a.example/ x", "1:x", "x" * 2049, "x:"):
        with pytest.raises(ValueError):
            check_resource(bad)
