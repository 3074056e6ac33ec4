"""How the rules that match one request become one verdict, and what a rate or a time window changes.

The laws, in the order in which they are applied to one operation on one path:

1. A guard rule that matches denies, whatever else is written.
2. Each layer gives at most one verdict, that of its most specific matching rule; among equally specific
   ones the strictest; a matching ``final`` deny comes before all. In a layer where no rule for ``list``
   (``create``) matches, those for ``read`` (``write``) are used.
3. The first of user, packs, admin that has a verdict is the base. No base: ask.
4. Ceilings, the strictest holds: an admin's deny or ask, the project's deny or ask, and the packs'
   verdict where it is ``protected`` and the base rule is less specific than it.
5. If the outcome is ask, the most specific remembered answer (grant layer) decides, a deny among equals;
   but an admin's ask that is ``final`` is not answered by one. What is allowed so keeps the rate, window and budget of the
   rule that asked.
6. Anything that is not a path is denied.
"""

from __future__ import annotations

from remit_policy.model import ADMIN, ALLOW, ASK, DENY, GRANT, GUARD, PACK, PROJECT, USER, Decision, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    Group = list[Rule]
    Counters = dict[tuple[object, ...], float]
    Spend = tuple[tuple[object, ...], float]


def insists(rule: Rule | None) -> bool:
    """Tell whether ``rule`` is an admin's that no remembered answer settles."""
    return rule is not None and rule.final and rule.layer == ADMIN


def fold(groups: list[Group], op: str) -> tuple[Decision, bool]:
    """Combine the matching rules of all layers by the laws above.

    ``groups`` holds them by specificity, the greatest first. Returns the decision and whether a grant
    made it.
    """
    winners: dict[int, tuple[int, Rule]] = {}
    # A layer's own rules for the operation come before those that imply it, whatever their patterns.
    own = {r.layer for g in groups for r in g if r.op == op}
    for rank, group in enumerate(groups):
        for rule in group:
            layer = rule.layer
            if rule.op != op and layer in own:
                continue
            if layer == GUARD and rule.verdict == DENY:
                return Decision(DENY, rule), False
            held = winners.get(layer)
            if held is None or _beats(rule, rank, held):
                winners[layer] = (rank, rule)
    base = winners.get(USER) or winners.get(PACK) or winners.get(ADMIN)
    rank, rule_, verdict = (*base, base[1].verdict) if base else (len(groups), None, ASK)
    rule: Rule | None = rule_  # type: ignore[no-redef]
    pack = winners.get(PACK)
    if pack is not None and pack[1].protected and pack[1].verdict > verdict and rank > pack[0]:
        rule, verdict = pack[1], pack[1].verdict
    for layer in (PROJECT, ADMIN):
        held = winners.get(layer)
        if held is not None and held[1].verdict != ALLOW and held[1].verdict >= verdict:
            # the verdict of an admin is named before an equal one of others: it says whom to ask
            rule, verdict = held[1], held[1].verdict
    if verdict == ASK and GRANT in winners and not insists(rule):
        answer = winners[GRANT][1]
        return Decision(answer.verdict, limited(answer, rule)), True
    return Decision(verdict, rule), False


def limited(answer: Rule, asked: Rule | None) -> Rule:
    """Return the remembered ``answer`` to what the rule ``asked`` asks, with that rule's limits where it allows."""
    if (
        answer.verdict != ALLOW
        or asked is None
        or not (asked.rate or asked.window or asked.budget or asked.cost)
    ):
        return answer
    return Rule(
        answer.layer, ALLOW, answer.op, answer.pattern, excepts=answer.excepts, argv=answer.argv, rate=asked.rate,
        window=asked.window, budget=asked.budget, hold=asked.hold, source=answer.source, role=asked.role,
        cost=asked.cost,
    )  # fmt: skip


def _beats(rule: Rule, rank: int, held: tuple[int, Rule]) -> bool:
    at, other = held
    if rule.final and rule.verdict == DENY:
        return not (other.final and other.verdict == DENY)
    if other.final and other.verdict == DENY:
        return False
    if rank != at:
        return False
    # among equals an unconditional rule does not hide a conditional one, nor a plain ask a final one
    return (rule.verdict, rule.final, bool(rule.rate or rule.window)) > (
        other.verdict,
        other.final,
        bool(other.rate or other.window),
    )


def conditions(
    decision: Decision, counters: Counters, now: float, minute: int
) -> tuple[Decision, Spend | None]:
    """Apply the deciding rule's time window and rate to an allow.

    ``now`` is in seconds of any clock that does not go back, ``minute`` the minute of the local day.
    ``counters`` is read only: the second value returned is the (key, value) to store in it if the act
    goes ahead, or None. Spent, or outside the window: the decision returned asks. The rate is counted by
    the generic cell rate algorithm (ITU-T I.371): bursts up to the whole amount, refilled evenly.
    """
    rule = decision.rule
    if rule is None or decision.verdict != ALLOW or not (rule.rate or rule.window):
        return decision, None
    if rule.window is not None:
        start, end = rule.window
        inside = start <= minute < end if start <= end else minute >= start or minute < end
        if not inside:
            return Decision(ASK, rule, decision.matches), None
    if rule.rate is None:
        return decision, None
    uses, seconds = rule.rate
    key: tuple[object, ...] = (rule.layer, rule.source.rpartition(":")[0], rule.role, rule.op, rule.rate)
    if rule.op == "exec" or rule.layer == GRANT:
        key += (rule.pattern,)
    each = seconds / uses
    due = max(counters.get(key, now), now)
    if due - now > seconds - each + 1e-9 * max(1.0, seconds):
        return Decision(ASK, rule, decision.matches), None
    return decision, (key, due + each)
