"""What is fetched for a hosted client, and what never is."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit_daemon.runtime.oauth.clients import BadClient, Client
from remit_daemon.runtime.oauth.documents import (
    KEPT,
    KEPT_FAILURE,
    MAX_DOCUMENT,
    MAX_FETCHES,
    Documents,
    get,
    public,
)

ID = "https://app.example/client.json"
RAW = json.dumps({"client_id": ID, "client_name": "App", "redirect_uris": ["http://127.0.0.1/cb"]}).encode()
HOSTS = ["app.example"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "ff02::1", "192.0.2.1",
    ],
)  # fmt: skip
def test_only_the_internets_addresses(address: str) -> None:
    for found in ([address], ["93.184.215.14", address]):
        with pytest.raises(BadClient):
            public(found)


def test_the_internets() -> None:
    assert public(["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
    with pytest.raises(BadClient):
        public([])


class World:
    def __init__(self, raw: bytes | Exception = RAW) -> None:
        self.now, self.raw, self.asked = 1000.0, raw, 0
        self.documents = Documents(lambda: self.now, self.fetch)

    async def fetch(self, url: str) -> bytes:
        self.asked += 1
        if isinstance(self.raw, Exception):
            raise self.raw
        return self.raw

    def client(self, url: str = ID, hosts: list[str] = HOSTS) -> Client:
        return asyncio.run(self.documents.client(url, hosts))


def test_a_host_that_nobody_named_is_not_asked() -> None:
    w = World()
    for url, hosts in (
        (ID, []),
        (ID, ["example"]),
        ("https://x.app.example/c", HOSTS),
        ("https://app.example:444/c", HOSTS),
    ):
        with pytest.raises(BadClient):
            w.client(url, hosts)
    assert w.asked == 0


def test_a_document_is_kept_for_a_while() -> None:
    w = World()
    assert w.client() == w.client() == Client(ID, "app.example", "App", ("http://127.0.0.1/cb",))
    assert w.asked == 1
    w.now += KEPT
    w.client()
    assert w.asked == 2
    with pytest.raises(BadClient):  # the person took the host out
        w.client(hosts=[])


@pytest.mark.parametrize(
    "fault", [OSError("no route"), BadClient("no"), ssl.SSLError("no"), UnicodeError("label"), b"x", b"{}"]
)
def test_a_failure_is_kept_too_though_shorter(fault: bytes | Exception) -> None:
    w = World(fault)
    for _ in range(2):
        with pytest.raises(BadClient):
            w.client()
    assert w.asked == 1
    w.now, w.raw = w.now + KEPT_FAILURE, RAW
    w.client()


def test_few_are_looked_up_at_once() -> None:
    async def run() -> int:
        release = asyncio.Event()

        async def slow(_: str) -> bytes:
            await release.wait()
            return RAW

        documents = Documents(lambda: 0.0, slow)
        asks = [
            asyncio.ensure_future(documents.client(f"https://app.example/{n}", HOSTS))
            for n in range(MAX_FETCHES + 3)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        release.set()
        found = await asyncio.gather(*asks, return_exceptions=True)
        return sum("too many" in str(f) for f in found)

    assert asyncio.run(run()) == 3


# -- over real TLS -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("app.example")]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def fetched(certificate: Path, answer: bytes, url: str = ID, trusted: bool = True) -> tuple[bytes, bytes]:
    """Return what was got from a server that gives ``answer``, and what it was asked."""

    async def run() -> tuple[bytes, bytes]:
        asked = b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            try:
                asked = await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                pass

        theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        theirs.load_cert_chain(certificate)
        ours = ssl.create_default_context(cafile=str(certificate)) if trusted else None
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await get(url, "127.0.0.1", port, ours), asked

    return asyncio.run(run())


def reply(body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )


def test_a_document_comes_over_tls(certificate: Path) -> None:
    body, asked = fetched(certificate, reply(RAW, kind="application/json; charset=utf-8"))
    assert body == RAW
    assert asked.startswith(b"GET /client.json HTTP/1.1\r\nHost: app.example\r\n")
    assert b"cookie" not in asked.lower()


@pytest.mark.parametrize(
    "make",
    [
        lambda: reply(b"", "302 Found", more="Location: https://app.example/else.json\r\n"), lambda: reply(RAW, "404 Not Found"),
        lambda: reply(RAW, kind="text/html"), lambda: reply(RAW + b" " * MAX_DOCUMENT), lambda: b"SSH-2.0-x\r\n", lambda: b"",
        lambda: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", lambda: b"HTTP/1.1 200 OK\r\n" + b"x" * (1 << 16),
        lambda: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_answer(certificate: Path, make: Callable[[], bytes]) -> None:
    with pytest.raises(BadClient):
        fetched(certificate, make())


def test_who_is_not_the_host_is_not_believed(certificate: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        fetched(certificate, reply(RAW), trusted=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        fetched(certificate, reply(RAW), "https://else.example/client.json")
