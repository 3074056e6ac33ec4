"""Answers: what a person says to a prompt, checked against what was asked, and all that it settles. Pure, on the state.

An answer's scope is one that the prompt offers or one within such, and covers what was asked. *Once* settles the prompt and the
open ones of its session that ask for no more; for longer it becomes grants, which settle whatever they cover in all sessions
that they are for. The policy has the last word: no answer allows what it denies, and none that would go on being asked counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from remit_daemon.broker import consents, granting, limits, prompts, snapshots
from remit_daemon.broker import events as ev
from remit_daemon.broker.events import Refused
from remit_daemon.broker.granting import Meant
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.keeping import MAX_ALWAYS
from remit_daemon.broker.records import ALWAYS, ONCE, SESSION, Prompt, Settled
from remit_daemon.broker.resources import resource_within
from remit_daemon.broker.scopes import describe, exec_within, within
from remit_daemon.broker.state import State
from remit_daemon.broker.states import PromptMove, PromptState, move_prompt
from remit_daemon.broker.views import answer_entry, exec_argv, is_exec, meaning
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_policy import resources
from remit_policy.match import PatternError
from remit_policy.model import ALLOW, ASK, DENY, VERDICTS

_Outcome = tuple[
    list[ev.Command], str | None, list[str]
]  # what follows, the grant's id, the prompts settled


def answer(state: State, judge: Judge, event: ev.Answer, home: str, now: float) -> list[ev.Command]:
    """Settle a prompt by a person's answer. ``home`` is the person's, for a scope that begins with ``~/``.

    Raises Refused for an answer that does not fit what was asked or that the policy forbids, IllegalMove for a prompt that
    is answered already.
    """
    prompt = state.prompt(event.prompt)
    if event.verdict not in ("allow", "deny"):
        raise Refused(INVALID_PARAMS, "a verdict is allow or deny")
    duration = _duration(event.duration)
    move_prompt(prompt.state, PromptMove.ALLOW if event.verdict == "allow" else PromptMove.DENY)
    _check_term(state, prompt, duration)
    scope = _scope(judge, prompt, event.scope, duration, home)
    _check_policy(state, judge, prompt, event.verdict, now)
    rule = _rule(state, judge, prompt, event.verdict, duration, scope)
    settled = Settled(event.verdict, duration, scope, rule, event.by, now, event.message, event.via)
    if prompt.consent is not None:
        out, grant, done = _about_token(state, prompt, settled)
    elif duration == ONCE:
        out, grant, done = _once(state, judge, prompt, settled)
    else:
        out, grant, done = _for_longer(state, judge, prompt, settled)
    return [
        ev.Record(answer_entry(prompt, event.verdict, rule), sync=True),
        *out,
        ev.Reply({"rule": rule, "grant": grant, "settled": done}),
    ]


def preview(state: State, judge: Judge, event: ev.Answer, home: str) -> dict[str, Any]:
    """Return the rule that ``event`` would store, and its scope. Raises Refused for what does not fit the question."""
    prompt = state.prompt(event.prompt)
    duration = _duration(event.duration)
    if prompt.consent is not None:
        consents.check_term(prompt, duration)
    scope = _scope(judge, prompt, event.scope, duration, home)
    return {"rule": _rule(state, judge, prompt, event.verdict, duration, scope), "scope": scope}


def _about_token(state: State, prompt: Prompt, settled: Settled) -> _Outcome:
    """Settle a question about a token, and for longer also those that are the same."""
    out, done = prompts.settle(state, prompt, settled), [prompt.id]
    if settled.duration == ONCE:
        return out, None, done
    meant = meaning(prompt, settled.scope)
    grant, made = granting.give(state, prompt, settled, meant, prompt.agent, prompt.session)
    out += made
    for other in [p for p in state.prompts.values() if consents.covers(grant, p)]:
        out += prompts.settle(state, other, replace(settled, by=grant.id))
        done.append(other.id)
    return out, grant.id, done


def _once(state: State, judge: Judge, prompt: Prompt, settled: Settled) -> _Outcome:
    """Settle ``prompt`` and the open ones of its session that ask for no more; or give its limit more room."""
    out, done = prompts.settle(state, prompt, settled), [prompt.id]
    for other in state.open_of(prompt.session):
        same = (other.path, other.path2) == (prompt.path, prompt.path2) and set(other.ops) <= set(
            prompt.ops
        )
        if same and (other.argv == prompt.argv or not is_exec(other.ops, other.argv)):
            out += prompts.settle(state, other, replace(settled, by=prompt.id))
            done.append(other.id)
    if _is_more(prompt, settled.scope) and settled.verdict == "allow":
        waiting = {p.id for p in state.prompts.values() if p.state is PromptState.OPEN}
        out += limits.extend(state, prompt.limit, settled.at)
        out += prompts.unblock(state, judge, settled.at)
        done += [i for i in waiting if state.prompts[i].state is not PromptState.OPEN]
    return out, None, done


def _for_longer(state: State, judge: Judge, prompt: Prompt, settled: Settled) -> _Outcome:
    """Make the grants of ``settled`` and settle ``prompt`` and whatever else they answer."""
    out: list[ev.Command] = []
    made = []
    meant = _meant(prompt, settled.scope)
    for one in prompts.grantees(state, judge, prompt, settled.verdict):
        grant, stored = granting.give(state, prompt, settled, meant, one.agent, one.id)
        made.append(grant)
        out += stored
    affected = snapshots.affected(state, made)
    out += snapshots.push(state, judge, affected)
    lives = prompt.session in state.bases
    if settled.verdict == "allow" and lives and prompts.judged(state, judge, prompt, settled.at) != ALLOW:
        raise Refused(CONFLICT, "the policy would go on asking: this scope does not settle it")
    out += prompts.settle(state, prompt, settled)
    done = [prompt.id]
    for other in [p for ident in affected for p in state.open_of(ident)]:
        verdict = prompts.judged(state, judge, other, settled.at)
        if verdict != ASK:
            by = replace(settled, verdict=VERDICTS[verdict], by=made[0].id)
            out += prompts.settle(state, other, by)
            done.append(other.id)
    return out, made[0].id, done


def _check_term(state: State, prompt: Prompt, duration: str) -> None:
    """Raise Refused when an answer to ``prompt`` cannot last for ``duration``, or comes too late."""
    if prompt.consent is not None:
        consents.check_term(prompt, duration)
        return
    session = state.session(prompt.session)
    if not session.live and duration in (ONCE, SESSION):
        raise Refused(CONFLICT, f"session {session.id} has ended; answer for always or for a time")
    if prompt.state is PromptState.MISSED and duration == ONCE:
        raise Refused(CONFLICT, "nobody waits for it any more; answer for session, always or a time")


def _check_policy(state: State, judge: Judge, prompt: Prompt, verdict: str, now: float) -> None:
    """Raise Refused when no person may say ``verdict`` to ``prompt``."""
    if verdict != "allow" or not prompt.session:
        return
    if prompt.consent is None:
        if prompt.session not in state.bases:
            return  # it has ended; what its agent may do is judged when that asks again
        argv = exec_argv(prompt.ops, prompt.argv)
        if judge.admins_only(state, prompt.session, prompt.ops, prompt.path, prompt.path2, argv):
            raise Refused(CONFLICT, "only an administrator may allow this")
    if prompts.judged(state, judge, prompt, now) == DENY:
        raise Refused(CONFLICT, "the policy denies this")


def _duration(given: str | int) -> str:
    if isinstance(given, bool) or (isinstance(given, str) and given not in (ONCE, SESSION, ALWAYS)):
        raise Refused(INVALID_PARAMS, "for is once, session, always or a number of seconds")
    if isinstance(given, int) and not 0 < given <= MAX_ALWAYS:
        raise Refused(INVALID_PARAMS, "a time is between one second and 365 days")
    return str(given)


def _scope(judge: Judge, prompt: Prompt, wanted: str, duration: str, home: str) -> str:
    """Return the scope that counts for ``wanted``. Raises Refused."""
    narrowest = prompt.scopes[0].pattern
    if prompt.limit and duration != ONCE:
        raise Refused(INVALID_PARAMS, f"a spent limit is extended once; for more, change {prompt.source}")
    if not wanted or wanted == narrowest:
        return narrowest
    if prompt.limit:
        if wanted != prompt.scopes[1].pattern:
            raise Refused(INVALID_PARAMS, "the scope is not one that is offered")
        return wanted
    if wanted.startswith("~/"):
        wanted = home + wanted[1:]
    if duration == ONCE:
        raise Refused(INVALID_PARAMS, "an answer for once has no wider scope")
    if prompt.consent is not None:
        raise Refused(INVALID_PARAMS, "a question about a token has no other scope")
    if is_exec(prompt.ops, prompt.argv):
        inside = exec_within(wanted, prompt.path, prompt.scopes)
    elif not resources.is_path(prompt.ops[0], prompt.path):
        inside = resource_within(prompt.ops[0], wanted, prompt.scopes)
    else:
        inside = within(wanted, prompt.scopes)
    if not inside:
        raise Refused(INVALID_PARAMS, "the scope is neither offered nor narrower than one that is")
    try:
        ops, patterns, tokens = meaning(prompt, wanted)
    except PatternError as e:
        raise Refused(INVALID_PARAMS, f"{e}; expected {e.expected}") from None
    if not judge.covers(prompt, ops, patterns, tokens):
        raise Refused(INVALID_PARAMS, "the scope does not cover what was asked")
    return wanted


def _is_more(prompt: Prompt, scope: str) -> bool:
    """Tell whether ``scope`` stands for a spent limit's whole amount once more."""
    return bool(prompt.limit) and scope.startswith(limits.EXTEND)


def _meant(prompt: Prompt, scope: str) -> Meant:
    return meaning(prompt, prompt.scopes[0].pattern if _is_more(prompt, scope) else scope)


def _rule(state: State, judge: Judge, prompt: Prompt, verdict: str, duration: str, scope: str) -> str:
    """Return the rule of an answer in a person's words."""
    if prompt.limit:
        return limits.extension(prompt, scope, verdict)
    ops, patterns, tokens = meaning(prompt, scope)
    whom = prompts.whom(state, judge, prompt, verdict, duration)
    return describe(verdict, ops, patterns, whom, duration, tokens)
