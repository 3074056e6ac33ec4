"""The broker: the pure decision point between sessions that ask and people who answer.

``handle`` takes one event and the time, and returns the commands that follow from it, in the order in which they are
to be carried out: what is stored and recorded first, then new snapshots, then answers. It does no I/O. An
event that is refused raises Refused and changes nothing; ``undo`` takes back the last event when its
commands could not be made durable.

What holds whatever comes:
- no operation is allowed but by the policy in force, by a grant that covers it, or by an answer to its own prompt;
- nothing is allowed that the policy in force denies;
- a hold ends by exactly one of: answer, cancel, loss of its connection, end of its session;
- one prompt for one access (session, operations, paths); an answer settles every open prompt that it covers;
- what is asked about a token (``consents``) is answered by a person or by policy, and handed out once for each request.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, assert_never

from remit_daemon.broker import consents, keeping, limits, standing
from remit_daemon.broker import events as ev
from remit_daemon.broker.consents import MAX_OPEN, PROMPT_LIFE, QUIET
from remit_daemon.broker.events import Refused
from remit_daemon.broker.judge import Decider, Judge
from remit_daemon.broker.keeping import MAX_ALWAYS
from remit_daemon.broker.records import (
    ALWAYS,
    ONCE,
    SESSION,
    Account,
    Before,
    Grant,
    Prompt,
    Session,
    Settled,
    Stated,
)
from remit_daemon.broker.resources import resource_within
from remit_daemon.broker.scopes import describe, exec_offers, exec_within, insists, offers, within
from remit_daemon.broker.state import State, before_change
from remit_daemon.broker.states import (
    IllegalMove,
    PromptMove,
    PromptState,
    SessionMove,
    SessionState,
    move_prompt,
    move_session,
)
from remit_daemon.broker.views import grant_view, is_exec, meaning, prompt_view, session_view
from remit_daemon.wire.control import is_ahead, of_api, of_gateway
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS, NOT_FOUND
from remit_daemon.wire.words import UNCONFINED
from remit_policy import model, resources
from remit_policy.match import PatternError
from remit_policy.model import ALLOW, ASK, DENY, Decision

__all__ = ["Broker", "Refused"]

RETRY_LIFE = 600.0  # a once-answer waits so long for the retry of an operation that was given up
RETRY_BURST = 15.0  # and serves so long after its first use: one tool call opens a file up to four times
MAX_PROMPTS = 2000  # kept altogether; the oldest settled ones are forgotten (the ledger has them)
MAX_PURPOSE = 500  # characters of an agent's reason: what is longer is no reason but a wall of text
STATED_LIFE = 120.0  # seconds that an agent's word on its next act is good for questions; its calls take that long at most
MAX_STATED = 32  # such words of one session; the oldest are forgotten
_ASK_MODES = ("prompt", "deny", "allow-once", "learn")


class Broker:
    """See the module's text. ``engine`` makes a decider of a snapshot; ``now`` is the time of creation."""

    def __init__(self, engine: Callable[[model.Snapshot], Decider], home: str, now: float) -> None:
        self._home = home
        self.state = State(revision=math.floor(now))
        self._before = self.state
        self.judge = Judge(engine)

    # -- the outside -------------------------------------------------------------------------------

    def load(
        self,
        sessions: list[Session],
        prompts: list[Prompt],
        grants: list[Grant],
        accounts: list[Account] | None = None,
    ) -> None:
        """Take up what an earlier run stored. Nobody is connected and nothing is held yet."""
        s = self.state
        s.sessions = {r.id: r for r in sessions}
        s.prompts = {r.id: replace(r, remaining=None) for r in prompts}
        s.grants = {r.id: r for r in grants}
        s.accounts = {r.id: r for r in accounts or ()}
        s.next_prompt = 1 + max([int(r.id[1:]) for r in prompts], default=0)
        s.next_grant = 1 + max([int(r.id[1:]) for r in grants], default=0)

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Take ``event`` at time ``now`` and return the commands. Raises Refused; nothing has changed then."""
        before, self.state = self.state, self.state.copy()
        self._before = before
        try:
            return self._dispatch(event, now)
        except IllegalMove as e:
            self.state = before
            raise Refused(CONFLICT, str(e)) from None
        except BaseException:
            self.state = before
            raise

    def undo(self) -> None:
        """Take back the last event that was handled."""
        self.state = self._before

    def snapshot(self, session: str) -> tuple[str, int]:
        """Return the text of the snapshot in force for ``session``, grants included, and its revision."""
        return model.dumps(self.judge.compose(self.state, session)), self.state.revision

    def prompt(self, ident: str) -> dict[str, Any]:
        """Return the wire Prompt. Raises Refused when there is none."""
        return self._view(self._prompt(ident))

    def consent(self, request: str, session: str = "", client: str = "") -> Prompt | None:
        """Return the prompt that the request with digest ``request`` waits for, when it is who asked that asks now."""
        return consents.find(self.state, request, session, client)

    def prompts(self, all_of_them: bool = False) -> list[dict[str, Any]]:
        """Return the open prompts, or all that are kept, oldest first."""
        return [
            self._view(p) for p in self.state.prompts.values() if all_of_them or p.state is PromptState.OPEN
        ]

    def sessions(self) -> list[dict[str, Any]]:
        """Return the wire Sessions, oldest first."""
        return [self._session_view(s) for s in self.state.sessions.values()]

    def limits(self, agent: str, now: float) -> list[dict[str, Any]]:
        """Return the wire Limits, those of ``agent`` or all."""
        return limits.views(self.state, agent, now)

    def decide(self, session: str, ops: Sequence[str], path: str, argv: Sequence[str] = ()) -> Decision:
        """Return the strictest decision of the policy in force, grants included, over ``ops``: as an ask would be taken.

        Raises Refused for a session that is not running, or what is no operation or resource.
        """
        found = self._session(session)
        if not found.live or session not in self.state.bases:
            raise Refused(CONFLICT, f"session {session} is not running")
        if not ops or any(op not in model.OPS for op in ops) or not path:
            raise Refused(INVALID_PARAMS, "no known operation, or no resource")
        if not all(resources.is_path(op, path) or resources.key(op, path) for op in ops):
            raise Refused(INVALID_PARAMS, f"{', '.join(ops)}: no such resource; write it {_example(ops)}")
        return self.judge.decision(self.state, session, ops, path, argv)

    def engines(self, session: str) -> list[Decider]:
        """Return what decides for ``session``, its own first, then those above. Raises Refused for one that is not running."""
        if not self._session(session).live or session not in self.state.bases:
            raise Refused(CONFLICT, f"session {session} is not running")
        return self.judge.engines(self.state, session)

    def preview(self, answer: ev.Answer) -> dict[str, Any]:
        """Return the rule that ``answer`` would store, and its scope. Raises Refused as ``answer`` would."""
        prompt = self._prompt(answer.prompt)
        duration = self._duration(answer.duration)
        if prompt.consent is not None:
            consents.check_term(prompt, duration)
        scope, _ = self._scope(prompt, answer.scope, duration)
        if prompt.limit:
            return {"rule": limits.extension(prompt, scope, answer.verdict), "scope": scope}
        ops, patterns, tokens = meaning(prompt, scope)
        whom = self._whom(prompt, answer.verdict, duration)
        return {
            "rule": describe(answer.verdict, ops, patterns, whom, duration, tokens),
            "scope": scope,
        }

    def next_deadline(self) -> float:
        """Return when the next ``Tick`` has something to do; infinity when nothing waits for time."""
        times = [
            p.deadline
            for p in self.state.prompts.values()
            if p.state is PromptState.OPEN and p.remaining is None
        ]
        times += [g.expires for g in self.state.grants.values() if g.expires is not None]
        if self.state.standing.quiet:
            times.append(self.state.standing.quiet_until)
        return min(times, default=math.inf)

    # -- dispatch ----------------------------------------------------------------------------------

    def _dispatch(self, event: ev.Event, now: float) -> list[ev.Command]:
        match event:
            case ev.Started():
                return self._started(event, now)
            case ev.Lost():
                return self._lost(event.session, event.gateway)
            case ev.Ended():
                return self._ended(event, now)
            case ev.Ask():
                return self._ask(event, now)
            case ev.Report():
                return _ordered(self._unblocked(limits.report(self.state, event, now), now))
            case ev.AskConsent():
                return _ordered(consents.ask(self.state, self.judge, event, now))
            case ev.Redeem():
                return consents.redeem(self.state, self.judge, event, now)
            case ev.ClientGone():
                return self._client_gone(event.client)
            case ev.Intent():
                return self._intent(event, now)
            case ev.Cancel():
                return self._cancel(event, now)
            case ev.Answer():
                return self._answer(event, now)
            case ev.Look():
                return self._look(event.prompt, event.who, event.looking, now)
            case ev.LookerGone():
                return [
                    c
                    for ident, who in list(self.state.looks.items())
                    if event.who in who
                    for c in self._look(ident, event.who, False, now)
                ]
            case ev.Revoke():
                return self._revoke(event, now)
            case ev.Narrow():
                return self._kept(
                    keeping.narrowed(self._grant(event.id), event.scope, self._home, now), now
                )
            case ev.Extend():
                return self._kept(keeping.extended(self._grant(event.id), event.seconds, now), now)
            case ev.Keep():
                return self._kept(keeping.kept(self._grant(event.id), now), now)
            case ev.Reviewed():
                entry = {"actor": "human", "op": "review", "outcome": "ok", "note": event.what}
                return [ev.Record(entry, sync=True), ev.Reply()]
            case ev.Quiet():
                return _ordered(standing.quiet(self.state, event, now, PROMPT_LIFE))
            case ev.Steer():
                return self._steer(event)
            case ev.PolicyChanged():
                return self._policy_changed(event, now)
            case ev.Withhold():
                return self._withhold(event, now)
            case ev.Carry():
                return self._carry(event, now)
            case ev.Used():
                return self._used(event)
            case ev.Tick():
                return self._tick(now)
            case _:
                assert_never(event)

    # -- sessions ----------------------------------------------------------------------------------

    def _started(self, event: ev.Started, now: float) -> list[ev.Command]:
        s, new = self.state, event.session
        if new.ask not in _ASK_MODES:
            raise Refused(INVALID_PARAMS, f"no ask mode {new.ask!r}")
        known = s.sessions.get(new.id)
        if known is not None and not known.live:
            raise Refused(CONFLICT, f"session {new.id} has ended")
        if new.parent and (not self._session(new.parent).live or new.parent not in s.bases):
            raise Refused(CONFLICT, f"session {new.parent} is not running")
        s.bases[new.id] = event.base
        s.engines.pop(new.id, None)
        self._lost(new.id, False)
        out: list[ev.Command] = []
        if known is None:
            s.sessions[new.id] = new
            out.append(ev.Store(new))
            note = f"ask={new.ask}" if new.ask != "prompt" else ""
            if not new.confined:
                note = f"{note} {new.assurance}, {UNCONFINED}".strip()
            if new.net_all:
                note = (note + " network unmediated").strip()
            if new.parent:
                note = f"{note} delegated by {new.parent}".strip()
            out.append(ev.Record(_entry(new, "session", outcome="started", note=note, argv=new.argv)))
        else:
            if known.state is SessionState.PAUSED:
                out.append(ev.Send(new.id, {"type": "pause"}))
        out.append(ev.Notify("session", self._session_view(s.sessions[new.id])))
        return out

    def _lost(self, ident: str, gateway: bool) -> list[ev.Command]:
        self.state.holds = {
            k: v
            for k, v in self.state.holds.items()
            if k[0] != ident or of_api(k[1]) or of_gateway(k[1]) != gateway
        }
        return []

    def _ended(self, event: ev.Ended, now: float) -> list[ev.Command]:
        s, session = self.state, self._session(event.session)
        below: list[ev.Command] = []
        for sub in s.below(session.id):
            if s.sessions[sub].live:  # not ended with the one above it
                below += self._ended(ev.Ended(sub, None), now)
        session = replace(
            session, state=move_session(session.state, SessionMove.END), ended=now, status=event.status
        )
        s.sessions[session.id] = session
        s.holds = {k: v for k, v in s.holds.items() if k[0] != session.id}
        s.bases.pop(session.id, None)
        s.engines.pop(session.id, None)
        s.stated.pop(session.id, None)
        out: list[ev.Command] = [*below, ev.Store(session), *limits.end(s, session.id, now)]
        gone = "supervisor gone" if session.confined else "client gone"
        if session.parent:
            gone = "its first program ended"
        status = gone if event.status is None else f"status {event.status}"
        out.append(ev.Record(_entry(session, "session", outcome="ended", note=status)))
        for prompt in self._open(session.id):
            out += self._miss(prompt)
        for grant in [g for g in s.grants.values() if g.session == session.id]:
            del s.grants[grant.id]
            out.append(ev.Drop("grant", grant.id))
        out.append(ev.Notify("session", self._session_view(session)))
        return out

    def _steer(self, event: ev.Steer) -> list[ev.Command]:
        session = self._session(event.session)
        out: list[ev.Command] = []
        if event.action == "stop":
            if not session.live:
                raise Refused(CONFLICT, f"session {session.id} has ended")
            out.append(ev.Record(_entry(session, "stop", actor="human")))
        else:
            move = {"pause": SessionMove.PAUSE, "resume": SessionMove.RESUME}[event.action]
            session = replace(session, state=move_session(session.state, move))
            self.state.sessions[session.id] = session
            out += [ev.Store(session), ev.Record(_entry(session, event.action, actor="human"))]
        out.append(ev.Send(session.id, {"type": event.action}))
        if event.action == "stop":
            out.append(ev.EndTree(session.id, session.tag))
            if (
                session.parent
            ):  # a session's own mark is on all of its tree, a sub-session's on its own part
                out += [
                    ev.EndTree(sub, self.state.sessions[sub].tag) for sub in self.state.below(session.id)
                ]
        out += [ev.Notify("session", self._session_view(session)), ev.Reply()]
        return out

    def _policy_changed(self, event: ev.PolicyChanged, now: float) -> list[ev.Command]:
        s = self.state
        changed = {
            k
            for k, base in event.bases.items()
            if k in s.bases and model.dumps(base) != model.dumps(s.bases[k])
        }
        if not changed:
            return []
        for ident in changed:
            s.bases[ident] = event.bases[ident]
            s.sessions[ident] = replace(s.sessions[ident], net_all=event.bases[ident].net_all)
        changed = self._with_subs(changed)
        out = self._push(changed)
        return _ordered(self._judge_again(changed, out, now))

    def _judge_again(self, sessions: set[str], out: list[ev.Command], now: float) -> list[ev.Command]:
        for prompt in [p for ident in sorted(sessions) for p in self._open(ident)]:
            verdict = self._judge(prompt, now)
            if verdict != ASK:
                settled = Settled(model.VERDICTS[verdict], ONCE, "", "", "policy", now)
                out = self._settle(prompt, settled, out)
        return out

    # -- asks --------------------------------------------------------------------------------------

    def _ask(self, event: ev.Ask, now: float) -> list[ev.Command]:
        s, session = self.state, self._session(event.session)
        if not session.live or session.id not in s.bases:
            raise Refused(CONFLICT, f"session {session.id} is not running")
        if not event.ops or any(op not in model.OPS for op in event.ops) or not event.path:
            raise Refused(INVALID_PARAMS, "an ask without known operations or a path")
        if not all(resources.is_path(op, event.path) or resources.key(op, event.path) for op in event.ops):
            raise Refused(INVALID_PARAMS, "an ask about what is no resource")
        if len(event.purpose) > MAX_PURPOSE:
            raise Refused(INVALID_PARAMS, f"a purpose is at most {MAX_PURPOSE} characters")
        event = replace(event, ops=tuple(sorted(set(event.ops))))
        held = s.holds.get((session.id, event.seq))
        if held is not None:
            return [ev.Send(session.id, _asked(event.seq, held))]
        argv = event.argv if is_exec(event.ops, event.argv) else ()
        try:
            costs = limits.costs_of(event.costs)
        except ValueError as e:
            raise Refused(INVALID_PARAMS, str(e)) from None
        verdict = self.judge.verdict(s, session.id, event.ops, event.path, event.path2, argv)
        if event.short and verdict == ASK:
            verdict = (
                ALLOW  # the point, which counts rates and knows what is its session's own, found it allowed
            )
        spent = limits.spent(s, session.id, costs, now) if verdict == ALLOW else None
        if spent is not None:
            verdict, event = ASK, replace(event, source=spent.source)
        if verdict != ASK:
            paid = limits.charge(s, session.id, costs, now) if verdict == ALLOW else []
            return _ordered([*paid, _answer_frame(session.id, event.seq, model.VERDICTS[verdict])])
        served = self._serve(event, argv, costs, now)
        if served is not None:
            return served
        if session.ask == "learn" and spent is None and self.judge.learns(s, event, argv):
            spent = limits.spent(s, session.id, costs, now)
            if spent is None:
                entry = _entry(
                    session, "learn", actor="remit", verdict="allow", outcome="answered", path=event.path,
                    note=" ".join(event.ops), argv=event.argv, pid=event.pid, proc=event.proc, exe=event.exe,
                )  # fmt: skip
                paid = limits.charge(s, session.id, costs, now)
                return _ordered([ev.Record(entry), *paid, _answer_frame(session.id, event.seq, "allow")])
            event = replace(event, source=spent.source)
        short = f"{limits.words(spent)}; " if spent is not None else ""
        if session.ask in ("deny", "allow-once"):
            word = "deny" if session.ask == "deny" else "allow"
            if word == "allow" and self.judge.admins_only(
                s, session.id, event.ops, event.path, event.path2, argv
            ):
                word = "deny"
            entry = _entry(
                session, "answer", actor="remit", verdict=word, outcome="answered", path=event.path,
                path2=event.path2, note=f"--ask {session.ask}: {', '.join(event.ops)}", argv=event.argv,
                pid=event.pid, proc=event.proc, exe=event.exe, rule=event.source,
            )  # fmt: skip
            why = f"{short}nobody is asked here (--ask {session.ask})" if word == "deny" else ""
            paid = limits.charge(s, session.id, costs, now) if word == "allow" else []
            return _ordered(
                [ev.Record(entry), *paid, _answer_frame(session.id, event.seq, word, message=why)]
            )
        if standing.mode(s, now) == "deny":
            entry = _entry(
                session, "answer", actor="remit", verdict="deny", outcome="answered", path=event.path,
                path2=event.path2, note=f"quiet: {', '.join(event.ops)}", argv=event.argv, pid=event.pid,
                proc=event.proc, exe=event.exe, rule=event.source,
            )  # fmt: skip
            return [ev.Record(entry), _answer_frame(session.id, event.seq, "deny", message=short + QUIET)]
        out: list[ev.Command] = []
        prompt = self._twin(event, argv)
        if prompt is None:
            if len(self._open(session.id)) >= MAX_OPEN:
                text = f"{MAX_OPEN} questions of this session are open already"
                return self._unasked(session, event, text)
            asking = limits.spent(s, session.id, limits.QUESTION, now)
            if asking is not None:
                return self._unasked(session, event, f"no more questions now: {limits.words(asking)}")
            out += limits.charge(s, session.id, limits.QUESTION, now)
            prompt = replace(self._new_prompt(session, event, argv, now), costs=costs)
            if spent is not None:
                prompt = replace(prompt, limit=spent.id, scopes=limits.scopes(spent, prompt.scopes[0]))
                out += limits.recall(s, spent)
        else:
            purpose = prompt.purpose or self._purpose(
                event, now
            )  # the first stays: it is what a person read
            prompt = replace(
                prompt,
                count=prompt.count + max(1, event.count),
                purpose=purpose,
                costs=prompt.costs or costs,
            )
        s.prompts[prompt.id] = prompt
        s.holds[session.id, event.seq] = prompt.id
        out += [
            ev.Store(prompt),
            ev.Send(session.id, _asked(event.seq, prompt.id)),
            ev.Notify("prompt", self._view(prompt)),
        ]
        return _ordered(out)

    def _unasked(self, session: Session, event: ev.Ask, text: str) -> list[ev.Command]:
        """Deny what nobody is asked about, and say why."""
        entry = _entry(
            session, "answer", actor="remit", verdict="deny", outcome="answered",
            path=event.path, path2=event.path2, note=text,
        )  # fmt: skip
        return [ev.Record(entry), _answer_frame(session.id, event.seq, "deny", message=text)]

    def _unblocked(self, out: list[ev.Command], now: float) -> list[ev.Command]:
        """Let go on what waited for a limit that has room again; returns ``out`` with what follows."""
        for prompt in [p for p in self.state.prompts.values() if p.limit and p.state is PromptState.OPEN]:
            if prompt.session in self.state.bases and self._judge(prompt, now) == ALLOW:
                out = self._settle(prompt, Settled("allow", ONCE, "", "", "policy", now), out)
        return out

    def _twin(self, event: ev.Ask, argv: tuple[str, ...]) -> Prompt | None:
        for p in self._open(event.session):
            same = (p.ops, p.path, p.path2) == (event.ops, event.path, event.path2)
            if same and (not argv or p.argv == argv):
                return p
        return None

    def _serve(
        self, event: ev.Ask, argv: tuple[str, ...], costs: tuple[tuple[str, int], ...], now: float
    ) -> list[ev.Command] | None:
        """Answer a retry from a once-answer that is still good, or return None."""
        s = self.state
        for p in reversed(s.prompts.values()):
            if p.pass_until is None or p.pass_until < now or p.session != event.session or p.answer is None:
                continue
            if (p.path, p.path2) != (event.path, event.path2) or not set(event.ops) <= set(p.ops):
                continue
            if argv and p.argv != argv:
                continue
            verdict, message = p.answer.verdict, p.answer.message
            out: list[ev.Command] = []
            if not p.pass_used and not is_ahead(event.seq):
                p = replace(p, pass_used=True, pass_until=min(p.pass_until, now + RETRY_BURST))
                s.prompts[p.id] = p
                out.append(ev.Store(p))
            if verdict == "allow":
                out += limits.charge(s, event.session, costs, now)
            return _ordered([*out, _answer_frame(event.session, event.seq, verdict, p.id, message)])
        return None

    def _new_prompt(self, session: Session, event: ev.Ask, argv: tuple[str, ...], now: float) -> Prompt:
        s = self.state
        rules = [rule for one in s.chain(session.id) for rule in s.bases[one].rules]
        if argv:
            scopes = exec_offers(event.path, argv)
        else:
            found = offers(
                event.ops, event.path, event.path2, home=self._home, project=session.project, rules=rules
            )
            # A place that insists is answered for itself alone.
            insisting = self.judge.insisting(s, session.id, event.ops, event.path, event.path2)
            scopes = found[:1] if any(insists(r) for r in insisting) else found
        prompt = Prompt(
            id=f"p{s.next_prompt}", session=session.id, agent=session.agent, project=session.project,
            ops=event.ops, path=event.path, path2=event.path2, pid=event.pid, proc=event.proc, exe=event.exe,
            comm=event.comm, argv=event.argv, source=event.source, count=max(1, event.count), created=now,
            deadline=standing.deadline(s, now, PROMPT_LIFE), scopes=scopes,
            chain=event.chain, kind=self.judge.kind(s, session.id, event.ops, event.path), before=self._before_it(event, session.agent, argv),
            purpose=self._purpose(event, now),
        )  # fmt: skip
        s.next_prompt += 1
        return prompt

    def _before_it(self, event: ev.Ask, agent: str, argv: tuple[str, ...]) -> Before:
        ends: Counter[PromptState] = Counter()
        for p in self.state.prompts.values():
            if (p.agent, p.ops, p.path, p.path2) == (agent, event.ops, event.path, event.path2) and (
                not argv or p.argv == argv
            ):
                ends[p.state] += 1
        return Before(ends[PromptState.ALLOWED], ends[PromptState.DENIED], ends[PromptState.MISSED])

    def _client_gone(self, client: str) -> list[ev.Command]:
        s = self.state
        out: list[ev.Command] = []
        for prompt in [p for p in self._open("") if p.consent is not None and p.consent.client == client]:
            out += self._miss(prompt)
        for grant in [g for g in s.grants.values() if client and g.client == client]:
            del s.grants[grant.id]
            out.append(ev.Drop("grant", grant.id))
        return _ordered(out)

    def _intent(self, event: ev.Intent, now: float) -> list[ev.Command]:
        s, session = self.state, self._session(event.session)
        if not session.live:
            raise Refused(CONFLICT, f"session {session.id} has ended")
        if not 0 < len(event.purpose) <= MAX_PURPOSE:
            raise Refused(INVALID_PARAMS, f"a purpose is 1 to {MAX_PURPOSE} characters")
        said = Stated(event.resources, event.purpose, now + STATED_LIFE)
        s.stated[session.id] = (*s.stated.get(session.id, ()), said)[-MAX_STATED:]
        return []

    def _purpose(self, event: ev.Ask, now: float) -> str:
        """Return the agent's reason for this very act: what it says with it, else what it said last before it."""
        if event.purpose:
            return event.purpose
        asked = {event.path, event.path2} - {""}
        for said in reversed(self.state.stated.get(event.session, ())):
            if said.until >= now and (not said.resources or asked.intersection(said.resources)):
                return said.purpose
        return ""

    def _cancel(self, event: ev.Cancel, now: float) -> list[ev.Command]:
        s = self.state
        ident = s.holds.pop((event.session, event.seq), None)
        if ident is None:
            return []  # it crossed with the answer
        prompt = s.prompts[ident]
        if event.why == "expired":
            prompt = replace(prompt, expired=True)
        elif not prompt.expired and not self._holding(ident):
            return self._miss(prompt)
        s.prompts[ident] = prompt
        return [ev.Store(prompt), ev.Notify("prompt", self._view(prompt))]

    # -- answers -----------------------------------------------------------------------------------

    def _answer(self, event: ev.Answer, now: float) -> list[ev.Command]:
        s, prompt = self.state, self._prompt(event.prompt)
        if event.verdict not in ("allow", "deny"):
            raise Refused(INVALID_PARAMS, "a verdict is allow or deny")
        duration = self._duration(event.duration)
        move = PromptMove.ALLOW if event.verdict == "allow" else PromptMove.DENY
        move_prompt(prompt.state, move)
        if prompt.consent is not None:
            return self._answer_consent(prompt, event, duration, now)
        session = self._session(prompt.session)
        if not session.live and duration in (ONCE, SESSION):
            raise Refused(CONFLICT, f"session {session.id} has ended; answer for always or for a time")
        if prompt.state is PromptState.MISSED and duration == ONCE:
            raise Refused(CONFLICT, "nobody waits for it any more; answer for session, always or a time")
        scope, _ = self._scope(prompt, event.scope, duration)
        more = scope.startswith(limits.EXTEND) and bool(prompt.limit)
        ops, patterns, tokens = meaning(prompt, prompt.scopes[0].pattern if more else scope)
        if event.verdict == "allow" and session.id in s.bases:
            argv = prompt.argv if is_exec(prompt.ops, prompt.argv) else ()
            if self.judge.admins_only(s, session.id, prompt.ops, prompt.path, prompt.path2, argv):
                raise Refused(CONFLICT, "only an administrator may allow this")
            if self._judge(prompt, now) == DENY:
                raise Refused(CONFLICT, "the policy denies this")
        rule = describe(
            event.verdict, ops, patterns, self._whom(prompt, event.verdict, duration), duration, tokens
        )
        if prompt.limit:
            rule = limits.extension(prompt, scope, event.verdict)
        settled = Settled(event.verdict, duration, scope, rule, event.by, now, event.message, event.via)
        entry = _entry(
            session, "answer", actor="human", verdict=event.verdict, outcome="answered", path=prompt.path,
            path2=prompt.path2, prompt=prompt.id, note=rule, pid=prompt.pid, proc=prompt.proc, exe=prompt.exe,
        )  # fmt: skip
        out: list[ev.Command] = [ev.Record(entry, sync=True)]
        done = [prompt.id]
        grant: Grant | None = None
        if duration == ONCE:
            out = self._settle(prompt, settled, out)
            for other in self._open(session.id):
                same = (other.path, other.path2) == (prompt.path, prompt.path2) and set(other.ops) <= set(
                    prompt.ops
                )
                if same and (other.argv == prompt.argv or not is_exec(other.ops, other.argv)):
                    out = self._settle(other, replace(settled, by=prompt.id), out)
                    done.append(other.id)
            if more and event.verdict == "allow":
                waiting = {p.id for p in s.prompts.values() if p.state is PromptState.OPEN}
                out = self._unblocked([*out, *limits.extend(s, prompt.limit, now)], now)
                done += [i for i in waiting if s.prompts[i].state is not PromptState.OPEN]
        else:
            made = [
                self._new_grant(
                    prompt,
                    (one.agent, one.id),
                    event.verdict,
                    duration,
                    ops,
                    patterns,
                    tokens,
                    now,
                    event.via,
                )
                for one in self._grantees(prompt, event.verdict)
            ]
            grant = made[0]
            for fresh in made:
                s.grants[fresh.id] = fresh
                for old in [g for g in s.grants.values() if g.id != fresh.id and _same_place(g, fresh)]:
                    del s.grants[old.id]
                    out.append(ev.Drop("grant", old.id))
                out.append(ev.Store(fresh))
            affected = self._affected(made)
            out += self._push(affected)
            if event.verdict == "allow" and session.id in s.bases and self._judge(prompt, now) != ALLOW:
                raise Refused(CONFLICT, "the policy would go on asking: this scope does not settle it")
            out = self._settle(prompt, settled, out)
            for other in [p for ident in affected for p in self._open(ident)]:
                verdict = self._judge(other, now)
                if verdict != ASK:
                    by = replace(settled, verdict=model.VERDICTS[verdict], by=grant.id)
                    out = self._settle(other, by, out)
                    done.append(other.id)
        out.append(ev.Reply({"rule": rule, "grant": grant.id if grant else None, "settled": done}))
        return _ordered(out)

    def _grantees(self, prompt: Prompt, verdict: str) -> list[Session]:
        """Return whose grant an answer for longer becomes, its own session's first: for a sub-session also of each one above
        that asks here itself, since a sub-session may do only what those may. Who is allowed already needs none."""
        s, session = self.state, self._session(prompt.session)
        if verdict != "allow" or not session.parent:
            return [session]
        argv = prompt.argv if is_exec(prompt.ops, prompt.argv) else ()
        asking = [
            self._session(one)
            for one in s.chain(session.id)
            if self.judge.own_verdict(s, one, prompt.ops, prompt.path, prompt.path2, argv) == ASK
        ]
        return asking or [session]

    def _whom(self, prompt: Prompt, verdict: str, duration: str) -> str:
        if duration == ONCE or prompt.consent is not None:
            return prompt.agent
        return " and ".join(session.agent for session in self._grantees(prompt, verdict))

    def _answer_consent(
        self, prompt: Prompt, event: ev.Answer, duration: str, now: float
    ) -> list[ev.Command]:
        s = self.state
        consents.check_term(prompt, duration)
        scope, _ = self._scope(prompt, event.scope, duration)
        if event.verdict == "allow" and prompt.session and self._judge(prompt, now) == DENY:
            raise Refused(CONFLICT, "the policy denies this")
        ops, patterns, _ = meaning(prompt, scope)
        rule = describe(event.verdict, ops, patterns, prompt.agent, duration)
        settled = Settled(event.verdict, duration, scope, rule, event.by, now, event.message, event.via)
        out: list[ev.Command] = [
            ev.Record(consents.entry(prompt, "human", event.verdict, rule), sync=True),
            *consents.settle(s, prompt, settled),
        ]
        done, ident = [prompt.id], None
        if duration != ONCE:
            whom = prompt.agent, prompt.session
            grant = self._new_grant(
                prompt, whom, event.verdict, duration, ops, patterns, None, now, event.via
            )
            ident = grant.id
            for old in [g for g in s.grants.values() if _same_place(g, grant)]:
                del s.grants[old.id]
                out.append(ev.Drop("grant", old.id))
            s.grants[grant.id] = grant
            out.append(ev.Store(grant))
            for other in [p for p in s.prompts.values() if consents.covers(grant, p)]:
                out += consents.settle(s, other, replace(settled, by=grant.id))
                done.append(other.id)
        out.append(ev.Reply({"rule": rule, "grant": ident, "settled": done}))
        return _ordered(out)

    def _new_grant(
        self, prompt: Prompt, whom: tuple[str, str], verdict: str, duration: str, ops: tuple[str, ...], patterns: tuple[str, ...],
        tokens: tuple[str, ...] | None, now: float, via: str,
    ) -> Grant:  # fmt: skip
        s = self.state
        expires = None
        if duration != SESSION:
            expires = now + (MAX_ALWAYS if duration == ALWAYS else min(float(duration), MAX_ALWAYS))
        grant = Grant(
            id=f"g{s.next_grant}", agent=whom[0], session=whom[1] if duration == SESSION else "",
            ops=ops, patterns=patterns, verdict=verdict, duration=duration, created=now, expires=expires,
            argv=tokens, prompt=prompt.id, via=via, client=prompt.consent.client if prompt.consent else "",
        )  # fmt: skip
        s.next_grant += 1
        return grant

    def _duration(self, given: str | int) -> str:
        if isinstance(given, bool) or (isinstance(given, str) and given not in (ONCE, SESSION, ALWAYS)):
            raise Refused(INVALID_PARAMS, "for is once, session, always or a number of seconds")
        if isinstance(given, int) and not 0 < given <= MAX_ALWAYS:
            raise Refused(INVALID_PARAMS, "a time is between one second and 365 days")
        return str(given)

    def _scope(self, prompt: Prompt, wanted: str, duration: str) -> tuple[str, bool]:
        """Return the scope that counts for ``wanted`` and whether it is an offer as it stands. Raises Refused."""
        narrowest = prompt.scopes[0].pattern
        if prompt.limit and duration != ONCE:
            raise Refused(
                INVALID_PARAMS, f"a spent limit is extended once; for more, change {prompt.source}"
            )
        if not wanted or wanted == narrowest:
            return narrowest, True
        if prompt.limit:
            if wanted != prompt.scopes[1].pattern:
                raise Refused(INVALID_PARAMS, "the scope is not one that is offered")
            return wanted, True
        if wanted.startswith("~/"):
            wanted = self._home + wanted[1:]
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
        if not self.judge.covers(prompt, ops, patterns, tokens):
            raise Refused(INVALID_PARAMS, "the scope does not cover what was asked")
        return wanted, any(wanted == o.pattern for o in prompt.scopes)

    def _settle(self, prompt: Prompt, settled: Settled, out: list[ev.Command]) -> list[ev.Command]:
        """Close ``prompt`` with ``settled`` and answer its holds; returns ``out`` with what follows."""
        s = self.state
        if prompt.consent is not None:
            return [*out, *consents.settle(s, prompt, settled)]
        move = PromptMove.ALLOW if settled.verdict == "allow" else PromptMove.DENY
        holds = [k for k, v in s.holds.items() if v == prompt.id]
        prompt = replace(prompt, state=move_prompt(prompt.state, move), answer=settled, remaining=None)
        if settled.duration == ONCE and settled.by != "policy":
            used = any(not is_ahead(k[1]) for k in holds)
            waits = RETRY_BURST if used else RETRY_LIFE
            prompt = replace(prompt, pass_until=settled.at + waits, pass_used=used)
        s.prompts[prompt.id] = prompt
        s.looks.pop(prompt.id, None)
        out = [*out, ev.Store(prompt)]
        for key in holds:
            del s.holds[key]
            if settled.verdict == "allow" and not is_ahead(key[1]):
                out += limits.charge(s, prompt.session, prompt.costs, settled.at)
            ident = "" if settled.by == "policy" else prompt.id  # nobody answered it
            out.append(_answer_frame(prompt.session, key[1], settled.verdict, ident, settled.message))
        out.append(ev.Notify("prompt.done", {"id": prompt.id, "state": prompt.state.value}))
        return out

    def _miss(self, prompt: Prompt) -> list[ev.Command]:
        s = self.state
        prompt = replace(prompt, state=move_prompt(prompt.state, PromptMove.MISS), remaining=None)
        s.prompts[prompt.id] = prompt
        s.looks.pop(prompt.id, None)
        out: list[ev.Command] = [ev.Store(prompt)]
        for key in [k for k, v in s.holds.items() if v == prompt.id]:
            del s.holds[key]
            out.append(_answer_frame(prompt.session, key[1], "deny", prompt.id, "nobody answered"))
        out.append(ev.Notify("prompt.done", {"id": prompt.id, "state": prompt.state.value}))
        return out

    def _look(self, ident: str, who: int, looking: bool, now: float) -> list[ev.Command]:
        s, prompt = self.state, self._prompt(ident)
        if prompt.state is not PromptState.OPEN:
            return [ev.Reply()]
        looks = s.looks.get(ident, frozenset())
        looks = looks | {who} if looking else looks - {who}
        s.looks[ident] = looks
        if looks and prompt.remaining is None:
            prompt = replace(prompt, remaining=max(0.0, prompt.deadline - now))
        elif not looks and prompt.remaining is not None:
            prompt = replace(prompt, deadline=now + prompt.remaining, remaining=None)
        s.prompts[ident] = prompt
        return [ev.Store(prompt), ev.Notify("prompt", self._view(prompt)), ev.Reply()]

    # -- grants ------------------------------------------------------------------------------------

    def _revoke(self, event: ev.Revoke, now: float) -> list[ev.Command]:
        s = self.state
        gone = [
            g for g in s.grants.values()
            if event.all or (event.id and g.id == event.id) or (event.agent and g.agent == event.agent)
        ]  # fmt: skip
        if event.id and not gone:
            raise Refused(NOT_FOUND, f"no grant {event.id}")
        out = self._take_back(gone)
        # A once-answer that waits for its retry is a permission too.
        for p in list(s.prompts.values()):
            if p.pass_until is not None and p.pass_until > now and (event.all or p.agent == event.agent):
                s.prompts[p.id] = replace(p, pass_until=None)
                out.append(ev.Store(s.prompts[p.id]))
        out += self._push(self._affected(gone))
        out.append(ev.Reply({"revoked": [g.id for g in gone]}))
        return _ordered(out)

    def _take_back(self, gone: list[Grant]) -> list[ev.Command]:
        out: list[ev.Command] = []
        for grant in gone:
            del self.state.grants[grant.id]
            view = grant_view(grant)
            entry = {"actor": "human", "op": "revoke", "agent": grant.agent, "session": grant.session}
            out += [
                ev.Drop("grant", grant.id),
                ev.Record(
                    {**entry, "outcome": "revoked", "rule": f"grant:{grant.id}", "note": view["rule"]},
                    sync=True,
                ),
            ]
        return out

    def _carry(self, event: ev.Carry, now: float) -> list[ev.Command]:
        s = self.state
        s.withheld.pop(event.agent, None)
        older = [g for g in s.grants.values() if g.agent == event.agent and before_change(g, event.since)]
        out = [] if event.keep else self._take_back(older)
        entry = {"actor": "human", "op": "agent", "agent": event.agent}
        outcome = "kept" if event.keep else "dropped"
        note = f"{len(older)} answers from before its program changed"
        out.append(ev.Record({**entry, "outcome": outcome, "note": note}, sync=True))
        running = self._running(event.agent)
        out = self._judge_again(running, [*out, *self._push(running)], now)
        out.append(ev.Reply({outcome: [g.id for g in older]}))
        return _ordered(out)

    def _withhold(self, event: ev.Withhold, now: float) -> list[ev.Command]:
        if event.on:
            self.state.withheld[event.agent] = now
        else:
            self.state.withheld.pop(event.agent, None)
        running = self._running(event.agent)
        return _ordered(self._judge_again(running, self._push(running), now))

    def _running(self, agent: str) -> set[str]:
        return self._with_subs(
            {s.id for s in self.state.sessions.values() if s.agent == agent and s.id in self.state.bases}
        )

    def _used(self, event: ev.Used) -> list[ev.Command]:
        grant = self.state.grants.get(event.id)
        if grant is None:
            return []
        grant = replace(
            grant, uses=grant.uses + event.n, denials=grant.denials + event.denied,
            last_used=max(event.at, grant.last_used or 0.0),
        )  # fmt: skip
        self.state.grants[grant.id] = grant
        return [ev.Store(grant)]

    def _tick(self, now: float) -> list[ev.Command]:
        s = self.state
        out: list[ev.Command] = []
        for prompt in list(s.prompts.values()):
            if prompt.state is PromptState.OPEN and prompt.remaining is None and prompt.deadline <= now:
                out += self._miss(prompt)
        changed: list[Grant] = []
        for grant in list(s.grants.values()):
            fate = keeping.fate(grant, now)
            if not fate:
                continue
            if fate == "suspended":
                grant = s.grants[grant.id] = replace(grant, suspended=True)
                out.append(ev.Store(grant))
            else:
                del s.grants[grant.id]
                out.append(ev.Drop("grant", grant.id))
            out += [
                ev.Record(keeping.entry_of(grant, "grant", "remit", fate)),
                ev.Notify("grant", keeping.told(grant, fate)),
            ]
            changed.append(grant)
        settled = [p.id for p in s.prompts.values() if p.state is not PromptState.OPEN]
        for ident in settled[: max(0, len(s.prompts) - MAX_PROMPTS)]:
            del s.prompts[ident]
            out.append(ev.Drop("prompt", ident))
        if changed:
            out += self._push(self._affected(changed))
        out += standing.tick(s, now)
        return _ordered([*out, *limits.prune(s, now)])

    def _kept(self, grant: Grant, now: float) -> list[ev.Command]:
        """Put ``grant``, changed by a person, in the place of the one of its id."""
        old = self.state.grants[grant.id]
        self.state.grants[grant.id] = grant
        out: list[ev.Command] = [ev.Store(grant), ev.Record(keeping.change_of(old, grant), sync=True)]
        if keeping.rules_differ(old, grant):
            out += self._push(self._affected([grant]))
        out += [
            ev.Notify("grant", keeping.told(grant, "kept")),
            ev.Reply({"grant": grant.id, "rule": grant_view(grant)["rule"]}),
        ]
        return _ordered(out)

    # -- helpers -----------------------------------------------------------------------------------

    def _affected(self, grants: list[Grant]) -> set[str]:
        return self._with_subs(
            {
                s.id
                for s in self.state.sessions.values()
                if s.live and s.id in self.state.bases
                for g in grants
                if (g.session == s.id if g.session else g.agent == s.agent)
            }
        )

    def _with_subs(self, sessions: set[str]) -> set[str]:
        """Return ``sessions`` and all that were delegated from them: what those may do follows from what these may."""
        below = {sub for ident in sessions for sub in self.state.below(ident)}
        return sessions | {sub for sub in below if sub in self.state.bases}

    def _push(self, sessions: set[str]) -> list[ev.Command]:
        s = self.state
        if not sessions:
            return []
        s.revision += 1
        out: list[ev.Command] = []
        for ident in sorted(sessions):
            s.engines.pop(ident, None)
            text = model.dumps(self.judge.compose(s, ident))
            out.append(ev.Send(ident, {"type": "snapshot", "snapshot": text, "revision": s.revision}))
        return out

    def _judge(self, prompt: Prompt, now: float) -> int:
        """Return what the policy, grants and limits now say to ``prompt``."""
        if prompt.consent is not None:
            return self.judge.token(self.state, prompt.session, prompt.consent.scopes)[0]
        s, argv = self.state, prompt.argv if is_exec(prompt.ops, prompt.argv) else ()
        verdict = self.judge.verdict(s, prompt.session, prompt.ops, prompt.path, prompt.path2, argv)
        if prompt.limit and verdict == ASK:
            verdict = ALLOW  # as in _ask; what the policy newly asks about, the point itself lets go of
        short = verdict == ALLOW and limits.spent(s, prompt.session, prompt.costs, now) is not None
        return ASK if short else verdict

    def _open(self, session: str) -> list[Prompt]:
        return [
            p for p in self.state.prompts.values() if p.session == session and p.state is PromptState.OPEN
        ]

    def _holding(self, prompt: str) -> int:
        return sum(1 for v in self.state.holds.values() if v == prompt)

    def _session(self, ident: str) -> Session:
        try:
            return self.state.sessions[ident]
        except KeyError:
            raise Refused(NOT_FOUND, f"no session {ident}") from None

    def _grant(self, ident: str) -> Grant:
        try:
            return self.state.grants[ident]
        except KeyError:
            raise Refused(NOT_FOUND, f"no grant {ident}") from None

    def _prompt(self, ident: str) -> Prompt:
        try:
            return self.state.prompts[ident]
        except KeyError:
            raise Refused(NOT_FOUND, f"no prompt {ident}") from None

    def _view(self, prompt: Prompt) -> dict[str, Any]:
        s = self.state
        open_ = prompt.state is PromptState.OPEN and prompt.session in s.sessions
        whom = self._whom(prompt, "allow", ALWAYS) if open_ else prompt.agent
        looking, confined = bool(s.looks.get(prompt.id)), s.confined(prompt.session)
        account = s.accounts.get(prompt.limit)
        spent = limits.words(account) if account is not None else ""
        return prompt_view(prompt, self._holding(prompt.id), looking, confined, whom, spent)

    def _session_view(self, session: Session) -> dict[str, Any]:
        return session_view(session, len(self._open(session.id)))


def _same_place(old: Grant, new: Grant) -> bool:
    return (old.agent, old.session, old.client, old.ops, old.patterns, old.argv) == (
        new.agent, new.session, new.client, new.ops, new.patterns, new.argv,
    )  # fmt: skip


def _entry(session: Session, op: str, *, actor: str = "remit", **fields: Any) -> dict[str, Any]:
    return {"actor": actor, "agent": session.agent, "session": session.id, "op": op, **fields}


def _example(ops: Sequence[str]) -> str:
    return resources.EXAMPLES.get(ops[0], "as an absolute path")


def _asked(seq: int, prompt: str) -> dict[str, Any]:
    return {"type": "asked", "seq": seq, "prompt": prompt}


def _answer_frame(session: str, seq: int, verdict: str, prompt: str = "", message: str = "") -> ev.Send:
    return ev.Send(
        session, {"type": "answer", "seq": seq, "verdict": verdict, "prompt": prompt, "message": message}
    )


def _ordered(commands: list[ev.Command]) -> list[ev.Command]:
    """Put the durable first, then snapshots, then the rest; each kind keeps its order."""

    def rank(c: ev.Command) -> int:
        if isinstance(c, (ev.Store, ev.Drop, ev.Record)):
            return 0
        return 1 if isinstance(c, ev.Send) and c.frame["type"] == "snapshot" else 2

    return sorted(commands, key=rank)
