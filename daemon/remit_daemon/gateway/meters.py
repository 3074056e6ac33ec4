"""What single rules give in a time: rates, windows of the day, budgets of bytes. Counted here, in this process alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from remit_policy.laws import conditions
from remit_policy.model import ALLOW, ASK, Decision, Rule

if TYPE_CHECKING:
    from collections.abc import Callable


class Meters:
    """The counters of all rules of a session. They go on when the policy changes: a rule is known by its line."""

    def __init__(self, clock: Callable[[], float], minute: Callable[[], int] | None) -> None:
        """``clock`` gives seconds, ``minute`` the minute of the local day (None: this machine's)."""
        self._clock = clock
        self._minute = minute or _minute_of_day
        self._counters: dict[tuple[object, ...], float] = {}
        self._levels: dict[tuple[object, ...], tuple[float, float]] = {}  # bytes spent, at which time

    def counted(self, decision: Decision, op: str) -> Decision:
        """Apply the deciding rule's rate and window. A use counts when it is decided: one that then fails was tried."""
        rule = decision.rule
        if rule is None or rule.op != op or decision.verdict != ALLOW or not metered(rule):
            return decision
        now = self._clock()
        decision, spend = conditions(decision, self._counters, now, self._minute())
        if spend is not None:
            self._counters[spend[0]] = spend[1]
        if decision.verdict == ALLOW and rule.budget and self._level(rule, now) >= rule.budget[0]:
            return Decision(ASK, rule)
        return decision

    def spend(self, rule: Rule | None, amount: int) -> bool:
        """Count ``amount`` bytes against the budget of ``rule``; False when more is spent than it gives.

        What was spent comes back evenly over the budget's time, as with rates.
        """
        if rule is None or not rule.budget:
            return True
        now = self._clock()
        level = self._level(rule, now) + amount
        self._levels[_budget_key(rule)] = (level, now)
        return level <= rule.budget[0]

    def _level(self, rule: Rule, now: float) -> float:
        """Return how many bytes of the budget of ``rule`` are spent and not yet back."""
        level, since = self._levels.get(_budget_key(rule), (0.0, now))
        assert rule.budget is not None
        size, seconds = rule.budget
        return max(0.0, level - (now - since) * size / seconds)


def metered(rule: Rule | None) -> bool:
    """Tell whether ``rule`` gives only so much in a time, or at times."""
    return rule is not None and bool(rule.rate or rule.window or rule.budget)


def _budget_key(rule: Rule) -> tuple[object, ...]:
    # By line: several patterns of one rule share what it gives, other hosts' rules have their own.
    return (rule.layer, rule.source, rule.role, rule.op, rule.budget)


def _minute_of_day() -> int:
    local = time.localtime()
    return local.tm_hour * 60 + local.tm_min
