"""What a session holds: operations whose threads wait in the kernel until remitd, a new policy or time says something.

    keep -> journal `held`, ask frame -> take: it was allowed, and the session does it
                                      -> refuse: the answer was no, or nobody answered in time
                                      -> gone: the thread waits no longer

Each ends once: the journal is told, what was pinned for it is let go. All of it happens under the session's lock.
"""

from __future__ import annotations

import errno

from remit_daemon.supervisor.target import comm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.supervisor.act import Act, Note
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.subs import Line
    from remit_daemon.supervisor.target import Targets
    from remit_daemon.supervisor.upcall import Upcall
    from remit_policy.limits import Costs
    from remit_policy.model import Decision

_MAX_HELD = 1024  # held calls at once; more are refused, so a flood cannot make us keep its objects
_LOOK_AT_TARGETS = 1.0  # seconds between checks that the targets of holds still wait


class Hold:
    """An operation that waits for the person."""

    __slots__ = ("act", "costs", "deadline", "decision", "note", "ops", "prompt", "seq", "short")

    def __init__(
        self, seq: int, note: Note, act: Act, decision: Decision, ops: list[str], deadline: float, costs: Costs,
        short: bool,
    ) -> None:  # fmt: skip
        self.seq = seq
        self.note = note
        self.act = act
        self.decision = decision
        self.ops = ops
        self.deadline = deadline
        self.costs = costs
        self.short = short  # the policy allows it; a limit is to be asked about
        self.prompt = ""


class Holds:
    """The holds of one session. ``answer`` ends the call of a notification with an errno."""

    def __init__(
        self, journal: Journal, targets: Targets, upcall: Upcall | Line, answer: Callable[[Note, int], None]
    ) -> None:
        self._journal = journal
        self._targets = targets
        self._upcall = upcall
        self._answer = answer
        self._held: dict[int, Hold] = {}
        self._looked = 0.0

    def check_room(self) -> None:
        """Raise OSError (EACCES) when no more can be held."""
        if len(self._held) >= _MAX_HELD:
            raise OSError(errno.EACCES, "too many operations are held")

    def keep(self, hold: Hold) -> None:
        """Hold what the journal has as ``held``, and ask remitd."""
        self._held[hold.seq] = hold
        self._upcall.send(self._frame(hold))

    def get(self, seq: int) -> Hold | None:
        """Return the hold of the ask ``seq``, None when it has ended."""
        return self._held.get(seq)

    def all(self) -> list[Hold]:
        """Return every hold, oldest first."""
        return list(self._held.values())

    def take(self, hold: Hold) -> None:
        """Hold it no longer: the session does it, and tells the journal."""
        self._held.pop(hold.seq)

    def refuse(self, hold: Hold, outcome: str, *, cancel: str = "") -> None:
        """Refuse the call and end the hold; remitd is told by ``cancel`` why it need not answer any more, unless it did."""
        self._answer(hold.note, errno.EACCES)
        self._end(hold, outcome, cancel)

    def _end(self, hold: Hold, outcome: str, cancel: str) -> None:
        self._held.pop(hold.seq, None)
        hold.act.close()
        self._journal.done(hold.seq, outcome)
        if cancel:
            self._upcall.send({"type": "cancel", "seq": hold.seq, "why": cancel})

    def expire(self, now: float, waits: Callable[[Note], bool]) -> float | None:
        """End the holds that are over; returns the seconds to the next end, None when nothing is held.

        ``waits`` tells whether the thread of a notification still does.
        """
        if not self._held:
            return None
        look = now - self._looked >= _LOOK_AT_TARGETS
        if look:
            self._looked = now
        for hold in self.all():
            if hold.deadline <= now:
                self.refuse(hold, "expired", cancel="expired")
            elif look and not waits(hold.note):
                self._end(hold, "gone", "gone")
        if not self._held:
            return None
        return min(_LOOK_AT_TARGETS, max(0.0, min(h.deadline for h in self._held.values()) - now))

    def frames(self) -> list[dict[str, Any]]:
        """Return the asks that are still held, to be said again."""
        return [self._frame(hold) for hold in self._held.values()]

    def _frame(self, hold: Hold) -> dict[str, Any]:
        note, act = hold.note, hold.act
        try:
            process = self._targets.process(note.tid)
            pid, inode, exe = process.tgid, process.inode, self._targets.exe(process)
        except OSError:
            pid, inode, exe = note.tid, "", ""
        return {
            "type": "ask",
            "seq": hold.seq,
            "ops": list(dict.fromkeys(hold.ops)),
            "path": act.path,
            "path2": act.path2,
            "pid": pid,
            "proc": inode,
            "exe": exe,
            "comm": comm(pid),
            "argv": act.argv or [],
            "source": hold.decision.source,
            "count": 1,
            "costs": [f"{kind}:{n}" for kind, n in hold.costs],
            "short": hold.short,
        }
