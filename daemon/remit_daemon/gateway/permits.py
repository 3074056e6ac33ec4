"""What the authority gives: a permit for one act, a standing one for an act that is done again and again, or a refusal.

A permit is recorded before it is given and completed once. It does nothing by itself: whatever it says is the authority's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_daemon.gateway.journal import tail
from remit_policy.model import ALLOW, DENY, Decision, Rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.gateway.authority import Authority


class Origin:
    """Which process does it: ``pid``, its pidfd's inode ``proc``, program, short name, arguments. For records and prompts."""

    __slots__ = ("argv", "comm", "exe", "pid", "proc")

    def __init__(
        self, pid: int = 0, proc: str = "", exe: str = "", comm: str = "", argv: tuple[str, ...] = ()
    ) -> None:
        self.pid = pid
        self.proc = proc
        self.exe = exe
        self.comm = comm
        self.argv = argv

    @classmethod
    def of(cls, frame: dict[str, Any]) -> Origin:
        """Return the origin that a supervisor's frame names; what it lacks is empty."""
        argv = frame.get("argv") or ()
        return cls(
            int(frame.get("pid") or 0), str(frame.get("proc") or ""), str(frame.get("exe") or ""),
            str(frame.get("comm") or ""), tuple(str(a) for a in argv),
        )  # fmt: skip


class Refused(Exception):
    """The act must not happen. ``how`` says what can be done about it; ``rule`` is ``file:line`` or a built-in's name."""

    def __init__(
        self, reason: str, *, rule: str = "", op: str = "", resource: str = "", how: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule
        self.op = op
        self.resource = resource
        self.how = how

    def as_dict(self) -> dict[str, str]:
        """Return the body of a refusal that an agent can read."""
        return {
            "error": "refused by remit",
            "op": self.op,
            "resource": self.resource,
            "reason": self.reason,
            "rule": self.rule,
            "how": self.how,
        }


class Permit:
    """One allowed act, recorded as pending until ``done``.

    ``on_revoked`` is called (once, in the loop) when a later snapshot no longer gives it: close what it opened. One that
    is set after that is called at once.
    """

    __slots__ = (
        "_authority",
        "_on_revoked",
        "_open",
        "_seq",
        "answered",
        "op",
        "origin",
        "resource",
        "revoked",
        "rule",
    )

    def __init__(
        self,
        authority: Authority,
        seq: int,
        op: str,
        resource: str,
        origin: Origin,
        rule: Rule | None,
        answered: bool,
    ) -> None:
        self._authority = authority
        self._seq = seq
        self._open = True
        self.op = op
        self.resource = resource
        self.origin = origin
        self.rule = rule
        self.answered = answered  # a person (or a question's end) allowed it, not a rule
        self._on_revoked: Callable[[], None] | None = None
        self.revoked = False

    @property
    def on_revoked(self) -> Callable[[], None] | None:
        """Return what is called when the permit is revoked."""
        return self._on_revoked

    @on_revoked.setter
    def on_revoked(self, call: Callable[[], None] | None) -> None:
        if self.revoked and call is not None:
            call()
        else:
            self._on_revoked = call

    def revoke(self) -> None:
        """Call ``on_revoked``, now or when it is set. It may raise what it likes: others are revoked all the same."""
        call, self._on_revoked, self.revoked = self._on_revoked, None, True
        if call is not None:
            try:
                call()
            except Exception as e:
                self._authority.fault("revoke", f"internal fault: {type(e).__name__}: {e}")

    def done(self, outcome: str = "ok", *, note: str = "") -> None:
        """Complete the journal's row with ``outcome`` (`ok` or an errno's name); only the first call counts."""
        self._authority.completed(self, f"{outcome} {note}" if note else outcome)

    def end(self) -> int:
        """End the permit; returns the number of the row that is to be completed, 0 where there is none (any more)."""
        if not self._open:
            return 0
        self._open = False
        self.on_revoked = None
        return self._seq

    def holds(self) -> bool:
        """Say whether the snapshot in force still gives this permission."""
        decision = self._authority.decide(self.op, self.resource)
        return decision.verdict != DENY if self.answered else decision.verdict == ALLOW

    def spend(self, amount: int) -> bool:
        """Count ``amount`` bytes against the rule's budget; False when it is spent: stop, or ask by a new ``permit``."""
        return self.answered or self._authority.spend(self.rule, amount)

    def flow(self, amount: int) -> bool:
        """Count ``amount`` bytes against the limits of the agent; False when they are spent. Once for each byte."""
        return self._authority.flow(amount) or self.answered


class Standing:
    """An act that a rule allows without rate, window or budget: decided once, and recorded each time it is done.

    It ends with the snapshot that it was decided by.
    """

    __slots__ = ("_authority", "_engine", "_op", "_origin", "_resource", "_rule", "_tail")

    def __init__(
        self, authority: Authority, op: str, resource: str, origin: Origin, decision: Decision, note: str
    ) -> None:
        self._authority = authority
        self._engine = authority.engine
        self._op = op
        self._resource = resource
        self._origin = origin
        self._rule = decision.rule
        self._tail = tail(op, "allow", "pending", origin, resource, rule=decision.source, note=note)

    def record(self) -> int:
        """Record the act and return its number; 0 when it must be asked for by ``permit_now``. Raises JournalFailed."""
        authority = self._authority
        if authority.engine is not self._engine or authority.full():
            return 0
        return authority.journal.again(self._tail)

    def permit(self, number: int) -> Permit:
        """Return the permit of the act that was recorded as ``number``."""
        permit = Permit(self._authority, number, self._op, self._resource, self._origin, self._rule, False)
        self._authority.watch(permit)
        return permit

    def take(self) -> Permit | None:
        """Return the permit of one more such act, recorded; None as ``record`` returns 0. Raises JournalFailed."""
        number = self.record()
        return self.permit(number) if number else None
