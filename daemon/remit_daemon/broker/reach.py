"""What else an answer's scope would permit: which resources it covers, and of what kinds. Pure.

A trial grant is made of the answer, with its rules beside those that insist on a question of their own, so what is counted
here is what the grant would really let through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from remit_daemon.broker.records import Grant
from remit_daemon.broker.scopes import is_single, literal, rules_of
from remit_policy.engine import Engine
from remit_policy.kinds import SECRET, kind_of
from remit_policy.model import FILE_OPS, GRANT, IMPLIED_BY, Rule, Snapshot

EXAMPLES = 5  # of each count, to look at


class Trial:
    """A grant that nobody has given yet. ``covers`` says whether it would let something through."""

    def __init__(self, grant: Grant, rules: Sequence[Rule]) -> None:
        self.grant = grant
        self._engine = Engine(Snapshot(grant.agent, rules_of(grant, rules)))
        self._protected = Engine(Snapshot(grant.agent, tuple(r for r in rules if r.protected)))

    @property
    def ops(self) -> tuple[str, ...]:
        """The operations that it permits, those that are implied by one of them included."""
        implied = tuple(op for op, by in IMPLIED_BY.items() if by in self.grant.ops)
        return tuple(dict.fromkeys((*self.grant.ops, *implied)))

    def covers(self, op: str, resource: str, argv: Sequence[str] = ()) -> bool:
        """Tell whether ``op`` on ``resource`` is permitted, for a program with ``argv``."""
        if op not in self.ops:
            return False
        if op == "exec":
            found = self._engine.explain_exec(resource, argv or [resource]).matches
            return any(r.layer == GRANT for r in found)
        rule = self._engine.decide(op, resource).rule
        return rule is not None and rule.layer == GRANT

    def kind(self, path: str) -> str:
        """Return the kind of the file ``path``."""
        matches = (self._protected.decide(op, path).rule for op in ("read", "write"))
        return kind_of(path, [rule for rule in matches if rule is not None])

    def top(self) -> str:
        """Return the directory below which all that is permitted lies, "" when it is one file, or no file at all."""
        pattern = self.grant.patterns[0]
        if (
            not set(self.grant.ops) <= set(FILE_OPS)
            or len(self.grant.patterns) > 1
            or not pattern.startswith("/")
        ):
            return ""
        return "" if is_single(self.grant.ops[0], pattern) else literal(pattern).rpartition("/")[0] or "/"


@dataclass
class Count:
    """How much was seen. ``at_least`` is whether looking ended before all was seen."""

    number: int = 0
    at_least: bool = False
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)

    def add(self, path: str, kind: str = "") -> None:
        """Count one."""
        self.number += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(path)
        if kind:
            self.kinds[kind] += 1
            if kind in SECRET and len(self.secrets) < EXAMPLES:
                self.secrets.append(path)

    def view(self) -> dict[str, Any]:
        """Return it as the wire has it."""
        return {
            "number": self.number, "at_least": self.at_least, "kinds": dict(self.kinds), "examples": self.examples,
            "secrets": self.secrets,
        }  # fmt: skip
