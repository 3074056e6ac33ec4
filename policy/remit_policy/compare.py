"""What changes when one policy takes the place of another: where decisions get stricter and where looser. Pure.

Two policies are compared by what they decide, not by their text: at the place of every pattern that either has, examples are
decided by both. What differs nowhere there differs only between patterns that overlap in ways no example meets, which is
said where the result is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from remit_policy.engine import Engine
from remit_policy.match import PatternError, expand
from remit_policy.model import GRANT, GUARD, Decision, Rule, Snapshot
from remit_policy.resources import is_path, key

STRICTER, LOOSER, LIMITS = "stricter", "looser", "limits"
_EXAMPLE = "example"
_ODD_PORT = 4433  # a port that no rule names, for hosts at every port
MAX_ALTERNATIVES = 64  # of one pattern's braces


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the two decide differently: ``way`` is STRICTER, LOOSER or LIMITS (rate, time or budget)."""

    way: str
    op: str
    pattern: str
    example: str
    before: Decision
    after: Decision


def compare(before: Snapshot, after: Snapshot) -> list[Difference]:
    """Return where ``after`` decides otherwise than ``before``, looser places first."""
    old, new = Engine(before), Engine(after)
    found: dict[tuple[str, str, str], Difference] = {}
    for rule in dict.fromkeys((*after.rules, *before.rules)):
        if rule.layer in (GUARD, GRANT):
            continue
        for pattern, example in _examples(rule):
            was, now = _decide(old, rule, example), _decide(new, rule, example)
            way = _way(was, now)
            if way:
                at = (rule.op, pattern, " ".join(rule.argv or ()))
                found.setdefault(at, Difference(way, rule.op, _shown(rule, pattern), example, was, now))
    return sorted(found.values(), key=lambda d: ((LOOSER, LIMITS, STRICTER).index(d.way), d.op, d.pattern))


def _shown(rule: Rule, pattern: str) -> str:
    return pattern if rule.argv is None else " ".join((pattern, *rule.argv))


def _way(was: Decision, now: Decision) -> str:
    if was.verdict != now.verdict:
        return STRICTER if now.verdict > was.verdict else LOOSER
    limits = [(r.rate, r.window, r.budget) if r else (None, None, None) for r in (was.rule, now.rule)]
    return LIMITS if limits[0] != limits[1] else ""


def _decide(engine: Engine, rule: Rule, example: str) -> Decision:
    if rule.op != "exec":
        return engine.decide(rule.op, example)
    words = [_filled(word) for word in rule.argv or () if word != "**"]
    return engine.decide_exec(example, [example, *words])


def _examples(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield each alternative of the rule's pattern with resources that it matches, if there are."""
    alone = Engine(Snapshot("", (Rule(rule.layer, rule.verdict, rule.op, rule.pattern),)))
    try:
        alternatives: Iterable[str] = expand(rule.pattern)[:MAX_ALTERNATIVES]
    except PatternError:
        return
    for pattern in alternatives:
        for example in _candidates(rule.op, pattern):
            if not is_path(rule.op, example) and not key(rule.op, example):
                continue
            found = (
                alone.explain_exec(example, [example])
                if rule.op == "exec"
                else alone.explain(rule.op, example)
            )
            if found.matches or found.rule is not None:
                yield pattern, example


def _candidates(op: str, pattern: str) -> Iterator[str]:
    filled = _filled(pattern)
    if is_path(op, filled):
        yield filled if filled.startswith("/") else f"/{_EXAMPLE}/{filled}"
        if pattern.endswith("/**"):  # it is about the directory, too
            yield filled.removesuffix(f"/{_EXAMPLE}") or "/"
        return
    yield filled
    if op in ("connect", "listen"):
        yield f"{filled}:443"
        yield f"{filled}:{_ODD_PORT}"
    elif op == "request":
        method, _, rest = filled.partition(" ")
        method = "GET" if method == _EXAMPLE else method
        yield f"{method} https://{rest}" if "/" in rest else f"{method} https://{rest}/{_EXAMPLE}"
    elif op in ("call", "emit"):
        yield (
            f"{filled} /{_EXAMPLE}"
            if filled.count(" ") == 1
            else f"{filled} {_EXAMPLE}.{_EXAMPLE} /{_EXAMPLE}"
        )


def _filled(pattern: str) -> str:
    """Return ``pattern`` with something in the place of each wildcard."""
    out, at = "", 0
    while at < len(pattern):
        c = pattern[at]
        if c == "\\":
            at += 1
            out += pattern[at : at + 1]
        elif c == "*":
            while pattern[at + 1 : at + 2] == "*":
                at += 1
            out += _EXAMPLE
        else:
            out += "x" if c == "?" else c
        at += 1
    return out
