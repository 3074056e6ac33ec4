"""The ledger's speed: events taken in a second, and the time of "who" at N rows.

``rows()`` gives (what, figure) pairs for the table; run as a program it prints them. N is REMIT_BENCH_ROWS,
200,000 unless told.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time

from remit_daemon.ledger.files import Left
from remit_daemon.ledger.queries import Filter
from remit_daemon.ledger.store import Ledger, SessionInfo
from remit_daemon.wire.journal import pack

_STRETCH = 50_000  # acts put into the journal at once


def _journal(path: str, first: int, acts: int) -> None:
    out = []
    for n in range(first, first + acts):
        op = ("read", "write", "read", "create", "read", "exec")[n % 6]
        now = str(time.time_ns())
        out.append(
            pack(["act", str(n), now, op, "allow", "pending", "4711", "40261", "/usr/bin/node", "ab" * 32,
                  f"/home/u/project/src/d{n % 997}/f{n % 50021}.py", "", "user.toml:3", "", ""])
        )  # fmt: skip
        out.append(pack(["done", str(n), now, "ok", *([_object(n)] if op in ("write", "create") else [])]))
    with open(path, "ab") as file:
        file.write(b"".join(out))


def _object(n: int) -> str:
    return f"fe01.1.{n % 50021:08x}{n % 997:08x}"


def _look(ledger: Ledger) -> None:
    """Settle all that waits, as remitd does, each file with a content of its own."""
    while waits := ledger.waiting(256):
        ledger.settle([Left(of, f"{int(of.object[7:], 16):064x}", 40, of.time_ns) for of in waits], waits)


def _milliseconds(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered) * 1e3:.2f} ms median, {ordered[int(len(ordered) * 0.99)] * 1e3:.2f} ms p99"


def fill(directory: str, total: int, key: str = "key") -> tuple[Ledger, float, float]:
    """Return a new ledger of ``total`` acts in ``directory``, and how long they and the last stretch of them took, in s an act."""
    ledger = Ledger(directory + "/ledger.db", key=f"{directory}/{key}")
    session, journal = SessionInfo("bench", "claude"), directory + "/journal"
    spent = last = 0.0
    for first in range(1, total + 1, _STRETCH):
        acts = min(_STRETCH, total + 1 - first)
        _journal(journal, first, acts)
        start = time.perf_counter()
        ledger.ingest(session, journal)
        last = time.perf_counter() - start
        spent += last
        last /= acts
    return ledger, spent / total, last


def rows() -> list[tuple[str, str]]:
    """Fill a ledger in a temporary directory and return what was measured."""
    total = int(os.environ.get("REMIT_BENCH_ROWS", "200000"))
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as directory:
        ledger, mean, last = fill(directory, total)
        files = len({_object(n) for n in range(1, total + 1) if n % 6 in (1, 3)})
        start = time.perf_counter()
        _look(ledger)
        looked = files / (time.perf_counter() - start)
        size = os.path.getsize(directory + "/ledger.db") / total

        asked: list[float] = []
        for n in range(1, 500):
            path = f"/home/u/project/src/d{n * 7 % 997}/f{n * 7 % 50021}.py"
            start = time.perf_counter()
            ledger.who(path)
            asked.append(time.perf_counter() - start)
        known: list[float] = []
        for n in range(1, 500):
            start = time.perf_counter()
            trace = ledger.left_in(_object(n * 6 + 1)) or ledger.left_with(f"{n:064x}", "/none")
            if trace is None or not ledger.who(trace.path, trace.row)["entries"]:
                raise RuntimeError("a file that was left is not found")
            known.append(time.perf_counter() - start)
        newest: list[float] = []
        for _ in range(50):
            start = time.perf_counter()
            ledger.query(Filter(session="bench", limit=100))
            newest.append(time.perf_counter() - start)
        paged: list[float] = []
        for n in range(1, 200):
            start = time.perf_counter()
            ledger.page(Filter(before=n * 7919 % total + 2, limit=200, denied=n % 2 == 0))
            paged.append(time.perf_counter() - start)
        synced: list[float] = []
        for _ in range(100):
            start = time.perf_counter()
            ledger.append([{"actor": "human", "op": "grant"}], sync=True)
            synced.append(time.perf_counter() - start)
        start = time.perf_counter()
        report = ledger.verify()
        verified = time.perf_counter() - start
        ledger.close()
        if not report.ok:
            raise RuntimeError(f"the ledger that was measured is not sound: {report.errors}")
    return [
        ("ledger: acts ingested a second (each an act and a done record)", f"{1 / mean:,.0f}"),
        (f"ledger: the same for the last {_STRETCH:,}", f"{1 / last:,.0f}"),
        (f"ledger: who at {total:,} rows", _milliseconds(asked)),
        (f"ledger: who by object and content at {total:,} rows and {files:,} files", _milliseconds(known)),
        ("ledger: files' contents taken in a second", f"{looked:,.0f}"),
        (f"ledger: the newest 100 of a session at {total:,} rows", _milliseconds(newest)),
        (
            f"ledger: a page anywhere at {total:,} rows, every other one of refusals, of which there is none",
            _milliseconds(paged),
        ),
        ("ledger: one synced row", _milliseconds(synced)),
        (f"ledger: verify {total:,} rows", f"{verified:.1f} s"),
        ("ledger: bytes a row", f"{size:.0f}"),
    ]


if __name__ == "__main__":
    for what, figure in rows():
        print(f"{what:64} {figure}")
