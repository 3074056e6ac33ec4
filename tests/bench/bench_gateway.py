"""The gateway's cost: what a session's connections take through it, beside the same connections without it, in one run.

``rows()`` gives (what, figure, promise) for the table; run as a program it prints them. The servers, and the client
of both variants, are this file again (``--serve``, ``--client``). A connection goes through the gateway unread by a name that
the hosts file gives this machine (plain localhost is connected directly), and looked into where localhost has rules for requests.
Each round runs every piece once without remit and once in a session, in turning order; a ratio is the median over the rounds.
A body that is passed on unread is measured through ``relay.c`` as well, the least that a relay can do: on the same cores as
client and server none is as fast as no relay.
"""

from __future__ import annotations

import json
import os
import selectors
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

HOSTS = "/etc/hosts"
ROUNDS = 3
CONNECTIONS = 150  # one after another: connect, a request, close
REQUESTS = 1000  # on each of STREAMS connections
STREAMS = 4
BODY = 200 << 20  # bytes
LIMIT = 25.0  # seconds for one piece of work
_CHUNK = 1 << 18
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nfine\n"

PASSED, HTTP, TLS = HOWS = "passed through", "read (HTTP)", "ended and read (TLS)"

POLICY = """\
version = 1

[agent.bench]
match = {{ name = "bench*" }}
roles = ["bench"]

[role.bench.files]
read = {{ allow = ["/**"] }}
write = {{ allow = ["$PROJECT/**", "$TMPDIR/**", "/dev/**"] }}
execute = {{ allow = ["/**"] }}

[role.bench.net]
connect = {{ allow = ["{name}:{plain}"] }}
resolve = {{ allow = ["{name}"] }}
[role.bench.net."localhost:{ended}"]
GET = {{ allow = ["/**"] }}
"""


# -- the servers -----------------------------------------------------------------------------------


def serve(pem: str) -> None:
    """Serve HTTP and HTTPS on loopback until standard input ends; the first line printed has their ports."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    ports = []
    for tls in (None, context):
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        ports.append(listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, tls), daemon=True).start()
    print(*ports, flush=True)
    sys.stdin.read()


def _accept(listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_answer, args=(client, tls), daemon=True).start()


def _answer(client: socket.socket, tls: ssl.SSLContext | None) -> None:
    zeros = bytes(_CHUNK)
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = tls.wrap_socket(client, server_side=True) if tls else client
        with sock:
            asked = b""
            while data := sock.recv(_CHUNK):
                asked += data
                while b"\r\n\r\n" in asked:
                    request, _, asked = asked.partition(b"\r\n\r\n")
                    if b" /body" in request:
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
                        for _ in range(BODY // _CHUNK):
                            sock.sendall(zeros)
                    else:
                        sock.sendall(_ANSWER)
    except OSError:
        pass


# -- the client ------------------------------------------------------------------------------------


class _Client:
    """``how`` is one of HOWS; what is passed on unread begins like no protocol that the gateway knows."""

    def __init__(self, host: str, port: int, how: str) -> None:
        self._host, self._port = host, port
        self._context = ssl.create_default_context() if how == TLS else None
        self._first = "\0 {}" if how == PASSED else "GET {} HTTP/1.1"

    def _request(self, path: str) -> bytes:
        return f"{self._first.format(path)}\r\nHost: {self._host}:{self._port}\r\n\r\n".encode()

    def _open(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(sock, server_hostname=self._host) if self._context else sock

    @staticmethod
    def _read(sock: socket.socket) -> None:
        got = b""
        while not got.endswith(b"fine\n"):
            data = sock.recv(4096)
            if not data or not got.startswith(b"HTTP/1.1 200"[: len(got)]):
                raise OSError(f"no answer: {got[:200]!r}")
            got += data

    def connections(self, count: int = CONNECTIONS) -> dict[str, float]:
        """Connect, ask, read the answer, close, one after another."""
        times = []
        for _ in range(count):
            started = time.perf_counter()
            with self._open() as sock:
                sock.sendall(self._request("/ok"))
                self._read(sock)
            times.append(time.perf_counter() - started)
        return {"value": statistics.median(times), "first": times[0]}

    def requests(self) -> dict[str, float]:
        """Ask again and again on a few connections at once; requests a second."""
        request = self._request("/ok")
        ready = selectors.DefaultSelector()
        left: dict[socket.socket, int] = {}
        for _ in range(STREAMS):
            sock = self._open()
            ready.register(sock, selectors.EVENT_READ)
            left[sock] = REQUESTS
        started = time.perf_counter()
        for sock in left:
            sock.sendall(request)
        while left:
            for key, _ in ready.select(LIMIT):
                sock = key.fileobj  # type: ignore[assignment]
                self._read(sock)
                left[sock] -= 1
                if left[sock]:
                    sock.sendall(request)
                else:
                    ready.unregister(sock)
                    del left[sock]
                    sock.close()
        return {"value": STREAMS * REQUESTS / (time.perf_counter() - started)}

    def body(self) -> dict[str, float]:
        """Read one large body; bytes a second."""
        room = bytearray(_CHUNK)
        with self._open() as sock:
            sock.sendall(self._request("/body"))
            started = time.perf_counter()
            got = 0
            while got < BODY:
                size = sock.recv_into(room)
                if not size:
                    raise OSError(f"the body ends after {got} bytes")
                got += size
            return {"value": got / (time.perf_counter() - started)}


def client(what: str, host: str, port: str, how: str) -> None:
    """Do one piece of work and print what it took."""
    print(json.dumps(getattr(_Client(host, int(port), how), what)()))


# -- the measurement -------------------------------------------------------------------------------


def _own_name() -> str:
    """Return a name other than localhost that the hosts file gives 127.0.0.1. Raises Unavailable."""
    from variants import Unavailable

    from remit_daemon.gateway.dns.hosts import Hosts

    names = Hosts(HOSTS).names("127.0.0.1")
    if not names:
        raise Unavailable(
            f"{HOSTS} has no name but localhost for 127.0.0.1, so nothing goes through unread"
        )
    return names[0]


def _gateway_of(supervisor: int) -> int:
    """Return the process id of the gateway that ``supervisor`` started. Raises Unavailable."""
    from variants import Unavailable

    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if (
                parent == supervisor
                and b"remit_daemon.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ):
                return int(pid)
        except OSError:
            continue
    raise Unavailable("the session has no gateway")


def _cpu(pid: int) -> float:
    """Return the processor time of ``pid`` in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Bench:
    """A native runner and a session, in a directory with the servers."""

    def __init__(self, directory: Path) -> None:
        from variants import Unavailable, Variant

        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from system.site import certificate

        self.project = directory / "project"
        self.project.mkdir()
        self.name = _own_name()
        authority, pem = certificate(str(directory))
        for file in ("runner.py", Path(__file__).name):
            shutil.copy(Path(__file__).parent / file, self.project)
        self.python = os.path.realpath(sys.executable)
        self._script = str(self.project / Path(__file__).name)
        self._servers = subprocess.Popen(
            [self.python, "-I", self._script, "--serve", pem], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._servers.stdout
        self.plain, self.ended = map(int, self._servers.stdout.readline().split())
        policy = directory / "policy.toml"
        policy.write_text(POLICY.format(name=self.name, plain=self.plain, ended=self.ended))
        remit = str(Path(sys.executable).with_name("remit"))
        self._wrap = [
            remit, "run", "--agent", "bench", "--project", str(self.project), "--policy", str(policy),
            "--ask", "deny", "--",
        ]  # fmt: skip
        self._relay, self.relayed = _relay(directory, self.plain)
        os.environ["SSL_CERT_FILE"] = authority  # the person's: sessions get it, with the gateway's own
        self.variants = {"native": Variant("native", [], self.python, self.project)}
        try:
            self.variants["native"].start()
            self.variants["remit"] = self.session()
        except Unavailable:
            self.close()
            raise
        self.failed: dict[str, str] = {}

    def session(self) -> object:
        """Return a new session's variant, started."""
        from variants import Variant

        variant = Variant("remit", self._wrap, self.python, self.project)
        variant.start()
        return variant

    def one(self, variant: object, what: str, how: str, port: int = 0) -> dict[str, float]:
        """Do one piece of work in ``variant``, at another ``port`` where one is given. Raises Unavailable."""
        from variants import Unavailable

        where = ["localhost", str(self.ended)] if how == TLS else [self.name, str(port or self.plain)]
        done = variant.run(  # type: ignore[attr-defined]
            [self.python, "-I", self._script, "--client", what, *where, how], capture=True
        )
        if done["status"]:
            raise Unavailable(f"{what}: {done['err'].strip()[-300:]}")
        return json.loads(done["out"])

    def both(self, what: str, how: str) -> tuple[list[float], list[float]]:
        """Return the values of a piece of work without and with remit, one of each a round."""
        values: dict[str, list[float]] = {"native": [], "remit": []}
        for number in range(ROUNDS):
            for variant in ("native", "remit")[:: 1 if number % 2 else -1]:
                values[variant].append(self.one(self.variants[variant], what, how)["value"])
        return values["native"], values["remit"]

    def relays(self) -> list[float]:
        """Return the body's values through the relay in C, one a round."""
        native = self.variants["native"]
        return [self.one(native, "body", PASSED, self.relayed)["value"] for _ in range(ROUNDS)]

    def close(self) -> None:
        for variant in self.variants.values():
            variant.stop()
        if self._relay is not None:
            self._relay.terminate()
            self._relay.wait()
        assert self._servers.stdin
        self._servers.stdin.close()
        self._servers.wait()


def _relay(directory: Path, port: int) -> tuple[subprocess.Popen[bytes] | None, int]:
    """Return ``relay.c`` at work towards ``port``, and its own port; None where nothing compiles it."""
    program = str(directory / "relay")
    source = str(Path(__file__).with_name("relay.c"))
    if (
        not shutil.which("gcc")
        or subprocess.run(["gcc", "-O2", "-pthread", "-o", program, source]).returncode
    ):
        return None, 0
    relay = subprocess.Popen([program, str(port)], stdout=subprocess.PIPE)
    assert relay.stdout
    return relay, int(relay.stdout.readline())


def _ratio(direct: list[float], through: list[float]) -> float:
    return statistics.median([t / d for d, t in zip(direct, through, strict=True)])


def rows() -> list[tuple[str, str, str]]:
    """Measure, and return what was measured. Raises Unavailable."""
    from figures import memory

    found: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="remit-bench-gateway.", dir=Path.home()) as directory:
        bench = _Bench(Path(directory))
        try:
            session = bench.variants["remit"]
            first = bench.one(session, "connections", PASSED)
            start = f"{(first['first'] - first['value']) * 1e3:.0f} ms"
            found.append(("gateway: the first connection of a session, over the others", start, ""))
            gateway = _gateway_of(session.pid)
            found.append(("gateway: memory at first", memory(gateway), ""))
            for how in HOWS:
                found += _costs(bench, gateway, how)
            found.append(("gateway: memory at last", memory(gateway), ""))
        finally:
            bench.close()
    return found


def _costs(bench: _Bench, gateway: int, how: str) -> list[tuple[str, str, str]]:
    """Return the rows of connections that are treated in the way ``how``."""
    direct, through = bench.both("connections", how)
    added = statistics.median([t - d for d, t in zip(direct, through, strict=True)])
    each = f"{added * 1e3:.2f} ms ({statistics.median(direct) * 1e3:.2f} direct)"
    direct, through = bench.both("requests", how)
    often = f"{statistics.median(through):,.0f} ({_ratio(direct, through):.2f} x direct)"
    spent = _cpu(gateway)
    direct, through = bench.both("body", how)
    spent = (_cpu(gateway) - spent) / (ROUNDS * BODY / 1e9)
    fast = f"{statistics.median(through) / 1e6:,.0f} MB/s ({_ratio(direct, through):.2f} x direct"
    promised = how == PASSED
    if promised and bench.relayed:
        fast += f", {_ratio(bench.relays(), through):.2f} x a relay in C"
    fast += ")"
    return [
        (f"gateway: added to a connection {how}", each, "<= 1 ms" if promised else ""),
        (f"gateway: requests/s {how}", often, ""),
        (f"gateway: a body of {BODY >> 20} MB {how}", fast, ">= 0.9 x a relay in C" if promised else ""),
        (f"gateway: CPU a GB {how}", f"{spent:.2f} s", ""),
    ]


def main(argv: list[str]) -> None:
    if argv[:1] == ["--serve"]:
        serve(argv[1])
    elif argv[:1] == ["--client"]:
        client(*argv[1:])
    else:
        for what, figure, promise in rows():
            print(f"{what:64} {figure:40} {promise}")


if __name__ == "__main__":
    main(sys.argv[1:])
