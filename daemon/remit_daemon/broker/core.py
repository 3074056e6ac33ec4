"""The broker: the pure decision point between sessions that ask and people who answer.

``handle`` takes one event and the time, and returns the commands that follow from it, in the order in which they are
to be carried out: what is stored and recorded first, then new snapshots, then answers. It does no I/O. An
event that is refused raises Refused and changes nothing; ``undo`` takes back the last event when its
commands could not be made durable.

What holds whatever comes:
- no operation is allowed but by the policy in force, by a grant that covers it, by an answer to its own prompt or to one that
  covers it, or by the mode that a person gave its session (``learn``, ``allow-once``), which the ledger says of each;
- nothing is allowed that the policy in force denies;
- a hold ends by exactly one of: answer (a person's, the policy's or time's), cancel, loss of its connection, end of its session;
- one prompt for one access (session, operations, paths, arguments of a program); an answer settles every open prompt that it covers;
- what is asked about a token (``consents``) is answered by a person or by policy, and handed out once for each request.

The parts are functions on ``State``, each module for one kind of event: ``sessions``, ``asking``, ``answering``, ``consents``,
``granting``, ``limits``, ``standing``; what they share is in ``prompts`` and ``snapshots``. They change the state they are given;
here it is a copy, so that nothing of an event that is refused stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, assert_never

from remit_daemon.broker import (
    answering,
    asking,
    consents,
    granting,
    keeping,
    limits,
    prompts,
    sessions,
    standing,
)
from remit_daemon.broker import events as ev
from remit_daemon.broker.events import Refused
from remit_daemon.broker.judge import Decider, Judge
from remit_daemon.broker.records import Account, Grant, Prompt, Session
from remit_daemon.broker.state import State
from remit_daemon.broker.states import IllegalMove, PromptState
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_policy import model, resources
from remit_policy.model import Decision

__all__ = ["Broker", "Refused"]


class Broker:
    """See the module's text. ``engine`` makes a decider of a snapshot; ``now`` is the time of creation."""

    def __init__(self, engine: Callable[[model.Snapshot], Decider], home: str, now: float) -> None:
        self._home = home
        self.state = State(revision=math.floor(now))
        self._before = self.state
        self.judge = Judge(engine)

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
            return ev.ordered(self._dispatch(event, now))
        except IllegalMove as e:
            self.state = before
            raise Refused(CONFLICT, str(e)) from None
        except BaseException:
            self.state = before
            raise

    def undo(self) -> None:
        """Take back the last event that was handled."""
        self.state = self._before

    def _dispatch(self, event: ev.Event, now: float) -> list[ev.Command]:
        s, judge, home = self.state, self.judge, self._home
        match event:
            case ev.Started():
                return sessions.started(s, event)
            case ev.Lost():
                return sessions.lost(s, event.session, gateway=event.gateway)
            case ev.Ended():
                return sessions.ended(s, event, now)
            case ev.Ask():
                return asking.ask(s, judge, event, home, now)
            case ev.Report():
                return [*limits.report(s, event, now), *prompts.unblock(s, judge, now)]
            case ev.AskConsent():
                return consents.ask(s, judge, event, now)
            case ev.Redeem():
                return consents.redeem(s, judge, event, now)
            case ev.ClientGone():
                return consents.client_gone(s, event.client)
            case ev.Intent():
                return asking.intent(s, event, now)
            case ev.Cancel():
                return asking.cancel(s, judge, event)
            case ev.Answer():
                return answering.answer(s, judge, event, home, now)
            case ev.Look():
                return prompts.look(s, judge, event, now)
            case ev.LookerGone():
                return prompts.looker_gone(s, judge, event.who, now)
            case ev.Revoke():
                return granting.revoke(s, judge, event, now)
            case ev.Narrow():
                narrowed = keeping.narrowed(s.grant(event.id), event.scope, home, now)
                return granting.change(s, judge, narrowed)
            case ev.Extend():
                return granting.change(s, judge, keeping.extended(s.grant(event.id), event.seconds, now))
            case ev.Keep():
                return granting.change(s, judge, keeping.kept(s.grant(event.id), now))
            case ev.Reviewed():
                entry = {"actor": "human", "op": "review", "outcome": "ok", "note": event.what}
                return [ev.Record(entry, sync=True), ev.Reply()]
            case ev.Quiet():
                return standing.quiet(s, event, now, prompts.PROMPT_LIFE)
            case ev.Steer():
                return sessions.steer(s, event)
            case ev.PolicyChanged():
                return sessions.policy_changed(s, judge, event, now)
            case ev.Withhold():
                return granting.withhold(s, judge, event, now)
            case ev.Carry():
                return granting.carry(s, judge, event, now)
            case ev.Used():
                return granting.used(s, event)
            case ev.Tick():
                return [
                    *prompts.tick(s, now),
                    *granting.tick(s, judge, now),
                    *prompts.forget(s),
                    *standing.tick(s, now),
                    *limits.prune(s, now),
                ]
            case _:
                assert_never(event)

    # -- reading -----------------------------------------------------------------------------------

    def snapshot(self, session: str) -> tuple[str, int]:
        """Return the text of the snapshot in force for ``session``, grants included, and its revision."""
        return model.dumps(self.judge.compose(self.state, session)), self.state.revision

    def prompt(self, ident: str) -> dict[str, Any]:
        """Return the wire Prompt. Raises Refused when there is none."""
        return self._view(self.state.prompt(ident))

    def consent(self, request: str, session: str = "", client: str = "") -> Prompt | None:
        """Return the prompt that the request with digest ``request`` waits for, when it is who asked that asks now."""
        return consents.find(self.state, request, session, client)

    def prompts(self, all_of_them: bool = False) -> list[dict[str, Any]]:
        """Return the open prompts, or all that are kept, oldest first."""
        return [
            self._view(p) for p in self.state.prompts.values() if all_of_them or p.state is PromptState.OPEN
        ]

    def _view(self, prompt: Prompt) -> dict[str, Any]:
        return prompts.view(self.state, self.judge, prompt)

    def sessions(self) -> list[dict[str, Any]]:
        """Return the wire Sessions, oldest first."""
        return [sessions.view(self.state, s) for s in self.state.sessions.values()]

    def limits(self, agent: str, now: float) -> list[dict[str, Any]]:
        """Return the wire Limits, those of ``agent`` or all."""
        return limits.views(self.state, agent, now)

    def decide(self, session: str, ops: Sequence[str], path: str, argv: Sequence[str] = ()) -> Decision:
        """Return the strictest decision of the policy in force, grants included, over ``ops``: as an ask would be taken.

        Raises Refused for a session that is not running, or what is no operation or resource.
        """
        self.state.running(session)
        if not ops or any(op not in model.OPS for op in ops) or not path:
            raise Refused(INVALID_PARAMS, "no known operation, or no resource")
        if not all(resources.is_path(op, path) or resources.key(op, path) for op in ops):
            example = resources.EXAMPLES.get(ops[0], "as an absolute path")
            raise Refused(INVALID_PARAMS, f"{', '.join(ops)}: no such resource; write it {example}")
        return self.judge.decision(self.state, session, ops, path, argv)

    def engines(self, session: str) -> list[Decider]:
        """Return what decides for ``session``, its own first, then those above. Raises Refused for one that is not running."""
        if not self.state.session(session).live or session not in self.state.bases:
            raise Refused(CONFLICT, f"session {session} is not running")
        return self.judge.engines(self.state, session)

    def preview(self, answer: ev.Answer) -> dict[str, Any]:
        """Return the rule that ``answer`` would store, and its scope. Raises Refused for what does not fit the question."""
        return answering.preview(self.state, self.judge, answer, self._home)

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
