"""Real network clients in a session, against servers on this machine, with and without the proxy's variables.

Each reaches two sites: ``passed``, whose connections go through unread, and ``ended``, which has rules for requests,
so that the gateway ends its TLS under the session's own certificate. The sites' authority is one that only the person's
SSL_CERT_FILE knows.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import PYTHON, Arena
from system.site import Site, certificate

RULES = """
[role.probe.net]
connect = {{ allow = ["localhost:{passed}", "localhost:{plain}"] }}
[role.probe.net."localhost:{ended}"]
GET = {{ allow = ["/ok", "/git/**", "/events", "/headers"] }}
POST = {{ allow = ["/up", "/git/**"] }}
[role.probe.net."localhost:{silent}"]
GET = {{ allow = ["/"] }}
"""

# How a client gets /ok: its command, with URL for the address.
CLIENTS = {
    "curl": ["curl", "-sS", "--max-time", "10", "URL"],
    "urllib": [PYTHON, "-c", "import urllib.request as u; print(u.urlopen('URL', timeout=10).read().decode())"],
    "asyncio": [
        PYTHON, "-c",
        "import asyncio, ssl, urllib.parse as p\n"
        "u = p.urlsplit('URL')\n"
        "async def main():\n"
        "    r, w = await asyncio.open_connection(u.hostname, u.port, ssl=ssl.create_default_context())\n"
        "    w.write(b'GET /ok HTTP/1.1\\r\\nHost: ' + u.netloc.encode() + b'\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "    print((await asyncio.wait_for(r.read(), 10)).decode())\n"
        "asyncio.run(main())",
    ],
    "node https": [
        "node", "-e",
        "require('https').get('URL', r => r.on('data', d => console.log(String(d)))).on('error', e => { console.error(e); process.exit(1) })",
    ],
    "node fetch": ["node", "-e", "fetch('URL').then(r => r.text()).then(console.log)"],
}  # fmt: skip


class Sites:
    """The three servers, and the environment of a person who trusts them."""

    def __init__(self, arena: Arena) -> None:
        self.directory = arena.base + "/sites"
        os.mkdir(self.directory)
        self.authority, server = certificate(self.directory)
        self._repository(arena)
        self.passed, self.ended = Site(server, self.directory), Site(server, self.directory)
        self.plain = Site()
        self.env = arena.env | {
            "SSL_CERT_FILE": self.authority,
            "NODE_EXTRA_CA_CERTS": self.authority,
            "CURL_CA_BUNDLE": self.authority,
            "GIT_SSL_CAINFO": self.authority,
        }
        self._listener = socket.create_server(
            ("127.0.0.1", 0), backlog=4096
        )  # takes whoever comes, and says nothing
        self.silent = self._listener.getsockname()[1]
        self.rules = RULES.format(
            passed=self.passed.port, ended=self.ended.port, plain=self.plain.port, silent=self.silent
        )

    def _repository(self, arena: Arena) -> None:
        work = arena.base + "/sites/work"
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", work]
        Path(work).mkdir()
        (Path(work) / "README").write_text("cloned\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
            subprocess.run([*git, *words], check=True)
        os.rename(work + "/.git", self.directory + "/repo.git")

    def close(self) -> None:
        self._listener.close()
        for site in (self.passed, self.ended, self.plain):
            site.close()


@pytest.fixture(scope="module")
def sites(arena: Arena) -> Iterator[Sites]:
    made = Sites(arena)
    arena.write_policy(more=made.rules)
    yield made
    made.close()


def run(arena: Arena, sites: Sites, *command: str, proxy: bool = True, **kw: Any) -> tuple[int, str, str]:
    """Run ``command`` in a session; with ``proxy`` it asks the proxy for this machine too, without it never."""
    unset = [w for name in (DIRECT if proxy else PROXIES) for w in ("-u", name)]
    return arena.communicate(
        arena.remit_run("/usr/bin/env", "-u", "PYTHONPATH", *unset, *command), env=sites.env, **kw
    )


PROXIES = [n for name in ("http_proxy", "https_proxy", "all_proxy") for n in (name, name.upper())]
DIRECT = ["no_proxy", "NO_PROXY"]


@pytest.mark.parametrize("proxy", [True, False], ids=["by the proxy", "by itself"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("site", ["passed", "ended"])
def test_client_reaches(arena: Arena, sites: Sites, client: str, site: str, proxy: bool) -> None:
    command = CLIENTS[client]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    url = getattr(sites, site).url + "/ok"
    code, out, err = run(arena, sites, *(w.replace("URL", url) for w in command), proxy=proxy)
    assert (code, out.strip().split("\n")[-1]) == (0, "fine"), err


@pytest.mark.parametrize("proxy", [True, False], ids=["by the proxy", "by itself"])
@pytest.mark.parametrize("site", ["passed", "ended"])
def test_git_clones(arena: Arena, sites: Sites, site: str, proxy: bool) -> None:
    url = getattr(sites, site).url + "/git/repo.git"
    target = f"{arena.project}/clone-{site}-{proxy}"
    code, _, err = run(arena, sites, "git", "clone", "-q", url, target, proxy=proxy)
    assert code == 0, err
    assert Path(target, "README").read_text() == "cloned\n"


def test_request_without_a_rule_is_refused_in_words(arena: Arena, sites: Sites) -> None:
    """The refusal is HTTP that the agent can read, in the ledger, and never reached the server."""
    sites.ended.seen.clear()
    curl = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", "-X", "DELETE"]
    code, out, _ = run(arena, sites, *curl, sites.ended.url + "/ok")
    body, status = out.rsplit("\n", 1)
    assert (code, status) == (0, "403")
    refusal = json.loads(body)
    assert refusal["op"] == "request"
    assert refusal["resource"] == f"DELETE {sites.ended.url}/ok"
    assert not sites.ended.seen
    code, log, _ = arena.communicate(arena.remit("denials", "--json"))
    assert f"DELETE {sites.ended.url}/ok" in log


def test_site_without_a_rule_is_refused(arena: Arena, sites: Sites) -> None:
    other = Site()
    try:
        code, out, _ = run(arena, sites, "curl", "-sS", "--max-time", "10", other.url + "/ok")
        assert (code, "fine" in out, other.seen) == (0, False, [])  # the proxy's own 403
        code, out, _ = run(arena, sites, "curl", "-sS", "--max-time", "10", other.url + "/ok", proxy=False)
        assert (code, "fine" in out, other.seen) == (7, False, [])  # could not connect
    finally:
        other.close()


@pytest.mark.parametrize("site", ["passed", "ended"])
def test_large_body_and_its_answer(arena: Arena, sites: Sites, site: str) -> None:
    """An upload that is announced with 100-continue arrives whole."""
    size = 20 << 20
    with open(arena.project + "/large", "wb") as f:
        f.truncate(size)
    url = getattr(sites, site).url + "/up"
    curl = ["curl", "-sS", "--max-time", "20", "-H", "Expect: 100-continue", "--data-binary", "@large", url]
    assert run(arena, sites, *curl)[:2] == (0, str(size))


@pytest.mark.parametrize("site", ["passed", "ended"])
def test_events_arrive_as_they_are_sent(arena: Arena, sites: Sites, site: str) -> None:
    """A stream without an end is read while it runs."""
    url = getattr(sites, site).url + "/events"
    script = f"curl -sSN --max-time 10 {url} | head -n 3"
    code, out, said = run(arena, sites, "/bin/sh", "-c", script, seconds=15)
    assert (code, out) == (0, "data: tick\n\ndata: tick\n"), said


def test_static_program_without_a_resolver(arena: Arena, sites: Sites) -> None:
    """No library of the agent's is needed for the way through: a bare connect is mediated."""
    source = f"{arena.base}/bare.c"
    Path(source).write_text(BARE)
    program = f"{arena.home}/readonly/bare"
    made = subprocess.run(["gcc", "-static", "-o", program, source], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("no static C library")
    arena._own(arena.home + "/readonly")
    code, out, _ = run(arena, sites, program, str(sites.plain.port), proxy=False)
    assert (code, out.rsplit("\n", 1)[-1]) == (0, "fine")
    code, out, _ = run(arena, sites, program, str(arena.info["tcp"]), proxy=False)
    assert (code, out) == (13, "")  # EACCES


BARE = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **words) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    char request[] = "GET /ok HTTP/1.0\r\nHost: localhost\r\n\r\n", got[4096];
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    ssize_t n;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(sock, (struct sockaddr *)&to, sizeof to)) return errno;
    if (write(sock, request, strlen(request)) < 0) return errno;
    while ((n = read(sock, got, sizeof got)) > 0) if (write(1, got, n) != n) return 1;
    return n ? errno : 0;
}
"""

JAVA = """
import java.net.URI;
public class Get {
    public static void main(String[] words) throws Exception {
        System.out.write(URI.create(words[0]).toURL().openStream().readAllBytes());
        System.out.flush();
    }
}
"""


@pytest.mark.parametrize("site", ["passed", "ended"])
def test_java_reaches(arena: Arena, sites: Sites, site: str) -> None:
    """Java has no variable for what it trusts: its key store is exchanged as it is opened."""
    if shutil.which("javac") is None:
        pytest.skip("no Java here")
    source = f"{arena.home}/readonly/Get.java"
    Path(source).write_text(JAVA)
    subprocess.run(["javac", source], check=True)
    arena._own(arena.home + "/readonly")
    url = getattr(sites, site).url + "/ok"
    code, out, err = run(arena, sites, "java", "-cp", arena.home + "/readonly", "Get", url)
    assert (code, out) == (0, "fine"), err


CROWD = """
import socket, sys
crowd, refused = [], 0
for _ in range(int(sys.argv[2])):
    s = socket.socket()
    s.setblocking(False)
    if s.connect_ex(("127.0.0.1", int(sys.argv[1]))) in (0, 115):
        crowd.append(s)
    else:
        refused += 1
        s.close()
print(len(crowd), refused)
"""


def test_a_crowd_of_connections_leaves_the_rest_working(arena: Arena, sites: Sites) -> None:
    """Many connections on which nothing is said: another session is served meanwhile, and this one afterwards."""
    inside = f"{PYTHON} -c '{CROWD}' {sites.silent} 900 && curl -sS --max-time 20 {sites.ended.url}/ok"
    process = arena.popen(
        arena.remit_run("/usr/bin/env", "-u", "PYTHONPATH", "/bin/sh", "-c", inside),
        env=sites.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    code, out, err = run(arena, sites, "curl", "-sS", "--max-time", "20", sites.ended.url + "/ok")
    assert (code, out) == (0, "fine"), err
    mine, errors = process.communicate(timeout=60)
    assert mine.decode().split("\n") == ["900 0", "fine"], errors.decode()


BEHAVIOUR = r"""
import errno, os, select, socket, struct, sys, threading
there, closed, full = map(int, sys.argv[1:4])
said = {}
def name(code):
    return errno.errorcode.get(code, code)
def tries(what):
    def wrap(act):
        try:
            said[what] = act()
        except OSError as e:
            said[what] = name(e.errno)
    return wrap
def blocking(address, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(None)
        s.connect(address)
        return s.getpeername()[:2], s.getsockname()[0]
def eventually(address, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.setblocking(False)
        first = s.connect_ex(address)
        if first not in (0, errno.EINPROGRESS):
            return name(first)
        ready = select.select([], [s], [], 5)[1]
        return bool(ready), name(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)), name(s.connect_ex(address))
for where, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6), ("::ffff:127.0.0.1", socket.AF_INET6), ("0.0.0.0", socket.AF_INET)):
    for port in (there, closed):
        tries(f"blocking {where} {port == there}")(lambda: blocking((where, port), family))
        tries(f"not blocking {where} {port == there}")(lambda: eventually((where, port), family))
@tries("IPv6 only, to a mapped address")
def _():
    with socket.socket(socket.AF_INET6) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.connect(("::ffff:127.0.0.1", there))
@tries("twice")
def _():
    with socket.socket() as s:
        s.connect(("127.0.0.1", there))
        s.connect(("127.0.0.1", there))
@tries("a listening one")
def _():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        s.connect(("127.0.0.1", there))
@tries("after a bind")
def _():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        own = s.getsockname()
        s.connect(("127.0.0.1", there))
        return s.getsockname() == own
@tries("with a time limit")
def _():
    with socket.create_connection(("localhost", there), timeout=5) as s:
        return s.gettimeout()
@tries("no descriptor")
def _():
    with socket.socket() as s:
        number = s.fileno()
        s.close()
        with socket.socket(fileno=os.dup(0)) as other:
            other.connect(("127.0.0.1", there))
@tries("an address cut short")
def _():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket() as s:
        raw = struct.pack("=HH", socket.AF_INET, socket.htons(there))
        if libc.connect(s.fileno(), raw, len(raw)):
            raise OSError(ctypes.get_errno(), "")
@tries("its own server")
def _():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.socket() as s:
            s.connect(server.getsockname())
            peer, address = server.accept()
            return address == s.getsockname()
@tries("many at once")
def _():
    done = []
    def one():
        done.append(blocking(("127.0.0.1", there))[1])
    crowd = [threading.Thread(target=one) for _ in range(40)]
    [t.start() for t in crowd]
    [t.join() for t in crowd]
    return len(done)
@tries("a queue that is full")
def _():
    held, slow = [], 0
    for _ in range(3):
        s = socket.socket()
        s.settimeout(0.3)
        try:
            s.connect(("127.0.0.1", full))
        except TimeoutError:
            slow += 1
        held.append(s)
    return slow > 0
import json
print(json.dumps(said))
"""


def test_connects_behave_as_without_remit(arena: Arena, sites: Sites) -> None:
    """Blocking or not, to either family, refused, in a queue, twice: what a program sees is what it saw."""
    six = socket.create_server(("::1", sites.plain.port), family=socket.AF_INET6, backlog=200)
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    first = [socket.create_connection(full.getsockname()) for _ in range(1)]
    with socket.create_server(("127.0.0.1", 0)) as s:
        closed = s.getsockname()[1]
    words = [str(p) for p in (sites.plain.port, closed, full.getsockname()[1])]
    argv = [PYTHON, "-c", BEHAVIOUR, *words]
    policy = f"[role.probe.net]\nconnect = {{ allow = {json.dumps([f'localhost:{w}' for w in words])} }}\n"
    arena.write_policy(more=policy)
    try:
        code, native, err = arena.communicate(argv)
        assert code == 0, err
        code, mediated, err = run(arena, sites, *argv)
        assert code == 0, err
        assert json.loads(mediated) == json.loads(native)
    finally:
        arena.write_policy(more=sites.rules)
        for s in (six, full, *first):
            s.close()


SERVER = """
import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
while True:
    with s.accept()[0] as peer:
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nworked")
"""


@pytest.mark.parametrize(
    ("switch", "what"),
    [("--remote-debugging-port=0", "app:browser"), ("--inspect=127.0.0.1:0", "built-in: debuggers")],
)
def test_what_is_worked_by_its_port_is_no_service(
    arena: Arena, sites: Sites, switch: str, what: str
) -> None:
    """A rule for all of this machine does not open a browser that is debugged, nor a debugger; one for the port does."""
    person = arena.popen([PYTHON, "-c", SERVER, switch, "--flag"], stdout=subprocess.PIPE)
    other = arena.popen([PYTHON, "-c", SERVER, "--flag", "more"], stdout=subprocess.PIPE)
    assert person.stdout
    assert other.stdout
    port, plain = int(person.stdout.readline()), int(other.stdout.readline())
    curl = ["curl", "-sS", "--max-time", "10", f"http://localhost:{port}/"]
    try:
        arena.write_policy(more='[role.probe.net]\nconnect = { allow = ["localhost"] }\n')
        assert run(arena, sites, *curl[:-1], f"http://localhost:{plain}/")[1] == "worked"
        for proxy in (True, False):
            _, out, _ = run(arena, sites, *curl, proxy=proxy)
            assert "worked" not in out
        code, log, _ = arena.communicate(arena.remit("denials", "--json"))
        assert code == 0
        last = json.loads(log)[-2:]
        assert [d["note"] if d["op"] == "use" else d["path"] for d in last] == [f"localhost:{port}"] * 2
        assert {d["path"] for d in last} == {what} if what.startswith("app") else {f"localhost:{port}"}
        arena.write_policy(more=f'[role.probe.net]\nconnect = {{ allow = ["localhost:{port}"] }}\n')
        for proxy in (True, False):
            assert run(arena, sites, *curl, proxy=proxy)[1] == "worked"
    finally:
        arena.write_policy(more=sites.rules)
        for process in (person, other):
            process.kill()


def test_a_large_request_that_is_refused_can_read_why(arena: Arena, sites: Sites) -> None:
    """The refusal comes while the body is on its way, and is not overtaken by a reset."""
    with open(arena.project + "/large", "wb") as f:
        f.truncate(8 << 20)
    for proxy in (True, False):
        curl = [
            "curl",
            "-sS",
            "--max-time",
            "20",
            "-H",
            "Expect:",
            "--data-binary",
            "@large",
            sites.ended.url + "/no",
        ]
        code, out, err = run(arena, sites, *curl, proxy=proxy)
        assert code == 0, err
        assert json.loads(out)["error"] == "refused by remit"
