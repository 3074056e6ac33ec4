"""Questions about operations: an enforcement point asks, and is answered at once or has a person asked. Pure, on the state.

In this order, the first that says something: what the policy, grants and limits say; a once-answer whose retry this is; the
session's learning, unless it is a time in which what would be asked is denied; its mode when nobody is to be asked; a quiet time; an open prompt about the same act; a new prompt. What an
agent says of its reasons is shown as its claim and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker import limits, prompts, standing
from remit_daemon.broker.events import Refused
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.prompts import MAX_OPEN, PROMPT_LIFE, QUIET, RETRY_BURST, answer_frame
from remit_daemon.broker.records import Account, Before, Prompt, Session, Stated
from remit_daemon.broker.scopes import exec_offers, insists, offers
from remit_daemon.broker.state import State
from remit_daemon.broker.states import PromptState
from remit_daemon.broker.views import exec_argv, session_entry
from remit_daemon.wire.control import is_ahead
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_policy import model, resources
from remit_policy.model import ALLOW, ASK

MAX_PURPOSE = 500  # characters of an agent's reason: what is longer is no reason but a wall of text
STATED_LIFE = 120.0  # seconds that an agent's word on its next act is good for questions; its calls take that long at most
MAX_STATED = 32  # such words of one session; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class _Act:
    """What is asked: ``argv`` only where it counts, ``costs`` as limits count them."""

    session: Session
    event: ev.Ask
    argv: tuple[str, ...]
    costs: tuple[tuple[str, int], ...]

    def same(self, prompt: Prompt) -> bool:
        """Tell whether ``prompt`` is about this very act, whoever asked."""
        event = self.event
        if (prompt.ops, prompt.path, prompt.path2) != (event.ops, event.path, event.path2):
            return False
        return not self.argv or prompt.argv == self.argv

    def entry(self, op: str, verdict: str, note: str) -> dict[str, Any]:
        """Return the ledger's row of what was answered without asking anybody."""
        event = self.event
        return session_entry(
            self.session, op, verdict=verdict, outcome="answered", path=event.path, path2=event.path2,
            note=note, argv=event.argv, pid=event.pid, proc=event.proc, exe=event.exe,
        )  # fmt: skip

    def answer(self, verdict: str, prompt: str = "", message: str = "") -> ev.Send:
        """Return the frame that ends the hold."""
        return answer_frame(self.session.id, self.event.seq, verdict, prompt, message)


def ask(state: State, judge: Judge, event: ev.Ask, home: str, now: float) -> list[ev.Command]:
    """Answer by what is known, or hold the operation and have a person asked. Raises Refused.

    ``home`` is the person's, for the scopes that are offered.
    """
    session = state.running(event.session)
    _check(event)
    event = replace(event, ops=tuple(sorted(set(event.ops))))
    held = state.holds.get((session.id, event.seq))
    if held is not None:
        return [_asked(session.id, event.seq, held)]
    try:
        costs = limits.costs_of(event.costs)
    except ValueError as e:
        raise Refused(INVALID_PARAMS, str(e)) from None
    argv = exec_argv(event.ops, event.argv)
    verdict = judge.verdict(state, session.id, event.ops, event.path, event.path2, argv)
    if event.short and verdict == ASK:
        verdict = (
            ALLOW  # the point, which counts rates and knows what is its session's own, found it allowed
        )
    spent = limits.spent(state, session.id, costs, now) if verdict == ALLOW else None
    if spent is not None:
        verdict, event = ASK, replace(event, source=spent.source)
    act = _Act(session, event, argv, costs)
    if verdict != ASK:
        word = model.VERDICTS[verdict]
        return [*_paid(state, act, word, now), act.answer(word)]
    served = _serve(state, act, now)
    if served is not None:
        return served
    learning = session.ask == "learn" and standing.mode(state, now) != "deny"
    if learning and spent is None and judge.learns(state, event, argv):
        spent = limits.spent(state, session.id, costs, now)
        if spent is None:
            # What is asked ahead is no act yet, and teaches nothing.
            op = "answer" if is_ahead(event.seq) else "learn"
            row = ev.Record(act.entry(op, "allow", " ".join(event.ops)))
            return [row, *_paid(state, act, "allow", now), act.answer("allow")]
        act = replace(act, event=replace(event, source=spent.source))
    return _by_mode(state, judge, act, spent, now) or _hold(state, judge, act, spent, home, now)


def _check(event: ev.Ask) -> None:
    if not event.ops or any(op not in model.OPS for op in event.ops) or not event.path:
        raise Refused(INVALID_PARAMS, "an ask without known operations or a path")
    if not all(resources.is_path(op, event.path) or resources.key(op, event.path) for op in event.ops):
        raise Refused(INVALID_PARAMS, "an ask about what is no resource")
    if len(event.purpose) > MAX_PURPOSE:
        raise Refused(INVALID_PARAMS, f"a purpose is at most {MAX_PURPOSE} characters")


def _asked(session: str, seq: int, prompt: str) -> ev.Send:
    return ev.Send(session, {"type": "asked", "seq": seq, "prompt": prompt})


def _paid(state: State, act: _Act, verdict: str, now: float) -> list[ev.Command]:
    """Count what ``act`` costs when it is allowed."""
    return limits.charge(state, act.session.id, act.costs, now) if verdict == "allow" else []


def _serve(state: State, act: _Act, now: float) -> list[ev.Command] | None:
    """Answer a retry from a once-answer that is still good, or return None."""
    event = act.event
    for p in reversed(state.prompts.values()):
        if p.pass_until is None or p.pass_until < now or p.session != event.session or p.answer is None:
            continue
        if (p.path, p.path2) != (event.path, event.path2) or not set(event.ops) <= set(p.ops):
            continue
        if act.argv and p.argv != act.argv:
            continue
        verdict, message = p.answer.verdict, p.answer.message
        out: list[ev.Command] = []
        if not p.pass_used and not is_ahead(event.seq):
            p = replace(p, pass_used=True, pass_until=min(p.pass_until, now + RETRY_BURST))
            state.prompts[p.id] = p
            out.append(ev.Store(p))
        return [*out, *_paid(state, act, verdict, now), act.answer(verdict, p.id, message)]
    return None


def _by_mode(state: State, judge: Judge, act: _Act, spent: Account | None, now: float) -> list[ev.Command]:
    """Answer where nobody is to be asked, by the session's mode or in a quiet time; otherwise return nothing."""
    session, event = act.session, act.event
    short = f"{limits.words(spent)}; " if spent is not None else ""
    ops = ", ".join(event.ops)
    if session.ask in ("deny", "allow-once"):
        word = "deny" if session.ask == "deny" else "allow"
        if word == "allow" and judge.admins_only(
            state, session.id, event.ops, event.path, event.path2, act.argv
        ):
            word = "deny"
        note = f"--ask {session.ask}: {ops}"
        why = f"{short}nobody is asked here (--ask {session.ask})" if word == "deny" else ""
    elif standing.mode(state, now) == "deny":
        word, note, why = "deny", f"quiet: {ops}", short + QUIET
    else:
        return []
    row = ev.Record(act.entry("answer", word, note) | {"rule": event.source})
    return [row, *_paid(state, act, word, now), act.answer(word, message=why)]


def _hold(
    state: State, judge: Judge, act: _Act, spent: Account | None, home: str, now: float
) -> list[ev.Command]:
    """Hold the operation behind the open prompt about it, or a new one."""
    session, event = act.session, act.event
    out: list[ev.Command] = []
    prompt = next((p for p in state.open_of(session.id) if act.same(p)), None)
    if prompt is None:
        top = state.chain(session.id)[-1]  # what an agent delegates to asks in its place, not beside it
        if sum(len(state.open_of(one)) for one in (top, *state.below(top))) >= MAX_OPEN:
            return _unasked(act, f"{MAX_OPEN} questions of this session are open already")
        asking = limits.spent(state, session.id, limits.QUESTION, now)
        if asking is not None:
            return _unasked(act, f"no more questions now: {limits.words(asking)}")
        out += limits.charge(state, session.id, limits.QUESTION, now)
        prompt = _new_prompt(state, judge, act, home, now)
        if spent is not None:
            prompt = replace(prompt, limit=spent.id, scopes=limits.scopes(spent, prompt.scopes[0]))
            out += limits.recall(state, spent)
    else:
        prompt = replace(
            prompt,
            count=prompt.count + max(1, event.count),
            purpose=prompt.purpose
            or _purpose(state, event, now),  # the first stays: it is what a person read
            costs=prompt.costs or act.costs,
        )
    state.prompts[prompt.id] = prompt
    state.holds[session.id, event.seq] = prompt.id
    return [
        *out,
        ev.Store(prompt),
        _asked(session.id, event.seq, prompt.id),
        ev.Notify("prompt", prompts.view(state, judge, prompt)),
    ]


def _unasked(act: _Act, text: str) -> list[ev.Command]:
    """Deny what nobody is asked about, and say why."""
    entry = session_entry(
        act.session, "answer", verdict="deny", outcome="answered",
        path=act.event.path, path2=act.event.path2, note=text,
    )  # fmt: skip
    return [ev.Record(entry), act.answer("deny", message=text)]


def _new_prompt(state: State, judge: Judge, act: _Act, home: str, now: float) -> Prompt:
    session, event = act.session, act.event
    if act.argv:
        scopes = exec_offers(event.path, act.argv)
    else:
        rules = [rule for one in state.chain(session.id) for rule in state.bases[one].rules]
        found = offers(event.ops, event.path, event.path2, home=home, project=session.project, rules=rules)
        # A place that insists is answered for itself alone.
        insisting = judge.insisting(state, session.id, event.ops, event.path, event.path2)
        scopes = found[:1] if any(insists(r) for r in insisting) else found
    prompt = Prompt(
        id=f"p{state.next_prompt}", session=session.id, agent=session.agent, project=session.project,
        ops=event.ops, path=event.path, path2=event.path2, pid=event.pid, proc=event.proc, exe=event.exe,
        comm=event.comm, argv=event.argv, source=event.source, count=max(1, event.count), created=now,
        deadline=standing.deadline(state, now, PROMPT_LIFE), scopes=scopes, chain=event.chain,
        kind=judge.kind(state, session.id, event.ops, event.path), before=_before(state, act),
        purpose=_purpose(state, event, now), costs=act.costs,
    )  # fmt: skip
    state.next_prompt += 1
    return prompt


def _before(state: State, act: _Act) -> Before:
    """Return how often this agent has asked for the same, and what came of it."""
    ends = Counter(p.state for p in state.prompts.values() if p.agent == act.session.agent and act.same(p))
    return Before(ends[PromptState.ALLOWED], ends[PromptState.DENIED], ends[PromptState.MISSED])


def intent(state: State, event: ev.Intent, now: float) -> list[ev.Command]:
    """Keep what an agent says that it is about to do, for the questions that follow. Raises Refused."""
    session = state.session(event.session)
    if not session.live:
        raise Refused(CONFLICT, f"session {session.id} has ended")
    if not 0 < len(event.purpose) <= MAX_PURPOSE:
        raise Refused(INVALID_PARAMS, f"a purpose is 1 to {MAX_PURPOSE} characters")
    said = Stated(event.resources, event.purpose, now + STATED_LIFE)
    state.stated[session.id] = (*state.stated.get(session.id, ()), said)[-MAX_STATED:]
    return []


def _purpose(state: State, event: ev.Ask, now: float) -> str:
    """Return the agent's reason for this very act: what it says with it, else what it said last before it."""
    if event.purpose:
        return event.purpose
    asked = {event.path, event.path2} - {""}
    for said in reversed(state.stated.get(event.session, ())):
        if said.until >= now and (not said.resources or asked.intersection(said.resources)):
            return said.purpose
    return ""


def cancel(state: State, judge: Judge, event: ev.Cancel) -> list[ev.Command]:
    """End a hold whose operation was given up; a prompt for which none waits any more is missed, unless its time was over."""
    ident = state.holds.pop((event.session, event.seq), None)
    if ident is None:
        return []  # it crossed with the answer
    prompt = state.prompts[ident]
    if event.why == "expired":
        prompt = replace(prompt, expired=True)
    elif not prompt.expired and not state.holding(ident):
        return prompts.miss(state, prompt)
    state.prompts[ident] = prompt
    return [ev.Store(prompt), ev.Notify("prompt", prompts.view(state, judge, prompt))]
