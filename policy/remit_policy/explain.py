"""A decision in words, for ``remit policy why``: verdict, deciding rule, and why the other matches lost."""

from __future__ import annotations

from collections.abc import Sequence

from remit_policy.engine import Engine
from remit_policy.match import expand
from remit_policy.model import (
    ADMIN,
    ALLOW,
    DENY,
    GRANT,
    GUARD,
    IMPLIED_BY,
    LAYERS,
    PACK,
    PROJECT,
    USER,
    VERDICTS,
    Decision,
    Rule,
    Snapshot,
)

_HEX = "\\x{:02x}"


def shown(text: str) -> str:
    """Return ``text`` with everything that could mislead a terminal or a reader escaped."""
    out = []
    for c in text:
        if "\udc80" <= c <= "\udcff":
            out.append(_HEX.format(ord(c) - 0xDC00))
        elif c.isprintable():
            out.append(c)
        else:
            out.append(_HEX.format(ord(c)) if ord(c) < 256 else f"\\u{{{ord(c):x}}}")
    return "".join(out)


def fitting(rule: Rule, resource: str) -> str:
    """Return that of the alternatives of ``rule``'s pattern, as it was written, which matches ``resource``."""
    if "{" not in rule.text or rule.argv is not None:
        return rule.text
    written, meant = expand(rule.text), expand(rule.pattern)
    if len(written) != len(meant):
        return rule.text
    for text, pattern in zip(written, meant, strict=True):
        alone = Engine(Snapshot("", (Rule(USER, ALLOW, rule.op, pattern),)))
        if alone.decide(rule.op, resource).verdict == ALLOW:
            return text
    return rule.text


def rule_line(rule: Rule, resource: str | None = None) -> str:
    """Return one line that says what ``rule`` is; with ``resource`` only what of it is about that one."""
    parts = [
        VERDICTS[rule.verdict],
        rule.op,
        shown(rule.text if resource is None else fitting(rule, resource)),
    ]
    if rule.excepts and resource is None:
        parts.append("except " + ", ".join(shown(e) for e in rule.excepts))
    if rule.final:
        parts.append("final")
    if rule.protected:
        parts.append("protected")
    if rule.rate:
        parts.append(f"at most {rule.rate[0]} in {rule.rate[1]} s")
    if rule.window:
        a, b = rule.window
        parts.append(f"from {a // 60:02}:{a % 60:02} to {b // 60:02}:{b % 60:02}")
    role = f" in role {rule.role}" if rule.role else ""
    return f"{' '.join(parts)}  ({LAYERS[rule.layer]}{role}, {shown(rule.source) or 'unnamed'})"


def reasons(decision: Decision, op: str) -> list[tuple[Rule, str]]:
    """Return each match with why it decided or did not, the most specific first."""
    matches: Sequence[Rule] = decision.matches
    decider = decision.rule
    best: dict[int, Rule] = {}
    for rule in matches:
        held = best.get(rule.layer)
        if held is None or (
            rule.final and rule.verdict == DENY and not (held.final and held.verdict == DENY)
        ):
            best[rule.layer] = rule
    base = next((layer for layer in (USER, PACK, ADMIN) if layer in best), None)
    out = []
    for rule in matches:
        if rule == decider:
            why = "decides"
        elif rule.op != op and rule.op != IMPLIED_BY.get(op):
            why = "is about the program as a file"
        elif decider is not None and decider.layer == GUARD:
            why = "a guard rule is above every policy"
        elif best[rule.layer] is not rule:
            final = best[rule.layer].final and best[rule.layer].verdict == DENY
            why = (
                "a final deny of its layer comes before it"
                if final
                else "a more specific rule of its layer speaks"
            )
        elif rule.layer == GRANT:
            why = "a remembered answer settles only an ask"
        elif rule.layer in (ADMIN, PROJECT) and rule.layer != base and rule.verdict == ALLOW:
            why = "this layer only narrows here"
        elif decider is not None and decider.layer == GRANT:
            why = "the ask was answered before"
        elif decider is not None and decider.verdict >= rule.verdict and rule.layer == base:
            why = f"a stricter {LAYERS[decider.layer]} rule holds"
        elif base is not None and rule.layer != base:
            why = f"the {LAYERS[base]} layer comes first"
        else:
            why = "the deciding rule is as strict"
        out.append((rule, why))
    return out


def explain_text(op: str, resource: str, decision: Decision) -> str:
    """Return the lines that tell a person why ``decision`` is what it is."""
    lines = [f"{VERDICTS[decision.verdict]}  {op} {shown(resource)}"]
    if decision.rule is None:
        lines.append(
            "  no rule matches" if decision.verdict != DENY else "  not a resource that can be decided"
        )
    else:
        lines.append(f"  by {rule_line(decision.rule, resource)}")
    ranked = reasons(decision, op)
    if ranked:
        lines.append("matches, the most specific first:")
        lines += [f"  {n}. {rule_line(r, resource)}: {why}" for n, (r, why) in enumerate(ranked, 1)]
    return "\n".join(lines)


def rule_view(rule: Rule) -> dict[str, object]:
    """Return ``rule`` for ``--json``."""
    file, _, line = rule.source.rpartition(":")
    return {
        "layer": LAYERS[rule.layer],
        "verdict": VERDICTS[rule.verdict],
        "op": rule.op,
        "pattern": rule.pattern,
        "text": rule.text,
        "argv": None if rule.argv is None else list(rule.argv),
        "except": list(rule.excepts),
        "final": rule.final,
        "protected": rule.protected,
        "role": rule.role,
        "source": rule.source,
        "file": file if line.isdigit() else rule.source,
        "line": int(line) if line.isdigit() else None,
    }


def explain_view(agent: str, op: str, resource: str, decision: Decision) -> dict[str, object]:
    """Return a decision for ``--json``."""
    return {
        "agent": agent,
        "op": op,
        "resource": resource,
        "verdict": VERDICTS[decision.verdict],
        "rule": rule_view(decision.rule) if decision.rule else None,
        "source": decision.source,
        "matches": [{**rule_view(r), "why": why} for r, why in reasons(decision, op)],
    }


def explain(engine: Engine, op: str, resource: str, argv: Sequence[str] | None = None) -> Decision:
    """Return the decision with its matches; for ``exec`` with these arguments, argv[0] included."""
    if op == "exec":
        return engine.explain_exec(resource, argv or [resource])
    return engine.explain(op, resource)
