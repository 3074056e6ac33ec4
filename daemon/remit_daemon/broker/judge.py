"""The policy's word on a question, grants included.

Of a sub-session every session above it is asked as well, each by its own policy and grants, and the strictest word holds.

A rule with a rate or a time window says "allow" here although the enforcement point, which counts, came to ask: then
only a grant counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from remit_daemon.broker.decider import Decider
from remit_daemon.broker.events import Ask
from remit_daemon.broker.learning import learnable
from remit_daemon.broker.records import TOKEN, Grant, Prompt
from remit_daemon.broker.scopes import rules_of
from remit_daemon.broker.state import State
from remit_daemon.broker.views import is_exec
from remit_policy.kinds import kind_of
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, FILE_OPS, GRANT, Decision, Rule, Snapshot
from remit_policy.scopes import RESOURCE, SCOPES

__all__ = ["Decider", "Judge"]


class Judge:
    """Makes engines of snapshots when they are needed and keeps them in the broker's state."""

    def __init__(self, engine: Callable[[Snapshot], Decider]) -> None:
        self._engine = engine

    def compose(self, state: State, session: str) -> Snapshot:
        """Return the snapshot of ``session`` with the rules of its grants, within those of the sessions above it."""
        base = state.bases[session]
        whole = base.with_rules(base.rules + self._granted(state, session))
        above = state.sessions[session].parent
        return whole.inside(self.compose(state, above)) if above else whole

    def _granted(self, state: State, session: str) -> tuple[Rule, ...]:
        rules = state.bases[session].rules
        agent = state.sessions[session].agent
        return tuple(
            rule
            for g in state.grants.values()
            if not (g.suspended or TOKEN in g.ops or state.waits(g))
            and (g.session == session if g.session else g.agent == agent)
            for rule in rules_of(g, rules)
        )

    def _deciders(self, state: State, session: str) -> tuple[Decider, Decider]:
        found = state.engines.get(session)
        if found is None:
            base = state.bases[session]
            alone = base.with_rules(self._granted(state, session))
            found = state.engines[session] = (
                self._engine(base.with_rules(base.rules + self._granted(state, session))),
                self._engine(alone),
            )
        return found

    def _decisions(
        self, engine: Decider, ops: Sequence[str], path: str, path2: str, argv: Sequence[str]
    ) -> Iterator[Decision]:
        for op in ops:
            if argv and op in ("exec", "execute"):
                yield engine.decide_exec(path, argv)
                continue
            yield engine.decide(op, path)
            if path2:
                yield engine.decide(op, path2)

    def verdict(
        self, state: State, session: str, ops: Sequence[str], path: str, path2: str, argv: Sequence[str]
    ) -> int:
        """Return ALLOW, ASK or DENY: the strictest over all ``ops``, both paths and the chain. Unknown policy: ASK."""
        return max(self.own_verdict(state, one, ops, path, path2, argv) for one in state.chain(session))

    def own_verdict(
        self, state: State, session: str, ops: Sequence[str], path: str, path2: str, argv: Sequence[str]
    ) -> int:
        """Return what ``session`` by itself would get, whoever is above it."""
        if session not in state.bases:
            return ASK
        whole, grants = self._deciders(state, session)
        found = ALLOW
        for by_all, by_grants in zip(
            self._decisions(whole, ops, path, path2, argv),
            self._decisions(grants, ops, path, path2, argv),
            strict=True,
        ):
            verdict, rule = by_all.verdict, by_all.rule
            if verdict == ALLOW and rule is not None and (rule.rate or rule.window) and rule.layer != GRANT:
                verdict = by_grants.verdict if by_grants.rule is not None else ASK
            found = max(found, verdict)
        return found

    def decision(
        self, state: State, session: str, ops: Sequence[str], path: str, argv: Sequence[str]
    ) -> Decision:
        """Return the strictest decision over all ``ops``, with ``verdict``'s word on rules that have a rate or a window."""
        whole, _ = self._deciders(state, session)
        found: Decision | None = None
        for op in ops:
            (one,) = self._decisions(whole, (op,), path, "", argv)
            verdict = self.verdict(state, session, (op,), path, "", argv)
            if found is None or verdict > found.verdict:
                found = Decision(verdict, one.rule)
        assert found is not None
        return found

    def engines(self, state: State, session: str) -> list[Decider]:
        """Return the deciders of ``session``, grants included, and of each session above it."""
        return [self._deciders(state, one)[0] for one in state.chain(session)]

    def admins_only(
        self, state: State, session: str, ops: Sequence[str], path: str, path2: str, argv: Sequence[str]
    ) -> bool:
        """Tell whether an administrator's final ask stands behind this question: no user may allow it."""
        return any(
            d.verdict == ASK and d.rule is not None and d.rule.layer == ADMIN and d.rule.final
            for one in state.chain(session)
            for d in self._decisions(self._deciders(state, one)[0], ops, path, path2, argv)
        )

    def learns(self, state: State, event: Ask, argv: Sequence[str]) -> bool:
        """Tell whether a session that learns is let through with ``event``."""
        asking = [
            one
            for one in state.chain(event.session)
            if self.own_verdict(state, one, event.ops, event.path, event.path2, argv) != ALLOW
        ]
        return all(
            learnable(
                self._decisions(
                    self._deciders(state, one)[0], event.ops, event.path, event.path2, argv
                ),
                event.ops, event.path, event.path2, event.source, state.bases[one].variables,
            )
            for one in asking or [event.session]
        )  # fmt: skip

    def token(
        self, state: State, session: str, scopes: Sequence[str], base: Snapshot | None = None
    ) -> tuple[int, str]:
        """Return the policy's word on a token with ``scopes``, the strictest over all and over the chain, and of a denial why.

        ``base`` is the policy of who asks outside sessions. What no person may allow is denied: sensitive scopes that no
        administrator allows, and an administrator's final ask.
        """
        if base is not None:
            engines = [self._engine(base)]
        else:
            engines = [self._deciders(state, one)[0] for one in state.chain(session)]
        found = ALLOW
        for engine, scope in ((e, s) for s in scopes for e in engines):
            if scope not in SCOPES:
                return DENY, f"there is no scope {scope}"
            decision = engine.decide("use", RESOURCE + scope)
            verdict, rule = decision.verdict, decision.rule
            if verdict == DENY:
                return DENY, f"the policy denies {scope} ({decision.source})"
            if verdict == ALLOW and rule is not None and (rule.rate or rule.window):
                verdict = ASK
            final = rule is not None and rule.layer == ADMIN and rule.final
            if verdict == ASK and (SCOPES[scope].sensitive or final):
                return DENY, f"only an administrator grants {scope}"
            found = max(found, verdict)
        return found, ""

    def insisting(
        self, state: State, session: str, ops: Sequence[str], path: str, path2: str
    ) -> list[Rule]:
        """Return every rule that matches this access, those of the sessions above included."""
        return [
            rule
            for one in state.chain(session)
            for op in ops
            for p in ((path, path2) if path2 else (path,))
            for rule in self._deciders(state, one)[0].explain(op, p).matches
        ]

    def kind(self, state: State, session: str, ops: Sequence[str], path: str) -> str:
        """Return the kind of the file ``path``, "" when ``ops`` are about no file."""
        if not all(op in FILE_OPS or op == "exec" for op in ops):
            return ""
        return kind_of(path, self.insisting(state, session, ("read", "write"), path, ""))

    def covers(
        self,
        prompt: Prompt,
        ops: tuple[str, ...],
        patterns: tuple[str, ...],
        tokens: tuple[str, ...] | None,
    ) -> bool:
        """Tell whether a grant of ``patterns`` would cover what ``prompt`` asks."""
        trial = Grant("g0", prompt.agent, "", ops, patterns, "deny", "once", 0.0, None, argv=tokens)
        engine = self._engine(Snapshot(prompt.agent, rules_of(trial)))
        argv = prompt.argv if is_exec(prompt.ops, prompt.argv) else ()
        return all(
            d.verdict == DENY and d.rule is not None and d.rule.layer == GRANT
            for d in self._decisions(engine, prompt.ops, prompt.path, prompt.path2, argv)
        )
