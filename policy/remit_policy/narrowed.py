"""Deciding for a session to which another one delegated: both must allow, and the stricter verdict holds.

So whatever is asked, and whatever rules or remembered answers either has or gets later, what the narrower may do its delegator
may do: ``max`` of the two verdicts is ALLOW only where both are.
"""

from __future__ import annotations

from remit_policy.engine import Engine
from remit_policy.model import ALLOW, ASK, DENY, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remit_policy.model import Snapshot


class Narrowed(Engine):
    """Decides as the stricter of ``own`` and ``above``; where both are equally strict the rule told is ``own``'s."""

    def __init__(self, own: Engine, above: Engine) -> None:
        self.snapshot = own.snapshot
        self.own = own
        self.above = above

    def decide(self, op: str, path: str) -> Decision:
        """As Engine.decide"""
        return stricter(self.own.decide(op, path), self.above.decide(op, path))

    def decide_given(self, op: str, path: str, given: str) -> Decision:
        """As Engine.decide_given"""
        return stricter(self.own.decide_given(op, path, given), self.above.decide_given(op, path, given))

    def explain(self, op: str, path: str) -> Decision:
        """As Engine.explain; the matches of both, ``own``'s first"""
        own, above = self.own.explain(op, path), self.above.explain(op, path)
        found = stricter(own, above)
        return Decision(found.verdict, found.rule, own.matches + above.matches)

    def decide_exec(self, exe: str, argv: Sequence[str]) -> Decision:
        """As Engine.decide_exec"""
        return stricter(self.own.decide_exec(exe, argv), self.above.decide_exec(exe, argv))

    def explain_exec(self, exe: str, argv: Sequence[str]) -> Decision:
        """As Engine.explain_exec; the matches of both, ``own``'s first"""
        own, above = self.own.explain_exec(exe, argv), self.above.explain_exec(exe, argv)
        found = stricter(own, above)
        return Decision(found.verdict, found.rule, own.matches + above.matches)

    def has_requests(self, host: str, port: int) -> bool:
        """As Engine.has_requests, by either"""
        return self.own.has_requests(host, port) or self.above.has_requests(host, port)

    def may_call(self, system: bool, name: str) -> bool:
        """As Engine.may_call, by both"""
        return self.own.may_call(system, name) and self.above.may_call(system, name)

    def calls_alike(self, system: bool, name: str) -> int | None:
        """As Engine.calls_alike"""
        return _alike(self.own.calls_alike(system, name), self.above.calls_alike(system, name))

    def arguments_alike(self, resource: str) -> int | None:
        """As Engine.arguments_alike"""
        return _alike(self.own.arguments_alike(resource), self.above.arguments_alike(resource))

    def uniform(self, op: str, root: str) -> int | None:
        """As Engine.uniform"""
        return _alike(self.own.uniform(op, root), self.above.uniform(op, root))

    def below(self, op: str, root: str) -> int:
        """As Engine.below, counted limits aside"""
        return max(self.own.below(op, root), self.above.below(op, root))

    def residual(self, path: str) -> object:
        """As Engine.residual"""
        own, above = self.own.residual(path), self.above.residual(path)
        return None if own is None or above is None else (own, above)

    def static_roots(self, op: str, among: Callable[[str], bool] = bool) -> list[str]:
        """Return none: a tree that both allow may be larger than any that one of them names, and nobody asks for it."""
        return []


def engine_of(snapshot: Snapshot) -> Engine:
    """Return what decides by ``snapshot`` and all that it is within. Raises PatternError as Engine does."""
    own = Engine(snapshot)
    return own if snapshot.within is None else Narrowed(own, engine_of(snapshot.within))


def stricter(own: Decision, above: Decision) -> Decision:
    """Return the stricter decision, ``own`` among equals.

    Where both allow, one of them only so often, so much or at some times, that rule is told, since who counts looks at
    one rule alone; where both do, the outcome is ask: one count cannot stand for two.
    """
    if own.verdict != above.verdict:
        return own if own.verdict > above.verdict else above
    if own.verdict != ALLOW or not _metered(above):
        return own
    return Decision(ASK, own.rule) if _metered(own) else above


def _metered(decision: Decision) -> bool:
    rule = decision.rule
    return rule is not None and bool(rule.rate or rule.window or rule.budget)


def _alike(own: int | None, above: int | None) -> int | None:
    """Return the verdict that is the same everywhere for both together, None when that is not known."""
    if DENY in (own, above):
        return DENY
    return None if own is None or above is None else max(own, above)
