"""What a ClientHello says of the host, however it is cut, and that nothing malformed is guessed at."""

from __future__ import annotations

import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.gateway.http import hello
from remit_daemon.gateway.http.hello import Hello, HelloError, parse


def real(name: str | None = "pypi.org", alpn: list[str] | None = None) -> bytes:
    """Return the hello that OpenSSL sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def vector(size: int, raw: bytes) -> bytes:
    return len(raw).to_bytes(size, "big") + raw


def extension(kind: int, raw: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, raw)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def made(*extensions: bytes, head: bytes = b"\3\3" + bytes(32) + b"\0", more: bytes = b"") -> bytes:
    """Return a hello message of these extensions, in one record."""
    body = head + vector(2, b"\x13\1") + vector(1, b"\0") + vector(2, b"".join(extensions)) + more
    return records(b"\1" + vector(3, body), 1 << 14)


def records(message: bytes, size: int) -> bytes:
    """Return ``message`` cut into records of ``size`` bytes."""
    cuts = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\3\1" + vector(2, c) for c in cuts)


def said(found: Hello | None) -> tuple[str, tuple[bytes, ...], bool]:
    assert found is not None
    return found.sni, found.alpn, found.ech


def test_what_openssl_sends() -> None:
    assert said(parse(real("pypi.org", ["h2", "http/1.1"]))) == ("pypi.org", (b"h2", b"http/1.1"), False)
    assert said(parse(real(None))) == ("", (), False)


def test_one_byte_at_a_time() -> None:
    whole = real()
    assert [parse(whole[:n]) for n in range(len(whole))] == [None] * len(whole)
    assert said(parse(whole))[0] == "pypi.org"


@pytest.mark.parametrize("size", [5, 50, 200])
def test_over_several_records(size: int) -> None:
    message = real()[5:]
    raw = records(message, max(size, -(-len(message) // hello.MAX_RECORDS)))
    assert all(parse(raw[:n]) is None for n in range(0, len(raw), 7))
    assert said(parse(raw))[0] == "pypi.org"


def test_names_are_as_sent() -> None:
    """What they mean is decided where hosts are; here nothing is corrected."""
    for name in (b"PyPI.org", b"pypi.org.", b"xn--bcher-kva.example", b"127.0.0.1"):
        assert said(parse(made(server_name(name))))[0] == name.decode()


def test_an_encrypted_hello_is_told() -> None:
    assert said(parse(made(server_name(b"outer.example"), extension(0xFE0D, b"\0")))) == (
        "outer.example",
        (),
        True,
    )


@pytest.mark.parametrize(
    "raw",
    [
        made(server_name(b"a.example\0.evil.example")),
        made(server_name(b"a b.example")),
        made(server_name("bücher.example".encode())),
        made(server_name(b"")),
        made(server_name(b"a.example", kind=1)),
        made(server_name(b"a.example"), server_name(b"b.example")),
        made(extension(0, vector(2, b"\0" + vector(2, b"a.example") + b"\0" + vector(2, b"b.example")))),
        made(extension(0, vector(2, b"\0" + vector(2, b"a.example")) + b"more")),
        made(extension(0, b"\0\x20\0")),
        made(extension(16, vector(2, vector(1, b"")))),
        made(extension(16, b"\0\x05\x02h2")),
        made(head=b"\2\0" + bytes(32) + b"\0"),
        made(more=b"more"),
        records(real()[5:] + b"\0\0\0\0", 1 << 14),
        b"\x16\3\1" + vector(2, b"\2\0\0\1x"),
        b"\x16\3\1\0\0",
        b"\x16\3\1" + (hello.MAX_RECORD + 1).to_bytes(2, "big"),
        b"\x16\3\1" + vector(2, b"\1" + (hello.MAX_HELLO + 1).to_bytes(3, "big")),
        b"\x16\2\1\0\x05",
        b"\x15\3\1\0\2\2\x28",
        records(b"\1\0\1\0" + bytes(256), 1) + b"\x16\3\1\0\1\0",
        b"\x80\x2e\1\3\1",  # a hello of SSL 2
        b"GET / HTTP/1.1\r\n",
    ],
)  # fmt: skip
def test_malformed(raw: bytes) -> None:
    with pytest.raises(HelloError):
        parse(raw)


@given(st.data())
def test_whatever_comes_is_a_hello_more_to_come_or_an_error(data: st.DataObject) -> None:
    """Bytes changed, cut, doubled: never another exception, and never a name that was not sent."""
    raw = bytearray(HELLO)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "double"]))
        if how == "set":
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        else:
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 40))]
        if not raw:
            break
    try:
        found = parse(bytes(raw))
    except HelloError:
        return
    assert found is None or not found.sni or found.sni.encode() in bytes(raw)


@given(st.binary(max_size=300))
def test_noise(raw: bytes) -> None:
    for start in (b"", b"\x16\3\1", b"\x16\3\1\1\0\1\0\0\xfc\3\3"):
        try:
            parse(start + raw)
        except HelloError:
            pass


HELLO = real()


def test_the_stack_of_this_machine_agrees() -> None:
    """The name that we read is the one that a server's TLS reads from the same bytes."""
    here, there = socket.socketpair()
    heard: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda sock, name, ctx: heard.append(name)
    with here, there:
        here.sendall(HELLO)
        with pytest.raises(ssl.SSLError):  # it has no certificate
            context.wrap_socket(there, server_side=True)
    assert heard == [said(parse(HELLO))[0]]
