"""Rules that are legal and yet hardly what was meant: too broad, never reached, never matching."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from remit_policy.compile import literal_root
from remit_policy.document import Problem, Source
from remit_policy.engine import Engine
from remit_policy.match import DSTAR, PatternError, components, expand
from remit_policy.model import ADMIN, ALLOW, DENY, PACK, Rule, Snapshot
from remit_policy.resources import is_path
from remit_policy.rules import BASE_ROLES, DEFAULT_ROLE, inherited, is_implied, program_paths, role_rules

_WRITING = ("write", "create", "delete", "metadata")


def lint(
    layer: int, source: Source, everything: Sequence[tuple[int, Source]], values: dict[str, str]
) -> list[Problem]:
    """Return warnings about the rules written in ``source``.

    ``everything`` is all documents in force, ``source`` among them; ``values`` gives the variables.
    """
    out: list[Problem] = []
    named = {r for _, s in everything for a in s.document.agent.values() for r in a.roles}
    used = set(inherited(everything, [*named, *BASE_ROLES, DEFAULT_ROLE]))
    for name, role in source.document.role.items():
        if name not in used:
            out.append(
                source.problem(("role", name), f"no agent has the role '{name}'", "an agent that names it")
            )
        for program in role.exec:
            try:
                paths = program_paths(program, values)
            except PatternError:
                continue
            literal = [p for p in paths if not any(c in p for c in "*?\\")]
            if len(literal) == len(paths) and not any(os.path.exists(p) for p in paths):
                out.append(
                    source.problem(
                        ("role", name, "exec", program),
                        f"there is no program '{program}'",
                        "a program that exists",
                    )
                )
        rules = role_rules([(layer, source)], [name], values)
        out += _broad(rules) + _shadowed(rules)
        out += _examples_of_nothing(source, name)
    return list(dict.fromkeys(out))


def _warn(rule: Rule, message: str, expected: str = "") -> Problem:
    file, _, line = rule.source.rpartition(":")
    return Problem(file, int(line), 1, message, expected)


def _broad(rules: Iterable[Rule]) -> list[Problem]:
    out = []
    for rule in rules:
        if rule.verdict != ALLOW or rule.layer == PACK:
            continue
        if not is_path(rule.op, rule.pattern):
            out += _broad_resource(rule)
            continue
        for one in expand(rule.pattern):
            parts = components(one)
            plain = [p for p in parts if isinstance(p, str)]
            floating = bool(parts) and parts[0] is DSTAR
            if floating and len(parts) == 1:
                out.append(_warn(rule, f"'{rule.text}' allows {rule.op} everywhere", "a smaller tree"))
            elif floating and rule.op in _WRITING:
                out.append(
                    _warn(
                        rule,
                        f"'{rule.text}' allows {rule.op} in every directory",
                        "a pattern below one place",
                    )
                )
            elif rule.op in (*_WRITING, "execute") and rule.text in ("~/**", "$HOME/**", "~", "${HOME}/**"):
                out.append(
                    _warn(
                        rule,
                        f"'{rule.text}' allows {rule.op} in the whole home directory",
                        "the directories that are meant",
                    )
                )
            elif rule.op in _WRITING and parts[-1:] == [DSTAR] and len(plain) <= 1:
                out.append(
                    _warn(
                        rule,
                        f"'{rule.text}' allows {rule.op} in a whole part of the system",
                        "a smaller tree",
                    )
                )
    return out


def _broad_resource(rule: Rule) -> list[Problem]:
    if rule.op == "connect" and rule.text == "*":
        return [_warn(rule, "'*' allows connections to every name there is", "the hosts that are meant")]
    if rule.op == "connect" and rule.text == "localhost":
        return [_warn(rule, "'localhost' allows every service on this machine", "localhost:PORT")]
    if rule.op in ("call", "own") and rule.text.split(" ")[0] in ("*", "system:*"):
        return [
            _warn(rule, f"'{rule.text}' allows {rule.op} on every service", "the service that is meant")
        ]
    return []


def _shadowed(rules: Sequence[Rule]) -> list[Problem]:
    """Rules of one table that never decide: repeated, inside a final deny, or taken out by an exception."""
    out = []
    seen: dict[tuple[object, ...], Rule] = {}
    finals = [r for r in rules if r.final and r.verdict == DENY]
    for rule in rules:
        if is_implied(rule):
            continue  # two rules may well bring the same with them
        key = (rule.op, rule.pattern, rule.argv)
        first = seen.setdefault(key, rule)
        if first is not rule and first.source == rule.source and first.text == rule.text:
            continue
        if first is not rule and first.argv == rule.argv:
            said = (
                "is written twice"
                if first.verdict == rule.verdict
                else "is also written with another verdict"
            )
            out.append(_warn(rule, f"'{rule.text}' {said} (first at {first.source}); the stricter counts"))
        if rule.op == "exec" or not is_path(rule.op, rule.pattern):
            continue
        final = next((f for f in finals if f is not rule and f.op == rule.op and _covers(f, rule)), None)
        if final is not None:
            out.append(
                _warn(rule, f"'{rule.text}' is never reached: the final deny at {final.source} covers it")
            )
        elif any(_covers(Rule(rule.layer, DENY, rule.op, e), rule) for e in rule.excepts):
            out.append(_warn(rule, f"'{rule.text}' never matches: its own exception covers it"))
    return out


def _covers(outer: Rule, inner: Rule) -> bool:
    """Tell whether every path that ``inner`` matches is matched by ``outer`` (sure cases only)."""
    if outer.excepts:
        return False
    engine = Engine(Snapshot("", (Rule(ADMIN, DENY, outer.op, outer.pattern),)))
    for one in expand(inner.pattern):
        root = literal_root(one)
        parts = components(one)
        if root is None:
            if any(not isinstance(p, str) for p in parts):
                return False
            if engine.decide(outer.op, "/" + "/".join(str(p) for p in parts)).verdict != DENY:
                return False
        elif engine.uniform(outer.op, root) != DENY:
            return False
    return True


def _examples_of_nothing(source: Source, role: str) -> list[Problem]:
    out = []
    for op, table in source.document.role[role].files.__dict__.items():
        for word in ("allow", "ask", "deny"):
            for number, text in enumerate(getattr(table, word, ())):
                if "{}" in text or "{,}" in text:
                    out.append(
                        source.problem(
                            ("role", role, "files", op, word, number),
                            f"an empty brace in '{text}'",
                            "alternatives, as in {a,b}",
                        )
                    )
    return out
