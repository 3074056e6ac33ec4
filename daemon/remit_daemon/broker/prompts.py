"""What becomes of a prompt once it is open, whether operations wait behind it or a program that wants a token. Pure, on the state.

    open ──▶ allowed, denied: by its answer, by another's that covers it, or by the policy where that has changed
      └────▶ missed: its time is over, or nobody waits for it any more

Whichever it is, the holds behind it end with it. While somebody looks at a prompt its time stands still. An answer for once is
kept for a while: for the retry of an operation that was given up, for the program that comes back for its token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker import limits
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.records import ALWAYS, ONCE, Prompt, Session, Settled
from remit_daemon.broker.state import State
from remit_daemon.broker.states import PromptMove, PromptState, move_prompt
from remit_daemon.broker.views import exec_argv, prompt_view
from remit_daemon.wire.control import is_ahead
from remit_policy.model import ALLOW, ASK, VERDICTS

PROMPT_LIFE = 600.0  # seconds until an unanswered prompt is missed
REDEEM_LIFE = 600.0  # seconds in which an allowed token is fetched; RFC 8628 has the same life for question and answer
RETRY_LIFE = 600.0  # a once-answer waits so long for the retry of an operation that was given up
RETRY_BURST = 15.0  # and serves so long after its first use: one tool call opens a file up to four times
MAX_OPEN = 100  # open prompts of one session, or of all clients; what is asked beyond is denied at once
MAX_PROMPTS = 2000  # kept altogether; the oldest settled ones are forgotten (the ledger has them)
QUIET = "the person is not to be asked now; try again later"


def answer_frame(session: str, seq: int, verdict: str, prompt: str = "", message: str = "") -> ev.Send:
    """Return the frame that ends the hold ``seq`` of ``session``; ``prompt`` is the one that was answered, if one was."""
    return ev.Send(
        session, {"type": "answer", "seq": seq, "verdict": verdict, "prompt": prompt, "message": message}
    )


def settle(state: State, prompt: Prompt, settled: Settled) -> list[ev.Command]:
    """Close ``prompt`` with ``settled`` and answer its holds; who waits for a token finds it so."""
    move = PromptMove.ALLOW if settled.verdict == "allow" else PromptMove.DENY
    holds = _holds(state, prompt)
    prompt = replace(prompt, state=move_prompt(prompt.state, move), answer=settled, remaining=None)
    if prompt.consent is not None:
        prompt = replace(prompt, pass_until=settled.at + REDEEM_LIFE)
    elif settled.duration == ONCE and settled.by != "policy":
        used = any(not is_ahead(k[1]) for k in holds)
        waits = RETRY_BURST if used else RETRY_LIFE
        prompt = replace(prompt, pass_until=settled.at + waits, pass_used=used)
    ident = "" if settled.by == "policy" else prompt.id  # nobody answered it
    out = _closed(state, prompt)
    for _, seq in holds:
        if settled.verdict == "allow" and not is_ahead(seq):
            out += limits.charge(state, prompt.session, prompt.costs, settled.at)
        out.append(answer_frame(prompt.session, seq, settled.verdict, ident, settled.message))
    return [*out, _done(prompt)]


def miss(state: State, prompt: Prompt) -> list[ev.Command]:
    """Close ``prompt`` without an answer and deny what it holds."""
    prompt = replace(prompt, state=move_prompt(prompt.state, PromptMove.MISS), remaining=None)
    frames = [
        answer_frame(prompt.session, k[1], "deny", prompt.id, "nobody answered")
        for k in _holds(state, prompt)
    ]
    return [*_closed(state, prompt), *frames, _done(prompt)]


def _holds(state: State, prompt: Prompt) -> list[tuple[str, int]]:
    return [k for k, v in state.holds.items() if v == prompt.id]


def _closed(state: State, prompt: Prompt) -> list[ev.Command]:
    """Keep ``prompt``, which is not open any more: nothing waits for it, nobody looks at it."""
    state.prompts[prompt.id] = prompt
    state.looks.pop(prompt.id, None)
    for key in _holds(state, prompt):
        del state.holds[key]
    return [ev.Store(prompt)]


def _done(prompt: Prompt) -> ev.Command:
    return ev.Notify("prompt.done", {"id": prompt.id, "state": prompt.state.value})


def tick(state: State, now: float) -> list[ev.Command]:
    """Miss the prompts whose time is over."""
    out: list[ev.Command] = []
    for prompt in list(state.prompts.values()):
        if prompt.state is PromptState.OPEN and prompt.remaining is None and prompt.deadline <= now:
            out += miss(state, prompt)
    return out


def forget(state: State) -> list[ev.Command]:
    """Drop the oldest settled prompts beyond MAX_PROMPTS."""
    out: list[ev.Command] = []
    settled = [p.id for p in state.prompts.values() if p.state is not PromptState.OPEN]
    for ident in settled[: max(0, len(state.prompts) - MAX_PROMPTS)]:
        del state.prompts[ident]
        out.append(ev.Drop("prompt", ident))
    return out


def look(state: State, judge: Judge, event: ev.Look, now: float) -> list[ev.Command]:
    """Take it that somebody looks at a prompt, or does not any more. Raises Refused when there is none."""
    prompt = state.prompt(event.prompt)
    if prompt.state is not PromptState.OPEN:
        return [ev.Reply()]
    looks = state.looks.get(prompt.id, frozenset())
    looks = looks | {event.who} if event.looking else looks - {event.who}
    state.looks[prompt.id] = looks
    if looks and prompt.remaining is None:
        prompt = replace(prompt, remaining=max(0.0, prompt.deadline - now))
    elif not looks and prompt.remaining is not None:
        prompt = replace(prompt, deadline=now + prompt.remaining, remaining=None)
    state.prompts[prompt.id] = prompt
    return [ev.Store(prompt), ev.Notify("prompt", view(state, judge, prompt)), ev.Reply()]


def looker_gone(state: State, judge: Judge, who: int, now: float) -> list[ev.Command]:
    """Take it that ``who`` looks at nothing any more."""
    return [
        c
        for ident, lookers in list(state.looks.items())
        if who in lookers
        for c in look(state, judge, ev.Look(ident, who, False), now)
    ]


def judged(state: State, judge: Judge, prompt: Prompt, now: float) -> int:
    """Return what the policy, grants and limits now say to ``prompt``."""
    if prompt.consent is not None:
        return judge.token(state, prompt.session, prompt.consent.scopes)[0]
    argv = exec_argv(prompt.ops, prompt.argv)
    verdict = judge.verdict(state, prompt.session, prompt.ops, prompt.path, prompt.path2, argv)
    if prompt.limit and verdict == ASK:
        verdict = (
            ALLOW  # as when it was asked; what the policy newly asks about, the point itself lets go of
        )
    short = verdict == ALLOW and limits.spent(state, prompt.session, prompt.costs, now) is not None
    return ASK if short else verdict


def judge_again(state: State, judge: Judge, sessions: Iterable[str], now: float) -> list[ev.Command]:
    """Settle what the policy no longer asks about in ``sessions``: it has changed."""
    out: list[ev.Command] = []
    for prompt in [p for ident in sorted(sessions) for p in state.open_of(ident)]:
        verdict = judged(state, judge, prompt, now)
        if verdict != ASK:
            out += settle(state, prompt, Settled(VERDICTS[verdict], ONCE, "", "", "policy", now))
    return out


def unblock(state: State, judge: Judge, now: float) -> list[ev.Command]:
    """Let go on what waited for a limit that has room again."""
    out: list[ev.Command] = []
    for prompt in [p for p in state.prompts.values() if p.limit and p.state is PromptState.OPEN]:
        if prompt.session in state.bases and judged(state, judge, prompt, now) == ALLOW:
            out += settle(state, prompt, Settled("allow", ONCE, "", "", "policy", now))
    return out


def grantees(state: State, judge: Judge, prompt: Prompt, verdict: str) -> list[Session]:
    """Return whose grant an answer for longer becomes, its own session's first: for a sub-session also of each one above
    that asks here itself, since a sub-session may do only what those may. Who is allowed already needs none."""
    session = state.session(prompt.session)
    if verdict != "allow" or not session.parent:
        return [session]
    argv = exec_argv(prompt.ops, prompt.argv)
    asking = [
        state.session(one)
        for one in state.chain(session.id)
        if judge.own_verdict(state, one, prompt.ops, prompt.path, prompt.path2, argv) == ASK
    ]
    return asking or [session]


def whom(state: State, judge: Judge, prompt: Prompt, verdict: str, duration: str) -> str:
    """Return who a rule of this answer is for, in words."""
    if duration == ONCE or prompt.consent is not None:
        return prompt.agent
    return " and ".join(session.agent for session in grantees(state, judge, prompt, verdict))


def view(state: State, judge: Judge, prompt: Prompt) -> dict[str, Any]:
    """Return the wire Prompt."""
    open_ = prompt.state is PromptState.OPEN and prompt.session in state.sessions
    who = whom(state, judge, prompt, "allow", ALWAYS) if open_ else prompt.agent
    looking, confined = bool(state.looks.get(prompt.id)), state.confined(prompt.session)
    account = state.accounts.get(prompt.limit)
    spent = limits.words(account) if account is not None else ""
    return prompt_view(prompt, state.holding(prompt.id), looking, confined, who, spent)
