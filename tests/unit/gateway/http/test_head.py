"""The heads of requests: what two programs could read in two ways is refused, all else has one meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.gateway.http import head
from remit_daemon.gateway.http.head import HeadError, find, parse


def request(line: str = "GET /a HTTP/1.1", *fields: str, host: str = "a.example") -> bytes:
    lines = [line, *([f"Host: {host}"] if host else []), *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def read(raw: bytes, *, proxied: bool = False, scheme: str = "https", port: int = 443) -> head.Head:
    size = find(raw)
    assert size == len(raw), "the head ends where it was made to"
    return parse(raw, scheme=scheme, port=port, proxied=proxied)


def test_a_plain_request() -> None:
    found = read(request("GET /a/b?c=d HTTP/1.1", "X: y"))
    assert (found.method, found.host, found.port, found.path, found.query) == (
        "GET",
        "a.example",
        443,
        "/a/b",
        "c=d",
    )


def test_a_head_is_found_once_it_is_whole() -> None:
    raw = request() + b"body\n"
    whole = len(request())
    assert [find(raw[:n]) for n in range(whole)] == [0] * whole
    assert find(raw) == whole


SMUGGLED = [
    request("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 5"),
    request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 6"),
    request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 5"),
    request("POST / HTTP/1.1", "Content-Length: 5, 6"),
    request("POST / HTTP/1.1", "Content-Length: +5"),
    request("POST / HTTP/1.1", "Content-Length: -5"),
    request("POST / HTTP/1.1", "Content-Length: 0x5"),
    request("POST / HTTP/1.1", "Content-Length: 5 5"),
    request("POST / HTTP/1.1", "Content-Length: 5\x0b"),
    request("POST / HTTP/1.1", "Content-Length: " + "9" * 30),
    request("POST / HTTP/1.1", "Content-Length:"),
    request("POST / HTTP/1.1", "Transfer-Encoding: xchunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding: chunked, identity"),
    request("POST / HTTP/1.1", "Transfer-Encoding: identity, chunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding: \x0bchunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding: chunked\x00"),
    request("POST / HTTP/1.1", "Transfer-Encoding : chunked"),
    request("POST / HTTP/1.1", "Transfer-Encoding\t: chunked"),
    request("POST / HTTP/1.1", " Transfer-Encoding: chunked"),
    request("POST / HTTP/1.1", "X: y", "\tTransfer-Encoding: chunked"),
    request("POST / HTTP/1.1", "Transfer\x00Encoding: chunked"),
    request("POST / HTTP/1.1", ": chunked"),
    request("POST / HTTP/1.1", "no colon"),
    request("POST / HTTP/1.1", "X: a\rTransfer-Encoding: chunked"),
    request("POST / HTTP/1.0", "Transfer-Encoding: chunked"),
    request("GET / HTTP/1.1", "Host: b.example"),
    request("GET / HTTP/1.1", host=""),
    request("GET / HTTP/1.1", host="a.example, b.example"),
    request("GET / HTTP/1.1", host="a.example b.example"),
    request("GET / HTTP/1.1", host="a@b.example"),
    request("GET / HTTP/1.1", host="a.example:"),
    request("GET / HTTP/1.1", host="a.example:0"),
    request("GET / HTTP/1.1", host="a.example:443:443"),
    request("GET / HTTP/1.1", host="a.example/b"),
    request("GET / HTTP/1.1", host="[::1"),
    request("GET / HTTP/1.1", host="a.exam\xadple"),
    request("GET / HTTP/1.1", host="*"),
    request("GET  / HTTP/1.1"),
    request("GET /a b HTTP/1.1"),
    request("GET\t/ HTTP/1.1"),
    request("GET / HTTP/1.1 "),
    request(" GET / HTTP/1.1"),
    request("GET /"),
    request("GET / HTTP/2.0"),
    request("GET / HTTP/1.2"),
    request("GET / http/1.1"),
    request("GET / HTTP/1.1x"),
    request("G@T / HTTP/1.1"),
    request("delete / HTTP/1.1"),
    request("Post / HTTP/1.1"),
    request("POST / HTTP/1.1", "Connection: host"),
    request("POST / HTTP/1.1", "Connection: close, Content-Length", "Content-Length: 3"),
    request("POST / HTTP/1.1", "Connection: x", "connection: transfer-encoding"),
    request("GET http://b.example/ HTTP/1.1"),
    request("GET b.example HTTP/1.1"),
    request("GET * HTTP/1.1"),
    request("GET /a#b HTTP/1.1"),
    request("GET /a\x7f HTTP/1.1"),
    request("GET /ä HTTP/1.1"),
    request("GET / HTTP/1.1", "X: a\x00b"),
    request("GET / HTTP/1.1", *["X: y"] * 300),
]


@pytest.mark.parametrize("raw", SMUGGLED, ids=range(len(SMUGGLED)))
def test_two_meanings_are_refused(raw: bytes) -> None:
    with pytest.raises(HeadError):
        read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: a.example\n\n",
        b"GET / HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n",
        b"\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (head.MAX_FIELDS + 2),  # not whole yet, and already too much
        b"GET / HTTP/1.1\r\nX: " + b"y" * head.MAX_HEAD,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (head.MAX_FIELDS + 9),
        b"GET / HTTP/1.1\r\nX: " + b"y" * head.MAX_HEAD + b"\r\n\r\n",
    ],
)
def test_no_end_of_a_head(raw: bytes) -> None:
    with pytest.raises(HeadError):
        find(raw)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/a%62c", "/abc"),
        ("/%7Euser", "/~user"),
        ("/a%2db", "/a-b"),
        ("/a%c3%a4", "/a%C3%A4"),
        ("/a%20b", "/a%20b"),
        ("/a/", "/a/"),
        ("/", "/"),
        ("/a;b=c", "/a;b=c"),
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/...", "/..."),
    ],
)
def test_one_spelling_of_a_path(path: str, meant: str) -> None:
    assert read(request(f"GET {path} HTTP/1.1")).path == meant


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b", "/..", "/.", "/a/./b", "/%2e%2e/b", "/.%2E/b", "/a/..;/b", "/a/..;x=y/b", "/a/..%3b/b", "/a/..%3Bx=y/b", "//a", "/a//b", "/a%2f..%2fb", "/a/..%2fb",
        "/a%2f/b", "/a%2f%2fb", "/%2f", "/a%2F%2e%2e",
        "/a%5cb", "/a\\b", "/a%00", "/a%", "/a%2", "/a%zz", "/a%2%65",
    ],
)  # fmt: skip
def test_paths_on_which_servers_differ(path: str) -> None:
    with pytest.raises(HeadError):
        read(request(f"GET {path} HTTP/1.1"))


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("a.example:443", "a.example", 443),
        ("A.Example.:8443", "a.example", 8443),
        ("127.1:80", "127.0.0.1", 80),
        ("0x7f000001:80", "127.0.0.1", 80),
        ("[::FFFF:127.0.0.1]:80", "127.0.0.1", 80),
        ("[0:0::1]:80", "::1", 80),
        ("sub.localhost:80", "localhost", 80),
    ],
)
def test_what_a_proxy_is_to_connect_to(target: str, host: str, port: int) -> None:
    found = read(request(f"CONNECT {target} HTTP/1.1", host=target), proxied=True)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT a.example HTTP/1.1",
        "CONNECT *:443 HTTP/1.1",
        "CONNECT a.example: HTTP/1.1",
        "CONNECT :443 HTTP/1.1",
        "CONNECT a.example:65536 HTTP/1.1",
        "CONNECT a.example:00443x HTTP/1.1",
        "CONNECT a.example:443:80 HTTP/1.1",
        "CONNECT user@a.example:443 HTTP/1.1",
        "CONNECT ::1:80 HTTP/1.1",
        "CONNECT [::1]x:80 HTTP/1.1",
        "CONNECT [fe80::1%25lo]:80 HTTP/1.1",
        "CONNECT a.example:443/ HTTP/1.1",
        "CONNECT http://a.example:443 HTTP/1.1",
        "CONNECT a..example:443 HTTP/1.1",
        "CONNECT -a.example:443 HTTP/1.1",
        "CONNECT 1.2.3.4.5:443 HTTP/1.1",
        "CONNECT 256.1.1.1:443 HTTP/1.1",
        "GET / HTTP/1.1",
        "GET a.example/ HTTP/1.1",
        "GET https://a.example/ HTTP/1.1",
        "GET ftp://a.example/ HTTP/1.1",
        "GET http:/a.example/ HTTP/1.1",
        "GET http://b.example/ HTTP/1.1",
        "GET http://a.example:81/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://u:p@a.example/ HTTP/1.1",
    ],
)
def test_what_no_proxy_is_asked_for(line: str) -> None:
    with pytest.raises(HeadError):
        read(request(line), proxied=True)


def test_an_absolute_target() -> None:
    for target, path, query in (
        ("http://a.example/x?y", "/x", "y"),
        ("HTTP://A.example?y=/z", "/", "y=/z"),
        ("http://a.example", "/", ""),
    ):
        found = read(request(f"GET {target} HTTP/1.1"), proxied=True, scheme="http", port=80)
        assert (found.host, found.port, found.path, found.query) == ("a.example", 80, path, query)


TOKENS = [
    b"GET", b"CONNECT", b" ", b"/", b"/../", b"http://", b"a.example", b":443", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b"\0", b"Host: ",
    b"Content-Length: 3", b"Transfer-Encoding: chunked", b"%2e", b"?", b"#", b"@", b"[::1]", b"\t", b"\xff",
]  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=24), st.booleans())
def test_whatever_comes_is_a_head_or_an_error(parts: list[bytes], proxied: bool) -> None:
    raw = b"".join(parts) + b"\r\n\r\n"
    try:
        size = find(raw)
        found = parse(raw[:size], scheme="http", port=80, proxied=proxied)
    except HeadError:
        return
    assert raw.count(b"\n", 0, size) == raw.count(b"\r\n", 0, size)
    assert ".." not in found.path.split("/")
    assert len(found.get(b"content-length") + found.get(b"transfer-encoding")) < 2
