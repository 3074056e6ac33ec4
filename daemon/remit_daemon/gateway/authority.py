"""What this session's network and applications may do: decide, record, ask, hold, refuse.

Every part of the gateway comes here before an effect, and nowhere else:

    permit -> decide (rate, window, budget) -> deny:  journal, Refused
                                               allow: journal `pending`, Permit
                                               ask:   journal `held`, ask frame, wait -> answer -> decide again -> as above

- The row is in the journal before ``permit`` returns; ``Permit.done`` completes it. No row, no permit.
- Identical asks (operation, resources) that are open at once share one hold and one question. A hold ends by exactly
  one of: answer, a new snapshot that settles it, its time, all who wait giving up. The question outlives the
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
from remit_daemon.wire.control import FIRST_OF_GATEWAY
from remit_daemon.wire.journal import JournalFailed
from remit_policy.model import ALLOW, ASK, DENY, VERDICTS, Decision, Rule, Snapshot
from remit_policy.narrowed import engine_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.gateway.journal import Journal
    from remit_policy.limits import Costs

__all__ = ["Authority", "Origin", "Permit", "Refused", "Standing"]

MAX_RESOURCE = 16_384  # characters; what is longer cannot be shown whole, so it cannot be asked
MAX_HELD = 256  # questions held at once; remitd keeps 100 of a session open, the rest is for its being away
MAX_WAITING = (
    4096  # acts that wait for those questions; more are refused, so a flood cannot make us keep them
)
MAX_LIVE = 16_384  # permits that are watched for revocation; more acts at once are refused
MAX_SEEN = 20_000  # first uses remembered; beyond, they are recorded again rather than missed
QUIET = (
    "resolve",
    "see",
)  # recorded at their first use by a program only: every connect begins with several

_FAULT = "built-in: a fault of the gateway"
_EACH = -2  # no hash's number that matters: a use that is recorded each time


class _Hold:
    """A question that is open: ``answer`` resolves to the verdict's name and the person's message."""

    __slots__ = (
        "answer", "answered", "charged", "count", "frame", "key", "op", "path2", "prompt", "resource", "seq", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        seq: int,
        op: str,
        resource: str,
        path2: str,
        frame: dict[str, Any],
        answer: asyncio.Future[tuple[str, str]],
    ) -> None:
        self.seq = seq
        self.op = op
        self.resource = resource
        self.path2 = path2
        self.frame = frame
        self.answer = answer
        self.prompt = ""
        self.answered = False  # by a person
        self.charged = False  # remitd counted it, for one act
        self.key: tuple[str, str, str, int] = (op, resource, path2, 0)
        self.count = 1
        self.waiting = 0


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
        self._held: dict[tuple[str, str, str, int], _Hold] = {}
        self._waiting = 0
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
        open_ = self._join(op, resource, origin, decision, path2, note, insist, costs, short)
        rule = decision.rule
        seconds = (
            hold
            if hold is not None
            else self._hold or (rule.hold if rule and rule.hold else self.snapshot.hold)
        )
        open_.waiting += 1
        self._waiting += 1
        why = "gone"
        try:
            done = await _first_of(open_.answer, gone, seconds)
            if done == "expired":
                why = "expired"
                raise Refused(
                    f"nobody answered within {seconds:g} s", rule=decision.source, op=op, resource=resource,
                    how=f"the question{_prompt(open_.prompt)} stays open: try again once it is answered"
                    " (remit prompts, remit answer)",
                )  # fmt: skip
            if done == "gone":
                raise Refused("the program gave up", rule=decision.source, op=op, resource=resource)
            verdict, message = open_.answer.result()
            if costs and verdict == "allow":
                if open_.charged:
                    self.leases.pay(costs)  # remitd counted the first of those that waited
                open_.charged = True
            if insist and verdict == "allow" and not open_.prompt:
                verdict, message = "deny", "suspicious, and nobody was asked"
        finally:
            open_.waiting -= 1
            self._waiting -= 1
            if not open_.waiting and not open_.answer.done():
                self._release(open_, why)
                self.say({"type": "cancel", "seq": open_.seq, "why": why})
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
            answered = open_.answered
        return self._allow(op, resource, origin, now, path2, note, answered)

    def _join(
        self,
        op: str,
        resource: str,
        origin: Origin,
        decision: Decision,
        path2: str,
        note: str,
        insist: bool,
        costs: Costs,
        short: bool,
    ) -> _Hold:
        """Return the open hold for this access, a new one when there is none."""
        if self._waiting >= MAX_WAITING:
            raise self.refuse(op, resource, origin, "too many operations are held", "built-in: limits")
        key = (op, resource, path2, 0)
        open_ = None if short else self._held.get(key)
        if open_ is not None:
            open_.count += 1
            return open_
        if len(self._held) >= MAX_HELD:
            raise self.refuse(op, resource, origin, "too many questions are open", "built-in: limits")
        number = self.journal.act(
            op, "ask", "held", origin, resource, path2=path2, rule=decision.source, note=note
        )
        frame = {
            "type": "ask",
            "seq": FIRST_OF_GATEWAY + number,
            "ops": [op],
            "path": resource,
            "path2": path2,
            "pid": origin.pid,
            "proc": origin.proc,
            "exe": origin.exe,
            "comm": origin.comm,
            "argv": list(origin.argv),
            "source": decision.source,
            "count": 1,
            "costs": [f"{kind}:{n}" for kind, n in costs],
            "short": short,
        }
        if insist:
            frame["spent"] = True  # the rule that allows it counts no more: only a grant or a person does
        open_ = _Hold(
            FIRST_OF_GATEWAY + number,
            op,
            resource,
            path2,
            frame,
            asyncio.get_running_loop().create_future(),
        )
        if short:
            open_.key = (op, resource, path2, number)
        self._held[open_.key] = open_
        self.say(frame)
        return open_

    def _release(self, open_: _Hold, outcome: str) -> None:
        self._held.pop(open_.key, None)
        self.journal.done(open_.seq - FIRST_OF_GATEWAY, outcome)

    def _settle(self, open_: _Hold, verdict: str, message: str = "") -> None:
        self._release(open_, "allowed" if verdict == "allow" else "denied")
        if not open_.answer.done():
            open_.answer.set_result((verdict, message))

    def held_frames(self) -> list[dict[str, Any]]:
        """Return the asks that are still held, to be said again to a new remitd."""
        return [{**h.frame, "count": h.count} for h in self._held.values()]

    # -- what remitd says --------------------------------------------------------------------------

    def answered(self, seq: int, verdict: str, message: str = "", prompt: str = "") -> None:
        """Take remitd's answer to the ask ``seq``, and the prompt it was given to; one no longer held is passed over."""
        for open_ in list(self._held.values()):
            if open_.seq == seq:
                open_.prompt = prompt or open_.prompt
                open_.answered = bool(prompt)
                self._settle(open_, "allow" if verdict == "allow" else "deny", message)

    def asked(self, seq: int, prompt: str) -> None:
        """Take the id of the prompt that stands for the ask ``seq``."""
        for open_ in self._held.values():
            if open_.seq == seq:
                open_.prompt = prompt

    def adopt(self, snapshot: Snapshot, revision: int = 0) -> None:
        """Put ``snapshot`` in force: settle the holds that it decides, revoke the permits that it no longer gives.

        Raises what Engine raises, and then changes nothing.
        """
        engine = engine_of(snapshot)
        self.engine, self.snapshot, self.revision = engine, snapshot, revision
        self._seen.clear()
        self.leases.adopt(snapshot.limits)
        for open_ in list(self._held.values()):
            verdict = self.decide(open_.op, open_.resource).verdict
            costs, short = open_.frame["costs"], open_.frame["short"]
            if short and verdict == ASK:
                verdict = DENY  # a new ask of the policy is another question
            if verdict == DENY or (verdict == ALLOW and "spent" not in open_.frame and not costs):
                self._settle(open_, VERDICTS[verdict])
                self.say({"type": "cancel", "seq": open_.seq, "why": "gone"})
        for permit in [p for p in self._live if not p.holds()]:
            permit.revoke()
        for changed in list(self.on_change):
            changed()


async def _first_of(
    answer: asyncio.Future[tuple[str, str]], gone: asyncio.Event | None, seconds: float
) -> str:
    """Wait for the answer, for ``gone`` or for the time; returns "answered", "gone" or "expired"."""
    leaving = asyncio.ensure_future(gone.wait()) if gone is not None else None
    try:
        tasks: set[asyncio.Future[Any]] = {answer} | ({leaving} if leaving is not None else set())
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if leaving is not None:
            leaving.cancel()
    if answer.done():
        return "answered"
    return "gone" if gone is not None and gone.is_set() else "expired"


def _quoted(text: str) -> str:
    return (
        text
        if text.isascii() and text.isprintable() and not set(text) & set(" '\"\\$`&|;<>()*?[]#~")
        else repr(text)
    )


def _prompt(ident: str) -> str:
    return f" {ident}" if ident else ""
