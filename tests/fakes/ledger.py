"""Journals and clocks for tests of the ledger."""

from __future__ import annotations

from remit_daemon.ledger.intake import SessionInfo
from remit_daemon.wire.journal import pack

CLAUDE = SessionInfo("s1", "claude")
T0 = 1_700_000_000_000_000_000


class Clock:
    """A clock that goes when told."""

    def __init__(self, now: int = T0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def act(
    seq: int,
    op: str = "write",
    path: str = "/p/a",
    *,
    path2: str = "",
    verdict: str = "allow",
    outcome: str = "pending",
    pid: str = "12",
    rule: str = "user.toml:3",
    prompt: str = "",
    note: str = "",
    argv: tuple[str, ...] = (),
) -> bytes:
    return pack(
        ["act", str(seq), str(T0 + seq), op, verdict, outcome, pid, "4026", "/usr/bin/node", "ab" * 32,
         path, path2, rule, prompt, note, *argv]
    )  # fmt: skip


def done(seq: int, outcome: str = "ok") -> bytes:
    return pack(["done", str(seq), str(T0 + seq), outcome])


def count(seq: int, op: str, n: int) -> bytes:
    return pack(["count", str(seq), str(T0 + seq), op, str(n)])


def add(path: str, *records: bytes) -> None:
    with open(path, "ab") as file:
        file.write(b"".join(records))
