"""What this session's network and applications may do: decide, record, ask, hold, refuse.

Every part of the gateway comes here before an effect, and nowhere else:

    permit -> decide (rate, window, budget) -> deny:  journal, Refused
                                               allow: journal `pending`, Permit
                                               ask:   journal `held`, ask frame, wait -> answer -> decide again -> as above

- The row is in the journal before ``permit`` returns; ``Permit.done`` completes it. No row, no permit.
- Identical asks (operation, resources) that are open at once share one hold and one question (``questions``). A hold ends by
  exactly one of: answer, a new snapshot that settles it, its time, all who wait giving up. The question outlives the
  hold's time at remitd, where a later answer serves the retry.
- remitd may be away: what is allowed or denied goes on under the snapshot, what is held waits, and is said again.
- When a snapshot comes, permits that it no longer gives are revoked: what was allowed by a rule must still be, what a
  person allowed once must not be denied.
- Any fault on the way is a Refused: never an allow, never another exception.

Resources are the strings of ``remit_policy.model`` (`host:port`, `METHOD https://host/path`, `NAME I.M /path`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from remit_daemon.gateway.leases import Leases
from remit_daemon.gateway.meters import Meters, metered
from remit_daemon.gateway.permits import Origin, Permit, Refused, Standing
from remit_daemon.gateway.questions import Questions, TooMany
from remit_daemon.wire.journal import JournalFailed
from remit_policy.model import ALLOW, ASK, DENY, Decision, Rule, Snapshot
from remit_policy.narrowed import engine_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.gateway.journal import Journal
    from remit_policy.limits import Costs

__all__ = ["Authority", "Origin", "Permit", "Refused", "Standing"]

MAX_RESOURCE = 16_384  # characters; what is longer cannot be shown whole, so it cannot be asked
MAX_LIVE = 16_384  # permits that are watched for revocation; more acts at once are refused
MAX_SEEN = 20_000  # first uses remembered; beyond, they are recorded again rather than missed
QUIET = (
    "resolve",
    "see",
)  # recorded at their first use by a program only: every connect begins with several

_FAULT = "built-in: a fault of the gateway"
_EACH = -2  # no hash's number that matters: a use that is recorded each time


class Authority:
    """Decides for one session. ``hold`` is seconds that override the policy's, 0 = the policy's."""

    def __init__(
        self,
        snapshot: Snapshot,
        journal: Journal,
        *,
        agent: str = "",
        hold: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        minute: Callable[[], int] | None = None,
    ) -> None:
        """Raises what Engine raises when a rule of ``snapshot`` means nothing."""
        self.snapshot = snapshot
        self.engine = engine_of(snapshot)
        self.journal = journal
        self.agent = agent
        self.revision = 0
        self.on_change: list[Callable[[], None]] = []  # called when a new snapshot is in force
        self.say: Callable[[dict[str, Any]], None] = lambda frame: None  # to remitd; lost while it is away
        self._hold = hold
        self._meters = Meters(clock, minute)
        self.leases = Leases(snapshot.limits, lambda frame: self.say(frame))
        self.questions = Questions(journal, lambda frame: self.say(frame))
        self._live: set[Permit] = set()
        self._seen: set[int] = set()

    # -- deciding ----------------------------------------------------------------------------------

    def decide(self, op: str, resource: str) -> Decision:
        """Return the decision of the snapshot in force; no side effects, no counting. Any fault is a deny."""
        if not resource or len(resource) > MAX_RESOURCE or "\0" in resource:
            return Decision(DENY, None)
        try:
            return self.engine.decide(op, resource)
        except Exception:
            return Decision(DENY, None)

    def spend(self, rule: Rule | None, amount: int) -> bool:
        """Count ``amount`` bytes against the budget of ``rule``; False when more is spent than it gives."""
        return self._meters.spend(rule, amount)

    def flow(self, amount: int) -> bool:
        """Count ``amount`` bytes of traffic; False when the agent's limits have no room for more."""
        return self.leases.flow(amount)

    def _costs(self, op: str, rule: Rule | None) -> Costs:
        return () if op in QUIET else self.leases.costs(op, rule)

    # -- permits -----------------------------------------------------------------------------------

    async def permit(
        self,
        op: str,
        resource: str,
        origin: Origin,
        *,
        path2: str = "",
        note: str = "",
        hold: float | None = None,
        gone: asyncio.Event | None = None,
        insist: str = "",
    ) -> Permit:
        """Return when the act may happen, recorded; raises Refused when it may not.

        ``path2`` is shown and recorded beside the resource. ``hold`` is how many seconds a question may hold the act
        (None: the policy's). ``gone`` is set by the caller when whoever waits gave up. ``insist`` says why a person is to
        be asked although a rule allows it.
        """
        try:
            decision = self._meters.counted(self.decide(op, resource), op)
            if insist and decision.verdict == ALLOW:
                decision = Decision(ASK, decision.rule)
                note = f"{note}; {insist}" if note else insist
            costs = self._costs(op, decision.rule)
            short = decision.verdict == ALLOW and not self.leases.take(costs)
            if decision.verdict == ALLOW and not short:
                return self._allow(op, resource, origin, decision, path2, note)
            if decision.verdict == ASK or short:
                return await self._ask(
                    op, resource, origin, decision, path2, note, hold, gone, bool(insist), costs, short
                )
            raise self._denied(op, resource, origin, decision, path2, note)
        except (Refused, asyncio.CancelledError):
            raise
        except JournalFailed as e:
            raise Refused(str(e), rule=_FAULT, op=op, resource=resource) from None
        except Exception as e:
            raise Refused(
                f"internal fault: {type(e).__name__}: {e}", rule=_FAULT, op=op, resource=resource
            ) from e

    def permit_now(self, op: str, resource: str, origin: Origin, note: str = "") -> Permit | None:
        """Return what ``permit`` would, at once; None when a person is to be asked. Raises Refused."""
        try:
            decision = self._meters.counted(self.decide(op, resource), op)
            if decision.verdict == ALLOW and not self.leases.take(self._costs(op, decision.rule)):
                return None
            if decision.verdict == ALLOW:
                return self._allow(op, resource, origin, decision, "", note)
            if decision.verdict == ASK:
                return None
            raise self._denied(op, resource, origin, decision, "", note)
        except Refused:
            raise
        except Exception as e:
            reason = str(e) if isinstance(e, JournalFailed) else f"internal fault: {type(e).__name__}: {e}"
            raise Refused(reason, rule=_FAULT, op=op, resource=resource) from e

    def complete(self, done: list[tuple[Permit, str]]) -> None:
        """Complete permits as ``Permit.done(note=…)`` does, with one write for all."""
        rows = []
        for permit, note in done:
            self._live.discard(permit)
            seq = permit.end()
            if seq:
                rows.append((seq, f"ok {note}" if note else "ok"))
        if rows:
            self.journal.done_all(rows)

    def standing(self, op: str, resource: str, origin: Origin, note: str = "") -> Standing | None:
        """Return what allows this act as often as it is done, None when each time must be decided anew."""
        decision = self.decide(op, resource)
        if decision.verdict != ALLOW or op in QUIET or metered(decision.rule):
            return None
        if self._costs(op, decision.rule):
            return None
        return Standing(self, op, resource, origin, decision, note)

    def refuse(
        self, op: str, resource: str, origin: Origin, reason: str, rule: str = "", how: str = ""
    ) -> Refused:
        """Record a refusal that the protocol's logic decided, and return the exception to raise."""
        rule = rule or "built-in: the gateway"
        try:
            self.journal.act(op, "deny", "refused", origin, resource, rule=rule, note=reason)
        except JournalFailed:
            pass  # refused all the same
        return Refused(reason, rule=rule, op=op, resource=resource, how=how)

    def flag(self, op: str, resource: str, origin: Origin, rule: Rule | None, why: str) -> None:
        """Record that an act which ``rule`` allows was not done, because it is suspicious."""
        try:
            self.journal.act(
                op, "ask", "refused", origin, resource, rule=rule.source if rule else "default", note=why
            )
        except JournalFailed:
            pass  # not done all the same

    def fault(self, op: str, text: str) -> None:
        """Record what went wrong in the gateway itself and was refused for that."""
        try:
            self.journal.act(op, "deny", "refused", Origin(), "", rule=_FAULT, note=text)
        except JournalFailed:
            pass

    def _allow(
        self,
        op: str,
        resource: str,
        origin: Origin,
        decision: Decision,
        path2: str,
        note: str,
        answered: bool = False,
    ) -> Permit:
        if self.full():
            raise Refused(
                "too many connections are open", rule="built-in: limits", op=op, resource=resource
            )
        seq = 0
        first = self._first(op, "allow", resource, origin)
        if first:
            outcome = "passed" if op in QUIET else "pending"
            seq = self.journal.act(
                op, "allow", outcome, origin, resource, path2=path2, rule=decision.source, note=note
            )
            self._seen.add(first)
        permit = Permit(self, 0 if op in QUIET else seq, op, resource, origin, decision.rule, answered)
        if op not in QUIET:
            self.watch(permit)
        return permit

    def full(self) -> bool:
        """Tell whether no more permits can be watched."""
        return len(self._live) >= MAX_LIVE

    def watch(self, permit: Permit) -> None:
        """Revoke ``permit`` when a snapshot no longer gives it, until it is completed."""
        self._live.add(permit)

    def completed(self, permit: Permit, outcome: str) -> None:
        """Complete the row of ``permit`` with ``outcome``."""
        self._live.discard(permit)
        seq = permit.end()
        if seq:
            self.journal.done(seq, outcome)

    def _denied(
        self, op: str, resource: str, origin: Origin, decision: Decision, path2: str, note: str
    ) -> Refused:
        first = self._first(op, "deny", resource, origin)
        if first:
            self.journal.act(
                op, "deny", "refused", origin, resource, path2=path2, rule=decision.source, note=note
            )
            self._seen.add(first)
        return Refused(
            "the policy denies it", rule=decision.source, op=op, resource=resource,
            how=f"the person can change the rule: remit policy why {self.agent or 'AGENT'} {op} {_quoted(resource)}",
        )  # fmt: skip

    def _first(self, op: str, verdict: str, resource: str, origin: Origin) -> int:
        """Return by which number such a use is remembered once it is recorded; 0: it has been, by this program.

        Every use of an operation that is not QUIET is a first one.
        """
        if op not in QUIET:
            return _EACH
        number = hash((op, verdict, resource, origin.exe)) or _EACH
        if number in self._seen:
            return 0
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        return number

    # -- questions ---------------------------------------------------------------------------------

    async def _ask(
        self,
        op: str,
        resource: str,
        origin: Origin,
        decision: Decision,
        path2: str,
        note: str,
        hold: float | None,
        gone: asyncio.Event | None,
        insist: bool,
        costs: Costs,
        short: bool,
    ) -> Permit:
        """Hold the act until it is answered, its time is over or ``gone`` is set.

        ``short``: the policy allows it, and the question is about a limit, for which each act is a question of its own.
        """
        try:
            question = self.questions.join(
                op, resource, origin, decision, path2, note, insist, costs, short
            )
        except TooMany as e:
            raise self.refuse(op, resource, origin, str(e), "built-in: limits") from None
        rule = decision.rule
        seconds = (
            hold
            if hold is not None
            else self._hold or (rule.hold if rule and rule.hold else self.snapshot.hold)
        )
        done = await self.questions.wait(question, gone, seconds)
        if done == "expired":
            raise Refused(
                f"nobody answered within {seconds:g} s", rule=decision.source, op=op, resource=resource,
                how=f"the question{_prompt(question.prompt)} stays open: try again once it is answered"
                " (remit prompts, remit answer)",
            )  # fmt: skip
        if done == "gone":
            raise Refused("the program gave up", rule=decision.source, op=op, resource=resource)
        verdict, message = question.answer.result()
        if costs and verdict == "allow":
            if question.charged:
                self.leases.pay(costs)  # remitd counted the first of those that waited
            question.charged = True
        if insist and verdict == "allow" and not question.prompt:
            verdict, message = "deny", "suspicious, and nobody was asked"
        if gone is not None and gone.is_set():
            raise Refused("the program gave up", rule=decision.source, op=op, resource=resource)
        now = self.decide(op, resource)
        if verdict != "allow" or now.verdict == DENY or (short and now.verdict == ASK):
            said = f": {message}" if message else ""
            raise Refused(
                f"the answer was no{said}" if verdict != "allow" else "the policy denies it", rule=now.source,
                op=op, resource=resource, how="ask the person, or go on without it",
            )  # fmt: skip
        # What a rule or a grant now gives can be revoked with it; past a spent rate or budget it was the person who said yes.
        answered = now.verdict != ALLOW or metered(now.rule)
        if short:
            answered = question.answered
        return self._allow(op, resource, origin, now, path2, note, answered)

    # -- policy ------------------------------------------------------------------------------------

    def adopt(self, snapshot: Snapshot, revision: int = 0) -> None:
        """Put ``snapshot`` in force: settle the holds that it decides, revoke the permits that it no longer gives.

        Raises what Engine raises, and then changes nothing.
        """
        engine = engine_of(snapshot)
        self.engine, self.snapshot, self.revision = engine, snapshot, revision
        self._seen.clear()
        self.leases.adopt(snapshot.limits)
        self.questions.adopt(lambda op, resource: self.decide(op, resource).verdict)
        for permit in [p for p in self._live if not p.holds()]:
            permit.revoke()
        for changed in list(self.on_change):
            changed()


def _quoted(text: str) -> str:
    return (
        text
        if text.isascii() and text.isprintable() and not set(text) & set(" '\"\\$`&|;<>()*?[]#~")
        else repr(text)
    )


def _prompt(ident: str) -> str:
    return f" {ident}" if ident else ""
