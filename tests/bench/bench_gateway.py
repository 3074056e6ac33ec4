"""The gateway's cost: what a connection, a request and a large body take through it, beside the same without it, in one run.

    python tests/bench/bench_gateway.py [--rounds N]

One client runs natively and one in a session, both started once and told in turn what to do, so that a busy moment hits both. The
server speaks TLS on the loopback. The ways through: ``proxy`` (CONNECT, passed through), ``passed`` (the client connects itself to a name
of this machine, passed through; left out where the hosts file has none), ``ended`` (TLS ended, requests read).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / d) for d in ("tests", "policy", "daemon", "tui")]

CHUNK = 1 << 18
BODY = 200 << 20  # bytes
CONNECTIONS, REQUESTS = 40, 300  # of one round
POLICY = """version = 1
[agent.bench]
match = {{ name = "bench" }}
roles = ["bench"]
[role.bench]
inherits = ["default"]
[role.bench.files]
read = {{ allow = ["/**"] }}
[role.bench.net]
connect = {{ allow = ["localhost:{passed}", "{name}:{named}"] }}
[role.bench.net."localhost:{ended}"]
GET = {{ allow = ["/**"] }}
"""


# -- the server ------------------------------------------------------------------------------------


def serve(pem: str) -> None:
    """Serve three ports, say which, and go on until the standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=200) for _ in range(3)]
    for listener in listeners:
        threading.Thread(target=accept, args=(listener, context), daemon=True).start()
    print(*(s.getsockname()[1] for s in listeners), flush=True)
    sys.stdin.read()


def accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(sock, context), daemon=True).start()


def answer(sock: socket.socket, context: ssl.SSLContext) -> None:
    zeros = bytes(CHUNK)
    try:
        with context.wrap_socket(sock, server_side=True) as peer:
            while head := peer.recv(1 << 14):
                size = BODY if b" /body" in head else 2
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                while size > 0:
                    peer.sendall(zeros[:size])
                    size -= CHUNK
    except OSError:
        pass


# -- the client ------------------------------------------------------------------------------------


class Client:
    """Reaches the server one way: by ``host`` and ``port``, through the proxy at port ``proxy`` when it is not 0."""

    def __init__(self, host: str, port: int, proxy: int) -> None:
        self._host = host
        self._port = port
        self._proxy = proxy
        self._context = ssl.create_default_context()

    def open(self) -> ssl.SSLSocket:
        sock = socket.create_connection(
            ("127.0.0.1", self._proxy) if self._proxy else (self._host, self._port)
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._proxy:
            sock.sendall(
                b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % ((self._port,) * 2)
            )
            said = sock.recv(4096)
            assert b" 200 " in said, said
        self._context.check_hostname = self._host == "localhost"  # the certificate has that name alone
        return self._context.wrap_socket(sock, server_hostname=self._host)

    def get(self, sock: ssl.SSLSocket, path: str) -> None:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n".encode())
        data = sock.recv(CHUNK)
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), data[:300]
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]) - len(body)
        buffer = memoryview(bytearray(CHUNK))
        while left > 0:
            left -= sock.recv_into(buffer, min(left, CHUNK))

    def connections(self, count: int) -> float:
        """Return seconds for one connection with one request."""
        started = time.perf_counter()
        for _ in range(count):
            with self.open() as sock:
                self.get(sock, "/")
        return (time.perf_counter() - started) / count

    def requests(self, count: int) -> float:
        """Return seconds for one request on a connection that is there."""
        with self.open() as sock:
            self.get(sock, "/")
            started = time.perf_counter()
            for _ in range(count):
                self.get(sock, "/")
            return (time.perf_counter() - started) / count

    def body(self, count: int) -> float:
        """Return seconds for the large body."""
        with self.open() as sock:
            started = time.perf_counter()
            for _ in range(count):
                self.get(sock, "/body")
            return (time.perf_counter() - started) / count


def obey() -> None:
    """Do what the lines of the standard input say: host, port, proxy (0, or 1 for the session's), what, how often."""
    proxy = int(os.environ.get("http_proxy", "http://x:0").rstrip("/").rpartition(":")[2])
    print("ready", flush=True)
    for line in sys.stdin:
        host, port, by_proxy, what, count = line.split()
        client = Client(host, int(port), proxy if by_proxy == "1" else 0)
        print(getattr(client, what)(int(count)), flush=True)


class Worker:
    """A client in a process of its own."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [*argv, sys.executable, __file__, "--role", "client"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        if self._out.readline() != "ready\n":
            raise OSError(f"{argv[:2]} does not start")

    def do(self, way: tuple[str, int, int], what: str, count: int) -> float:
        self._in.write("{} {} {} {} {}\n".format(*way, what, count))
        self._in.flush()
        return float(self._out.readline())

    def close(self) -> None:
        self._in.close()
        self._process.wait(20)


# -- the comparison --------------------------------------------------------------------------------


def local_name() -> str:
    """Return a name other than localhost that the hosts file gives 127.0.0.1, "" when there is none."""
    try:
        lines = Path("/etc/hosts").read_text().splitlines()
    except OSError:
        return ""
    names = [
        w for line in lines if line.split()[:1] == ["127.0.0.1"] for w in line.split("#")[0].split()[1:]
    ]
    return next((n for n in names if not n.startswith("localhost")), "")


def gateways() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"remit_daemon.gateway" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            pass
    return found


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(rounds: int) -> tuple[dict[str, dict[str, list[tuple[float, float]]]], dict[str, str]]:
    """Return way → what → (direct, through) seconds of each round, and single figures by name. Raises OSError."""
    from system.site import certificate

    remit = shutil.which("remit", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if remit is None:
        raise OSError("remit is not installed beside this Python")
    with tempfile.TemporaryDirectory(prefix="remit-bench.", dir=Path.home()) as scratch:
        authority, pem = certificate(scratch)
        server = subprocess.Popen(
            [sys.executable, __file__, "--role", "server", pem], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert server.stdout is not None
        passed, named, ended = map(int, server.stdout.readline().split())
        name = local_name()
        policy = Path(scratch) / "bench.toml"
        policy.write_text(
            POLICY.format(passed=passed, named=named, ended=ended, name=name or "unused.invalid")
        )
        env = os.environ | {"SSL_CERT_FILE": authority}
        run = [
            remit,
            "run",
            "--ask",
            "deny",
            "--agent",
            "bench",
            "--policy",
            str(policy),
            "--project",
            str(ROOT),
            "--",
        ]
        before = gateways()
        native = inside = None
        try:
            native, inside = Worker([], env), Worker(run, env)
            return compare(rounds, native, inside, before, passed, named, ended, name)
        finally:
            for worker in (native, inside):
                if worker:
                    worker.close()
            server.communicate("")


def compare(
    rounds: int, native: Worker, inside: Worker, before: set[int], passed: int, named: int, ended: int, name: str
) -> tuple[dict[str, dict[str, list[tuple[float, float]]]], dict[str, str]]:  # fmt: skip
    ways = {"proxy": ("localhost", passed, 1), "ended": ("localhost", ended, 0)}
    if name:
        ways["passed"] = (name, named, 0)
    figures = {}
    first = inside.do(ways["proxy"], "connections", 1)
    (pid,) = gateways() - before
    figures["gateway start-up, with the first connection"] = f"{1e3 * first:.0f} ms"
    figures["gateway memory, at rest"] = f"{resident(pid) / 2**20:.0f} MB"
    out: dict[str, dict[str, list[tuple[float, float]]]] = {
        way: {"connections": [], "requests": [], "body": []} for way in ways
    }
    used = dict.fromkeys(ways, 0.0)
    for number in range(rounds + 1):
        for way, (host, port, by_proxy) in ways.items():
            for what, count in (("connections", CONNECTIONS), ("requests", REQUESTS), ("body", 1)):
                began = cpu(pid)
                pair = (
                    native.do((host, port, 0), what, count),
                    inside.do((host, port, by_proxy), what, count),
                )
                if number:  # the first round warms up
                    out[way][what].append(pair)
                    used[way] += (cpu(pid) - began) if what == "body" else 0.0
    for way, seconds in used.items():
        figures[f"gateway CPU per GB, {way}"] = f"{seconds / rounds / BODY * 2**30:.2f} s"
    figures["gateway memory, after the load"] = f"{resident(pid) / 2**20:.0f} MB"
    return out, figures


def rows(rounds: int = 3) -> list[tuple[str, str, str]]:
    """Return name, figure and promise of each row for the table of ``run.py``."""
    measured, figures = measure(rounds)
    out = []
    for way, whats in measured.items():
        for what, pairs in whats.items():
            through = statistics.median(b for _, b in pairs)
            ratio = statistics.median(a / b for a, b in pairs)
            if what == "connections":
                added = 1e3 * statistics.median(b - a for a, b in pairs)
                value, promise = f"{1e3 * through:.2f} ms, {added:.2f} ms more than direct", "<= 1 ms more"
            elif what == "requests":
                value, promise = f"{1 / through:.0f} requests/s, {ratio:.2f} of direct", ""
            else:
                value = f"{BODY / through / 2**20:.0f} MB/s, {ratio:.2f} of direct"
                promise = ">= 0.9" if way != "ended" else ""
            out.append((f"TLS {way}, {what}", value, promise))
    return [*out, *((name, value, "") for name, value in figures.items())]


def main() -> None:
    if sys.argv[1:2] == ["--role"]:
        serve(sys.argv[3]) if sys.argv[2] == "server" else obey()
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    for name, value, promise in rows(parser.parse_args().rounds):
        print(f"{name:46}{value:44}{promise}")


if __name__ == "__main__":
    main()
