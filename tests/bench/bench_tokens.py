"""The speed of tokens: made, verified, introspected and exchanged in a second, a revocation with 10,000 that live, and the round
trip of a program inside a session over agent.sock.

``rows()`` gives (what, figure, promise) triples for the table; run as a program it prints them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count

from remit_daemon.tokens import details as rar
from remit_daemon.tokens.handles import Family, Handles
from remit_daemon.tokens.issuer import MAX_OF_GRANT, MAX_TOKENS, Issuer
from remit_daemon.tokens.wanted import Wanted

_FEW = 2000
_DETAILS = rar.read([{"type": "files", "actions": ["read", "write"], "locations": ["/home/u/project/**"]}])
_REVOKED = "<= 100 ms"
_TRIPS = 1000
# Runs inside: the seconds of each round trip, by method.
_INSIDE = """
import json, os, socket, sys, time
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["REMIT_SOCKET"]); f = s.makefile("rb")
def call(method, params):
    s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\\n")
    answer = json.loads(f.readline())
    if "error" in answer: raise SystemExit(str(answer))
    return answer["result"]
text, times = call("token", {})["access_token"], {}
for method, params, trips in (("whoami", {}, TRIPS), ("token.introspect", {"token": text}, TRIPS), ("token", {}, TRIPS // 4)):
    times[method] = []
    for _ in range(trips):
        start = time.perf_counter(); call(method, params); times[method].append(time.perf_counter() - start)
print(json.dumps(times))
"""


def _issuer() -> Issuer:
    numbers = count()
    return Issuer("urn:remit:bench:1000", time.time, lambda: f"n{next(numbers)}")


def _issue(issuer: Issuer, grant: str = "g", bound: str = "b") -> tuple[str, str]:
    token, text = issuer.issue(
        subject="u", agent="claude", bound=bound, grant_id=grant, scope="reader", details=_DETAILS
    )
    return token.jti, text


def _a_second(step: Callable[[int], object], times: int) -> str:
    start = time.perf_counter()
    for n in range(times):
        step(n)
    return f"{times / (time.perf_counter() - start):,.0f}"


def _full(tree: bool) -> tuple[Issuer, str]:
    """Return an issuer with MAX_TOKENS live, and the jti of the first; with ``tree`` all that a grant may have came of that."""
    issuer = _issuer()
    first, text = _issue(issuer, "g0")
    for n in range(1, MAX_TOKENS):
        if tree and n < MAX_OF_GRANT:
            issuer.exchange(text, "b", agent=f"h{n}")
        else:
            _issue(issuer, f"g{n // (MAX_OF_GRANT // 2) + 1}")
    assert len(issuer.live()) == MAX_TOKENS
    return issuer, first


def _speed() -> list[tuple[str, str, str]]:
    issuer = _issuer()
    texts = [_issue(issuer, f"g{n // 500}")[1] for n in range(_FEW)]
    out = [
        ("tokens: issued a second", _a_second(lambda n: _issue(issuer, f"h{n // 500}"), _FEW), ""),
        ("tokens: verified a second", _a_second(lambda n: issuer.verify(texts[n % _FEW], "b"), 20_000), ""),
        (
            "tokens: introspected a second",
            _a_second(lambda n: issuer.introspect(texts[n % _FEW], "b"), 20_000),
            "",
        ),
        (
            "tokens: exchanged a second",
            _a_second(lambda n: issuer.exchange(texts[n], "b", agent="x"), 500),
            "",
        ),
        (
            "tokens: refused a second (65,536 characters of nothing)",
            _a_second(lambda n: issuer.introspect("A" * 65_536), 5000),
            "",
        ),
    ]
    numbers = count()
    handles = Handles(time.time, lambda: f"s{next(numbers)}")
    family = Family("f", "b", "claude", Wanted("a", ("log:read",), ()), "g", time.time() + 3600)
    text = [handles.open(family)]

    def refresh(_: int) -> None:
        text[0] = handles.rotate(handles.look(text[0], "b"))

    return [*out, ("tokens: refresh handles rotated a second", _a_second(refresh, 20_000), "")]


def _revocation() -> list[tuple[str, str, str]]:
    out = []
    issuer, first = _full(tree=True)
    filled = len(issuer.live())
    start = time.perf_counter()
    gone = len(issuer.revoke(jti=first))
    one = time.perf_counter() - start
    out.append(
        (
            f"tokens: one revoked with the {gone - 1:,} made from it, {filled:,} live",
            f"{one * 1e3:.1f} ms",
            _REVOKED,
        )
    )
    issuer, _ = _full(tree=False)
    start = time.perf_counter()
    gone = len(issuer.revoke(bound="b"))
    every = time.perf_counter() - start
    assert not issuer.live()
    out.append((f"tokens: all {gone:,} of a process revoked", f"{every * 1e3:.1f} ms", _REVOKED))
    return out


def _percentiles(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{statistics.median(ordered) * 1e3:.2f} ms median, {ordered[int(len(ordered) * 0.99)] * 1e3:.2f} ms p99"


def _round_trips() -> list[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as project:
        inside = ["/usr/bin/env", "python3", "-c", _INSIDE.replace("TRIPS", str(_TRIPS))]
        done = subprocess.run(
            [sys.executable, "-m", "remit_daemon.cli.main", "run", "--agent", "bench", "--project", project, "--ask", "deny", "--", *inside],
            capture_output=True, text=True, check=False, cwd=project, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the session did not end well: {done.stderr.strip()[-300:]}")
    times = json.loads(done.stdout)
    return [(f"tokens: {method} over agent.sock", _percentiles(t), "") for method, t in times.items()]


def rows() -> list[tuple[str, str, str]]:
    """Measure and return the table's rows."""
    return [*_speed(), *_revocation(), *_round_trips()]


if __name__ == "__main__":
    for what, figure, promised in rows():
        print(f"{what:72} {figure:36} {promised}")
