"""Servers on this machine for sessions to reach: HTTPS with an authority of its own, as a company has it, and plain HTTP.

GET  /ok       200, "fine"                 GET  /events   server-sent events, one every 50 ms, for ever
POST /up       the body's length           GET  /headers  the request's headers as JSON
/git/NAME      the repository NAME, by git's own server program
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(directory: str) -> tuple[str, str]:
    """Make an authority and a certificate for localhost; returns the files: the authority's, and the server's with its key."""
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)

    def made(
        name: str, key: ec.EllipticCurvePrivateKey, by: str, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=name == by, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if name != by:
            names: list[x509.GeneralName] = [x509.DNSName("localhost")]
            names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = made("arena authority", authority_key, "arena authority", authority_key)
    own = made("localhost", key, "arena authority", authority_key)
    pem = serialization.Encoding.PEM
    files = f"{directory}/authority.pem", f"{directory}/server.pem"
    with open(files[0], "wb") as f:
        f.write(authority.public_bytes(pem))
    with open(files[1], "wb") as f:
        f.write(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + own.public_bytes(pem)
        )
    return files


class Site:
    """One server; ``seen`` has what reached it: method, path and headers. ``close`` ends it."""

    def __init__(self, server_pem: str = "", repositories: str = "") -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.repositories = repositories
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (_Handler,), {"site": self}))
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self.url = f"{'https' if server_pem else 'http'}://localhost:{self.port}"
        if server_pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(server_pem)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # a client that does not take the certificate, or went away
            pass

    def do_GET(self) -> None:
        self._note()
        if self.path.startswith("/git/"):
            self._git(b"")
        elif self.path == "/events":
            self._events()
        elif self.path == "/headers":
            self._say(200, json.dumps(dict(self.headers.items())).encode())
        elif self.path == "/ok":
            self._say(200, b"fine")
        else:
            self._say(404, b"nothing here")

    def do_POST(self) -> None:
        self._note()
        body = self._body()
        if self.path.startswith("/git/"):
            self._git(body)
        else:
            self._say(200, b"%d" % len(body))

    def _note(self) -> None:
        self.site.seen.append((self.command, self.path, dict(self.headers.items())))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            self.wfile.write(b"data: tick\n\n")
            time.sleep(0.05)

    def _git(self, body: bytes) -> None:
        path, _, query = self.path.removeprefix("/git").partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.site.repositories,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        fields: dict[str, Any] = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(str(fields.pop("Status", "200")).split()[0])
        fields.pop("Content-Length", None)
        self._say(status, rest, **{k.replace("-", "_"): v for k, v in fields.items()})

    def log_message(self, format: str, *args: object) -> None:
        pass
