"""The supervisor's end of the journal: every act is written before its effect, or there is none."""

from __future__ import annotations

import os
import time

from remit_daemon.wire import journal
from remit_daemon.wire.journal import JournalFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.target import Process, Targets
    from remit_policy.model import Decision

_COUNT_EVERY = 30.0  # seconds between counts of static reads
_MAX_ARGV = 200_000  # characters of an exec's arguments that are kept
_MAX_SEEN = 50_000  # first reads remembered; beyond, they are recorded again rather than missed


class Journal(journal.Appending):
    """One session's journal."""

    def __init__(self, path: str, targets: Targets, poke: Callable[[], None]) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        super().__init__(fd, poke)
        self._targets = targets
        self._counted = time.monotonic()
        self._seq = 0
        self._seen: set[int] = set()  # hashes, keyed anew in each process: nobody can make one collide
        self.static_reads = 0

    def _write(self, fields: list[str]) -> None:
        self._put(journal.pack(fields))

    def act(
        self,
        op: str,
        verdict: str,
        outcome: str,
        process: Process | None,
        path: str,
        *,
        path2: str = "",
        rule: str = "",
        prompt: str = "",
        note: str = "",
        sha256: str = "",
        exe: str | None = None,
        argv: list[str] | None = None,
    ) -> int:
        """Append an act and return its number. Raises JournalFailed; the act must then be refused."""
        seq = self._seq + 1
        if exe is None:
            exe = self._targets.exe(process) if process else ""
        fields = [
            "act",
            str(seq),
            str(time.time_ns()),
            op,
            verdict,
            outcome,
            str(process.tgid) if process else "0",
            process.inode if process else "",
            exe,
            sha256,
            path,
            path2,
            rule,
            prompt,
            note,
        ]
        if argv:
            fields += journal.fitting(argv, _MAX_ARGV)
        self._write(fields)
        self._seq = seq  # one that was not written has no number
        if self.static_reads and time.monotonic() - self._counted > _COUNT_EVERY:
            self.count()
        return seq

    def done(self, seq: int, outcome: str, object: str = "") -> None:
        """Complete act ``seq``, which changed the file ``object``. The effect has happened: a failure here is the
        ledger's to find."""
        try:
            self._write(["done", str(seq), str(time.time_ns()), outcome, *([object] if object else [])])
        except JournalFailed:
            pass

    def count(self) -> None:
        """Append how many static reads there were since the last count."""
        self._counted = time.monotonic()
        if self.static_reads:
            self._write(["count", str(self._seq + 1), str(time.time_ns()), "read", str(self.static_reads)])
            self._seq += 1
            self.static_reads = 0

    def first_read(self, op: str, path: str) -> bool:
        """Say whether this is the session's first such access to ``path``, and remember it."""
        key = hash((op, path))
        if key in self._seen:
            return False
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(key)
        return True

    def datagram(self, tid: int, where: str, decision: Decision) -> None:
        """Record the first datagram to a destination that is allowed. Raises JournalFailed."""
        if self.first_read("datagram", where):
            process = self._targets.process(tid)
            self.act("connect", "allow", "passed", process, where, rule=decision.source, note="datagram")
