"""What the broker wants of a policy engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from remit_policy.model import Decision


class Decider(Protocol):
    """``remit_policy.engine.Engine`` is one."""

    def decide(self, op: str, path: str) -> Decision: ...

    def decide_exec(self, exe: str, argv: Sequence[str]) -> Decision: ...

    def explain(self, op: str, path: str) -> Decision: ...
