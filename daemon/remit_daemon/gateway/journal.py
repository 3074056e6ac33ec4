"""The gateway's end of its journal: every act is written before its effect, or there is none.

The file is the gateway's own (``wire.journal`` says what a record is), made new at its start and numbered from 1.
Names and addresses come from whoever sent them: a field is bounded, and what no journal field may hold (NUL) or no
UTF-8 can carry is written in its escaped form rather than lost.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from remit_daemon.wire import journal
from remit_daemon.wire.journal import JournalFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remit_daemon.gateway.authority import Origin

MAX_FIELD = 16_384  # characters of one field: longer than any name, longer than the URLs that servers take
MAX_ARGV = 100_000  # characters of all arguments that are kept; a record must stay below journal.MAX_RECORD


class Journal(journal.Appending):
    """One gateway's journal."""

    def __init__(
        self, path: str, poke: Callable[[], None] = lambda: None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """Make the file at ``path``. Raises OSError, also when it is there already."""
        fd = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        super().__init__(fd, poke)
        self._clock = clock
        self._seq = 0

    def act(
        self,
        op: str,
        verdict: str,
        outcome: str,
        origin: Origin,
        path: str,
        *,
        path2: str = "",
        rule: str = "",
        prompt: str = "",
        note: str = "",
        argv: Sequence[str] = (),
    ) -> int:
        """Append an act and return its number. Raises JournalFailed; the act must then be refused."""
        return self.again(
            tail(
                op,
                verdict,
                outcome,
                origin,
                path,
                path2=path2,
                rule=rule,
                prompt=prompt,
                note=note,
                argv=argv,
            )
        )

    def again(self, tail: bytes) -> int:
        """Append the act of which ``tail`` is all but number and time; as ``act``."""
        number = self._seq + 1
        self._write(b"act\0%d\0%d\0%b" % (number, self._clock(), tail))
        self._seq = number
        return number

    def done(self, seq: int, outcome: str) -> None:
        """Complete act ``seq``. The effect has happened: a failure here is the ledger's to find."""
        try:
            said = _plain(outcome).encode("utf-8", "surrogateescape")
            self._write(b"done\0%d\0%d\0%b" % (seq, self._clock(), said))
        except JournalFailed:
            pass

    def done_all(self, rows: list[tuple[int, str]]) -> None:
        """Complete several acts, each with its outcome."""
        now = self._clock()
        sealed = [
            journal.seal(b"done\0%d\0%d\0%b" % (seq, now, _plain(said).encode("utf-8", "surrogateescape")))
            for seq, said in rows
        ]
        try:
            self._put(b"".join(sealed))
        except JournalFailed:
            pass

    def _write(self, payload: bytes) -> None:
        self._put(journal.seal(payload))


def tail(
    op: str,
    verdict: str,
    outcome: str,
    origin: Origin,
    path: str,
    *,
    path2: str = "",
    rule: str = "",
    prompt: str = "",
    note: str = "",
    argv: Sequence[str] = (),
) -> bytes:
    """Return an act's record but for its number and time."""
    # The program's digest is empty: the supervisor's journal has it, with its exec.
    who = (str(origin.pid), origin.proc, origin.exe, "")
    fields = [op, verdict, outcome, *who, path, path2, rule, prompt, note, *journal.fitting(argv, MAX_ARGV)]
    return "\0".join([_plain(f) for f in fields]).encode("utf-8", "surrogateescape")


def _plain(text: str) -> str:
    if len(text) > MAX_FIELD:
        text = text[:MAX_FIELD] + "…"
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode("ascii", "backslashreplace")
    return text
