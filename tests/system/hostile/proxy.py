"""Have the gateway's proxy reach a listener on the loopback, which no rule permits, by naming it in odd ways.

Escape: the listener's token comes back. Without remit there is no proxy, and each way is a plain connect.
Trap: names with NUL, line ends, brackets, ports, user parts; addresses in decimal, octal, hexadecimal, mapped, translated;
a second request behind an allowed form; the gateway's other listeners, and their ports by way of itself.
"""

import os
import re
import socket

from _attack import ARENA, leak, run

PORT = ARENA["tcp"]
PROXY = re.match(r"http://([^:/]+):(\d+)", os.environ.get("http_proxy", ""))


def say(raw: bytes, to: int = 0) -> str:
    """Send ``raw`` to the proxy (or to the gateway's listener ``to``) and return the token that comes back."""
    with socket.socket() as s:
        s.settimeout(1.5)
        if PROXY is None:
            s.connect(("127.0.0.1", PORT))
            return leak(s.recv(4096))
        s.connect(("127.0.0.1", to or int(PROXY[2])))
        s.sendall(raw)
        got = b""
        try:
            while (more := s.recv(4096)) and len(got) < 1 << 16:
                got += more
        except TimeoutError:
            pass
        return leak(got)


def tunnel(authority: str | bytes) -> object:
    raw = authority if isinstance(authority, bytes) else authority.encode()
    return lambda: say(b"CONNECT " + raw + b" HTTP/1.1\r\nHost: " + raw + b"\r\n\r\nx\r\n\r\n")


def request(target: str, host: str = "", more: bytes = b"") -> object:
    head = f"GET {target} HTTP/1.1\r\nHost: {host or 'localhost'}\r\n\r\n"
    return lambda: say(head.encode() + more)


def other_doors() -> str:
    """Every other listener of this user's on the loopback, asked as if it were the proxy."""
    if PROXY is None:
        return say(b"")
    with open("/proc/net/tcp") as f:
        lines = [line.split() for line in f.readlines()[1:]]
    ports = {int(w[1].split(":")[1], 16) for w in lines if w[3] == "0A" and int(w[7]) == os.getuid()}
    raw = f"CONNECT localhost:{PORT} HTTP/1.1\r\nHost: localhost:{PORT}\r\n\r\n".encode()
    for port in sorted(ports - {PORT})[:16]:
        try:
            if got := say(raw, port):
                return got
        except OSError:
            pass
    return ""


SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "0x7f000001", "0x7f.1", "0177.0.0.1", "2130706433", "017700000001", "127.0.0.1.",
    "0", "0.0.0.0", "127.9.9.9", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]", "[::1%lo]", "::1", "localhost", "LOCALHOST", "localhost.",
    "a.localhost", "ip6-localhost", "127。0。0。1", "①②⑦.⓪.⓪.①", "ⓛocalhost", "%6cocalhost", "localhost%00.pypi.org",
    "pypi.org@127.0.0.1", "pypi.org:443@localhost", "pypi.org#@127.0.0.1", "127.0.0.1\\@pypi.org",
]  # fmt: skip
EVIL = f"GET http://127.0.0.1:{PORT}/ HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n\r\n".encode()
run(
    {
        **{f"CONNECT {s}": tunnel(f"{s}:{PORT}") for s in SPELLINGS},
        **{f"GET {s}": request(f"http://{s}:{PORT}/") for s in SPELLINGS},
        "CONNECT with NUL": tunnel(b"pypi.org\0.localhost:%d" % PORT),
        "CONNECT with NUL first": tunnel(b"localhost:%d\0pypi.org:443" % PORT),
        "CONNECT with a line end": tunnel(b"pypi.org:443 HTTP/1.1\r\nX: localhost:%d" % PORT),
        "CONNECT with a bare line feed": tunnel(b"pypi.org:443\nCONNECT localhost:%d" % PORT),
        "CONNECT with two ports": tunnel(f"localhost:{PORT}:443"),
        "CONNECT with a port of many digits": tunnel(f"localhost:{'0' * 40}{PORT}"),
        "CONNECT with a port past the end": tunnel(f"localhost:{PORT + 65536}"),
        "CONNECT with a path": tunnel(f"localhost:{PORT}/pypi.org:443"),
        "CONNECT without a host": tunnel(f":{PORT}"),
        "GET with another Host": request(f"http://localhost:{PORT}/", "pypi.org"),
        "GET of a path": request("/", f"localhost:{PORT}"),
        "GET by https": request(f"https://localhost:{PORT}/"),
        "GET by ftp": request(f"ftp://localhost:{PORT}/"),
        "a request behind a refused one": request("http://pypi.org/", "pypi.org", EVIL),
        "a request in the body of one": lambda: say(
            b"POST http://pypi.org/ HTTP/1.1\r\nHost: pypi.org\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL
        ),
        "HTTP/2": lambda: say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EVIL),
        "HTTP/0.9": lambda: say(f"GET http://localhost:{PORT}/\r\n\r\n".encode()),
        "SOCKS": lambda: say(b"\x04\x01" + PORT.to_bytes(2, "big") + b"\x7f\0\0\1\0"),
        "its other doors": other_doors,
        "itself by itself": lambda: say(
            b"CONNECT localhost:%s HTTP/1.1\r\n\r\n" % (PROXY[2].encode() if PROXY else b"0") + EVIL
        ),
    },
    seconds=2,
    total=20,
)  # fmt: skip
