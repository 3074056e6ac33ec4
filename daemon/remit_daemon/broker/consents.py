"""Questions about tokens: a program asks for one that policy does not give, and a person answers as he answers all else.

Such a question is a prompt of the operation ``token`` whose resource says the audience and every scope with its places, in one
canonical text. It cannot be widened: its one scope is that text. No operation is held behind it; who asked comes back with
the request that only it knows (RFC 8628) and finds it open, allowed, denied or missed:

    asked ──▶ open ──▶ allowed ──▶ redeemed once for each request, within prompts.REDEEM_LIFE
                 ├───▶ denied
                 └───▶ missed: whoever answers later answers nobody

*Once* is for one token of each request that waits; *session*, *always* and a time make a grant, which serves the same request of the
same agent's sessions without another question, and which the tokens made under it end with. A grant to a client outside sessions
serves that client alone: a denial always, an allowance only where the kernel names the client, who otherwise may be anybody. Whatever was answered, policy has the last word when a token is fetched.
"""

from __future__ import annotations

from dataclasses import replace

from remit_daemon.broker import events as ev
from remit_daemon.broker import limits, prompts, standing
from remit_daemon.broker.events import Refused
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.prompts import MAX_OPEN, PROMPT_LIFE, QUIET
from remit_daemon.broker.records import (
    ONCE,
    PROCESS,
    SESSION,
    TOKEN,
    Consent,
    Grant,
    Prompt,
    Scope,
)
from remit_daemon.broker.state import State
from remit_daemon.broker.states import PromptState
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_policy.match import escape
from remit_policy.model import ALLOW, DENY

MAX_OPEN_OF_CLIENT = 10  # outside sessions: no program fills the list for the others
MAX_REQUESTS = 16  # that wait for one prompt
MAX_RESOURCE = 8192  # characters: a person has to read it


def ask(state: State, judge: Judge, event: ev.AskConsent, now: float) -> list[ev.Command]:
    """Answer by policy or by a grant, or have a person asked. Raises Refused."""
    mode = _mode(state, event)
    if not (event.request and event.agent and event.text and event.scopes):
        raise Refused(INVALID_PARAMS, "a question about no token")
    if len(event.text) > MAX_RESOURCE:
        raise Refused(INVALID_PARAMS, f"more is asked than a person can read ({MAX_RESOURCE} characters)")
    verdict, why = judge.token(state, event.session, event.scopes, event.base)
    if verdict == DENY:
        return _at_once(event, "deny", why)
    if verdict == ALLOW and event.session:
        return [ev.Reply({"verdict": "allow", "grant": "", "message": ""})]
    for grant in reversed(state.grants.values()):
        if serves(grant, event.session, event.client, event.agent, event.text) and _good(state, grant, now):
            return [ev.Reply({"verdict": grant.verdict, "grant": grant.id, "message": ""})]
    if mode in ("deny", "allow-once"):
        return _at_once(event, "deny" if mode == "deny" else "allow", f"--ask {mode}")
    if standing.mode(state, now) == "deny":
        return _at_once(event, "deny", QUIET)
    paid: list[ev.Command] = []
    asked = state.open_of(event.session)
    prompt = next((p for p in asked if _twin(p, event)), None)
    if prompt is not None and prompt.consent is not None:
        waiting = prompt.consent.requests
        if len(waiting) >= MAX_REQUESTS:
            raise Refused(CONFLICT, f"{MAX_REQUESTS} requests wait for this answer already")
        about = replace(prompt.consent, requests=(*waiting, event.request))
        prompt = replace(prompt, consent=about, count=prompt.count + 1)
    else:
        own = [p for p in asked if p.consent is not None and p.consent.client == event.client]
        limit = MAX_OPEN if event.session else MAX_OPEN_OF_CLIENT
        if len(asked) >= MAX_OPEN or len(own) >= limit:
            return _at_once(event, "deny", "too many questions are open already")
        if event.session:
            spent = limits.spent(state, event.session, limits.QUESTION, now)
            if spent is not None:
                return _at_once(event, "deny", f"no more questions now: {limits.words(spent)}")
            paid = limits.charge(state, event.session, limits.QUESTION, now)
        prompt = _new(state, event, now)
    state.prompts[prompt.id] = prompt
    return [
        *paid,
        ev.Store(prompt),
        ev.Notify("prompt", prompts.view(state, judge, prompt)),
        ev.Reply({"prompt": prompt.id}),
    ]


def _mode(state: State, event: ev.AskConsent) -> str:
    if not event.session:
        if not event.client or event.base is None:
            raise Refused(INVALID_PARAMS, "nobody asks")
        return "prompt"
    session = state.sessions.get(event.session)
    if session is None or not session.live or session.id not in state.bases:
        raise Refused(CONFLICT, f"session {event.session} is not running")
    if event.client or event.base is not None or event.agent != session.agent:
        raise Refused(INVALID_PARAMS, "a session asks for itself")
    return session.ask


def _new(state: State, event: ev.AskConsent, now: float) -> Prompt:
    session = state.sessions.get(event.session)
    prompt = Prompt(
        id=f"p{state.next_prompt}", session=event.session, agent=event.agent, project=session.project if session else "",
        ops=(TOKEN,), path=event.text, path2="", pid=event.pid, proc=event.proc, exe=event.exe, comm=event.comm, argv=(),
        source="default", count=1, created=now, deadline=now + PROMPT_LIFE,
        scopes=(Scope(escape(event.text), "exactly this"),),
        consent=Consent(event.client, event.audience, event.scopes, event.details, (event.request,), event.facts),
    )  # fmt: skip
    state.next_prompt += 1
    return prompt


def _twin(prompt: Prompt, event: ev.AskConsent) -> bool:
    about = prompt.consent
    return about is not None and (prompt.path, prompt.agent, about.client, about.facts) == (
        event.text, event.agent, event.client, event.facts,
    )  # fmt: skip


def _at_once(event: ev.AskConsent, verdict: str, why: str) -> list[ev.Command]:
    row = {
        "actor": "remit", "agent": event.agent, "session": event.session, "op": "answer", "verdict": verdict,
        "outcome": "answered", "path": event.text, "note": f"{TOKEN}: {why}", "pid": event.pid, "proc": event.proc, "exe": event.exe,
    }  # fmt: skip
    return [ev.Record(row), ev.Reply({"verdict": verdict, "grant": "", "message": why})]


def check_term(prompt: Prompt, duration: str) -> None:
    """Raise Refused when an answer to ``prompt`` cannot last for ``duration``, or comes too late."""
    if prompt.state is PromptState.MISSED:
        raise Refused(CONFLICT, "nobody waits for it any more; the program has to ask again")
    if duration == SESSION and not prompt.session:
        raise Refused(CONFLICT, "no session asks; answer for once, always or a time")


def serves(grant: Grant, session: str, client: str, agent: str, text: str) -> bool:
    """Tell whether ``grant`` answers for ``text``, asked in ``session`` of ``agent``, or outside by ``client``."""
    if grant.ops != (TOKEN,) or grant.patterns != (escape(text),) or grant.client != client:
        return False
    if client:
        return grant.verdict == "deny" or client.startswith(PROCESS)
    return bool(session) and (grant.session == session if grant.session else grant.agent == agent)


def covers(grant: Grant, prompt: Prompt) -> bool:
    """Tell whether ``grant`` answers the open ``prompt`` as well."""
    if prompt.state is not PromptState.OPEN or prompt.consent is None:
        return False
    return serves(grant, prompt.session, prompt.consent.client, prompt.agent, prompt.path)


def _good(state: State, grant: Grant, now: float) -> bool:
    return not grant.suspended and not state.waits(grant) and (grant.expires is None or grant.expires > now)


def find(state: State, request: str, session: str, client: str) -> Prompt | None:
    """Return the prompt that ``request`` waits for, None when there is none or another asked it."""
    for prompt in reversed(state.prompts.values()):
        about = prompt.consent
        if about is not None and request in about.requests:
            return prompt if (prompt.session, about.client) == (session, client) else None
    return None


def redeem(state: State, judge: Judge, event: ev.Redeem, now: float) -> list[ev.Command]:
    """Hand out what was allowed, once. Raises Refused while there is nothing to hand out."""
    prompt = find(state, event.request, event.session, event.client)
    if prompt is None or prompt.consent is None or prompt.answer is None:
        raise Refused(CONFLICT, "there is nothing to hand out")
    if prompt.state is not PromptState.ALLOWED:
        raise Refused(CONFLICT, f"the prompt is {prompt.state.value}")
    if bool(event.session) == (event.base is not None) or (
        event.session and event.session not in state.bases
    ):
        raise Refused(CONFLICT, "no policy to go by")
    about, answer = prompt.consent, prompt.answer
    left = tuple(r for r in about.requests if r != event.request)
    prompt = replace(prompt, consent=replace(about, requests=left))
    state.prompts[prompt.id] = prompt
    verdict, grant, why = "allow", "", ""
    if answer.duration != ONCE:
        found = next((g for g in state.grants.values() if g.prompt == prompt.id or g.id == answer.by), None)
        if found is None or not _good(state, found, now):
            verdict, why = "deny", "it was taken back"
        else:
            grant = found.id
    by_policy, said = judge.token(state, event.session, about.scopes, event.base)
    if prompt.pass_until is None:
        verdict, why = "deny", "it was taken back"
    elif prompt.pass_until < now:
        verdict, why = "expired", "it was not fetched in time"
    elif by_policy == DENY:
        verdict, why = "deny", said
    return [
        ev.Store(prompt),
        ev.Reply({"verdict": verdict, "grant": grant, "message": why}),
    ]


def client_gone(state: State, client: str) -> list[ev.Command]:
    """Miss what ``client``, which has ended, asked outside sessions, and end what was granted to it."""
    out: list[ev.Command] = []
    for prompt in [p for p in state.open_of("") if p.consent is not None and p.consent.client == client]:
        out += prompts.miss(state, prompt)
    # What was allowed ends with the client. That it was told no for longer stays, where its name outlives it.
    gone = [g for g in state.grants.values() if client and g.client == client]
    for grant in [g for g in gone if g.verdict == "allow" or client.startswith(PROCESS)]:
        del state.grants[grant.id]
        out.append(ev.Drop("grant", grant.id))
    return out
